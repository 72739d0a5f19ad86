package help

import (
	"fmt"
	"strings"
	"testing"

	"labswarm/api"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/theme"
	"labswarm/tui/tuitest"
)

func TestRenderGolden(t *testing.T) {
	s, foot := tuitest.Picture(3), component.Foot{Keys: keymap.Default()}
	for name, of := range map[string]keymap.Screen{"rooms": keymap.Rooms, "host": keymap.Host} {
		for _, size := range tuitest.Sizes() {
			got := Render(s, State{Of: of}, foot, size, theme.New(false, true), tuitest.Now())
			tuitest.Fits(t, got, size)
			tuitest.Golden(t, fmt.Sprintf("help-%s-%dx%d.txt", name, size.W, size.H), got)
		}
	}
}

// TestAllKeysAndMarksAreReached: by scrolling, on the smallest terminal.
func TestAllKeysAndMarksAreReached(t *testing.T) {
	keys := keymap.Default()
	s, foot, size := tuitest.Picture(3), component.Foot{Keys: keys}, component.Size{W: 40, H: 10}
	st, all := State{Of: keymap.Rooms}, ""
	for range 100 {
		all += Render(s, st, foot, size, theme.New(false, true), tuitest.Now())
		st = st.Scroll(keymap.Down, keys, size)
	}
	for _, b := range keys.On(keymap.Rooms) {
		if !strings.Contains(all, " "+b.Show+" ") {
			t.Errorf("key %q of %s is not in the help", b.Show, b.ID)
		}
	}
	for _, state := range api.AllStates() {
		mark := state.Mark()
		if state == api.StateWriting {
			mark = "42"
		}
		if m := meaning(state); m == string(state) || !strings.Contains(all, " "+mark+"  ") {
			t.Errorf("mark %q of %s is not explained", mark, state)
		}
	}
	if back := st.Scroll(keymap.First, keys, size); back.Top != 0 {
		t.Errorf("g leads to line %d", back.Top)
	}
}
