package sim

import (
	"testing"
	"time"
)

// revokeTime is the promise: so long after its first wrong piece a source is
// nobody's whom it sent that, by the tracker's word.
const revokeTime = 2 * time.Second

// poisoned is a swarm of n hosts at one switch of which some send wrong pieces.
func poisoned(n int, bad func(i int) bool, part float64, seed uint64) *Scenario {
	s := Quiet(n, 1000)
	s.Name, s.Seed = "poisoned", seed
	for i := range s.Hosts {
		if bad(i) {
			s.Hosts[i].Corrupt = part
		}
	}
	return s
}

// TestPoisonedCells: 1 of 4 hosts sends 1 % of its pieces wrong, or 5 of 6 send
// nothing else, wherever they stand: no wrong piece is written (an invariant of
// every run), all get done, and who sent one is out of the plan of whoever had it
// within 2 s.
func TestPoisonedCells(t *testing.T) {
	for _, c := range []struct {
		name string
		n    int
		bad  func(i, k int) bool
		part float64
		most int // wrong pieces of a run
	}{
		{"1 of 4, 1 %", 4, func(i, k int) bool { return i == k }, 0.01, 10},
		{"5 of 6, all", 6, func(i, k int) bool { return i != k }, 1, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			refused, slowest := 0, time.Duration(0)
			for k := range c.n {
				for seed := range uint64(3) {
					r := play(t, poisoned(c.n, func(i int) bool { return c.bad(i, k) }, c.part, seed))
					if r.Done != c.n || r.Trusted > revokeTime || r.Refused > c.most {
						t.Errorf("host %d, seed %d: %d of %d done, %d wrong pieces, a source of them was used for %v; want all, %d and %v at most",
							k, seed, r.Done, c.n, r.Refused, r.Trusted, c.most, revokeTime)
					}
					refused += r.Refused
					slowest = max(slowest, r.Trusted)
				}
			}
			if refused < c.n || slowest == 0 {
				t.Errorf("%d wrong pieces, revoked after %v at most; want some", refused, slowest)
			}
			t.Logf("%d wrong pieces, revoked after %v at most", refused, slowest)
		})
	}
}

// TestTrustIsMeasured is the control: when the tracker goes away just before the
// first wrong piece comes, the measure says so.
func TestTrustIsMeasured(t *testing.T) {
	for at := 20 * time.Millisecond; at < 200*time.Millisecond; at += 5 * time.Millisecond {
		s := poisoned(4, func(i int) bool { return i == 0 }, 1, 1)
		for i := range s.Hosts {
			s.Hosts[i].Join = time.Duration(i) * 10 * time.Millisecond
		}
		s.Outages = []Outage{{At: at, For: 10 * time.Second}}
		if r := play(t, s); r.Trusted > revokeTime {
			return
		}
	}
	t.Errorf("without a tracker for 10 s nobody was trusted for more than %v", revokeTime)
}
