// Package job is the console's screen of one job: how far it is, its rate over
// time, and its hosts, the worst first.
package job

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"labswarm/api"
	"labswarm/api/filter"
	"labswarm/internal/units"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/host"
	"labswarm/tui/screen/list"
	"labswarm/tui/screen/relays"
	"labswarm/tui/screen/steer"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// Order is how the hosts are sorted.
type Order uint8

// The orders, in the order of the key.
const (
	Worst Order = iota
	Slowest
	ByName
	orders
)

var orderNames = [orders]string{"worst first", "slowest first", "by name"}

// State is what the person chose. ID names the job.
type State struct {
	list.State
	ID    uint64
	Order Order
}

// Screen implements screen.View.
func (st State) Screen() keymap.Screen { return keymap.Job }

// Query implements screen.View: the picture has everything.
func (st State) Query(*snapshot.Snapshot) screen.Query { return screen.Query{} }

// KeyState implements screen.View.
func (st State) KeyState(in screen.In) keymap.State {
	lines, _ := st.Shown(st.table(in))
	j := in.S.Job(st.ID)
	return keymap.State{Items: len(lines), Ended: j == nil || component.Ended(j), Idle: j == nil || component.Ended(j)}
}

// Render implements screen.View.
func (st State) Render(in screen.In) string {
	c, ok := screen.Framer(in, "")
	if !ok {
		return c.String()
	}
	j := in.S.Job(st.ID)
	if j == nil {
		c.End()
		component.Para(c, fmt.Sprintf("job %d is not among the newest that the server lists: labswarm job show %d", st.ID, st.ID), 2)
	} else {
		title(c, j, in)
		bar(c, j, in)
		if h := plotLines(c.Rows()); h > 0 {
			rates(c, in, j, h)
		}
		st.Draw(c, st.table(in), c.Rows()-1)
	}
	c.Down(1)
	in.Foot().Write(c, st.Screen(), st.KeyState(in))
	return c.String()
}

// Press implements screen.View.
func (st State) Press(id keymap.ID, in screen.In) (screen.View, screen.Effect) {
	t := st.table(in)
	switch id {
	case keymap.Back:
		return st, screen.Effect{Back: true}
	case keymap.Sort:
		st.Order = (st.Order + 1) % orders
		return st, screen.Effect{Note: "sorted " + orderNames[st.Order]}
	case keymap.Retry, keymap.Skip, keymap.Wake:
		e, _ := steer.Ask(id, st.selectedHost(in, t))
		return st, e
	case keymap.Pause:
		if j := in.S.Job(st.ID); j != nil {
			return st, screen.Effect{Open: pause(j)}
		}
	case keymap.Cancel:
		if j := in.S.Job(st.ID); j != nil {
			return st, screen.Effect{Open: cancel(j)}
		}
	case keymap.ShowRelays:
		next := relays.State{Job: st.ID}
		if l := st.Selected(t); l != nil {
			next.Host = l.Key
		}
		return st, screen.Effect{Open: next}
	case keymap.ShowReport:
		return st, screen.Effect{Name: fmt.Sprintf("report %d", st.ID)}
	case keymap.Open:
		if l := st.Selected(t); l != nil {
			if r, h := in.S.Host(l.Key); h != nil {
				return st, screen.Effect{Open: host.State{Room: r.Name, Host: h.Name}}
			}
			return st, screen.Effect{Note: l.Key + " is not in the inventory any more"}
		}
	}
	st.State = st.Move(id, t, in.Size.H/2)
	return st, screen.Effect{}
}

// At implements screen.Chooser.
func (st State) At(_, host string) screen.View {
	st.Key = host
	return st
}

// Type implements screen.Typist.
func (st State) Type(key string, in screen.In) (screen.View, screen.Effect) {
	st.State = st.State.Type(key, st.table(in))
	return st, screen.Effect{}
}

func title(c *component.Canvas, j *api.Job, in screen.In) {
	c.Add(theme.Head, fmt.Sprintf(" Job %d  %s", j.ID, component.Image(j)))
	room := j.Room
	if room == "" {
		room = "named hosts"
	}
	good := 0
	for i := range j.Slots {
		if j.Slots[i].State.Good() {
			good++
		}
	}
	c.Add(theme.Text, fmt.Sprintf(" -> %s   %d of %d verified", room, good, len(j.Slots)))
	if !j.Paused.IsZero() && !component.Ended(j) {
		c.Add(theme.Warn, "   PAUSED")
	}
	if !component.Ended(j) {
		c.Right(theme.Dim, "until "+component.Clock(j.NotAfter, in.Now))
	}
	c.End()
}

func bar(c *component.Canvas, j *api.Job, in screen.In) {
	stale := in.Stale()
	text := " " + component.Percent(j.Percent)
	if component.Ended(j) {
		text += "   " + j.Result + "   took " + units.FormatDuration(j.Ended.Sub(j.Created))
	} else {
		text += "   ETA " + component.Figure(component.ETA(j), stale) + "   " + component.Figure(units.FormatRate(j.RateBps), stale)
	}
	text += "   server sent " + component.Copies(j) + " copies"
	if w := c.Left() - component.Width(text) - 2; w >= 6 {
		c.Add(theme.Text, " ").Add(theme.Busy, component.Bar(j.Percent, min(w, 60), in.Th))
	}
	c.Line(theme.Text, text)
}

// table lists the hosts of the job.
func (st State) table(in screen.In) list.Table {
	t := list.Table{
		Cols: []component.Column{{Head: "HOST", Max: 16}, {Head: "STATE"}, {Head: "DONE", Right: true}, {Head: "RATE", Right: true, Drop: 3},
			{Head: "FROM", Max: 12, Drop: 4}, {Head: "ELSE", Max: 14, Drop: 6}, {Head: "KEPT", Right: true, Drop: 5}, {Head: "WHAT", Grow: true}},
		Names: []string{"host", "state", "done", "mbps", "from", "code"},
		Empty: "this job has no hosts",
	}
	j := in.S.Job(st.ID)
	if j == nil {
		return t
	}
	slots := make([]*api.Slot, len(j.Slots))
	for i := range j.Slots {
		slots[i] = &j.Slots[i]
	}
	slices.SortStableFunc(slots, st.compare)
	for _, s := range slots {
		t.Lines = append(t.Lines, line(s, j, in.Stale()))
	}
	return t
}

func (st State) compare(a, b *api.Slot) int {
	byName := snapshot.Natural(a.Host, b.Host)
	switch st.Order {
	case ByName:
		return byName
	case Slowest:
		return cmp.Or(cmp.Compare(moving(b), moving(a)), cmp.Compare(a.RateBps, b.RateBps), byName)
	}
	return cmp.Or(cmp.Compare(snapshot.GroupOf(a), snapshot.GroupOf(b)), cmp.Compare(a.Percent, b.Percent), byName)
}

// moving is 1 for hosts that have a rate to speak of.
func moving(s *api.Slot) int {
	if snapshot.GroupOf(s) == snapshot.Writing || snapshot.GroupOf(s) == snapshot.Silent {
		return 1
	}
	return 0
}

func line(s *api.Slot, j *api.Job, stale bool) list.Line {
	g := snapshot.GroupOf(s)
	rate, kept := "", ""
	if s.RateBps > 0 && !s.State.Ended() {
		rate = component.Figure(units.FormatRate(s.RateBps), stale)
	}
	if n := s.CellsKept + s.CellsWritten; n > 0 && j.Cells > 0 {
		kept = fmt.Sprintf("%d %%", 100*s.CellsKept/j.Cells)
	}
	other := ""
	for i, f := range s.Fallbacks {
		if i > 0 {
			other += " "
		}
		other += f
	}
	what := s.Detail
	if s.Error != "" {
		what = s.Error
	}
	if s.Code != "" {
		what = s.Code + " " + what
	}
	if snapshot.IsSilent(s) {
		what = fmt.Sprintf("no report for %d s", s.SilentS)
	}
	word := stateWord(s)
	cells := component.Plain(s.Host, snapshot.Mark(s)+" "+word, component.Percent(s.Percent), rate, s.Parent, other, kept, what)
	cells[1].Role = component.RoleOf(g)
	return list.Line{Key: s.Host, Cells: cells, Row: filter.Row{
		"host": s.Host, "state": word, "done": strconv.Itoa(int(s.Percent)), "mbps": strconv.FormatInt(s.RateBps>>20, 10), "from": s.Parent, "code": s.Code, "what": what,
	}}
}
