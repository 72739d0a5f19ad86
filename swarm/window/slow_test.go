package window

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// phase is a stretch of a child's life, sampled every 250 ms.
type phase struct {
	ticks       int
	have, other int // pieces gained per tick
	parent      int // the same of the parent
	bound       bool
	gives, far  bool
	otherGives  bool
	costly      bool // the next source is the seed
	switched    bool // a rule's switch happens before this phase
	reassigned  bool // the tracker names another parent before this phase
}

const pieceBytes = 1 << 20

// play runs the phases through a Monitor and returns the verdicts other than Stay.
func play(ahead int, phases ...phase) []Verdict {
	var m Monitor
	now := time.Unix(0, 0)
	have, parent, other := 0, 0, ahead
	var out []Verdict
	for _, p := range phases {
		if p.switched {
			m.Switched()
		}
		if p.reassigned {
			m.Reset()
		}
		for range p.ticks {
			now = now.Add(250 * time.Millisecond)
			have += p.have
			parent += p.parent
			other += p.other
			s := Sample{At: now, Have: have, Parent: parent, Other: other, Rx: int64(have) * pieceBytes,
				Gives: p.gives, Far: p.far, OtherGives: p.otherGives, Bound: p.bound, Costly: p.costly}
			if ahead < 0 {
				s.Other = -1
			}
			if v := m.Add(s); v != Stay {
				out = append(out, v)
				m.Reset()
			}
		}
	}
	return out
}

func TestMonitor(t *testing.T) {
	for _, c := range []struct {
		name   string
		ahead  int
		phases []phase
		want   Verdict // the first one
	}{
		{"healthy chain, any constant lag", 40, []phase{{ticks: 80, have: 20, other: 20, gives: true, otherGives: true}}, Stay},
		{"huge lag, same rate: never slow", 5000, []phase{{ticks: 80, have: 20, other: 20, gives: true, far: true, otherGives: true}}, Stay},
		{"grandparent ten times as fast, 3 s", 10, []phase{{ticks: 12, have: 2, other: 20, gives: true, otherGives: true}}, Overtook},
		{"grandparent ten times as fast, less than 1.5 s", 10, []phase{{ticks: 6, have: 2, other: 20, gives: true, otherGives: true}}, Stay},
		{"grandparent ten times as fast, 1.5 s", 10, []phase{{ticks: 7, have: 2, other: 20, gives: true, otherGives: true}}, Overtook},
		{"grandparent five times as fast, 2 s", 10, []phase{{ticks: 9, have: 4, other: 20, gives: true, otherGives: true}}, Stay},
		{"grandparent three times as fast, 5 s", 10, []phase{{ticks: 20, have: 5, other: 15, gives: true, otherGives: true}}, Stay},
		{"grandparent three times as fast, 7 s", 10, []phase{{ticks: 28, have: 5, other: 15, gives: true, otherGives: true}}, Overtook},
		{"same, but our disk is the brake", 10, []phase{{ticks: 40, have: 5, other: 15, gives: true, otherGives: true, bound: true}}, Stay},
		{"less than twice as fast", 10, []phase{{ticks: 40, have: 10, other: 19, gives: true, otherGives: true}}, Stay},
		{"delivers a tenth, 3 s", -1, []phase{{ticks: 20, have: 20, gives: true, far: true}, {ticks: 12, have: 2, gives: true, far: true}}, Delivers},
		{"delivers a third, 4 s", -1, []phase{{ticks: 20, have: 20, gives: true, far: true}, {ticks: 16, have: 7, gives: true, far: true}}, Stay},
		{"delivers a third, 12 s", -1, []phase{{ticks: 20, have: 20, gives: true, far: true}, {ticks: 48, have: 7, gives: true, far: true}}, Delivers},
		{"delivers little because it has little", -1, []phase{{ticks: 20, have: 20, gives: true, far: true}, {ticks: 40, have: 5, gives: true}}, Stay},
		{"delivers a third for 8 s, the seed is next", -1, []phase{{ticks: 20, have: 20, gives: true, far: true, costly: true}, {ticks: 60, have: 7, gives: true, far: true, costly: true}}, Stay},
		{"delivers a tenth for 8 s, the seed is next", -1, []phase{{ticks: 20, have: 20, gives: true, far: true, costly: true}, {ticks: 32, have: 2, gives: true, far: true, costly: true}}, Stay},
		{"delivers a tenth for 15 s, the seed is next", -1, []phase{{ticks: 20, have: 20, gives: true, far: true, costly: true}, {ticks: 60, have: 2, gives: true, far: true, costly: true}}, Delivers},
		{"waits 8 s while the seed has it", -1, []phase{{ticks: 20, have: 20, gives: true}, {ticks: 32, otherGives: true, costly: true}}, Stay},
		{"waits 12 s while the seed has it", -1, []phase{{ticks: 20, have: 20, gives: true}, {ticks: 48, otherGives: true, costly: true}}, Starving},
		{"waits for its own next piece, so does the next source", -1, []phase{{ticks: 20, have: 20, gives: true}, {ticks: 80}}, Stay},
		{"waits while the next source has it", -1, []phase{{ticks: 20, have: 20, gives: true}, {ticks: 40, otherGives: true}}, Starving},
		// Found by the simulator: far down a chain the time in which nobody had a
		// piece yet counted as slowness of the parent.
		{"two seconds of nothing at the start, then slower than the next source for one", 0, []phase{{ticks: 8}, {ticks: 4, have: 2, other: 20, gives: true, otherGives: true}}, Stay},
		{"the same for three seconds", 0, []phase{{ticks: 8}, {ticks: 12, have: 2, other: 20, gives: true, otherGives: true}}, Overtook},
		// Found by the simulator: a host that joined before its parent held a few pieces
		// more, and left that one while it was catching up.
		{"the parent joined later and is catching up", 10, []phase{{ticks: 20, parent: 20, other: 20, otherGives: true}}, Stay},
		{"the parent has caught up for a moment", 10, []phase{{ticks: 10, parent: 1, other: 1, otherGives: true}, {ticks: 2, parent: 1, other: 1, gives: true, otherGives: true}}, Stay},
		{"the parent gains as fast and sends little", 10, []phase{{ticks: 20, have: 2, parent: 20, other: 20, gives: true, otherGives: true}}, Overtook},
		{"a short wait is not starving", -1, []phase{{ticks: 20, have: 20, gives: true}, {ticks: 16, otherGives: true}}, Stay},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := play(c.ahead, c.phases...)
			if c.want == Stay && len(got) > 0 || c.want != Stay && (len(got) == 0 || got[0] != c.want) {
				t.Errorf("verdicts %q; want %q", got, c.want)
			}
		})
	}
}

// TestBarrenSwitch: a host that is itself the brake switches once, not up the
// whole chain, whatever parent the tracker names meanwhile. When its rate has risen,
// or after a minute, the rule holds again.
func TestBarrenSwitch(t *testing.T) {
	slow := phase{ticks: 40, have: 2, other: 20, gives: true, otherGives: true}
	before, after := slow, slow
	before.ticks = 6 // too short for a verdict; gives the rate to compare with
	after.switched = true
	if d := cmp.Diff([]Verdict{Barren}, play(10, before, after)); d != "" {
		t.Errorf("verdicts after a switch that brought nothing (-want +got):\n%s", d)
	}
	again, early := slow, after
	again.reassigned = true
	early.ticks = 4 // not judged yet
	for name, phases := range map[string][]phase{"judged": {before, after, again}, "not judged": {before, early, again}} {
		if d := cmp.Diff([]Verdict{Barren}, play(10, phases...)); d != "" {
			t.Errorf("%s, then another parent: verdicts (-want +got):\n%s", name, d)
		}
	}
	fast := phase{ticks: 20, have: 20, other: 20, gives: true, otherGives: true}
	if got := play(10, before, after, fast, again); len(got) < 2 || got[1] != Overtook {
		t.Errorf("verdicts %q; when the rate has risen the rule should work again", got)
	}
	long := again
	long.ticks = 4*60 + 1
	if got := play(10, before, after, long); len(got) < 2 || got[1] != Overtook {
		t.Errorf("verdicts %q; after a minute the rule should work again", got)
	}
}

// TestMonitorNeverByLag: with equal growth no verdict, whatever the lag, rate
// and depth, as long as the parent is not starving us.
func TestMonitorNeverByLag(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lag := rapid.IntRange(0, 100000).Draw(t, "lag")
		step := rapid.IntRange(0, 50).Draw(t, "step")
		p := phase{ticks: rapid.IntRange(1, 200).Draw(t, "ticks"), have: step, other: step, gives: true,
			far: rapid.Bool().Draw(t, "far"), otherGives: rapid.Bool().Draw(t, "og")}
		if got := play(lag, p); len(got) > 0 {
			t.Fatalf("verdicts %q; want none", got)
		}
	})
}
