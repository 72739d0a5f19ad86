// Package help is the console's help screen: the keys of the screen below it,
// and what the marks mean. Both come from where they are defined, the key map
// and the states.
package help

import (
	"fmt"
	"time"

	"labswarm/api"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// State is what the screen shows.
type State struct {
	Of  keymap.Screen // whose keys
	Top int           // first line shown; a wish, drawing corrects it
}

const keyWidth = 11 // columns of the keys

// Render draws the screen: exactly size.H lines, none wider than size.W.
func Render(s *snapshot.Snapshot, st State, foot component.Foot, size component.Size, th *theme.Theme, now time.Time) string {
	c := component.NewCanvas(size, th)
	if why, small := component.TooSmall(size); small {
		return c.Line(theme.Text, why).String()
	}
	component.Header(c, s, "help", now)
	all, space := text(foot.Keys, st.Of, size.W), size.H-2
	top := min(st.Top, max(0, len(all)-space))
	for _, l := range all[top:min(len(all), top+space)] {
		c.Line(l.role, l.text)
	}
	c.Down(1)
	foot.Write(c, keymap.Help, keymap.State{})
	return c.String()
}

// Scroll returns the state after a scrolling key.
func (st State) Scroll(id keymap.ID, keys keymap.Map, size component.Size) State {
	space := max(1, size.H-2)
	last := max(0, len(text(keys, st.Of, size.W))-space)
	top := min(st.Top, last)
	switch id {
	case keymap.Up:
		top--
	case keymap.Down:
		top++
	case keymap.PageUp:
		top -= space
	case keymap.PageDown:
		top += space
	case keymap.First:
		top = 0
	case keymap.Last:
		top = last
	}
	st.Top = min(max(0, top), last)
	return st
}

type line struct {
	role theme.Role
	text string
}

// text is the whole help, marks beside the keys where the screen is wide.
func text(keys keymap.Map, of keymap.Screen, w int) []line {
	var left []string
	for _, b := range keys.On(of) {
		left = append(left, fmt.Sprintf(" %-*s%s", keyWidth, b.Show, b.Long))
	}
	marks := legend()
	const beside = 120
	out := []line{{theme.Head, " Keys"}}
	if w >= beside {
		out[0].text = fmt.Sprintf("%-*s%s", beside/2, " Keys", " Marks")
		for i := range max(len(left), len(marks)) {
			l := ""
			if i < len(left) {
				l = left[i]
			}
			if i < len(marks) {
				l = fmt.Sprintf("%-*s%s", beside/2, component.Fit(l, beside/2-1), marks[i])
			}
			out = append(out, line{theme.Text, l})
		}
		return append(out, tail()...)
	}
	for _, l := range left {
		out = append(out, line{theme.Text, l})
	}
	out = append(out, line{}, line{theme.Head, " Marks"})
	for _, m := range marks {
		out = append(out, line{theme.Text, m})
	}
	return append(out, tail()...)
}

func tail() []line {
	return []line{{}, {theme.Dim, " The same in a pipe: labswarm job watch"}}
}

// legend explains every mark, in the order of a deployment.
func legend() []string {
	out := []string{" ..  in no job"}
	for _, s := range api.AllStates() {
		mark := s.Mark()
		if s == api.StateWriting {
			mark = "42"
		}
		out = append(out, " "+mark+"  "+meaning(s))
	}
	return append(out, " ??  silent: a report is overdue", " .   a seat without a PC", " []  door, on the dense map", " ==  the teacher's desk, on the dense map")
}

func meaning(s api.State) string {
	switch s {
	case api.StatePending:
		return "pending, not armed"
	case api.StateArmed:
		return "armed: netboots the agent next"
	case api.StateWaking:
		return "waking"
	case api.StateBooting:
		return "DHCP, PXE, kernel"
	case api.StateEnrolled:
		return "agent up, enrolled"
	case api.StateChecking:
		return "checking its own disk"
	case api.StateCapturing:
		return "being read for a capture"
	case api.StateWriting:
		return "writing, percent"
	case api.StateVerifying:
		return "reading back"
	case api.StateFinalising:
		return "finishing (table, boot)"
	case api.StateDone:
		return "written and verified"
	case api.StateRebooting:
		return "rebooting"
	case api.StateConfirmed:
		return "up: new system seen booting"
	case api.StateSkipped:
		return "skipped"
	case api.StateCancelled:
		return "cancelled"
	case api.StateNoShow:
		return "no show: never netbooted"
	case api.StateFailed:
		return "failed"
	case api.StateHeld:
		return "held: needs a person"
	}
	return string(s)
}
