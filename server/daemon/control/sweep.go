package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"labswarm/api"
	"labswarm/server/event"
	"labswarm/server/inventory"
	"labswarm/server/job"
	"labswarm/server/store"
)

const (
	sweepEvery    = time.Second
	seedEvery     = 5 * time.Second
	snapshotEvery = 10 * time.Minute
	pruneEvery    = time.Minute
	stallAlert    = 2 * time.Minute
	idemLife      = 24 * time.Hour
	questionLife  = 30 * 24 * time.Hour // of an answered one; its event stays
	seers         = 4                   // sightings committed at once
	sightQueue    = 256                 // more are dropped: a host speaks again
)

// Run applies deadlines, stores sightings, counts the seed's bytes, makes
// snapshots and prunes, until ctx ends. It returns nil then.
func (e *Engine) Run(ctx context.Context) error {
	done := make(chan struct{})
	go func() { e.waker(ctx); done <- struct{}{} }()
	for range seers {
		go func() {
			defer func() { done <- struct{}{} }()
			e.seer(ctx)
		}()
	}
	sweep, seed := time.NewTicker(sweepEvery), time.NewTicker(seedEvery)
	snap, prune, plan := time.NewTicker(snapshotEvery), time.NewTicker(pruneEvery), time.NewTicker(scheduleEvery)
	for _, t := range []*time.Ticker{sweep, seed, snap, prune, plan} {
		defer t.Stop()
	}
	var changes uint64
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-sweep.C:
			e.report(e.sweep(ctx, now))
			e.report(e.sweepLearn(ctx))
			if e.cfg.Beat != nil {
				e.cfg.Beat()
			}
		case now := <-plan.C:
			e.report(e.runSchedules(ctx, now, now.Sub(e.started)))
		case <-seed.C:
			e.report(e.saveSeed(ctx))
		case <-prune.C:
			e.report(e.prune(ctx))
		case now := <-snap.C:
			if n := e.cfg.Store.Changes(); n != changes {
				changes = n
				_, err := store.SaveSnapshot(ctx, e.cfg.Store, e.cfg.SnapshotDir, now)
				e.report(err)
			}
		}
	}
	for range seers + 1 {
		<-done
	}
	final, cancel := context.WithTimeout(context.WithoutCancel(ctx), decideLimit)
	defer cancel()
	e.report(e.saveSeed(final))
	return nil
}

func (e *Engine) seer(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-e.sightings:
			e.see(ctx, s)
		}
	}
}

// report logs a failed chore; the next round tries again.
func (e *Engine) report(err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		e.cfg.Log.Error("housekeeping", "err", err)
	}
}

// sweep applies deadlines to live jobs, and tells the swarms who is on the way.
func (e *Engine) sweep(ctx context.Context, now time.Time) error {
	jobs, err := e.liveJobs(ctx)
	if err != nil {
		return err
	}
	for infoHash, n := range expected(jobs) {
		e.cfg.Swarms.Expect(infoHash, n)
	}
	for _, js := range jobs {
		if err := errors.Join(e.arm(ctx, &js, now), e.wakeDue(ctx, &js, now)); err != nil {
			return err
		}
		for i := range js.slots {
			if err := e.sweepSlot(ctx, &js.job, &js.slots[i], now); err != nil {
				return err
			}
		}
	}
	return nil
}

// expected counts, per image, the hosts between their boot and their place in
// the swarm.
func expected(jobs []jobSlots) map[string]int {
	n := map[string]int{}
	for _, js := range jobs {
		if js.job.IsCapture() {
			continue
		}
		n[js.job.InfoHash] += 0 // nobody on the way is news too
		for _, s := range js.slots {
			switch s.State {
			case api.StateBooting, api.StateEnrolled, api.StateChecking:
				n[js.job.InfoHash]++
			}
		}
	}
	return n
}

func (e *Engine) sweepSlot(ctx context.Context, j *job.Job, s *job.Slot, now time.Time) error {
	k := slotKey{j.ID, s.Host}
	e.mu.Lock()
	tick := job.Tick{Heard: e.started, Moved: e.started}
	alert := false
	if l := e.live[k]; l != nil {
		tick.Heard, tick.Moved = later(tick.Heard, l.heard), later(tick.Moved, l.moved)
		if (s.State == api.StateWriting || s.State == api.StateCapturing) && !l.alerted && now.Sub(later(tick.Moved, s.Since)) > stallAlert {
			l.alerted, alert = true, true
		}
	}
	e.mu.Unlock()
	if alert {
		e.emit(ctx, api.Event{Level: "warn", Code: "slot_stalled", Job: j.ID, Host: s.Host, Room: s.Room, Text: fmt.Sprintf("no progress for %s while %s", stallAlert, s.State)})
	}
	next, _, err := job.Apply(j, *s, tick, now)
	if err != nil || (next.State == s.State && next.Final == s.Final) {
		return err
	}
	_, err = e.apply(ctx, k, tick)
	return err
}

// seedBytes is what the seed sent.
type seedBytes struct {
	image int64 // bytes of the image
	wire  int64 // the same as they travelled
}

// sent remembers how far a job's share of the seed's counters was stored.
type sent struct {
	stored  seedBytes // in the job record
	counter seedBytes // Swarms.Sent when it was stored
}

func (e *Engine) seedCounter(j *job.Job) (b seedBytes) {
	b.image, b.wire = e.cfg.Swarms.Sent(j.InfoHash)
	return b
}

// seedSent is the stored figures and what came since; e.mu is held.
func (e *Engine) seedSent(j *job.Job) seedBytes {
	stored := seedBytes{j.SeedSent, j.SeedWire}
	if !j.Ended.IsZero() {
		return stored
	}
	b, ok := e.sentBase[j.ID]
	if !ok {
		// The seed's counter begins with this process. A job that is older
		// has nothing of it stored yet; a newer one starts from where it is.
		b = sent{stored: stored}
		if !j.Created.Before(e.started) {
			b.counter = e.seedCounter(j)
		}
		e.sentBase[j.ID] = b
	}
	now := e.seedCounter(j)
	return seedBytes{b.stored.image + max(0, now.image-b.counter.image), b.stored.wire + max(0, now.wire-b.counter.wire)}
}

// saveSeed stores the seed's figures of live jobs, so that a restart loses a
// few seconds of them at most.
func (e *Engine) saveSeed(ctx context.Context) error {
	jobs, err := e.liveJobs(ctx)
	if err != nil {
		return err
	}
	for _, js := range jobs {
		e.mu.Lock()
		n := e.seedSent(&js.job)
		e.mu.Unlock()
		if n == (seedBytes{js.job.SeedSent, js.job.SeedWire}) {
			continue
		}
		if err := e.storeSeed(ctx, js.job.ID, n); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) storeSeed(ctx context.Context, id uint64, n seedBytes) error {
	return e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		j, err := getJob(tx, id)
		if err != nil {
			return err
		}
		j.SeedSent, j.SeedWire = n.image, n.wire
		return putJSON(tx, keyJob(id), j)
	})
}

// finishJob stores the last figure of an ended job and stops its swarm when no
// other job needs it.
func (e *Engine) finishJob(j job.Job) {
	ctx, cancel := context.WithTimeout(context.Background(), decideLimit)
	defer cancel()
	e.mu.Lock()
	ended := j.Ended
	j.Ended = time.Time{}
	n := e.seedSent(&j)
	j.Ended = ended
	delete(e.sentBase, j.ID)
	e.mu.Unlock()
	e.report(e.storeSeed(ctx, j.ID, n))
	e.cfg.Log.Info("job ended", "job", j.ID, "result", j.Result, "seed_bytes", n.image, "seed_wire_bytes", n.wire)
	e.stopUnused(ctx, j.InfoHash)
}

// stopUnused stops serving a version that no live job needs.
func (e *Engine) stopUnused(ctx context.Context, infoHash string) {
	if infoHash == "" { // of a capture
		return
	}
	jobs, err := e.liveJobs(ctx)
	if err != nil {
		e.report(err)
		return
	}
	for _, js := range jobs {
		if js.job.InfoHash == infoHash {
			return
		}
	}
	e.closeScope(infoHash)
	e.cfg.Swarms.Stop(infoHash)
}

// prune removes old events, answered questions and idempotency keys. It writes only when there is
// something to remove.
func (e *Engine) prune(ctx context.Context) error {
	var old, events []string
	var asked []uint64
	now := time.Now()
	err := e.cfg.Store.View(ctx, func(tx store.Tx) error {
		old = nil
		var err error
		if events, err = event.Old(tx, event.Keep, now.Add(-event.KeepFor), 1); err != nil {
			return err
		}
		if asked, err = inventory.OldQuestions(tx, now.Add(-questionLife)); err != nil {
			return err
		}
		for key := range tx.Scan("idem/", "", 1000) {
			var rec idem
			if _, err := getJSON(tx, key, &rec); err != nil {
				return err
			}
			if time.Since(rec.At) > idemLife {
				old = append(old, key)
			}
		}
		return nil
	})
	if err != nil || len(old)+len(events)+len(asked) == 0 {
		return err
	}
	return e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		for _, key := range old {
			if err := tx.Delete(key); err != nil {
				return err
			}
		}
		if err := inventory.ForgetQuestions(tx, asked); err != nil {
			return err
		}
		_, err := event.Prune(tx, event.Keep, now.Add(-event.KeepFor))
		return err
	})
}
