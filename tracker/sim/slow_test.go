package sim

import "testing"

// TestSlowHosts: what one slow host may cost the others, in seconds beyond the time
// without it; the bench's scenarios and worse ones.
func TestSlowHosts(t *testing.T) {
	const n, cells = 16, 1024
	quiet := Bench("slow", n, cells)
	quiet.Hosts[1] = quiet.Hosts[2]
	without := play(t, quiet)
	for name, tt := range map[string]struct {
		kind   string
		change func(s *Scenario)
		lost   float64 // s
		copies float64
	}{
		"second":                   {"slow", func(*Scenario) {}, 2.2, 1.01},
		"second, known":            {"slow-known", func(*Scenario) {}, 0.2, 1.01},
		"head":                     {"slow-head", func(*Scenario) {}, 2.5, 1.01},
		"head with a dying disk":   {"slow-head", func(s *Scenario) { s.Hosts[0].Mbps, s.Hosts[0].DiskMBps = 96, 1 }, 2.9, 1.13},
		"the first two":            {"slow-head", func(s *Scenario) { s.Hosts[1].Mbps, s.Hosts[1].Says = 10, 96 }, 6, 1.02},
		"head, nobody says a rate": {"slow-head", untold, 2.9, 1.02},
		"head at a fifth":          {"slow-head", func(s *Scenario) { s.Hosts[0].Mbps = 19 }, 2.9, 1.02},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Bench(tt.kind, n, cells)
			tt.change(s)
			r := play(t, s)
			lost := (r.Early - without.Early) * s.Ideal().Seconds()
			t.Logf("%.2f s lost, %.3f copies", lost, r.SeedCopies)
			if r.Done != n || lost > tt.lost || r.SeedCopies > tt.copies {
				t.Errorf("%d done, the others lost %.2f s, %.3f copies by the seed; want all, at most %.1f s, %.2f", r.Done, lost, r.SeedCopies, tt.lost, tt.copies)
			}
		})
	}
}

func untold(s *Scenario) {
	s.SeedTold = false
	for i := range s.Hosts {
		s.Hosts[i].Told = false
	}
}

// TestNarrowSeed: a seed that sends far less than its link could is no head's
// fault. Looking for the culprit costs next to nothing.
func TestNarrowSeed(t *testing.T) {
	quiet := Bench("slow-head", 16, 1024)
	quiet.Hosts[0] = quiet.Hosts[1]
	for i := range quiet.Hosts {
		quiet.Hosts[i].Says = 957
	}
	quiet.SeedTold = false // and is taken for a gigabit
	r := play(t, quiet)
	if r.Early > 1.10 || r.SeedCopies > 1.05 {
		t.Errorf("ratio %.3f, %.3f copies by the seed; want at most 1.10 and 1.05", r.Early, r.SeedCopies)
	}
}
