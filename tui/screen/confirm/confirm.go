// Package confirm is the console's question before something is asked of the
// server: y/N for what can be undone, and for what erases disks a name that has
// to be typed. There is no key that says yes to everything; pasted text never
// gets here.
package confirm

import (
	"fmt"
	"unicode/utf8"

	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// State is one question.
type State struct {
	Title  string   // what will happen
	Facts  []string // what a person should know first, a sentence each
	Want   string   // what must be typed, "" = y
	What   string   // what Want is: "the room's name"
	Action screen.Action

	text string
}

const maxText = 100 // bytes

// Screen implements screen.View.
func (st State) Screen() keymap.Screen { return keymap.Confirm }

// Query implements screen.View.
func (st State) Query(*snapshot.Snapshot) screen.Query { return screen.Query{} }

// KeyState implements screen.View.
func (st State) KeyState(screen.In) keymap.State { return keymap.State{} }

// Typing implements screen.Typist: all keys are the answer.
func (st State) Typing() bool { return true }

// Press implements screen.View; no key comes here.
func (st State) Press(keymap.ID, screen.In) (screen.View, screen.Effect) {
	return st, screen.Effect{}
}

// Type implements screen.Typist.
func (st State) Type(key string, _ screen.In) (screen.View, screen.Effect) {
	if key == "esc" {
		return st, screen.Effect{Back: true, Note: "nothing was done"}
	}
	if st.Want == "" {
		if key == "y" || key == "Y" {
			return st, st.do()
		}
		return st, screen.Effect{Back: true, Note: "nothing was done"}
	}
	switch key {
	case "enter":
		if st.text == st.Want {
			return st, st.do()
		}
		if st.text == "" {
			return st, screen.Effect{Note: fmt.Sprintf("type %s first; esc goes back", st.What)}
		}
		return st, screen.Effect{Note: fmt.Sprintf("%q is not %s; nothing was done", st.text, st.What)}
	case "backspace":
		_, n := utf8.DecodeLastRuneInString(st.text)
		st.text = st.text[:len(st.text)-n]
	case "ctrl+u":
		st.text = ""
	default:
		if utf8.RuneCountInString(key) == 1 && len(st.text)+len(key) <= maxText {
			st.text += key
		}
	}
	return st, screen.Effect{}
}

// do closes the question and asks the server.
func (st State) do() screen.Effect {
	a := st.Action
	return screen.Effect{Back: true, Do: &a}
}

// Render implements screen.View.
func (st State) Render(in screen.In) string {
	c, ok := screen.Framer(in, "")
	if !ok {
		return c.String()
	}
	role := theme.Head
	if st.Want != "" {
		role = theme.Bad
	}
	c.End().Line(role, " "+st.Title).End()
	for _, f := range st.Facts {
		if c.Rows() > 6 {
			component.Para(c, f, 4)
		}
	}
	c.End()
	if st.Want == "" {
		c.Add(theme.Text, " Go on?  y = yes, any other key = no").End()
	} else {
		c.Line(theme.Text, fmt.Sprintf(" Type %s, %s, and press enter:", st.What, st.Want))
		c.Add(theme.Text, "   ").Add(theme.Sel, " "+st.text+"_ ")
		if st.text != st.Want {
			c.Add(theme.Dim, "  locked")
		} else {
			c.Add(theme.Bad, "  enter goes on")
		}
		c.End()
	}
	c.Down(1)
	foot := in.Foot()
	if foot.Message == "" {
		foot.Message = "esc back, nothing is done; ctrl+c quits the console"
	}
	foot.Write(c, st.Screen(), keymap.State{})
	return c.String()
}
