package rooms

import (
	"fmt"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/internal/units"
	"labswarm/tui/component"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// mapRow draws one row of tiles. The selected host stands between ">" and "<",
// so that the selection is seen without colour.
func mapRow(c *component.Canvas, p plan, st State, r *snapshot.Room, row, at int, stale bool) {
	first, left := row*p.cols, 1
	if p.kind == dense {
		left = p.labelW
		c.Add(theme.Dim, " "+nameTail(r.Hosts[first].Name, p.nameW))
	}
	for i := first; i < min(first+p.cols, len(r.Hosts)); i++ {
		c.To(left + (i-first)*p.tileW)
		tile(c, p, &r.Hosts[i], i == at, st.marked(r.Hosts[i].Name), stale)
	}
}

func tile(c *component.Canvas, p plan, h *snapshot.Host, selected, marked, stale bool) {
	role, open, shut := component.RoleOf(h.Group), sign(selected, marked), ""
	if selected {
		shut = "<"
	}
	if p.kind == dense || p.kind == denseSeats {
		// Three columns a host: the sign before it marks the selection.
		c.Add(look(theme.Text, selected), open).Add(look(role, selected), snapshot.Mark(h.Slot))
		return
	}
	name := h.Name
	if p.labels && h.Seat != "" {
		name = h.Seat
	}
	c.Add(look(theme.Text, selected), open).Add(look(theme.Text, selected), pad(nameTail(name, p.nameW), p.nameW+1))
	c.Add(look(role, selected), snapshot.Mark(h.Slot)).Add(look(theme.Text, selected), shut)
	if p.kind == rates {
		if f := progress(h, stale); f != "" {
			c.Add(theme.Dim, padLeft(f, rateWidth-len(shut)))
		}
	}
}

// sign stands before a host: selected, marked, both.
func sign(selected, marked bool) string {
	switch {
	case selected && marked:
		return "#"
	case selected:
		return ">"
	case marked:
		return "*"
	}
	return " "
}

func look(r theme.Role, selected bool) theme.Role {
	if selected {
		return theme.Sel
	}
	return r
}

// progress is the figure beside a mark: the rate while writing, else how far
// the present phase is.
func progress(h *snapshot.Host, stale bool) string {
	s := h.Slot
	switch {
	case s == nil || s.State.Ended():
		return ""
	case s.State == api.StateWriting && s.RateBps > 0:
		return component.Figure(units.FormatRate(s.RateBps), stale)
	case s.State != api.StateWriting && s.Percent > 0:
		return component.Percent(s.Percent)
	}
	return ""
}

// listRow draws one host of the narrow list.
func listRow(c *component.Canvas, p plan, h *snapshot.Host, selected, marked, stale bool) {
	role, open := component.RoleOf(h.Group), sign(selected, marked)
	c.Add(look(theme.Text, selected), open+pad(nameTail(h.Name, p.nameW), p.nameW+1))
	c.Add(look(role, selected), snapshot.Mark(h.Slot)).Add(theme.Text, " "+remark(h, stale))
}

// remark is what matters about a host in a few words.
func remark(h *snapshot.Host, stale bool) string {
	s := h.Slot
	switch {
	case s == nil:
		return ""
	case h.Group == snapshot.Failed, h.Group == snapshot.Held:
		return strings.TrimSpace(s.Code + " " + s.Error)
	case h.Group == snapshot.Silent:
		return fmt.Sprintf("silent %s, last %s", units.FormatDuration(time.Duration(s.SilentS)*time.Second), component.Percent(s.Percent))
	case s.State == api.StateConfirmed:
		return "new system seen"
	}
	if f := progress(h, stale); f != "" {
		return f
	}
	return strings.ToLower(string(s.State))
}

// nameTail cuts a name from the left, because names of one room differ at
// their end: "~-a101-pc07".
func nameTail(name string, w int) string {
	if component.Width(name) <= w {
		return name
	}
	for i := range name {
		if component.Width(name[i:]) <= w-1 {
			return "~" + name[i:]
		}
	}
	return "~"
}

func pad(s string, w int) string {
	n := w - component.Width(s)
	if n <= 0 {
		return s
	}
	return s + component.Blanks(n)
}

func padLeft(s string, w int) string {
	return component.Blanks(max(0, w-component.Width(s))) + s
}
