// Package form is the console's text fields: a few of them below each other,
// one with the focus. What is filled in is asked about once more before the
// server gets it.
package form

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// Field is one text field.
type Field struct{ Label, Hint, Text string }

// Fields are a value: what changes them returns the next one.
type Fields struct {
	All []Field
	at  int // has the focus
}

const maxField = 40 // bytes

// Get is what stands in a field.
func (f Fields) Get(i int) string { return strings.TrimSpace(f.All[i].Text) }

// Focus is the fields with the focus on one.
func (f Fields) Focus(i int) Fields {
	f.at = i
	return f
}

// Typed takes a key.
func (f Fields) Typed(key string) Fields {
	n := len(f.All)
	f.All = slices.Clone(f.All)
	t := &f.All[f.at].Text
	switch key {
	case "tab", "down":
		f.at = (f.at + 1) % n
	case "shift+tab", "up":
		f.at = (f.at + n - 1) % n
	case "ctrl+u":
		*t = ""
	case "backspace":
		_, size := utf8.DecodeLastRuneInString(*t)
		*t = (*t)[:len(*t)-size]
	default:
		if utf8.RuneCountInString(key) == 1 && len(*t)+len(key) <= maxField {
			*t += key
		}
	}
	return f
}

// Draw writes the fields, each with its hint where there is space.
func (f Fields) Draw(c *component.Canvas) {
	c.End()
	for i, q := range f.All {
		role, cursor := theme.Text, ""
		if i == f.at {
			role, cursor = theme.Sel, "_"
		}
		c.Add(theme.Text, fmt.Sprintf(" %-24s", q.Label)).Add(role, " "+q.Text+cursor+" ").End()
		if c.Rows() > 2*len(f.All) {
			c.Line(theme.Dim, "                          "+q.Hint)
		}
	}
	c.End()
}

// State is a view with nothing but a form.
type State struct {
	Title string
	Facts []string // what a person should know first, a sentence each
	Fields
	// Next is the question that follows, or which field is bad and why.
	Next func(f Fields) (view screen.View, bad int, err error)
}

// Screen implements screen.View.
func (st State) Screen() keymap.Screen { return keymap.Confirm }

// Query implements screen.View.
func (st State) Query(*snapshot.Snapshot) screen.Query { return screen.Query{} }

// KeyState implements screen.View.
func (st State) KeyState(screen.In) keymap.State { return keymap.State{} }

// Press implements screen.View; no key comes here.
func (st State) Press(keymap.ID, screen.In) (screen.View, screen.Effect) {
	return st, screen.Effect{}
}

// Typing implements screen.Typist: all keys are text.
func (st State) Typing() bool { return true }

// Type implements screen.Typist.
func (st State) Type(key string, _ screen.In) (screen.View, screen.Effect) {
	switch key {
	case "esc":
		return st, screen.Effect{Back: true, Note: "nothing was done"}
	case "enter":
		v, bad, err := st.Next(st.Fields)
		if err != nil {
			st.Fields = st.Focus(bad)
			return st, screen.Effect{Note: st.All[bad].Label + ": " + err.Error()}
		}
		return st, screen.Effect{Open: v}
	}
	st.Fields = st.Typed(key)
	return st, screen.Effect{}
}

// Render implements screen.View.
func (st State) Render(in screen.In) string {
	c, ok := screen.Framer(in, "")
	if !ok {
		return c.String()
	}
	c.End().Line(theme.Head, " "+st.Title)
	st.Draw(c)
	for _, f := range st.Facts {
		if c.Rows() > 2 {
			component.Para(c, f, min(3, c.Rows()-2))
		}
	}
	c.Down(1)
	foot := in.Foot()
	if foot.Message == "" {
		foot.Message = "tab next field   enter go on   esc back   ctrl+c quit"
	}
	foot.Write(c, st.Screen(), keymap.State{})
	return c.String()
}
