package host

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"labswarm/api"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/theme"
	"labswarm/tui/tuitest"
)

var foot = component.Foot{Keys: keymap.Default()}

func TestRenderGolden(t *testing.T) {
	s := tuitest.Picture(40)
	for name, st := range map[string]State{
		"failed":  {Room: "A101", Host: "a05", Loaded: true, Timeline: tuitest.Timeline()},
		"writing": {Room: "A101", Host: "a04", Loaded: true, Timeline: tuitest.Timeline()[:6]},
		"held":    {Room: "A101", Host: "a14"},
		"idle":    {Room: "A101", Host: "a19"},
		"gone":    {Room: "A101", Host: "a77"},
		"unread":  {Room: "A101", Host: "a02", Loaded: true, Cause: "reach the server at /run/labswarm.sock: connection refused"},
	} {
		for _, size := range tuitest.Sizes() {
			for set, th := range map[string]*theme.Theme{"utf8": theme.New(false, false), "ascii": theme.New(false, true)} {
				t.Run(fmt.Sprintf("%s/%dx%d/%s", name, size.W, size.H, set), func(t *testing.T) {
					got := Render(s, st, foot, size, th, tuitest.Now())
					tuitest.Fits(t, got, size)
					tuitest.Golden(t, fmt.Sprintf("host-%s-%dx%d-%s.txt", name, size.W, size.H, set), got)
				})
			}
		}
	}
}

func TestColourRepeatsMarks(t *testing.T) {
	s, st := tuitest.Picture(40), State{Room: "A101", Host: "a05", Loaded: true, Timeline: tuitest.Timeline()}
	for _, size := range tuitest.Sizes() {
		plain := Render(s, st, foot, size, theme.New(false, false), tuitest.Now())
		painted := Render(s, st, foot, size, theme.New(true, false), tuitest.Now())
		if painted == plain || tuitest.Plain(painted) != plain || strings.Contains(plain, "\x1b") {
			t.Errorf("%v: colour changes the text or is missing:\n%s", size, painted)
		}
	}
}

// TestScroll: every entry of a long timeline can be reached, no line is shown
// twice, and the way back needs as many keys as the way there.
func TestScroll(t *testing.T) {
	s, st := tuitest.Picture(40), State{Room: "A101", Host: "a05", Loaded: true}
	for i := range 24 {
		st.Timeline = append(st.Timeline, api.TimelineEntry{At: tuitest.Now(), Event: fmt.Sprintf("event-%02d", i)})
	}
	th := theme.New(false, true)
	rapid.Check(t, func(rt *rapid.T) {
		size := component.Size{W: rapid.IntRange(40, 130).Draw(rt, "w"), H: rapid.IntRange(10, 30).Draw(rt, "h")}
		st, seen := st, map[string]bool{}
		look := func() string {
			got := Render(s, st, foot, size, th, tuitest.Now())
			if n := strings.Count(got, "\n") + 1; n != size.H {
				rt.Fatalf("%d lines on a screen of %v", n, size)
			}
			if !strings.Contains(got, "event-") {
				rt.Fatalf("no event at all:\n%s", got)
			}
			for _, e := range st.Timeline {
				switch strings.Count(got, e.Event) {
				case 0:
				case 1:
					seen[e.Event] = true
				default:
					rt.Fatalf("%s is shown twice:\n%s", e.Event, got)
				}
			}
			return got
		}
		if !strings.Contains(look(), "event-23") {
			rt.Fatalf("the newest event is not shown at first on %v", size)
		}
		steps := 0
		for st.Up != st.Scroll(keymap.Up, s, size, tuitest.Now()).Up {
			st = st.Scroll(keymap.Up, s, size, tuitest.Now())
			steps++
			look()
		}
		if len(seen) != 24 {
			rt.Fatalf("only %d of 24 events can be seen on %v", len(seen), size)
		}
		if first := st.Scroll(keymap.First, s, size, tuitest.Now()); first.Up != st.Up {
			rt.Fatalf("g leads to %d, up to %d", first.Up, st.Up)
		}
		for range steps {
			st = st.Scroll(keymap.Down, s, size, tuitest.Now())
		}
		if st.Up != 0 {
			rt.Fatalf("%d keys down do not undo %d keys up: %d left", steps, steps, st.Up)
		}
	})
}

func TestNext(t *testing.T) {
	s := tuitest.Picture(3)
	st := State{Room: "A101", Host: "a01", Up: 4, Loaded: true}
	if got := st.Next(s, -1); got.Host != "a01" || !got.Loaded {
		t.Errorf("before the first: %+v", got)
	}
	if got := st.Next(s, 1); got.Host != "a02" || got.Loaded || got.Up != 0 {
		t.Errorf("next: %+v", got)
	}
}
