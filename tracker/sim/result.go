package sim

import "time"

// Result is what a run came to.
type Result struct {
	Hosts      int
	Done       int           // complete
	Makespan   time.Duration // until the last host was complete
	Ratio      float64       // over S / payload rate of a usual host
	Mean       float64       // the same for the mean host, from its own start
	Early      float64       // ratio without hosts that are slow or late
	SeedCopies float64       // copies the seed sent
	Uplink     float64       // copies over the busiest uplink in one direction
	Chains     int           // copies the seed needs by its link: one per chain
	Switches   int           // changes of source by the hosts themselves
	Wasted     float64       // part of what was received that nobody needed
	Refused    int           // wrong pieces found out
	// Trusted is the longest time for which a host was still told to fetch from
	// somebody who had sent it a wrong piece.
	Trusted time.Duration
	Broken  []string // invariants that did not hold
}

// result adds up.
func (s *Sim) result() *Result {
	sc := s.Scenario
	size := float64(sc.Cells) * float64(sc.Cell)
	ideal := sc.Ideal()
	r := &Result{Hosts: len(s.hosts), Chains: 1, SeedCopies: float64(s.seed.up.sent) / size}
	usual := sc.usual()
	if sc.SeedTold {
		r.Chains = max(1, min(sc.SeedMbps/usual, len(s.rooms)))
	}
	var sum float64
	var early time.Duration
	var wasted, got int64
	r.Trusted = s.trusted
	for _, h := range s.hosts {
		for _, since := range h.met { // up to the end
			end := s.now
			if h.have.Full() {
				end = h.doneAt
			}
			r.Trusted = max(r.Trusted, end-since)
		}
		r.Switches += len(h.switches)
		r.Refused += h.refused
		wasted += h.wasted
		got += h.down.sent
		if !h.have.Full() {
			continue
		}
		r.Done++
		r.Makespan = max(r.Makespan, h.doneAt)
		sum += (h.doneAt - h.spec.Join).Seconds()
		if !h.spec.Late && h.spec.Mbps == usual && float64(h.spec.DiskMBps)*1e6 >= bytesPerSecond(usual) {
			early = max(early, h.doneAt)
		}
	}
	r.Ratio = r.Makespan.Seconds() / ideal.Seconds()
	r.Early = early.Seconds() / ideal.Seconds()
	r.Mean = sum / float64(max(r.Done, 1)) / ideal.Seconds()
	r.Wasted = float64(wasted) / float64(max(got, 1))
	for _, room := range s.rooms {
		r.Uplink = max(r.Uplink, float64(room.in.sent)/size, float64(room.out.sent)/size)
	}
	return r
}
