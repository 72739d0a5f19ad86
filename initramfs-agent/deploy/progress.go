package deploy

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"labswarm/api"
	"labswarm/initramfs-agent/bootenv"
	"labswarm/initramfs-agent/contact"
	"labswarm/initramfs-agent/screen"
	"labswarm/swarm/peer"
)

const interval = 2 * time.Second // between reports until the server says otherwise

// meter measures the rate of phases that the swarm does not count.
type meter struct {
	at   time.Duration
	done int64
	rate float64 // bytes per second
}

func (m *meter) update(now time.Duration, done int64) int64 {
	if done < m.done || m.at == 0 {
		*m = meter{at: now, done: done}
		return 0
	}
	if dt := (now - m.at).Seconds(); dt >= 0.5 {
		cur := float64(done-m.done) / dt
		if m.rate == 0 {
			m.rate = cur
		}
		m.rate, m.at, m.done = 0.5*m.rate+0.5*cur, now, done
	}
	return int64(m.rate)
}

// gauges is what the reports keep from one to the next.
type gauges struct {
	phase  meter
	brakes brakes
}

// progressLoop reports until ctx ends, then once more so that the server hears
// the last state.
func (s *session) progressLoop(ctx context.Context) error {
	every := interval
	var m gauges
	var told api.State // the last one the server has taken
	for {
		p := s.progress(&m)
		rep, err := s.c.Progress(ctx, p)
		switch {
		case err == nil:
			told = p.State
			s.heard(p)
			if rep.IntervalMs >= 200 && rep.IntervalMs <= 60_000 {
				every = time.Duration(rep.IntervalMs) * time.Millisecond
			}
			s.obey(rep.Commands)
			if rep.Assignment != nil {
				s.assign(*rep.Assignment)
			}
		case ctx.Err() == nil:
			s.cfg.Log.Debug("progress not reported", "err", err)
			s.lost(err)
		}
		t := time.NewTimer(every*4/5 + rand.N(every*2/5))
		select {
		case <-ctx.Done():
			t.Stop()
			if told != api.StateRebooting {
				s.goodbye(ctx, &m)
			}
			return nil
		case <-s.kick:
		case <-t.C:
		}
		t.Stop()
	}
}

// goodbye is the last report of a session that ended well.
func (s *session) goodbye(ctx context.Context, m *gauges) {
	p := s.progress(m)
	if p.State != api.StateRebooting {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for n := range 3 {
		if _, err := s.c.Progress(ctx, p); err == nil || !contact.Temporary(err) {
			return
		}
		t := time.NewTimer(contact.Backoff(n))
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// progress collects the figures, all of them measured.
func (s *session) progress(m *gauges) api.Progress {
	s.mu.Lock()
	p := api.Progress{State: s.state, Detail: s.why, CellsTotal: s.pieces, PhaseDone: s.done, PhaseTotal: s.total, AccusedHosts: s.accused, SelfTest: s.tested}
	node, plan, written, commence, pool, link := s.node, s.plan, s.written, s.commence, s.pool, s.link
	s.mu.Unlock()
	p.AgentRSSBytes, p.UptimeMs = bootenv.RSSBytes(), bootenv.Uptime().Milliseconds()
	if plan != nil {
		p.CellsKept = plan.Counts.CellsKeep
		p.CellsHave = p.CellsKept
	}
	rate := m.phase.update(bootenv.Uptime(), p.PhaseDone)
	if node != nil {
		st := node.Stats()
		p.CellsHave, p.Front, p.CellsWritten = st.Have, st.Front, written()
		p.BytesFromSeed, p.BytesFromPeers, p.BytesUploaded = st.BytesFromServer, st.BytesFromPeers, st.BytesUploaded
		p.WireBytes = st.WireReceived
		p.Parent, p.HashFailures, p.Switches = st.Parent, st.HashFailures, st.Switches
		p.ParentSlow = len(st.Rejected) > 0
		p.InSwarm = commence && p.State != api.StateRebooting
		if p.State == api.StateWriting {
			rate = st.RateBps
			p.WaitingForPeers = st.Have < st.Pieces && st.InFlight == 0 && st.RateBps == 0
			p.Brake = m.brakes.look(bootenv.Uptime(), st, pool, link)
		}
	}
	p.RateBps = rate
	s.cfg.Screen.Update(func(v *screen.View) { v.Done, v.Total, v.RateBps, v.Parent = p.PhaseDone, p.PhaseTotal, rate, p.Parent })
	return p
}

// heard forgets accusations that the server has taken.
func (s *session) heard(p api.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accused = s.accused[min(len(p.AccusedHosts), len(s.accused)):]
}

// lost makes the next assignment count whatever its number: a server that was
// started anew counts from the beginning.
func (s *session) lost(err error) {
	var p *api.Problem
	if errors.As(err, &p) && p.Status < 500 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.planned = false
}

// obey follows the server's hints, until the point of no return: after it the
// disk is finished, with or without a server.
func (s *session) obey(commands []string) {
	if s.committed() {
		return
	}
	for _, c := range commands {
		switch c {
		case api.CommandCancel:
			s.cancel(&localError{"the job was cancelled"})
		case api.CommandGoLocal:
			s.cancel(&localError{"the server no longer knows this boot"})
		}
	}
}

// assign takes the planner's word when it is newer than the last one.
func (s *session) assign(a api.Assignment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.planned && a.Rev <= s.rev {
		return
	}
	s.planned, s.rev, s.assigned = true, a.Rev, a
	s.doubt(a.Suspect)
	if s.node != nil {
		s.node.SetSources(sources(a))
		s.node.SetUploadLimit(uploadLimit(a))
	}
	if a.Release && !s.isRelease && s.proven {
		s.isRelease = true
		close(s.released)
	}
}

// uploadLimit is the planner's cap in bytes per second, 0 = none.
func uploadLimit(a api.Assignment) int64 { return int64(a.UploadMbps) * 1e6 / 8 }

// sources translates the planner's word for the swarm; what is no address is
// left out.
func sources(a api.Assignment) peer.Assignment {
	one := func(r api.PeerRef) (peer.Peer, bool) {
		addr, err := netip.ParseAddrPort(r.Addr)
		return peer.Peer{Addr: addr, ID: r.HostID, Server: r.Server}, err == nil
	}
	var out peer.Assignment
	if p, ok := one(a.Parent); ok {
		out.Parent = p
	}
	for _, r := range a.Fallbacks {
		if p, ok := one(r); ok {
			out.Fallbacks = append(out.Fallbacks, p)
		}
	}
	return out
}

// eventLoop listens for re-planning between the reports.
func (s *session) eventLoop(ctx context.Context) error {
	for n := 0; ctx.Err() == nil; n++ {
		start := bootenv.Uptime()
		err := s.c.Events(ctx, func(e api.AgentEvent) {
			if e.Assignment != nil {
				s.assign(*e.Assignment)
			}
			if e.Command != "" {
				s.obey([]string{e.Command})
			}
		})
		s.cfg.Log.Debug("event stream ended", "err", err)
		s.lost(err)
		if bootenv.Uptime()-start > time.Minute {
			n = 0
		}
		t := time.NewTimer(contact.Backoff(n))
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
	return nil
}

// send reports a result until it is acknowledged or ctx ends. The very same
// bytes are sent again: the server's answer to a repetition is the same.
func (s *session) send(ctx context.Context, r api.Result) (api.ResultAck, error) {
	for n := 0; ; n++ {
		ack, err := s.c.Result(ctx, r)
		if err == nil || !contact.Temporary(err) {
			return ack, err
		}
		s.detail("the server does not answer, the result is kept and sent again")
		if err := sleep(ctx, contact.Backoff(n)); err != nil {
			return ack, err
		}
	}
}
