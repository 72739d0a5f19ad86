// Package host is the console's screen of one host: what it is doing, its
// facts, and its timeline in the job.
//
// Render is pure. tui/app fetches the timeline and hands it in.
package host

import (
	"fmt"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/internal/units"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// State is what the screen shows beside the picture.
type State struct {
	Room, Host string
	Up         int // timeline lines scrolled up from the newest; a wish, drawing corrects it

	Timeline []api.TimelineEntry // oldest first, clean
	Loaded   bool                // the timeline was read for this host
	Cause    string              // why it could not be read, "" = it could
}

// row is one line with its look.
type row struct {
	role theme.Role
	text string
}

// Render draws the screen: exactly size.H lines, none wider than size.W.
func Render(s *snapshot.Snapshot, st State, foot component.Foot, size component.Size, th *theme.Theme, now time.Time) string {
	c := component.NewCanvas(size, th)
	if why, small := component.TooSmall(size); small {
		return c.Line(theme.Text, why).String()
	}
	component.Header(c, s, st.Room+"/"+st.Host, now)
	if h := st.find(s); h == nil {
		c.End()
		component.Para(c, st.Host+" is no longer in room "+st.Room, 2)
	} else {
		for _, l := range about(h, size, s.Stale(now), now) {
			c.Line(l.role, l.text)
		}
		rows, up := st.visible(h, size, s.Stale(now), now)
		for _, l := range rows {
			c.Line(l.role, l.text)
		}
		if up > 0 && c.Rows() > 1 {
			c.Line(theme.Dim, fmt.Sprintf(" %d more below", up))
		}
	}
	c.Down(1)
	foot.Write(c, keymap.Host, KeyState(s, st))
	return c.String()
}

// KeyState tells the key map what there is to act on.
func KeyState(s *snapshot.Snapshot, st State) keymap.State {
	ks := keymap.State{Rooms: len(s.Rooms)}
	if i, ok := s.Find(st.Room); ok {
		ks.Hosts = len(s.Rooms[i].Hosts)
	}
	return ks
}

func (st State) find(s *snapshot.Snapshot) *snapshot.Host {
	i, ok := s.Find(st.Room)
	if !ok {
		return nil
	}
	if k, ok := s.Rooms[i].Find(st.Host); ok {
		return &s.Rooms[i].Hosts[k]
	}
	return nil
}

// Next returns the neighbour of the host in its room, d steps on; at the ends
// it stays.
func (st State) Next(s *snapshot.Snapshot, d int) State {
	i, ok := s.Find(st.Room)
	if !ok || len(s.Rooms[i].Hosts) == 0 {
		return st
	}
	r := &s.Rooms[i]
	k, _ := r.Find(st.Host)
	name := r.Hosts[min(max(k+d, 0), len(r.Hosts)-1)].Name
	if name == st.Host {
		return st
	}
	return State{Room: st.Room, Host: name}
}

// Scroll returns the state after a scrolling key.
func (st State) Scroll(id keymap.ID, s *snapshot.Snapshot, size component.Size, now time.Time) State {
	h := st.find(s)
	if h == nil {
		return st
	}
	rows, up := st.visible(h, size, s.Stale(now), now)
	all := len(st.lines(h, size, now))
	switch id {
	case keymap.Up:
		up++
	case keymap.Down:
		up--
	case keymap.PageUp:
		up += len(rows)
	case keymap.PageDown:
		up -= len(rows)
	case keymap.First:
		up = all
	case keymap.Last:
		up = 0
	}
	st.Up = min(max(up, 0), max(0, all-st.space(h, size, s.Stale(now), now)+1))
	return st
}

// space is the number of lines for the timeline.
func (st State) space(h *snapshot.Host, size component.Size, stale bool, now time.Time) int {
	const top, foot = 1, 1
	return max(1, size.H-top-foot-len(about(h, size, stale, now)))
}

// visible returns the lines of the timeline that are on the screen, and how
// many newer ones are not.
func (st State) visible(h *snapshot.Host, size component.Size, stale bool, now time.Time) ([]row, int) {
	all, space := st.lines(h, size, now), st.space(h, size, stale, now)
	if len(all) <= space {
		return all, 0
	}
	up := min(st.Up, len(all)-space+1)
	if up > 0 {
		space-- // for the line that says that more follows
	}
	end := len(all) - up
	return all[max(0, end-space):end], up
}

// about says what the host does and who it is. On a low screen it is four
// lines at most, so that the timeline has room.
func about(h *snapshot.Host, size component.Size, stale bool, now time.Time) []row {
	w, low := size.W-6, size.H < 16
	doing, trouble, facts := 2, 3, 2
	if low {
		doing, trouble, facts = 1, 2, 1
	}
	out := wrapped(component.RoleOf(h.Group), " "+snapshot.Mark(h.Slot)+"  ", component.Doing(h, stale, now), w, doing)
	out = append(out, wrapped(theme.Text, "     ", component.Trouble(h), w, trouble)...)
	out = append(out, wrapped(theme.Text, "     ", component.Facts(h), w, facts)...)
	if low {
		return append(out, row{theme.Head, " time        took  what"})
	}
	if s := h.Slot; s != nil {
		job := fmt.Sprintf("job %d %s  attempt %d", h.Job.ID, component.Image(h.Job), s.Attempt)
		if kids := component.Children(h.Job, h.Name); len(kids) > 0 {
			job += "  feeds " + strings.Join(kids, " ")
		}
		data := fmt.Sprintf("%d cells written, %d kept, %s from the server, %s from other hosts", s.CellsWritten, s.CellsKept,
			units.FormatBytes(s.BytesFromSeed), units.FormatBytes(s.BytesFromPeers))
		if s.AgentRSSBytes > 0 {
			data += ", agent uses " + units.FormatBytes(s.AgentRSSBytes)
		}
		out = append(out, wrapped(theme.Dim, "     ", job, w, 1)...)
		out = append(out, wrapped(theme.Dim, "     ", data, w, 2)...)
	}
	return append(out, row{}, row{theme.Head, " time        took  what"})
}

// wrapped breaks text into at most n lines; the first begins with lead, the
// others as far in.
func wrapped(r theme.Role, lead, text string, w, n int) []row {
	var out []row
	for _, l := range component.Wrap(text, w, n) {
		out = append(out, row{r, lead + l})
		lead = component.Blanks(len(lead))
	}
	return out
}

// lines is the timeline: one entry after the other, and the running clock of
// a state that has not ended.
func (st State) lines(h *snapshot.Host, size component.Size, now time.Time) []row {
	const most = 3 // lines for one sentence
	w := size.W - 2
	switch {
	case h.Slot == nil:
		return wrapped(theme.Text, " ", "no job: labswarm job create --image NAME --room "+st.Room, w, most)
	case st.Cause != "":
		return wrapped(theme.Warn, " ", "no timeline: "+st.Cause, w, most)
	case !st.Loaded:
		return []row{{theme.Dim, " asking the server for the timeline ..."}}
	case len(st.Timeline) == 0:
		return []row{{theme.Dim, " nothing has happened yet"}}
	}
	out := make([]row, 0, len(st.Timeline)+1)
	for i, e := range st.Timeline {
		took := ""
		if i > 0 {
			took = span(e.At.Sub(st.Timeline[i-1].At))
		}
		lead := fmt.Sprintf(" %s  %6s  ", component.Clock(e.At, now), took)
		out = append(out, wrapped(theme.Text, lead, e.Event, size.W-len(lead)-1, most)...)
	}
	if s := h.Slot; !s.State.Ended() && !s.Since.IsZero() {
		still := "still " + strings.ToLower(string(s.State))
		out = append(out, row{theme.Dim, fmt.Sprintf(" %8s  %6s  %s", "now", span(now.Sub(s.Since)), still)})
	}
	return out
}

// span writes how long a step took: "0.4", "32.6", "3m33s".
func span(d time.Duration) string {
	d = max(0, d)
	if d < time.Minute {
		return fmt.Sprintf("%.1f", d.Seconds())
	}
	return units.FormatDuration(d)
}
