package sim

import (
	"fmt"
	"slices"
	"time"

	"labswarm/api"
	"labswarm/tracker"
	"labswarm/tracker/registry"
)

const (
	reportEvery = 2 * time.Second        // swarm.md section 3; a fifth of it is chance
	steerDelay  = 10 * time.Millisecond  // from a decision to the host
	goodbye     = 500 * time.Millisecond // from the release to the restart of the PC
)

// startTracker makes a tracker that knows nothing of the hosts.
func (s *Sim) startTracker() error {
	s.tracker = tracker.New(nil)
	seed := registry.Seed{ID: s.seed.id, Addr: s.seed.addr}
	if s.Scenario.SeedTold {
		seed.LinkMbps = s.Scenario.SeedMbps
	}
	if err := s.tracker.AddSwarm(tracker.SwarmSpec{InfoHash: s.hash, Name: "sim", Pieces: s.Scenario.Cells, PieceLen: s.Scenario.Cell, Seeds: []registry.Seed{seed}}); err != nil {
		return fmt.Errorf("start the tracker: %w", err)
	}
	s.tracker.Expect(s.hash, s.coming)
	s.series++
	s.trackerTick(s.series)
	for _, h := range s.hosts {
		if h.joined && !h.dead {
			s.subscribe(h)
		}
	}
	return nil
}

// trackerTick is the tracker's own clock.
func (s *Sim) trackerTick(series int) {
	s.after(tracker.Period, func() {
		if s.tracker != nil && s.series == series {
			s.tracker.TickAt(s.time())
			s.steer()
			s.trackerTick(series)
		}
	})
}

// subscribe opens the host's steering channel.
func (s *Sim) subscribe(h *host) {
	if s.tracker != nil {
		h.steering, h.cancel = s.tracker.Subscribe(s.hash, h.id)
	}
}

// reachable reports whether h and the tracker can talk.
func (s *Sim) reachable(h *host) bool { return s.tracker != nil && !split(h.room, nil) }

// steer passes on what the tracker has decided.
func (s *Sim) steer() {
	for _, h := range s.hosts {
		if len(h.steering) == 0 || !s.reachable(h) {
			continue // a channel keeps the newest one
		}
		a := <-h.steering
		s.after(steerDelay, func() { h.do(func() { h.obey(a) }) })
	}
}

// obey follows an assignment (initramfs-agent/deploy, assign).
func (h *host) obey(a api.Assignment) {
	h.assignment = a
	h.s.logf("%s is to fetch from %s, fallbacks %v, release %v", h.id, a.Parent.HostID, names(a.Fallbacks), a.Release)
	for id, since := range h.met {
		if !uses(a, id) {
			h.s.trusted = max(h.s.trusted, h.s.now-since)
			delete(h.met, id)
		}
	}
	if rate := bytesPerSecond(h.spec.Mbps); a.UploadMbps > 0 {
		h.up.rate = min(rate, bytesPerSecond(a.UploadMbps))
	} else {
		h.up.rate = rate
	}
	if h.child.SetSources(sources(a), h.s.time()) {
		h.kick()
	}
	if a.Release && h.have.Full() && !h.left {
		h.left = true
		h.s.after(goodbye, func() { h.do(h.leave) })
	}
}

// uses tells whether an assignment names a host.
func uses(a api.Assignment, id string) bool {
	return a.Parent.HostID == id || slices.Contains(names(a.Fallbacks), id)
}

func names(refs []api.PeerRef) []string {
	var out []string
	for _, r := range refs {
		out = append(out, r.HostID)
	}
	return out
}

// leave ends a host that has been released: its PC restarts.
func (h *host) leave() {
	h.s.logf("%s leaves", h.id)
	h.die(false)
	h.off = true
	if h.s.reachable(h) {
		h.s.tracker.Leave(h.s.hash, h.id)
		h.s.steer()
	}
}

// report tells the tracker now, and again after a while.
func (h *host) report() {
	h.reporting++
	series := h.reporting
	h.s.after(reportEvery*4/5+h.s.part(reportEvery*2/5), func() {
		h.do(func() {
			if h.reporting == series {
				h.report()
			}
		})
	})
	if !h.s.reachable(h) {
		return
	}
	r := h.word()
	h.accused = nil
	h.s.after(h.s.latency(), func() { h.s.take(h, r) })
}

// word is the host's report (initramfs-agent/deploy, progress).
func (h *host) word() tracker.HostReport {
	f := h.child.Figures()
	r := tracker.HostReport{
		HostID: h.id, Addr: h.addr, Have: h.have.Count(), Front: h.have.Front(), Done: h.have.Full(), RateBps: f.RateBps,
		Parent: h.child.Parent(), ParentSlow: len(h.child.Rejected()) > 0, Accused: h.accused,
		Waiting: !h.have.Full() && f.InFlight == 0,
	}
	if h.room != nil {
		r.Room = h.room.name
	}
	if h.spec.Told {
		r.LinkMbps = h.spec.says()
	}
	switch {
	case h.have.Full():
	case h.toWrite*2 > h.s.buffers:
		r.Brake = api.BrakeDisk
	case float64(f.RateBps) > 0.9*bytesPerSecond(h.spec.Mbps):
		r.Brake = api.BrakeLink
	}
	return r
}

// came takes h off the list of hosts that are still to come.
func (s *Sim) came(h *host) {
	if h.known {
		return
	}
	h.known = true
	s.coming--
	if s.tracker != nil {
		s.tracker.Expect(s.hash, s.coming)
	}
}

// take is a report at the tracker.
func (s *Sim) take(h *host, r tracker.HostReport) {
	if s.tracker == nil {
		return
	}
	if err := s.tracker.UpdateAt(s.hash, r, s.time()); err != nil {
		s.violate("the tracker refuses a report: %v", err)
	}
	s.came(h)
	s.steer()
}
