// Package pager is what screens that show a text have in common: lines with a
// look, and scrolling. It knows nothing of what the lines say.
package pager

import (
	"fmt"

	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/theme"
)

// Line is one line with its look.
type Line struct {
	Role theme.Role
	Text string
}

// Wrap breaks a text into at most n lines of w columns; the first begins with
// lead, the others stand as far in.
func Wrap(role theme.Role, lead, text string, w, n int) []Line {
	var out []Line
	for _, l := range component.Wrap(text, w-component.Width(lead), n) {
		out = append(out, Line{role, lead + l})
		lead = component.Blanks(component.Width(lead))
	}
	return out
}

// State is how far the person has scrolled. Top is a wish, drawing corrects it.
type State struct{ Top int }

// space is the lines of text on a screen of h lines with a header, a title and
// a footer.
func space(h int) int { return max(1, h-3) }

// Move returns the state after a scrolling key: n lines on a screen of h.
func (st State) Move(id keymap.ID, n, h int) State {
	s := space(h)
	last := max(0, n-s)
	top := min(st.Top, last)
	switch id {
	case keymap.Up:
		top--
	case keymap.Down:
		top++
	case keymap.PageUp:
		top -= s
	case keymap.PageDown:
		top += s
	case keymap.First:
		top = 0
	case keymap.Last:
		top = last
	}
	st.Top = min(max(0, top), last)
	return st
}

// Draw writes what fits between the title and the footer of a screen of h
// lines; the title says how much more there is.
func (st State) Draw(c *component.Canvas, lines []Line, h int) {
	s := space(h)
	top := min(st.Top, max(0, len(lines)-s))
	for _, l := range lines[top:min(len(lines), top+s)] {
		c.Line(l.Role, " "+l.Text)
	}
}

// More says how many lines are not on the screen, "" = none.
func (st State) More(lines []Line, h int) string {
	n := len(lines) - space(h) - min(st.Top, max(0, len(lines)-space(h)))
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf("%d more lines below", n)
}
