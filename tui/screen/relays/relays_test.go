package relays

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"labswarm/api"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
	"labswarm/tui/tuitest"
)

// room is a job in which the server and a relay feed two chains of n hosts, one
// of which branches; every seventh host is slow, one is silent, one has failed.
func room(n int) *snapshot.Snapshot {
	f := tuitest.Facts(n)
	j := &f.Jobs[0]
	j.Slots = nil
	for i := range n {
		s := tuitest.Slot(0, f.Hosts[i])
		s.RateBps, s.Percent, s.Fallbacks = 88<<20, float64(90-i), []string{"a05", "a17"}
		switch {
		case i == 0:
			s.Parent = "server"
		case i == n/2:
			s.Parent = "annex"
		case i == 5:
			s.Parent = "a02"
		default:
			s.Parent = f.Hosts[i-1].Name
		}
		switch i {
		case 3, 20:
			s.RateBps = 31 << 20
		case 7:
			s.SilentS = 40
		case 9:
			s = tuitest.Slot(4, f.Hosts[i]) // failed
		}
		j.Slots = append(j.Slots, s)
	}
	s := snapshot.Build(f)
	s.Link, s.Full, s.Heard = snapshot.Live, true, tuitest.Now()
	return s
}

func TestGolden(t *testing.T) {
	for i, size := range tuitest.Sizes() {
		for _, ascii := range []bool{true, false} {
			st := State{Job: 118, Host: "a21"}
			in := screen.In{S: room(38), Keys: keymap.Default(), Size: size, Th: theme.New(false, ascii), Now: tuitest.Now()}
			got := st.Render(in)
			tuitest.Fits(t, got, size)
			tuitest.Golden(t, fmt.Sprintf("relays-%dx%d-%v.txt", size.W, size.H, map[bool]string{true: "ascii", false: "utf8"}[ascii]), got)
			in.Th = theme.New(true, ascii)
			if tuitest.Plain(st.Render(in)) != got {
				t.Errorf("size %d: colour changes more than colour", i)
			}
		}
	}
}

// TestWalk: right and left go along the chain; the selected host is always seen.
func TestWalk(t *testing.T) {
	in := screen.In{S: room(38), Keys: keymap.Default(), Size: tuitest.Sizes()[1], Th: theme.New(false, true), Now: tuitest.Now()}
	var v screen.View = State{Job: 118}
	seen := map[string]bool{}
	for range 38 {
		frame := v.Render(in)
		tuitest.Fits(t, frame, in.Size)
		if v.(State).Host != "" && !strings.Contains(frame, ">"+v.(State).Host) {
			t.Fatalf("%s is selected, but not seen:\n%s", v.(State).Host, frame)
		}
		v, _ = v.Press(keymap.Right, in)
		seen[v.(State).Host] = true
	}
	if len(seen) != 37 { // all but the first
		t.Errorf("%d hosts can be reached", len(seen))
	}
	for _, want := range map[string]string{"last": "fed by nobody"} {
		if frame := v.Render(in); !strings.Contains(frame, want) {
			t.Errorf("the failed host is not at the end:\n%s", frame)
		}
	}
	v, _ = v.Press(keymap.First, in)
	if _, e := v.Press(keymap.Open, in); v.(State).Host != "a01" || e.Open == nil {
		t.Errorf("the first is %s, enter gives %+v", v.(State).Host, e)
	}
}

// TestEveryHostOnce: whoever has a parent stands in exactly one chain behind
// that parent, whatever the hosts say of each other; the others are idle.
func TestEveryHostOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(0, 30).Draw(rt, "hosts")
		slots := make([]api.Slot, n)
		for i := range slots {
			p := rapid.IntRange(-3, n-1).Draw(rt, "parent")
			parent := map[int]string{-3: "", -2: "server", -1: "annex"}[p]
			if p >= 0 {
				parent = fmt.Sprintf("a%02d", p) // also itself
			}
			slots[i] = api.Slot{Host: fmt.Sprintf("a%02d", i), Parent: parent, State: api.StateWriting}
		}
		list, idle := chains(slots)
		seen := map[string]int{}
		for _, c := range list {
			from := c.from
			for _, s := range c.hosts {
				seen[s.Host]++
				if s.Parent != from {
					rt.Fatalf("%s stands behind %s, but its parent is %s", s.Host, from, s.Parent)
				}
				from = s.Host
			}
		}
		for _, s := range idle {
			seen[s.Host]++
			if s.Parent != "" {
				rt.Fatalf("%s has the parent %s and is idle", s.Host, s.Parent)
			}
		}
		for i := range slots {
			if seen[slots[i].Host] != 1 {
				rt.Fatalf("%s is shown %d times", slots[i].Host, seen[slots[i].Host])
			}
		}
	})
}

// TestRingIsSaid: hosts that name each other are shown, and called a ring.
func TestRingIsSaid(t *testing.T) {
	list, _ := chains([]api.Slot{{Host: "a1", Parent: "a3"}, {Host: "a2", Parent: "a1"}, {Host: "a3", Parent: "a2"}, {Host: "a4", Parent: "server"}})
	if len(list) != 2 || list[0].ring || list[0].from != "server" || !list[1].ring || len(list[1].hosts) != 3 {
		t.Errorf("chains are %+v", list)
	}
}

// TestSlow: a rate is slow against the others, not by itself.
func TestSlow(t *testing.T) {
	slots := []api.Slot{{Parent: "server", State: api.StateWriting, RateBps: 100}, {Parent: "a", State: api.StateWriting, RateBps: 100}, {Parent: "b", State: api.StateWriting, RateBps: 59}}
	if got := slowBelow(slots); got != 60 {
		t.Errorf("slow below %d, want 60", got)
	}
	if got := slowBelow(slots[:2]); got != 0 {
		t.Errorf("two hosts cannot be compared, but %d", got)
	}
}
