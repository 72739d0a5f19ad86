package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/server/event"
	"labswarm/server/inventory"
	"labswarm/server/job"
	"labswarm/server/store"
)

// changeJob changes a live job's record and logs why, in one transaction. fn
// returns the event's code and text, "" = nothing to do. Then every host hears
// of it: ev may be nil.
func (e *Engine) changeJob(ctx context.Context, id uint64, fn func(j *job.Job, slots []job.Slot, now time.Time) (code, text string, err error), ev func(k slotKey) job.Event) (api.Job, error) {
	var hosts []string
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		hosts = nil
		js, err := loadJob(tx, id)
		if err != nil {
			return err
		}
		if !js.job.Ended.IsZero() {
			return conflict(api.CodeConflict, "job %d has ended (%s): make a new one", id, js.job.Result)
		}
		now := time.Now()
		code, text, err := fn(&js.job, js.slots, now)
		if err != nil || text == "" {
			return err
		}
		hosts = js.job.Hosts
		if err := putJSON(tx, keyJob(id), js.job); err != nil {
			return err
		}
		_, err = event.Append(tx, api.Event{Time: now.UTC(), Level: "warn", Code: code, Job: id, Room: js.job.Room, Text: text})
		return err
	})
	if err != nil {
		return api.Job{}, problem(err)
	}
	for _, h := range hosts {
		k := slotKey{id, h}
		if ev == nil {
			break
		}
		if _, err := e.apply(ctx, k, ev(k)); err != nil {
			return api.Job{}, problem(err)
		}
	}
	e.bell.Ring()
	return e.Job(ctx, id)
}

// PauseJob keeps hosts that have not begun to write from doing so; the others
// finish.
func (e *Engine) PauseJob(ctx context.Context, id uint64, by string) (api.Job, error) {
	return e.changeJob(ctx, id, func(j *job.Job, _ []job.Slot, now time.Time) (string, string, error) {
		if !j.Paused.IsZero() {
			return "", "", nil
		}
		j.Paused, j.PausedBy = now.UTC(), by
		return "job_paused", "job paused by " + by, nil
	}, nil)
}

// ResumeJob ends a pause. Failures up to now are accepted.
func (e *Engine) ResumeJob(ctx context.Context, id uint64, by string) (api.Job, error) {
	return e.changeJob(ctx, id, func(j *job.Job, slots []job.Slot, _ time.Time) (string, string, error) {
		if j.Paused.IsZero() {
			return "", "", nil
		}
		j.Paused, j.PausedBy, j.Forgiven = time.Time{}, "", job.Failures(slots)
		return "job_resumed", "job resumed by " + by, nil
	}, func(slotKey) job.Event { return job.Resume{} })
}

// ExtendJob moves the end of a job's window.
func (e *Engine) ExtendJob(ctx context.Context, id uint64, notAfter time.Time, by string) (api.Job, error) {
	return e.changeJob(ctx, id, func(j *job.Job, _ []job.Slot, now time.Time) (string, string, error) {
		end := notAfter.UTC()
		switch {
		case !j.Cancelled.IsZero():
			return "", "", conflict(api.CodeConflict, "job %d was cancelled", id)
		case !end.After(j.NotAfter) || !end.After(now):
			return "", "", badRequest(api.CodeUsage, "extend job %d: its window ends at %s: name a later time", id, j.NotAfter.Local().Format("Mon 15:04"))
		case end.Sub(later(now, j.NotBefore)) > maxLife:
			return "", "", badRequest(api.CodeUsage, "extend job %d: at most to %s from now", id, maxLife)
		}
		text := fmt.Sprintf("window extended by %s: it ends at %s instead of %s", by, end.Format(time.RFC3339), j.NotAfter.Format(time.RFC3339))
		j.NotAfter = end
		return "job_extended", text, nil
	}, func(k slotKey) job.Event { return job.Extend{Silent: e.silent(k, time.Now())} })
}

// ActOnHost does what a person wants of one host of a job (api.Act...).
func (e *Engine) ActOnHost(ctx context.Context, id uint64, host, act, by string) (api.Job, error) {
	k := slotKey{id, host}
	var ev job.Event
	switch act {
	case api.ActRetry:
		ev = job.Retry{By: by}
	case api.ActSkip:
		ev = job.Skip{By: by, Reason: "taken out of the job by " + by}
	case api.ActHold:
		ev = job.Hold{Code: api.CodeHeld, Text: "held by " + by + ": `labswarm job release` lets it go on"}
	case api.ActRelease:
		ev = job.Release{By: by} // completed below, when the host's name is known as it is spelt
	default:
		return api.Job{}, notFound("no such action %q: use retry, skip, hold or release", act)
	}
	_, err := e.applyWith(ctx, k, func(tx store.Tx, j *job.Job, s *job.Slot) (job.Event, error) {
		switch {
		case act == api.ActRetry:
			return ev, e.retake(tx, j, s)
		case act == api.ActRelease:
			return job.Release{By: by, Silent: e.silent(slotKey{id, s.Host}, time.Now())}, nil
		case act == api.ActHold && !s.Live():
			return nil, conflict(api.CodeConflict, "hold %s: it is %s already", s.Host, s.State)
		}
		return ev, nil
	})
	if err != nil {
		return api.Job{}, problem(err)
	}
	return e.Job(ctx, id)
}

// retake makes the job the one that the host boots for again, unless another
// one has it.
func (e *Engine) retake(tx store.Tx, j *job.Job, s *job.Slot) error {
	h, err := inventory.Get(tx, s.Host)
	if err != nil {
		return err
	}
	other, theirs, err := hostSlot(tx, s.Host)
	switch {
	case err != nil:
		return err
	case inventory.Barred(h, j.Room != "") != "":
		return conflict(api.CodeConflict, "retry %s: %s", s.Host, inventory.Barred(h, j.Room != ""))
	case h.MAC != s.MAC:
		return conflict(api.CodeConflict, "retry %s: another PC has its place since; make a new job", s.Host)
	case theirs != nil && other.ID != j.ID && theirs.Live():
		return conflict(api.CodeHostBusy, "retry %s: it is %s in job %d", s.Host, theirs.State, other.ID)
	}
	return putJSON(tx, keyHostJob(s.Host), j.ID)
}

// arm brings the hosts whose turn it is out of PENDING.
func (e *Engine) arm(ctx context.Context, js *jobSlots, now time.Time) error {
	hosts, _ := job.Armable(&js.job, js.slots, now)
	for _, h := range hosts {
		if _, err := e.apply(ctx, slotKey{js.job.ID, h}, job.Arm{}); err != nil {
			return err
		}
	}
	return nil
}

// pauseOnFailures pauses a job in the transaction in which a host failed, when
// that was one too many.
func pauseOnFailures(tx store.Tx, out *outcome, now time.Time) error {
	j := &out.job
	if j.MaxFailures == 0 || !j.Paused.IsZero() || out.slot.State != api.StateFailed || out.before == api.StateFailed {
		return nil
	}
	slots, err := getSlots(tx, j.ID)
	if err != nil {
		return err
	}
	why := job.TooMany(j, slots)
	if why == "" {
		return nil
	}
	j.Paused, j.PausedBy = now.UTC(), why
	if err := putJSON(tx, keyJob(j.ID), *j); err != nil {
		return err
	}
	_, err = event.Append(tx, api.Event{Time: now.UTC(), Level: "error", Code: "job_paused", Job: j.ID, Room: j.Room,
		Text: fmt.Sprintf("job paused by %s: no more hosts begin. Look at them, then `labswarm job resume %d` or `job cancel %d`", why, j.ID, j.ID)})
	return err
}

// needs estimates how long a host takes from its commence on, 0 = unknown.
func (e *Engine) needs(j *job.Job, s *job.Slot, p api.PlanCounts) time.Duration {
	w := job.Work{Write: p.BytesWrite, Verify: j.BytesShipped}
	if s.Session != nil {
		w.Link = s.Session.LinkMbps
	}
	var rates []int64
	e.mu.Lock()
	for k, l := range e.live {
		switch {
		case k.job != j.ID:
		case strings.EqualFold(k.host, s.Host):
			if l.progress.State == api.StateChecking {
				w.Disk = l.progress.RateBps
			}
		case l.progress.State == api.StateWriting && l.progress.RateBps > 0:
			rates = append(rates, l.progress.RateBps)
		}
	}
	e.mu.Unlock()
	if len(rates) > 0 {
		slices.Sort(rates)
		w.Swarm = rates[len(rates)/2]
	}
	d, ok := w.Needs()
	if !ok {
		return 0
	}
	return d
}
