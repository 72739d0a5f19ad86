package rooms

import (
	"fmt"
	"strings"

	"labswarm/api"
	"labswarm/internal/units"
	"labswarm/tui/component"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// words names the groups in the counts of a room, in the order of the line:
// what is well, what needs an eye, the rest.
var words = []struct {
	group       snapshot.Group
	long, short string
}{
	{snapshot.Good, "ok", "ok"}, {snapshot.Failed, "!!", "!!"}, {snapshot.Held, "HO", "HO"}, {snapshot.Silent, "??", "??"},
	{snapshot.NoShow, "ns", "ns"}, {snapshot.Writing, "writing", "wr"}, {snapshot.Waiting, "waiting", "wait"},
	{snapshot.Left, "left out", "sk"}, {snapshot.Idle, "no job", ".."},
}

// count is one item of the counts.
type count struct {
	role theme.Role
	text string
}

// counts lists the groups that have hosts, in words or, when there is little
// room, in marks.
func counts(r *snapshot.Room, short bool) (out []count, width int) {
	for _, w := range words {
		n := r.Counts[w.group]
		if n == 0 {
			continue
		}
		text := fmt.Sprintf("  %d %s", n, w.long)
		if short {
			text = fmt.Sprintf(" %d %s", n, w.short)
		}
		out = append(out, count{component.RoleOf(w.group), text})
		width += len(text)
	}
	return out, width
}

// tabs writes the rooms, the selected one in brackets, and the counts of it.
// When it gets narrow the counts become shorter, then other rooms are left out.
func tabs(c *component.Canvas, s *snapshot.Snapshot, r *snapshot.Room) {
	at, _ := s.Find(r.Name)
	items, width := counts(r, false)
	from, to := window(s, at, c.Left()-width-2)
	if to-from+1 < len(s.Rooms) || c.Left()-width < component.Width(tab(r))+8 {
		items, width = counts(r, true)
		from, to = window(s, at, c.Left()-width-2)
	}
	most := max(8, c.Left()-width-8)
	if from > 0 {
		c.Add(theme.Dim, " ~")
	}
	for i := from; i <= to; i++ {
		name := component.Fit(tab(&s.Rooms[i]), most)
		if i == at {
			c.Add(theme.Text, " ").Add(theme.Sel, "["+name+"]")
		} else {
			c.Add(theme.Text, "  "+name+" ")
		}
		if bad := s.Rooms[i].Counts[snapshot.Failed]; bad > 0 && i != at {
			c.Add(theme.Bad, fmt.Sprintf("%d!! ", bad))
		}
	}
	if to < len(s.Rooms)-1 {
		c.Add(theme.Dim, " ~")
	}
	c.Add(theme.Text, " ")
	for _, it := range items {
		c.Add(it.role, it.text)
	}
	c.End()
}

func tab(r *snapshot.Room) string { return fmt.Sprintf("%s %d", r.Name, len(r.Hosts)) }

// window returns the rooms around at whose tabs fit into w columns.
func window(s *snapshot.Snapshot, at, w int) (from, to int) {
	width := func(i int) int {
		n := component.Width(tab(&s.Rooms[i])) + 3
		if s.Rooms[i].Counts[snapshot.Failed] > 0 {
			n += 5
		}
		return n
	}
	from, to = at, at
	used := width(at) + 4 // the signs that more follows
	for grown := true; grown; {
		grown = false
		if to+1 < len(s.Rooms) && used+width(to+1) <= w {
			to++
			used, grown = used+width(to), true
		}
		if from > 0 && used+width(from-1) <= w {
			from--
			used, grown = used+width(from), true
		}
	}
	return from, to
}

// jobLines writes the room's job: what, how far, how fast, how long.
func jobLines(c *component.Canvas, p plan, r *snapshot.Room, stale bool) {
	j := r.Job
	if j == nil {
		if p.job == 2 {
			c.End()
		}
		c.Line(theme.Text, " no job: labswarm job create --image NAME --room "+r.Name)
		return
	}
	if p.job == 2 {
		jobTitle(c, j)
	} else {
		c.Add(theme.Head, fmt.Sprintf(" %d", j.ID))
	}
	text := figures(j, p.kind == list, stale)
	if p.job == 1 && p.kind != list {
		text += "   server sent " + component.Copies(j) + " copies"
	}
	if bar := c.Left() - component.Width(text) - 2; bar >= 6 {
		c.Add(theme.Text, " ").Add(theme.Busy, component.Bar(j.Percent, min(bar, 60), c.Theme()))
	}
	c.Line(theme.Text, text)
}

// jobTitle is the job in words.
func jobTitle(c *component.Canvas, j *api.Job) {
	verified, failed := tally(j)
	c.Add(theme.Head, fmt.Sprintf(" job %d %s", j.ID, component.Image(j)))
	c.Add(theme.Text, fmt.Sprintf("   %d of %d verified", verified, len(j.Slots)))
	if failed > 0 {
		c.Add(theme.Bad, fmt.Sprintf("   %d failed", failed))
	}
	c.Add(theme.Text, "   server sent "+component.Copies(j)+" copies")
	bytes := " (" + units.FormatBytes(j.SeedSent) + ")"
	if j.SeedWire > 0 { // 0: of a server that did not count it
		bytes = " (" + units.FormatBytes(j.SeedWire) + " on the wire)"
	}
	if len(bytes) < c.Left() {
		c.Add(theme.Text, bytes)
	}
	c.End()
}

// tally counts the hosts of a job whose disk is proven, and the failed ones.
func tally(j *api.Job) (verified, failed int) {
	for i := range j.Slots {
		switch s := j.Slots[i].State; {
		case s.Good():
			verified++
		case s == api.StateFailed:
			failed++
		}
	}
	return verified, failed
}

// figures is the text behind the bar, in the order of its importance.
func figures(j *api.Job, short, stale bool) string {
	parts := []string{component.Percent(j.Percent)}
	if component.Ended(j) {
		parts = append(parts, strings.ToUpper(j.Result))
		if took := j.Ended.Sub(j.Created); took > 0 {
			parts = append(parts, "took "+units.FormatDuration(took))
		}
	} else {
		parts = append(parts, "ETA "+component.Figure(component.ETA(j), stale))
		parts = append(parts, component.Figure(units.FormatRate(j.RateBps), stale))
	}
	gap := "   "
	if short {
		gap = " "
	}
	return " " + strings.Join(parts, gap)
}
