package help

import (
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/snapshot"
)

// Screen implements screen.View.
func (st State) Screen() keymap.Screen { return keymap.Help }

// Query implements screen.View: it is all known.
func (st State) Query(*snapshot.Snapshot) screen.Query { return screen.Query{} }

// Render implements screen.View.
func (st State) Render(in screen.In) string {
	return Render(in.S, st, in.Foot(), in.Size, in.Th, in.Now)
}

// KeyState implements screen.View.
func (st State) KeyState(screen.In) keymap.State { return keymap.State{} }

// Press implements screen.View.
func (st State) Press(id keymap.ID, in screen.In) (screen.View, screen.Effect) {
	if id == keymap.Back || id == keymap.ShowHelp {
		return st, screen.Effect{Back: true}
	}
	return st.Scroll(id, in.Keys, in.Size), screen.Effect{}
}
