// Package list is what all screens with a list have in common: the selected
// line, scrolling, the filter and its text field. It knows nothing of what the
// lines say.
package list

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"labswarm/api/filter"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/theme"
)

// Line is one line: its name in the list, what is shown, what a filter sees.
type Line struct {
	Key   string // unique, and the same in the next picture
	Cells []component.Cell
	Row   filter.Row
}

// Table is a whole list, in its order.
type Table struct {
	Cols  []component.Column
	Names []string // columns a filter may name
	Lines []Line
	Empty string // shown when there are no lines at all
}

// State is what the person chose. The zero value is the first line, unfiltered.
type State struct {
	Key  string // of the selected line; gone = the one at its place
	at   int    // where it last was
	Text string // filter
	Bad  string // why the filter is no filter, "" = it is one

	field bool   // the text field has the focus
	old   string // filter before the field was opened
}

// Shown returns the lines that match and the place of the selected one.
func (st State) Shown(t Table) ([]Line, int) {
	lines := t.Lines
	if f, err := filter.Parse(st.Text, t.Names); err == nil && !f.Empty() {
		lines = nil
		for _, l := range t.Lines {
			if f.Match(l.Row) {
				lines = append(lines, l)
			}
		}
	}
	at := slices.IndexFunc(lines, func(l Line) bool { return l.Key == st.Key })
	if at < 0 {
		at = min(st.at, max(0, len(lines)-1))
	}
	return lines, at
}

// Selected returns the selected line, nil when there is none.
func (st State) Selected(t Table) *Line {
	lines, at := st.Shown(t)
	if len(lines) == 0 {
		return nil
	}
	return &lines[at]
}

// Move returns the state after a key, with page lines on the screen.
func (st State) Move(id keymap.ID, t Table, page int) State {
	if id == keymap.Filter {
		st.field, st.old = true, st.Text
		return st
	}
	lines, at := st.Shown(t)
	if len(lines) == 0 {
		return st
	}
	switch id {
	case keymap.Up:
		at--
	case keymap.Down:
		at++
	case keymap.PageUp:
		at -= max(1, page)
	case keymap.PageDown:
		at += max(1, page)
	case keymap.First:
		at = 0
	case keymap.Last:
		at = len(lines) - 1
	}
	at = min(max(at, 0), len(lines)-1)
	st.Key, st.at = lines[at].Key, at
	return st
}

// Typing reports whether the filter's field has the focus.
func (st State) Typing() bool { return st.field }

// Type takes a key into the field. What is typed filters at once; esc takes it
// back, enter keeps it.
func (st State) Type(key string, t Table) State {
	switch key {
	case "enter":
		st.field = false
	case "esc":
		st.field, st.Text = false, st.old
	case "backspace":
		if st.Text == "" {
			st.field = false
		}
		_, n := utf8.DecodeLastRuneInString(st.Text)
		st.Text = st.Text[:len(st.Text)-n]
	case "ctrl+u":
		st.Text = ""
	default:
		if utf8.RuneCountInString(key) == 1 && len(st.Text)+len(key) <= filter.MaxText {
			st.Text += key
		}
	}
	_, err := filter.Parse(st.Text, t.Names)
	st.Bad = ""
	if err != nil {
		st.Bad = err.Error()
	}
	return st
}

// Draw writes headings and lines into h lines of the canvas, the last of them
// for the filter while there is one.
func (st State) Draw(c *component.Canvas, t Table, h int) {
	lines, at := st.Shown(t)
	if st.field || st.Text != "" {
		h--
	}
	end := c.Rows() - h
	switch {
	case len(t.Lines) == 0:
		c.End()
		component.Para(c, t.Empty, 4)
	case len(lines) == 0:
		c.End()
		component.Para(c, fmt.Sprintf("none of %d lines matches the filter", len(t.Lines)), 2)
	default:
		st.rows(c, t, lines, at, h)
	}
	c.Down(end)
	if st.field || st.Text != "" {
		st.drawFilter(c, len(lines), len(t.Lines))
	}
}

func (st State) rows(c *component.Canvas, t Table, lines []Line, at, h int) {
	space := max(1, h-1)
	top := Top(at, len(lines), space)
	shown := lines[top:min(len(lines), top+space)]
	cells := make([][]component.Cell, len(shown))
	for i := range shown {
		cells[i] = shown[i].Cells
	}
	width := component.Fields(t.Cols, cells, c.Left())
	component.TableHead(c, t.Cols, width)
	for i, row := range cells {
		lead := " "
		if top+i == at {
			lead = ">"
		}
		component.TableRow(c, t.Cols, width, row, lead)
	}
}

// Top is the first of n lines to draw into space lines so that line at is seen,
// in the middle where that is possible.
func Top(at, n, space int) int { return min(max(at-space/2, 0), max(0, n-space)) }

func (st State) drawFilter(c *component.Canvas, n, of int) {
	text := " / " + st.Text
	if st.field {
		text += "_"
	}
	c.Add(theme.Head, text)
	said, role := fmt.Sprintf("%d of %d", n, of), theme.Dim
	if st.Bad != "" {
		said, role = strings.TrimPrefix(st.Bad, "filter: "), theme.Warn
	}
	if !c.Right(role, said) {
		c.Add(role, "  "+said)
	}
	c.End()
}
