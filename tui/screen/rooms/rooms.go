// Package rooms is the console's first screen: the hosts of one room as tiles,
// the selected host, and the room's job.
//
// Render is pure: the same picture, state, size, theme and time give the same
// text. Keys become moves of State in tui/app.
package rooms

import (
	"strconv"
	"strings"
	"time"

	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// Render draws the screen: exactly size.H lines, none wider than size.W.
func Render(s *snapshot.Snapshot, st State, foot component.Foot, size component.Size, th *theme.Theme, now time.Time) string {
	c := component.NewCanvas(size, th)
	if why, small := component.TooSmall(size); small {
		return c.Line(theme.Text, why).String()
	}
	component.Header(c, s, "", now)
	r, order, at := st.place(s, size)
	switch {
	case !s.Full:
		waiting(c, s)
	case r == nil:
		c.End()
		component.Para(c, "no hosts yet: labswarm host add NAME --room R --mac M", 2)
	default:
		tabs(c, s, r)
		if n, role := st.notice(s, size.W, now); n != "" {
			c.Line(role, " "+n)
		}
		if len(r.Hosts) == 0 {
			c.End()
			component.Para(c, "no hosts yet: labswarm host add NAME --room "+r.Name+" --mac M", 2)
			emptyMap(c, st.layout(s, r, size, now), st, r)
			break
		}
		p := st.layout(s, r, size, now)
		body(c, p, st, r, order, at, scroll(st.Top, p.row(at), p), s.Stale(now), now)
		c.Down(p.job + 1)
		jobLines(c, p, r, s.Stale(now))
	}
	c.Down(1)
	foot.Write(c, keymap.Rooms, KeyState(s, st))
	return c.String()
}

// KeyState tells the key map what there is to act on.
func KeyState(s *snapshot.Snapshot, st State) keymap.State {
	ks := keymap.State{Rooms: len(s.Rooms)}
	if i, _ := s.Find(st.Room); len(s.Rooms) > 0 {
		ks.Hosts, ks.Job = len(s.Rooms[i].Hosts), s.Rooms[i].Job != nil
	}
	return ks
}

// waiting stands in for the room until the first picture is there.
func waiting(c *component.Canvas, s *snapshot.Snapshot) {
	c.End()
	if s.Link != snapshot.Lost {
		c.Line(theme.Text, " asking the server for its rooms ...")
		return
	}
	c.Line(theme.Bad, " no answer from the server; trying again")
	component.Para(c, s.Cause, 5)
}

// body draws the map and the lines about the selected host.
func body(c *component.Canvas, p plan, st State, r *snapshot.Room, order []int, at, top int, stale bool, now time.Time) {
	for row := top; row < min(top+p.rows, p.total); row++ {
		switch {
		case p.kind == list:
			h := &r.Hosts[hostAt(order, row)]
			listRow(c, p, h, row == at, st.marked(h.Name), stale)
		case p.chart != nil:
			chartRow(c, p, st, r, row, at, stale)
		default:
			mapRow(c, p, st, r, row, at, stale)
		}
		c.End()
	}
	if p.kind == list {
		return
	}
	// With few hosts the lines about the selected one follow the map at once.
	if p.blank > 0 {
		c.End()
	}
	details(c, p, &r.Hosts[at], stale, now, counter(p, r, at))
}

// emptyMap draws the seats of a room without hosts, as far as there is space.
func emptyMap(c *component.Canvas, p plan, st State, r *snapshot.Room) {
	if p.chart == nil {
		return
	}
	c.End()
	for row := range p.chart.lines {
		if c.Rows() < 2 {
			return
		}
		chartRow(c, p, st, r, row, -1, false)
		c.End()
	}
}

// counter says where the selection is when the map is longer than the screen.
func counter(p plan, r *snapshot.Room, at int) string {
	if p.total <= p.rows {
		return ""
	}
	return strconv.Itoa(at+1) + " of " + strconv.Itoa(len(r.Hosts))
}

func details(c *component.Canvas, p plan, h *snapshot.Host, stale bool, now time.Time, counter string) {
	line := component.Facts(h)
	if h.Seat != "" {
		line = h.Name + "  seat " + h.Seat + strings.TrimPrefix(line, h.Name)
	}
	if counter != "" {
		line = component.Fit(line, c.Left()-len(counter)-4)
	}
	c.Add(theme.Head, " "+line)
	if counter != "" {
		c.Right(theme.Dim, counter)
	}
	c.End()
	trouble := component.Trouble(h)
	if p.detail == detailMin && trouble != "" && h.Group <= snapshot.Held {
		c.Add(component.RoleOf(h.Group), "   "+string(h.Slot.State)).Line(theme.Text, "  "+trouble)
		return
	}
	c.Line(component.RoleOf(h.Group), "   "+component.Doing(h, stale, now))
	for _, l := range component.Wrap(trouble, c.Left()-4, p.detail-2) {
		c.Line(theme.Text, "   "+l)
	}
}
