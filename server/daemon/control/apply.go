package control

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/server/event"
	"labswarm/server/job"
	"labswarm/server/store"
)

// outcome is what one transaction did to a slot.
type outcome struct {
	job    job.Job
	slot   job.Slot
	before api.State
	since  time.Time // of before
	ended  bool      // the job ended by this
	wrote  bool
}

// apply loads a slot, applies ev and commits. Nothing is written when ev
// changes nothing.
func (e *Engine) apply(ctx context.Context, k slotKey, ev job.Event) (job.Slot, error) {
	out, err := e.applyWith(ctx, k, func(store.Tx, *job.Job, *job.Slot) (job.Event, error) { return ev, nil })
	return out.slot, err
}

// makeEvent builds an event from what the transaction holds. It must be pure.
type makeEvent func(tx store.Tx, j *job.Job, s *job.Slot) (job.Event, error)

func (e *Engine) applyWith(ctx context.Context, k slotKey, mk makeEvent) (outcome, error) {
	var out outcome
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		var err error
		out, err = applyTx(tx, k, mk, time.Now())
		return err
	})
	if err != nil {
		return out, err
	}
	e.after(&out)
	return out, nil
}

// applyTx is apply inside a transaction the caller owns; the caller must call
// after with the outcome once it is committed.
func applyTx(tx store.Tx, k slotKey, mk makeEvent, now time.Time) (outcome, error) {
	j, err := getJob(tx, k.job)
	if err != nil {
		return outcome{}, err
	}
	s, err := getSlot(tx, k)
	if err != nil {
		return outcome{}, err
	}
	ev, err := mk(tx, j, s)
	if err != nil || ev == nil {
		return outcome{job: *j, slot: *s, before: s.State}, err
	}
	next, lines, err := job.Apply(j, *s, ev, now)
	if err != nil {
		return outcome{}, err
	}
	out := outcome{job: *j, slot: next, before: s.State, since: s.Since, wrote: !reflect.DeepEqual(*s, next)}
	if !out.wrote {
		return out, nil
	}
	if err := putJSON(tx, keySlot(k), next); err != nil {
		return out, err
	}
	if err := logLines(tx, next, lines, now); err != nil {
		return out, err
	}
	if err := pauseOnFailures(tx, &out, now); err != nil {
		return out, err
	}
	if next.Final && !s.Final {
		return out, endJob(tx, &out, now)
	}
	return out, nil
}

func logLines(tx store.Tx, s job.Slot, lines []job.Line, now time.Time) error {
	for _, l := range lines {
		ev := api.Event{Time: now.UTC(), Level: l.Level, Code: l.Code, Job: s.Job, Host: s.Host, Room: s.Room, Text: l.Text}
		if _, err := event.Append(tx, ev); err != nil {
			return err
		}
	}
	return nil
}

// endJob closes the job when its last slot became final.
func endJob(tx store.Tx, out *outcome, now time.Time) error {
	if !out.job.Ended.IsZero() {
		return nil
	}
	slots, err := getSlots(tx, out.job.ID)
	if err != nil {
		return err
	}
	result := job.Result(&out.job, slots)
	if result == "" {
		return nil
	}
	out.job.Ended, out.job.Result, out.ended = now.UTC(), result, true
	if err := putJSON(tx, keyJob(out.job.ID), out.job); err != nil {
		return err
	}
	if err := tx.Delete(keyLive(out.job.ID)); err != nil {
		return err
	}
	if result == "ok" && out.job.Schedule != "" {
		if err := putJSON(tx, keySchedOK(out.job.Schedule), out.job.Ended); err != nil {
			return err
		}
	}
	level := "info"
	if result != "ok" {
		level = "warn"
	}
	_, err = event.Append(tx, api.Event{Time: now.UTC(), Level: level, Code: "job_ended", Job: out.job.ID, Room: out.job.Room, Text: "job ended: " + result})
	return err
}

// after does what follows a commit: wake readers, keep RAM in step, release
// swarms.
func (e *Engine) after(out *outcome) {
	if !out.wrote {
		return
	}
	k := slotKey{out.slot.Job, out.slot.Host}
	e.index(&out.job, &out.slot)
	if out.before != out.slot.State {
		if e.cfg.Observe != nil {
			e.cfg.Observe(Transition{Job: k.job, Kind: out.job.Kind, Host: k.host, From: out.before, To: out.slot.State, Final: out.slot.Final, Code: out.slot.Code, Took: out.slot.Since.Sub(out.since)})
		}
		e.cfg.Log.Info("slot", "job", k.job, "host", k.host, "from", string(out.before), "state", string(out.slot.State), "attempt", out.slot.Hard, "err", out.slot.Error)
		e.mu.Lock()
		l := e.liveOf(k)
		l.moved, l.alerted = time.Now(), false
		e.mu.Unlock()
	}
	if gone(out.slot) {
		e.forget(k) // first: it must not come back
		if !out.job.IsCapture() {
			e.cfg.Swarms.Leave(out.job.InfoHash, out.slot.Host)
		}
	}
	if out.job.IsCapture() && !out.slot.Live() {
		e.cfg.Captures.Drop(out.job.ID)
	}
	if out.ended {
		e.finishJob(out.job)
	}
	e.bell.Ring()
}

// gone reports whether a slot's agent has no business in the swarm any more.
func gone(s job.Slot) bool {
	return s.Final || s.State == api.StateRebooting
}

// forget closes the seed for the slot's agent. Its certificate stays known
// until the next start, so that a late or repeated message is answered right.
func (e *Engine) forget(k slotKey) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.members, k)
	for ip, owner := range e.peers {
		if owner == k {
			delete(e.peers, ip)
		}
	}
}

// emit stores an event that belongs to no slot. An event that cannot be stored
// is logged: it must not stop what it tells of.
func (e *Engine) emit(ctx context.Context, ev api.Event) {
	ev.Time = time.Now().UTC()
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		_, err := event.Append(tx, ev)
		return err
	})
	if err != nil {
		e.cfg.Log.Error("event not stored", "code", ev.Code, "text", ev.Text, "err", err)
		return
	}
	e.bell.Ring()
}

// jobSlots is a job with its slots.
type jobSlots struct {
	job   job.Job
	slots []job.Slot
}

// liveJobs returns the jobs that have not ended, oldest first.
func (e *Engine) liveJobs(ctx context.Context) ([]jobSlots, error) {
	var out []jobSlots
	err := e.cfg.Store.View(ctx, func(tx store.Tx) error {
		out = nil
		for key := range tx.Scan(prefixLive, "", 0) {
			id, err := strconv.ParseUint(strings.TrimPrefix(key, prefixLive), 16, 64)
			if err != nil {
				return fmt.Errorf("read %s: %w", key, err)
			}
			js, err := loadJob(tx, id)
			if err != nil {
				return err
			}
			out = append(out, js)
		}
		return nil
	})
	return out, err
}

// recentJobs returns those of the newest n jobs that want says yes to, newest
// first. The slots of the others are not read.
func (e *Engine) recentJobs(ctx context.Context, n uint64, want func(*job.Job) bool) ([]jobSlots, error) {
	var out []jobSlots
	err := e.cfg.Store.View(ctx, func(tx store.Tx) error {
		out = nil
		last, err := store.PeekSeq(tx, "job")
		if err != nil {
			return err
		}
		for id := last; id > 0 && last-id < n; id-- {
			j, err := getJob(tx, id)
			if err != nil {
				return err
			}
			if !want(j) {
				continue
			}
			slots, err := getSlots(tx, id)
			if err != nil {
				return err
			}
			out = append(out, jobSlots{job: *j, slots: slots})
		}
		return nil
	})
	return out, err
}

func loadJob(tx store.Tx, id uint64) (jobSlots, error) {
	j, err := getJob(tx, id)
	if err != nil {
		return jobSlots{}, err
	}
	slots, err := getSlots(tx, id)
	return jobSlots{job: *j, slots: slots}, err
}
