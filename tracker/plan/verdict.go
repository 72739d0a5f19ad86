package plan

import (
	"labswarm/tracker/registry"
)

const (
	revokers    = 2 // hosts that must have had a wrong piece from a source before it is revoked
	blamesAlone = 2 // living sources a host must have left or accused to be the suspect itself
)

// Verdict is what the accusations of a swarm say. Hosts and seeds that are not
// named are in good standing.
type Verdict struct {
	// Cause by host: CauseRevoked, CauseSuspect or CauseAccused.
	Cause map[string]string
	// Direct are the suspects that accused others of wrong pieces: they fetch
	// from the server, which is always right, so that either their trouble ends
	// or it is proven to be their own.
	Direct map[string]bool
	// Seeds that are revoked. Never the first one: the server hashes what it sends.
	Seeds map[string]bool
}

// Arbitrate weighs who had wrong pieces from whom, and who left whom. The rules
// (safety.md section 5, rule 4: nobody votes another one out alone):
//
//   - a source with two accusers is revoked: nobody's parent or fallback;
//   - a host that left or accused two living sources which are not revoked is
//     the suspect itself (bad memory, bad network card): it feeds nobody, and
//     its accusations against sources nobody else accuses do not count;
//   - a source with one accuser that is neither suspect nor revoked feeds
//     nobody for the time being.
//
// All of them go on fetching. If hostile hosts get honest ones revoked this way,
// everything comes from the server: slow, and right.
func Arbitrate(hosts []registry.Host, seeds []registry.Seed) Verdict {
	v := Verdict{Cause: map[string]string{}, Direct: map[string]bool{}, Seeds: map[string]bool{}}
	accuses := map[string]int{} // living sources, not revoked, that a host accused
	blames := map[string]int{}  // the same, with those it left
	for i := range hosts {
		h := &hosts[i]
		switch {
		case len(h.AccusedBy) >= revokers:
			v.Cause[h.ID] = CauseRevoked
		case h.Alive:
			for _, by := range h.AccusedBy {
				accuses[by]++
				blames[by]++
			}
		}
	}
	for i, s := range seeds {
		if i > 0 && len(s.AccusedBy) >= revokers {
			v.Seeds[s.ID] = true
			continue
		}
		for _, by := range s.AccusedBy {
			accuses[by]++
			blames[by]++
		}
	}
	v.left(hosts, blames)
	for id, n := range blames { // also of hosts that are gone
		if v.Cause[id] == "" && n >= blamesAlone {
			v.Cause[id] = CauseSuspect
			v.Direct[id] = accuses[id] > 0
		}
	}
	doubtful := map[string]bool{}
	for id := range v.Cause {
		doubtful[id] = true
	}
	for i := range hosts {
		h := &hosts[i]
		if len(h.AccusedBy) == 1 && !doubtful[h.ID] && !doubtful[h.AccusedBy[0]] {
			v.Cause[h.ID] = CauseAccused
		}
	}
	return v
}

// left adds to blames the living hosts that somebody left or accused and that
// are not counted yet.
func (v Verdict) left(hosts []registry.Host, blames map[string]int) {
	byID := map[string]*registry.Host{}
	for i := range hosts {
		if len(hosts[i].Blamed) > 0 {
			for j := range hosts {
				byID[hosts[j].ID] = &hosts[j]
			}
			break
		}
	}
	for i := range hosts {
		h := &hosts[i]
		for _, id := range h.Blamed {
			b := byID[id]
			if b == nil || !b.Alive || b.Released && b.Done || id == h.ID || v.Cause[id] == CauseRevoked || contains(b.AccusedBy, h.ID) {
				continue
			}
			blames[h.ID]++
		}
	}
}
