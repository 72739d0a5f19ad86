package confirm

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"labswarm/tui/screen"
)

func answer(st State, keys ...string) (State, screen.Effect) {
	var e screen.Effect
	for _, k := range keys {
		var v screen.View
		v, e = st.Type(k, screen.In{})
		st = v.(State)
		if e.Do != nil || e.Back {
			break
		}
	}
	return st, e
}

func TestOnlyTheNameUnlocks(t *testing.T) {
	st := State{Title: "ERASE 37 disks", Want: "A101", What: "the room's name"}
	for _, keys := range []string{"", "y", "a101", "A10", "A101x", "A1012", " A101"} {
		if _, e := answer(st, append(strings.Split(keys, ""), "enter")...); e.Do != nil || e.Back || !strings.Contains(e.Note, "the room's name") {
			t.Errorf("%q: %+v", keys, e)
		}
	}
	if _, e := answer(st, "A", "2", "backspace", "1", "0", "1", "enter"); e.Do == nil || !e.Back {
		t.Errorf("the right name does nothing: %+v", e)
	}
	if _, e := answer(st, "A", "1", "0", "1", "esc"); e.Do != nil || !e.Back {
		t.Errorf("esc: %+v", e)
	}
}

func TestYesOrNo(t *testing.T) {
	for key, yes := range map[string]bool{"y": true, "Y": true, "n": false, "enter": false, "esc": false, "space": false, "x": false} {
		if _, e := answer(State{Title: "cancel"}, key); (e.Do != nil) != yes || !e.Back {
			t.Errorf("%q: %+v", key, e)
		}
	}
}

// TestHammering: no sequence of the keys that people hit by habit gives up a
// disk without the name in it.
func TestHammering(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		keys := rapid.SliceOf(rapid.SampledFrom([]string{"enter", "y", "Y", "space", "tab", "A", "1", "0", "backspace", "ctrl+u", "up", "right"})).Draw(rt, "keys")
		if _, e := answer(State{Want: "A-101", What: "the room's name"}, keys...); e.Do != nil {
			rt.Fatalf("%v went through", keys)
		}
	})
}
