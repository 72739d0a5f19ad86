package rooms

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labswarm/api"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
	"labswarm/tui/tuitest"
)

var foot = component.Foot{Keys: keymap.Default()}

func themes() map[string]*theme.Theme {
	return map[string]*theme.Theme{"utf8": theme.New(false, false), "ascii": theme.New(false, true)}
}

func TestRenderGolden(t *testing.T) {
	for _, n := range []int{0, 1, 3, 40, 400} {
		s := tuitest.Picture(n)
		st := State{Host: "a05"}
		for _, size := range tuitest.Sizes() {
			for name, th := range themes() {
				t.Run(fmt.Sprintf("%d/%dx%d/%s", n, size.W, size.H, name), func(t *testing.T) {
					got := Render(s, st, foot, size, th, tuitest.Now())
					tuitest.Fits(t, got, size)
					tuitest.Golden(t, fmt.Sprintf("rooms-%d-%dx%d-%s.txt", n, size.W, size.H, name), got)
				})
			}
		}
	}
}

// TestColourRepeatsMarks: without its escape sequences a coloured frame is the
// plain one, so nothing is said by colour alone; and the plain one has none.
func TestColourRepeatsMarks(t *testing.T) {
	colour, mono := theme.New(true, false), theme.New(false, false)
	for _, n := range []int{0, 3, 40, 400} {
		s := tuitest.Picture(n)
		for _, size := range tuitest.Sizes() {
			plain := Render(s, State{}, foot, size, mono, tuitest.Now())
			painted := Render(s, State{}, foot, size, colour, tuitest.Now())
			if strings.Contains(plain, "\x1b") {
				t.Errorf("%d hosts, %v: escape sequence without colour", n, size)
			}
			if n > 0 && !strings.Contains(painted, "\x1b[") {
				t.Errorf("%d hosts, %v: no colour at all", n, size)
			}
			if got := tuitest.Plain(painted); got != plain {
				t.Errorf("%d hosts, %v: colour changes the text:\n%s\n--- plain:\n%s", n, size, got, plain)
			}
		}
	}
}

// TestEveryStateHasItsMark: all states of a room are seen without colour.
func TestEveryStateHasItsMark(t *testing.T) {
	var f snapshot.Facts
	j := api.Job{ID: 1, Image: "x"}
	for i, st := range api.AllStates() {
		name := fmt.Sprintf("h%02d", i)
		f.Hosts = append(f.Hosts, api.Host{Name: name, Room: "R"})
		j.Slots = append(j.Slots, api.Slot{Host: name, State: st, Percent: 42})
	}
	f.Hosts = append(f.Hosts, api.Host{Name: "h98", Room: "R"}, api.Host{Name: "h99", Room: "R"})
	j.Slots = append(j.Slots, api.Slot{Host: "h98", State: api.StateWriting, SilentS: 11})
	f.Jobs = []api.Job{j}
	s := snapshot.Build(f)
	s.Full, s.Heard = true, tuitest.Now()
	got := Render(s, State{}, foot, component.Size{W: 80, H: 24}, theme.New(false, true), tuitest.Now())
	seen := map[string]string{}
	for i, st := range api.AllStates() {
		mark := st.Mark()
		if st == api.StateWriting {
			mark = "42"
		}
		if other, twice := seen[mark]; twice {
			t.Errorf("%s and %s share the mark %s", st, other, mark)
		}
		seen[mark] = string(st)
		if tile := fmt.Sprintf("h%02d %s", i, mark); !strings.Contains(got, tile) {
			t.Errorf("no tile %q in:\n%s", tile, got)
		}
	}
	for _, tile := range []string{"h98 ??", "h99 .."} {
		if !strings.Contains(got, tile) {
			t.Errorf("no tile %q in:\n%s", tile, got)
		}
	}
}

// TestNeverWiderThanTheScreen draws rooms of any shape with hostile text on
// screens of any size, and walks around in them.
func TestNeverWiderThanTheScreen(t *testing.T) {
	text := rapid.OneOf(rapid.StringN(0, 30, -1), rapid.SampledFrom([]string{"\x1b[2J\x1b[31m", "機械室の端末一号機", "e\u0301\u200d", "👩‍💻", "a\nb\tc", strings.Repeat("lab-", 20) + "07"}))
	rapid.Check(t, func(rt *rapid.T) {
		f := snapshot.Facts{Server: api.ServerInfo{Name: text.Draw(rt, "server")}}
		j := api.Job{ID: rapid.Uint64().Draw(rt, "id"), Image: text.Draw(rt, "image"), Percent: rapid.Float64().Draw(rt, "percent"), EtaS: rapid.Int64Range(-1, 1e12).Draw(rt, "eta"), BytesShipped: rapid.Int64().Draw(rt, "bytes")}
		for range rapid.IntRange(0, 60).Draw(rt, "hosts") {
			h := api.Host{Name: text.Draw(rt, "name"), Room: rapid.OneOf(text, rapid.Just("R")).Draw(rt, "room")}
			f.Hosts = append(f.Hosts, h)
			j.Slots = append(j.Slots, api.Slot{Host: h.Name, State: api.State(rapid.OneOf(text, rapid.Just("WRITING"), rapid.Just("FAILED")).Draw(rt, "state")), Error: text.Draw(rt, "error"), Percent: rapid.Float64().Draw(rt, "p"), Parent: text.Draw(rt, "parent"), RateBps: rapid.Int64().Draw(rt, "rate"), SilentS: rapid.Int().Draw(rt, "silent")})
		}
		f.Jobs = []api.Job{j}
		s := snapshot.Build(f)
		s.Full, s.Heard, s.Cause = true, tuitest.Now(), snapshot.Clean(text.Draw(rt, "cause"))
		s.Link = rapid.SampledFrom([]snapshot.Link{snapshot.Connecting, snapshot.Live, snapshot.Lost}).Draw(rt, "link")
		ascii := rapid.Bool().Draw(rt, "ascii")
		th := theme.New(rapid.Bool().Draw(rt, "colour"), ascii)
		var st State
		for range 12 {
			size := component.Size{W: rapid.IntRange(1, 200).Draw(rt, "w"), H: rapid.IntRange(1, 60).Draw(rt, "h")}
			got := Render(s, st, foot, size, th, tuitest.Now())
			plain := tuitest.Plain(got)
			for _, r := range plain {
				if r != '\n' && (r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 || ascii && r > 0x7e) {
					rt.Fatalf("character %U leaves the program: %q", r, got)
				}
			}
			if lines := strings.Split(plain, "\n"); len(lines) != size.H {
				rt.Fatalf("%d lines on a screen of %v", len(lines), size)
			} else {
				for _, l := range lines {
					if component.Width(l) > size.W {
						rt.Fatalf("line of %d columns on a screen of %v: %q", component.Width(l), size, l)
					}
				}
			}
			st = st.Move(rapid.SampledFrom([]keymap.ID{keymap.Up, keymap.Down, keymap.Left, keymap.Right, keymap.First, keymap.Last, keymap.PageUp, keymap.PageDown, keymap.NextRoom, keymap.PrevRoom}).Draw(rt, "key"), s, size, tuitest.Now())
		}
	})
}

// TestSelectionIsAlwaysSeen: wherever the keys lead, the selected host's tile
// is on the screen.
func TestSelectionIsAlwaysSeen(t *testing.T) {
	keys := []keymap.ID{keymap.Up, keymap.Down, keymap.Left, keymap.Right, keymap.First, keymap.Last, keymap.PageUp, keymap.PageDown}
	rapid.Check(t, func(rt *rapid.T) {
		s := tuitest.Picture(rapid.SampledFrom([]int{1, 3, 40, 150, 400}).Draw(rt, "n"))
		size := component.Size{W: rapid.IntRange(40, 160).Draw(rt, "w"), H: rapid.IntRange(10, 50).Draw(rt, "h")}
		st := State{Room: "A101"}
		for range 30 {
			st = st.Move(rapid.SampledFrom(keys).Draw(rt, "key"), s, size, tuitest.Now())
			got := Render(s, st, foot, size, theme.New(false, true), tuitest.Now())
			body := strings.Split(got, "\n")[2:]
			if !strings.Contains(strings.Join(body, "\n"), ">") {
				rt.Fatalf("selected %s is not on the screen of %v:\n%s", st.Host, size, got)
			}
		}
	})
}

func TestMove(t *testing.T) {
	s, size := tuitest.Picture(40), component.Size{W: 80, H: 24}
	for _, tt := range []struct{ from, keys, want string }{
		{"", "right", "a02"},
		{"a01", "left", "a01"},
		{"a01", "up", "a01"},
		{"a01", "down", "a09"},
		{"a12", "down", "a20"},
		{"a40", "down", "a40"},
		{"a03", "last", "a40"},
		{"a40", "first", "a01"},
		{"a12", "page-down", "a36"},
		{"a36", "page-up", "a04"},
		{"gone", "right", "a02"},
	} {
		got := State{Room: "A101", Host: tt.from}.Move(keymap.ID(tt.keys), s, size, tuitest.Now()).Host
		if got != tt.want {
			t.Errorf("%s from %q = %q, want %q", tt.keys, tt.from, got, tt.want)
		}
	}
	st := State{Room: "A101", Host: "a12"}
	for _, want := range []string{"A102", "B001", "A101"} {
		if st = st.Move(keymap.NextRoom, s, size, tuitest.Now()); st.Room != want {
			t.Fatalf("next room is %s, want %s", st.Room, want)
		}
	}
	if st = st.Move(keymap.PrevRoom, s, size, tuitest.Now()); st.Room != "B001" {
		t.Errorf("room before the first is %s, want the last, B001", st.Room)
	}
}

func TestAge(t *testing.T) {
	for _, tt := range []struct {
		age  time.Duration
		link snapshot.Link
		want []string
	}{
		{300 * time.Millisecond, snapshot.Live, []string{"live 0.3s", " 60.0 MiB/s", "ETA 3m07s"}},
		{12 * time.Second, snapshot.Lost, []string{"STALE 12s reconnecting", "(60.0 MiB/s)", "ETA (3m07s)", "(412 MiB/s)"}},
		{12 * time.Second, snapshot.Live, []string{"STALE 12s", "(60.0 MiB/s)"}},
		{4 * time.Minute, snapshot.Lost, []string{"OFFLINE 4m (showing 02:07:07)", "ETA (3m07s)"}},
	} {
		s := tuitest.Picture(3)
		s.Link, s.Heard = tt.link, tuitest.Now().Add(-tt.age)
		got := Render(s, State{}, foot, component.Size{W: 80, H: 24}, theme.New(false, true), tuitest.Now())
		for _, w := range tt.want {
			if !strings.Contains(got, w) {
				t.Errorf("age %s: no %q in:\n%s", tt.age, w, got)
			}
		}
	}
}

// TestEmptyStatesSayWhatToDo: nobody looks at an empty screen.
func TestEmptyStatesSayWhatToDo(t *testing.T) {
	size := component.Size{W: 80, H: 24}
	room := snapshot.Build(snapshot.Facts{Rooms: []api.Room{{Name: "A101"}}})
	hosts := snapshot.Build(snapshot.Facts{Hosts: []api.Host{{Name: "a01", Room: "A101"}}})
	for _, s := range []*snapshot.Snapshot{room, hosts} {
		s.Full = true
	}
	for _, tt := range []struct {
		s    *snapshot.Snapshot
		want string
	}{
		{&snapshot.Snapshot{}, "asking the server"},
		{&snapshot.Snapshot{Link: snapshot.Lost, Cause: "reach the server at /run/x.sock: refused"}, "reach the server at /run/x.sock: refused"},
		{&snapshot.Snapshot{Full: true}, "no hosts yet: labswarm host add NAME --room R --mac M"},
		{room, "no hosts yet: labswarm host add NAME --room A101 --mac M"},
		{hosts, "no job: labswarm job create --image NAME --room A101"},
	} {
		got := Render(tt.s, State{}, foot, size, theme.New(false, true), tuitest.Now())
		if !strings.Contains(got, tt.want) {
			t.Errorf("no %q in:\n%s", tt.want, got)
		}
	}
}

func TestTooSmall(t *testing.T) {
	s := tuitest.Picture(3)
	for _, size := range []component.Size{{W: 39, H: 24}, {W: 80, H: 9}} {
		got := Render(s, State{}, foot, size, theme.New(false, true), tuitest.Now())
		if !strings.HasPrefix(got, "terminal too small (need 40x10)") {
			t.Errorf("%v: %q", size, got)
		}
	}
}

// TestEndedJob shows the verdict instead of a time left.
func TestEndedJob(t *testing.T) {
	f := tuitest.Facts(3)
	f.Jobs[0].Ended, f.Jobs[0].Result, f.Jobs[0].Percent = tuitest.Now(), "partial", 100
	s := snapshot.Build(f)
	s.Full, s.Heard = true, tuitest.Now()
	got := Render(s, State{}, foot, component.Size{W: 80, H: 24}, theme.New(false, true), tuitest.Now())
	if !strings.Contains(got, "PARTIAL") || !strings.Contains(got, "took 11m00s") || strings.Contains(got, "ETA") {
		t.Errorf("ended job:\n%s", got)
	}
}

func BenchmarkRender400(b *testing.B) {
	s, th := tuitest.Picture(400), theme.New(true, false)
	size := component.Size{W: 120, H: 40}
	b.ReportAllocs()
	for b.Loop() {
		Render(s, State{Host: "a200"}, foot, size, th, tuitest.Now())
	}
}
