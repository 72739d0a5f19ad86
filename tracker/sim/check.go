package sim

import (
	"fmt"
	"strings"
	"time"
)

const (
	lookEvery  = time.Second
	idleShare  = 0.5              // of its link, below which a source counts as free
	waitHosts  = 10 * time.Second // longest wait while another host could send; 5 s starving rule, 4 s stall rule
	waitSeed   = 16 * time.Second // the same when only the seed could: it steps in late, as that costs the swarm
	drainTime  = 60 * time.Second // after the last host is done, until all are released
	quietExtra = 1.05             // copies that a quiet swarm may need of one
)

// violate notes that an invariant does not hold.
func (s *Sim) violate(format string, a ...any) {
	msg := fmt.Sprintf("at %.1f s: ", s.now.Seconds()) + fmt.Sprintf(format, a...)
	s.logf("VIOLATION %s", msg)
	s.broken = append(s.broken, msg)
}

// look checks once a second that nobody waits without need.
func (s *Sim) look() {
	for _, h := range append([]*host{s.seed}, s.hosts...) {
		h.idle = float64(h.up.sent-h.sentAt) < idleShare*h.up.rate*lookEvery.Seconds()
		h.sentAt = h.up.sent
	}
	for _, h := range s.hosts {
		if h.bad > 0 {
			s.violate("%s has written %d wrong pieces", h.id, h.bad)
		}
		s.lookAt(h)
	}
	s.after(lookEvery, s.look)
}

// lookAt measures how long h has waited while a source of its assignment could
// have sent what it lacks.
func (s *Sim) lookAt(h *host) {
	helper := s.helper(h)
	if helper == s.seed && s.fed(h) {
		helper = nil // its chain is filling, or as slow as its slowest: that is no wait
	}
	if helper == nil || s.now-h.progress < lookEvery {
		h.waitSince = -1
		return
	}
	if h.waitSince < 0 || helper != h.waitFor {
		h.waitSince, h.waitFor = s.now, helper
	}
	most := waitHosts
	if helper == s.seed {
		most = waitSeed
	}
	// A child waits four of its own piece times before it calls that starving.
	most = max(most, 5*h.pace)
	for _, c := range h.conns {
		if c.parent.off || split(h.room, c.parent.room) {
			most += keepAlive // silent, which only the kernel finds out while nothing is asked for
			break
		}
	}
	if d := s.now - h.waitSince; d > most {
		s.violate("%s has waited for %.0f s with %d of %d pieces, fetching from %q, while %s (%d pieces) has the next one and is free; rejected %v",
			h.id, d.Seconds(), h.have.Count(), s.Scenario.Cells, h.child.Parent(), helper.id, helper.have.Count(), h.child.Rejected())
	}
}

// helper is a source that h may use, that could send something and has nothing
// else to do; another host rather than the seed; nil when there is none.
func (s *Sim) helper(h *host) *host {
	if !h.joined || h.dead || h.have.Full() || h.frozen > s.now || h.toWrite > 0 {
		return nil
	}
	for _, c := range h.conns {
		if c.flying > 0 && !c.ended && !c.parent.dead {
			return nil // something is on its way, through a crowded link
		}
	}
	var best *host
	for _, src := range sources(h.assignment) {
		p := s.byAddr[src.Addr]
		switch {
		case p == nil || p.dead || p.frozen > s.now-lookEvery && p.frozen > 0 || p.spec.Corrupt > 0 || !p.idle:
		case split(h.room, p.room) || h.room.healed > 0 && s.now-h.room.healed < waitSeed:
		case p.have.Count() <= h.have.Count() && !s.holdsMore(p, h):
		case best == nil || best == s.seed:
			best = p
		}
	}
	return best
}

// fed reports whether something is on its way to one of those from whom h, its
// source, the source of that and so on fetch.
func (s *Sim) fed(h *host) bool {
	for range len(s.hosts) {
		up := h.child.Active()
		if up == nil {
			return false
		}
		for _, c := range h.conns {
			if c.src == up && c.flying > 0 && !c.parent.dead && !split(h.room, c.parent.room) {
				return true
			}
		}
		if h = s.byAddr[up.Addr]; h == nil || h.dead || h == s.seed {
			return false
		}
	}
	return false
}

func (s *Sim) holdsMore(p, h *host) bool {
	i := h.have.Front()
	return p.have.Has(i)
}

// unfinished describes some hosts that are not done.
func (s *Sim) unfinished() string {
	var out []string
	for _, h := range s.hosts {
		if !h.dead && !h.have.Full() {
			out = append(out, fmt.Sprintf("%s %d/%d from %q", h.id, h.have.Count(), s.Scenario.Cells, h.child.Parent()))
		}
	}
	n := len(out)
	return fmt.Sprintf("%d hosts: %s", n, strings.Join(out[:min(n, 5)], ", "))
}

// checkCopies bounds what a quiet swarm may send over shared links.
func (s *Sim) checkCopies(r *Result) {
	if !s.Scenario.Quiet() {
		return
	}
	if most := quietExtra * float64(r.Chains); r.SeedCopies > most {
		s.violate("the seed sent %.3f copies; %d chains need at most %.2f", r.SeedCopies, r.Chains, most)
	}
	if r.Uplink > quietExtra {
		s.violate("%.3f copies went over an uplink in one direction; want at most %.2f", r.Uplink, quietExtra)
	}
}

// drain plays on until all hosts have been let go.
func (s *Sim) drain() {
	end := s.now
	for _, o := range s.Scenario.Outages {
		end = max(end, o.At+o.For)
	}
	end += drainTime
	for s.step(end) {
		all := true
		for _, h := range s.hosts {
			all = all && h.dead
		}
		if all {
			break
		}
	}
}

// checkReleased looks for what is left over.
func (s *Sim) checkReleased() {
	for _, h := range s.hosts {
		f := h.child.Figures()
		switch {
		case h.have.Full() && !h.dead:
			s.violate("%s is done and was not released", h.id)
		case h.have.Full() && (h.buffers != 0 || f.InFlight != 0 || f.Open != 0):
			s.violate("%s is done and holds %d buffers, %d pieces in flight, %d open requests", h.id, h.buffers, f.InFlight, f.Open)
		}
	}
}
