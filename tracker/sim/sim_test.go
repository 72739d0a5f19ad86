package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// play runs a scenario and fails for every invariant that it breaks.
func play(t *testing.T, sc *Scenario) *Result {
	t.Helper()
	r, err := Run(sc, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range r.Broken {
		t.Errorf("%v: %s", sc, b)
	}
	return r
}

// TestQuiet holds the law of the chain: hosts / cells for the filling of the
// chain, a little more for hash and disk at every hop, and the start.
func TestQuiet(t *testing.T) {
	for _, n := range []int{1, 2, 8, 40, 100} {
		cells := 20*n + 400
		sc := Quiet(n, cells)
		r := play(t, sc)
		most := 1 + 1.5*float64(n)/float64(cells) + 0.5*time.Second.Seconds()/sc.Ideal().Seconds()
		if r.Done != n || r.Ratio > most {
			t.Errorf("N=%d: %d done, ratio %.3f; want all and at most %.3f", n, r.Done, r.Ratio, most)
		}
		if r.SeedCopies > 1.001 || r.Uplink > 1.001 || r.Wasted > 0 {
			t.Errorf("N=%d: %.3f copies by the seed, %.3f over an uplink, %.3f of the bytes useless; want 1, 1, 0", n, r.SeedCopies, r.Uplink, r.Wasted)
		}
	}
}

// TestDisturbed: deaths and known slow hosts leave the others almost untouched.
func TestDisturbed(t *testing.T) {
	for _, n := range []int{30, 80} {
		r := play(t, Disturbed(n, 2000, uint64(n), false))
		if n-r.Done > 1 || r.Early > 1.25 {
			t.Errorf("N=%d: %d done, ratio of the usual hosts %.3f; want all but one and at most 1.25", n, r.Done, r.Early)
		}
	}
}

// TestSeeds plays random swarms, quiet and disturbed.
func TestSeeds(t *testing.T) {
	const each = 25
	for first := uint64(0); first < 200; first += each {
		t.Run(fmt.Sprintf("from %d", first), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(each) {
				play(t, Random(first+seed, 60))
			}
		})
	}
}

// TestReplay: a seed number gives the same run again.
func TestReplay(t *testing.T) {
	for _, seed := range []uint64{7, 26, 119} {
		var logs [2]strings.Builder
		var results [2]*Result
		for i := range 2 {
			r, err := Run(Random(seed, 30), &logs[i])
			if err != nil {
				t.Fatal(err)
			}
			results[i] = r
		}
		if d := cmp.Diff(results[0], results[1]); d != "" {
			t.Errorf("seed %d, results of two runs:\n%s", seed, d)
		}
		if d := cmp.Diff(strings.Split(logs[0].String(), "\n"), strings.Split(logs[1].String(), "\n")); d != "" {
			t.Errorf("seed %d, logs of two runs:\n%s", seed, d)
		}
	}
}

// TestInvariantsHaveTeeth is the negative control: each check finds what it is for.
func TestInvariantsHaveTeeth(t *testing.T) {
	t.Run("not done", func(t *testing.T) {
		s := newSim(Quiet(4, 300), nil)
		s.seed.dead = true
		r, err := s.run()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(strings.Join(r.Broken, "\n"), "not done after") {
			t.Errorf("violations %q without a seed; want that the run does not end", r.Broken)
		}
	})
	for name, c := range map[string]struct {
		breakIt func(s *Sim)
		want    string
	}{
		"wrong piece": {func(s *Sim) { s.hosts[0].bad = 1; s.look() }, "wrong pieces"},
		"copies of the seed": {func(s *Sim) {
			s.seed.up.sent = 110 * s.Scenario.Cell
			s.checkCopies(s.result())
		}, "the seed sent"},
		"uplink": {func(s *Sim) {
			s.rooms[0].out.sent = 110 * s.Scenario.Cell
			s.checkCopies(s.result())
		}, "over an uplink"},
		"not released": {func(s *Sim) {
			s.hosts[1].have.Fill()
			s.checkReleased()
		}, "not released"},
		"left over": {func(s *Sim) {
			h := s.hosts[1]
			h.have.Fill()
			h.dead, h.buffers = true, 1
			s.checkReleased()
		}, "holds 1 buffers"},
		"waiting beside a free source": {func(s *Sim) {
			h := s.hosts[1]
			h.joined, s.hosts[0].joined = true, true
			s.hosts[0].have.Fill()
			h.assignment.Parent.HostID, h.assignment.Parent.Addr = s.hosts[0].id, s.hosts[0].addr.String()
			for range 100 {
				s.now += time.Second
				s.look()
			}
		}, "has the next one and is free"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(Quiet(2, 100), nil)
			c.breakIt(s)
			if !strings.Contains(strings.Join(s.broken, "\n"), c.want) {
				t.Errorf("violations %q; want one of %q", s.broken, c.want)
			}
		})
	}
}
