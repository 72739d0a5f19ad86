package control

import (
	"context"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/server/job"
	"labswarm/server/store"
)

const (
	tickAge    = 250 * time.Millisecond // one computation serves all consoles
	tickKeep   = 10 * time.Minute       // ended jobs stay in ticks that long
	tickJobs   = 200                    // the newest looked at
	jobsListed = 200
)

// Jobs lists jobs, newest first, without timelines.
func (e *Engine) Jobs(ctx context.Context) ([]api.Job, error) {
	all, err := e.recentJobs(ctx, jobsListed, func(*job.Job) bool { return true })
	if err != nil {
		return nil, err
	}
	out := []api.Job{}
	now := time.Now()
	for _, js := range all {
		out = append(out, e.view(js, now, false))
	}
	return out, nil
}

// Job returns one job with its timelines.
func (e *Engine) Job(ctx context.Context, id uint64) (api.Job, error) {
	var js jobSlots
	err := e.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		js, err = loadJob(tx, id)
		return err
	})
	if err != nil {
		return api.Job{}, err
	}
	return e.view(js, time.Now(), true), nil
}

// Tick returns the present snapshot of live and just ended jobs.
func (e *Engine) Tick(ctx context.Context) (api.Tick, error) {
	now := time.Now()
	e.mu.Lock()
	t, age := e.tick, now.Sub(e.tickAt)
	e.mu.Unlock()
	if age < tickAge {
		return t, nil
	}
	t, err := e.Look(ctx, now)
	if err != nil {
		return api.Tick{}, err
	}
	e.mu.Lock()
	e.tick, e.tickAt = t, now
	e.mu.Unlock()
	return t, nil
}

// Look is Tick for those who must not make consoles wait for a newer one.
func (e *Engine) Look(ctx context.Context, now time.Time) (api.Tick, error) {
	recent, err := e.recentJobs(ctx, tickJobs, func(j *job.Job) bool { return j.Ended.IsZero() || now.Sub(j.Ended) < tickKeep })
	t := api.Tick{Time: now.UTC(), Jobs: []api.Job{}}
	for _, js := range recent {
		t.Jobs = append(t.Jobs, e.view(js, now, false))
	}
	return t, err
}

// view joins the records with the figures in RAM.
func (e *Engine) view(js jobSlots, now time.Time, timeline bool) api.Job {
	j := js.job
	out := api.Job{
		ID: j.ID, Kind: j.Kind, Image: j.Image, Version: j.Version, Room: j.Room, Created: j.Created, NotAfter: j.NotAfter, Ended: j.Ended,
		Result: j.Result, After: j.After, Personalise: personalise(&j), CellBytes: j.CellBytes, Cells: j.Cells, BytesShipped: j.BytesShipped, EtaS: -1, Slots: []api.Slot{},
		JobSteer: steer(&j, js.slots, now),
	}
	e.mu.Lock()
	seed := e.seedSent(&j)
	out.SeedSent, out.SeedWire = seed.image, seed.wire
	var bySeed int64
	for i := range js.slots {
		s := e.slotView(&j, &js.slots[i], now)
		if timeline {
			s.Timeline = js.slots[i].Timeline
		}
		bySeed += s.BytesFromSeed
		out.Slots = append(out.Slots, s)
	}
	if l := e.live[slotKey{j.ID, first(j.Hosts)}]; l != nil && j.IsCapture() && j.Version == "" && l.progress.State == api.StateCapturing {
		out.BytesShipped = l.progress.PhaseTotal // at most: cells that turn out zero are not shipped
	}
	e.mu.Unlock()
	out.SeedSent = max(out.SeedSent, bySeed)
	summarise(&out)
	return out
}

// slotView shows one slot; e.mu is held.
func (e *Engine) slotView(j *job.Job, s *job.Slot, now time.Time) api.Slot {
	v := api.Slot{
		Host: s.Host, MAC: s.MAC, State: s.State, Since: s.Since, Attempt: s.Hard, PONR: s.PONR, Code: s.Code, Error: s.Error,
		Disk: s.Disk, Firmware: s.Firmware, Verified: s.Verified, OSSeen: s.OSSeen, Unseen: s.Unseen, Warnings: s.Warnings, HostKeys: s.HostKeys,
		CellsWritten: s.Counters.CellsWritten, CellsKept: s.Counters.CellsKept, BytesFromSeed: s.Counters.BytesFromSeed,
		BytesFromPeers: s.Counters.BytesFromPeers, AgentRSSBytes: s.Counters.AgentRSSBytes,
	}
	if s.Session != nil {
		v.LastIP = s.Session.IP
	}
	if s.Code != "" && strings.HasPrefix(s.ReadOut, s.Code+"-") {
		v.ReadOut = s.ReadOut
	}
	if s.State.Good() {
		v.Percent = 100
	}
	l := e.live[slotKey{j.ID, s.Host}]
	if l == nil || s.Session == nil || l.heard.IsZero() {
		if job.Active(s.State) {
			v.SilentS = int(now.Sub(later(s.Since, e.started)) / time.Second)
		}
		return v
	}
	p := l.progress
	if l.ip.IsValid() {
		v.LastIP = l.ip.String()
	}
	if s.Session.Result == "" && p.BootID == s.Session.BootID {
		v.CellsWritten += p.CellsWritten
		v.CellsKept = p.CellsKept
		v.BytesFromSeed += p.BytesFromSeed
		v.BytesFromPeers += p.BytesFromPeers
		v.AgentRSSBytes = max(v.AgentRSSBytes, p.AgentRSSBytes)
	}
	if !job.Active(s.State) {
		return v
	}
	if silent := now.Sub(later(l.heard, s.Since)); silent > job.SilentAfter {
		v.SilentS = int(silent / time.Second)
	}
	v.Detail, v.Parent = p.Detail, p.Parent
	if p.State == s.State {
		v.RateBps = p.RateBps
		if p.PhaseTotal > 0 {
			v.Percent = min(100, max(0, 100*float64(p.PhaseDone)/float64(p.PhaseTotal)))
		}
	}
	if a, ok := e.assignment(j, s.Host); ok {
		for _, f := range a.Fallbacks {
			v.Fallbacks = append(v.Fallbacks, f.HostID)
		}
	}
	return v
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Share of a slot's work per phase, in percent of the whole.
var phases = map[api.State]struct{ from, to float64 }{
	api.StateEnrolled: {0, 2}, api.StateChecking: {2, 8}, api.StateWriting: {8, 80}, api.StateCapturing: {8, 80},
	api.StateVerifying: {80, 97}, api.StateFinalising: {97, 100},
}

// summarise fills in percent, rate and ETA of the job. Hosts that ended
// without the image do not count: nothing more will come from them.
func summarise(j *api.Job) {
	var sum float64
	n, busy := 0, false
	worst, known := int64(0), true
	for i := range j.Slots {
		s := &j.Slots[i]
		switch {
		case s.State.Good():
			sum, n = sum+100, n+1
			continue
		case s.State.Ended():
			continue
		}
		n, busy = n+1, true
		ph := phases[s.State]
		sum += ph.from + (ph.to-ph.from)*s.Percent/100
		if s.State == api.StateWriting || s.State == api.StateCapturing {
			j.RateBps += s.RateBps
		}
		eta, ok := slotEta(j, s)
		known = known && ok
		worst = max(worst, eta)
	}
	if n > 0 {
		j.Percent = sum / float64(n)
	}
	switch {
	case !busy:
		j.EtaS = 0
	case known:
		j.EtaS = worst
	}
}

// slotEta estimates the seconds until a slot is written and verified. The
// read-back is taken to be as fast as the writing.
func slotEta(j *api.Job, s *api.Slot) (int64, bool) {
	switch s.State {
	case api.StateFinalising:
		return 1, true
	case api.StateWriting, api.StateCapturing:
		if s.RateBps <= 0 || s.SilentS > 0 {
			return 0, false
		}
		left := float64(j.BytesShipped) * (1 - s.Percent/100)
		return int64(left/float64(s.RateBps)) + 1, true
	case api.StateVerifying:
		if s.RateBps <= 0 || s.SilentS > 0 {
			return 0, false
		}
		return int64(float64(j.BytesShipped)*(1-s.Percent/100)/float64(s.RateBps)) + 1, true
	}
	return 0, false
}
