// Package screen says what a screen of the console is: a View that is drawn
// from a picture, turns keys into its next state, and names what it wants to
// have read beside the picture. The screens are its subpackages; tui/app is the
// only one that runs them.
//
// Views hold no clock and do no I/O: what they want done or read they return as
// values.
package screen

import (
	"context"
	"time"

	"labswarm/api/client"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// In is what a view is drawn from.
type In struct {
	S     *snapshot.Snapshot
	Keys  keymap.Map
	Note  string // about the last key, "" = nothing to say
	Size  component.Size
	Th    *theme.Theme
	Now   time.Time
	Data  any    // last answer to Query, nil = none yet
	Cause string // why the last reading failed, "" = it did not
}

// Foot is the line of keys.
func (in In) Foot() component.Foot { return component.Foot{Keys: in.Keys, Message: in.Note} }

// Stale reports whether the picture is too old to act on.
func (in In) Stale() bool { return in.S.Stale(in.Now) }

// Query is a reading beside the picture. The zero value asks for nothing.
type Query struct {
	Key   string        // two queries with equal keys are the same reading; "" = none
	Every time.Duration // read again so often, 0 = only for another Key
	Limit time.Duration // patience with the reading, 0 = the usual
	Read  func(ctx context.Context, c *client.Client) (any, error)
}

// Action is something the server is asked to do. The client gives each request
// a key, so a lost answer is harmless.
type Action struct {
	Doing string // "cancel job 118", for the note while it runs and when it fails
	Do    func(ctx context.Context, c *client.Client) (Done, error)
}

// Done is what became of an action that went well.
type Done struct {
	Said string // a sentence for the person
	Back bool   // close the view that asked
	Then View   // and open this one, nil = none
}

// Effect is what a key asks of the console beside the view's next state.
type Effect struct {
	Open View    // a view above this one
	Back bool    // close this view
	Go   View    // in place of the whole stack: another top-level screen
	Name string  // open what the ":" line calls so: "report 118", for screens that cannot know each other
	Do   *Action // refused while the picture is stale, and for read-only consoles
	Note string  // one line for the person
}

// View is one screen with what the person chose on it. Views are values: Press
// returns the next one.
type View interface {
	// Screen tells which keys are valid.
	Screen() keymap.Screen
	// Query names what is to be read for it.
	Query(s *snapshot.Snapshot) Query
	// Render draws exactly Size.H lines, none wider than Size.W.
	Render(in In) string
	// KeyState tells the key map what there is to act on.
	KeyState(in In) keymap.State
	// Press applies a key that is valid now.
	Press(id keymap.ID, in In) (View, Effect)
}

// Typist is a view that may be in a text field: then keys are text.
type Typist interface {
	View
	// Typing reports whether a field has the focus.
	Typing() bool
	// Type takes a key as text: a printable character, or the name of a key
	// ("enter", "esc", "backspace", "tab", "ctrl+u", "up", "down"). Pasted text never comes here.
	Type(key string, in In) (View, Effect)
}

// Leaver is a view that tells the one below what was looked at last.
type Leaver interface {
	View
	// Leave returns the view below with that selected.
	Leave(below View) View
}

// Chooser is a view that can be told which host to select.
type Chooser interface {
	View
	At(room, host string) View
}

// Framer begins the frame of a screen: size check and header. ok is false when
// the terminal is too small; then c is the whole frame.
func Framer(in In, title string) (c *component.Canvas, ok bool) {
	c = component.NewCanvas(in.Size, in.Th)
	if why, small := component.TooSmall(in.Size); small {
		c.Line(theme.Text, why)
		return c, false
	}
	component.Header(c, in.S, title, in.Now)
	return c, true
}
