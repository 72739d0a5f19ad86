// Package relays is the console's picture of who feeds whom in a job: chains
// from the server on, slow edges with their rate, and about the selected host
// its parent, its children and its fallbacks.
package relays

import (
	"fmt"
	"strings"

	"labswarm/api"
	"labswarm/internal/units"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/host"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// State is what the person chose.
type State struct {
	Job  uint64
	Host string // selected; one that is not there means the first
}

// Screen implements screen.View.
func (st State) Screen() keymap.Screen { return keymap.Relays }

// Query implements screen.View: the picture has everything.
func (st State) Query(*snapshot.Snapshot) screen.Query { return screen.Query{} }

// KeyState implements screen.View.
func (st State) KeyState(in screen.In) keymap.State {
	order, _ := st.order(in.S)
	return keymap.State{Items: len(order)}
}

// order lists the hosts as they stand on the screen, with the place of the
// selected one.
func (st State) order(s *snapshot.Snapshot) (hosts []*api.Slot, at int) {
	j := s.Job(st.Job)
	if j == nil {
		return nil, 0
	}
	list, idle := chains(j.Slots)
	for _, c := range list {
		hosts = append(hosts, c.hosts...)
	}
	hosts = append(hosts, idle...)
	for i, h := range hosts {
		if h.Host == st.Host {
			at = i
		}
	}
	return hosts, at
}

// Press implements screen.View.
func (st State) Press(id keymap.ID, in screen.In) (screen.View, screen.Effect) {
	if id == keymap.Back {
		return st, screen.Effect{Back: true}
	}
	hosts, at := st.order(in.S)
	if len(hosts) == 0 {
		return st, screen.Effect{}
	}
	switch id {
	case keymap.Open:
		if r, h := in.S.Host(hosts[at].Host); h != nil {
			return st, screen.Effect{Open: host.State{Room: r.Name, Host: h.Name}}
		}
		return st, screen.Effect{Note: hosts[at].Host + " is not in the inventory any more"}
	case keymap.Left, keymap.Up:
		at--
	case keymap.Right, keymap.Down:
		at++
	case keymap.PageUp:
		at -= in.Size.H
	case keymap.PageDown:
		at += in.Size.H
	case keymap.First:
		at = 0
	case keymap.Last:
		at = len(hosts) - 1
	}
	st.Host = hosts[min(max(at, 0), len(hosts)-1)].Host
	return st, screen.Effect{}
}

// At implements screen.Chooser.
func (st State) At(_, host string) screen.View {
	st.Host = host
	return st
}

// Leave implements screen.Leaver: the job selects the host that was looked at.
func (st State) Leave(below screen.View) screen.View {
	if c, ok := below.(screen.Chooser); ok && st.Host != "" {
		return c.At("", st.Host)
	}
	return below
}

// Render implements screen.View.
func (st State) Render(in screen.In) string {
	c, ok := screen.Framer(in, "")
	if !ok {
		return c.String()
	}
	j := in.S.Job(st.Job)
	if j == nil {
		c.End()
		component.Para(c, fmt.Sprintf("job %d is not among the newest that the server lists: labswarm job show %d", st.Job, st.Job), 2)
	} else {
		st.draw(c, j, in)
	}
	c.Down(1)
	in.Foot().Write(c, st.Screen(), st.KeyState(in))
	return c.String()
}

func (st State) draw(c *component.Canvas, j *api.Job, in screen.In) {
	list, idle := chains(j.Slots)
	longest, fed := 0, 0
	for _, l := range list {
		longest, fed = max(longest, len(l.hosts)), fed+len(l.hosts)
	}
	c.Add(theme.Head, fmt.Sprintf(" Relays of job %d", j.ID))
	c.Line(theme.Text, fmt.Sprintf("   %d of %d hosts are fed, longest chain %d", fed, len(j.Slots), longest))
	var selected *api.Slot
	if order, at := st.order(in.S); len(order) > 0 {
		selected = order[at]
	}
	about := st.about(j, selected, in)
	lines, at := layout(list, idle, selected, slowBelow(j.Slots), in.Stale(), c.Left()-1)
	space := max(1, c.Rows()-len(about)-1)
	top := min(max(at-space/2, 0), max(0, len(lines)-space))
	for _, l := range lines[top:min(len(lines), top+space)] {
		c.Add(theme.Text, " ")
		for _, p := range l {
			c.Add(p.role, p.text)
		}
		c.End()
	}
	c.Down(len(about) + 1)
	for _, l := range about {
		c.Line(l.role, " "+l.text)
	}
}

// part is a piece of a line with its look.
type part struct {
	role theme.Role
	text string
}

// layout breaks the chains into lines of w columns. at is the line with the
// selected host.
func layout(list []chain, idle []*api.Slot, selected *api.Slot, slow int64, stale bool, w int) (lines [][]part, at int) {
	var line []part
	used := 0
	put := func(p part) { line, used = append(line, p), used+component.Width(p.text) }
	end := func() {
		if len(line) > 0 {
			lines = append(lines, line)
		}
		line, used = nil, 0
	}
	add := func(lead string, s *api.Slot) {
		p := label(s, slow, stale)
		if s == selected {
			p = part{theme.Sel, ">" + p.text + "<"}
		}
		if used+len(lead)+component.Width(p.text) > w {
			end()
			put(part{theme.Text, "  "})
		}
		put(part{theme.Dim, lead})
		put(p)
		if s == selected {
			at = len(lines)
		}
	}
	for _, c := range list {
		if c.ring {
			put(part{theme.Warn, "in a ring: "})
		}
		put(part{theme.Head, c.from})
		for _, s := range c.hosts {
			add(" > ", s)
		}
		end()
	}
	if len(idle) > 0 {
		if len(list) > 0 {
			lines = append(lines, nil)
		}
		put(part{theme.Dim, "fed by nobody now:"})
		for _, s := range idle {
			add(" ", s)
		}
		end()
	}
	return lines, at
}

// label is a host in a chain: its name, its mark when that says more than that
// all is well, and its rate when the edge to it is slow.
func label(s *api.Slot, slow int64, stale bool) part {
	g := snapshot.GroupOf(s)
	switch {
	case s.Parent == "" || g == snapshot.Failed || g == snapshot.Held || g == snapshot.Silent:
		return part{component.RoleOf(g), s.Host + " " + snapshot.Mark(s)}
	case isSlow(s, slow):
		return part{theme.Warn, s.Host + " " + component.Figure(units.FormatRate(s.RateBps), stale)}
	}
	return part{component.RoleOf(g), s.Host}
}

func isSlow(s *api.Slot, slow int64) bool {
	return s.State == api.StateWriting && s.RateBps < slow
}

// about says what there is to know of the selected host in the tree.
func (st State) about(j *api.Job, s *api.Slot, in screen.In) []part {
	if s == nil {
		return nil
	}
	state := strings.ToLower(string(s.State))
	if snapshot.IsSilent(s) {
		state = fmt.Sprintf("silent for %d s, last: %s", s.SilentS, state)
	}
	head := s.Host + "  " + snapshot.Mark(s) + " " + state
	if !s.State.Ended() {
		head += "  " + component.Percent(s.Percent)
	}
	if s.RateBps > 0 && !s.State.Ended() {
		head += "  " + component.Figure(units.FormatRate(s.RateBps), in.Stale())
		if slow := slowBelow(j.Slots); isSlow(s, slow) {
			head += "  SLOW: the median is " + units.FormatRate(slow*5/3)
		}
	}
	from := "fed by nobody now"
	if s.Parent != "" {
		from = "from " + s.Parent
		if len(s.Fallbacks) > 0 {
			from += ", else " + strings.Join(s.Fallbacks, " ")
		}
	}
	feeds := "feeds nobody"
	if kids := component.Children(j, s.Host); len(kids) > 0 {
		feeds = "feeds " + strings.Join(kids, " ")
	}
	role := component.RoleOf(snapshot.GroupOf(s))
	if in.Size.H < 16 {
		return []part{{role, head}, {theme.Text, from + "; " + feeds}}
	}
	return []part{{}, {role, head}, {theme.Text, from}, {theme.Text, feeds}, {theme.Dim, fmt.Sprintf("had %s from the server, %s from other hosts", units.FormatBytes(s.BytesFromSeed), units.FormatBytes(s.BytesFromPeers))}}
}
