package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/server/event"
	"labswarm/server/job"
	"labswarm/server/schedule"
	"labswarm/server/store"
)

const (
	scheduleEvery = 5 * time.Second
	prefixSched   = "schedules/"
	prefixCal     = "calendars/"
	keyLedgerLast = "meta/ledger_last" // when the newest entry was made
	maxSchedules  = 500
)

func keySched(name string) string        { return prefixSched + strings.ToLower(name) }
func keySchedOK(name string) string      { return "schedok/" + strings.ToLower(name) } // when a job of it ended with result ok
func keyCal(name string) string          { return prefixCal + strings.ToLower(name) }
func keyLedger(name, date string) string { return ledgerOf(name) + date }
func ledgerOf(name string) string        { return "ledger/" + strings.ToLower(name) + "/" }

// schedState is what the schedules need in RAM.
type schedState struct {
	mu    sync.Mutex
	clock schedule.Clock
	doubt string
}

// errSettled says that the run was decided by somebody else meanwhile.
var errSettled = errors.New("the run is settled")

// due is a run that the ledger knows nothing of.
type due struct {
	s   api.Schedule
	run schedule.Run
}

// runSchedules decides the runs that are due. now is the wall clock, mono time
// that no clock step touches.
func (e *Engine) runSchedules(ctx context.Context, now time.Time, mono time.Duration) error {
	var list []due
	var broken []error
	var newest time.Time
	err := e.cfg.Store.View(ctx, func(tx store.Tx) error {
		list, broken = nil, nil
		if _, err := getJSON(tx, keyLedgerLast, &newest); err != nil {
			return err
		}
		all, err := schedules(tx)
		if err != nil || len(all) == 0 {
			return err
		}
		cals, err := calendars(tx)
		if err != nil {
			return err
		}
		for _, s := range all {
			p, err := schedule.Compile(s, cals)
			if err != nil {
				broken = append(broken, err)
				continue
			}
			var look error
			for _, r := range p.Due(now, func(date string) bool {
				raw, err := tx.Get(keyLedger(s.Name, date))
				look = errors.Join(look, err)
				return raw != nil
			}) {
				list = append(list, due{s, r})
			}
			if look != nil {
				return look
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if why := e.lookAtClock(now, mono, newest); why != "" {
		e.emitOnce(ctx, "clock", api.Event{Level: "error", Code: "clock_doubt", Text: why + ": no schedule starts. Put the clock right, then `labswarm schedule resume NAME`"})
		return nil
	}
	for _, err := range broken {
		e.emitOnce(ctx, err.Error(), api.Event{Level: "error", Code: "schedule_broken", Text: err.Error()})
	}
	var errs []error
	for _, d := range list {
		if err := e.settleRun(ctx, d, now); err != nil && !errors.Is(err, errSettled) {
			errs = append(errs, fmt.Errorf("run of schedule %s on %s, tried again: %w", d.s.Name, d.run.Date, err))
		}
	}
	return errors.Join(errs...)
}

func (e *Engine) lookAtClock(now time.Time, mono time.Duration, newest time.Time) string {
	e.sched.mu.Lock()
	defer e.sched.mu.Unlock()
	e.sched.doubt = e.sched.clock.Look(now, mono, e.cfg.Built, newest)
	return e.sched.doubt
}

// settleRun decides one run and writes it into the ledger; a job is stored in the
// same transaction.
func (e *Engine) settleRun(ctx context.Context, d due, now time.Time) error {
	req := d.s.Job
	req.NotAfter = d.run.End.UTC()
	v := schedule.Judge(d.s, d.run, now, 0)
	if v.Start && schedule.Late(d.run, now) {
		plan, err := e.PlanJob(ctx, &req)
		if err == nil {
			v = schedule.Judge(d.s, d.run, now, time.Duration(plan.EtaMinS)*time.Second)
		}
	}
	if !v.Start {
		return e.enter(ctx, d, now, v.Result, v.Reason)
	}
	j, err := e.start(ctx, d, now, &req, v.Reason)
	var p *api.Problem
	switch {
	case errors.As(err, &p): // it cannot be done tonight: no sense in trying every few seconds
		return e.enter(ctx, d, now, api.RunSkipped, "conflict: "+p.Detail)
	case err == nil:
		e.cfg.Log.Info("schedule started", "schedule", d.s.Name, "date", d.run.Date, "job", j.ID, "late", v.Reason)
	}
	return err
}

// start makes the job of a run.
func (e *Engine) start(ctx context.Context, d due, now time.Time, req *api.JobCreate, reason string) (api.Job, error) {
	img, err := e.image(req)
	if err != nil {
		return api.Job{}, err
	}
	check := func(tx store.Tx, j *job.Job, hosts []api.Host) error {
		for _, h := range hosts { // of a room they are left out; named ones were protected since the schedule was saved
			if h.Protect && j.Room == "" {
				return conflict(api.CodeConflict, "host %s is protected: take it out of the schedule", h.Name)
			}
		}
		j.Schedule = d.s.Name
		return enterTx(tx, d, now, api.ScheduleRun{Result: api.RunStarted, Reason: reason, Job: j.ID})
	}
	return e.makeJob(ctx, req, img, check, "", "")
}

// enter writes a run that made no job into the ledger.
func (e *Engine) enter(ctx context.Context, d due, now time.Time, result, reason string) error {
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		return enterTx(tx, d, now, api.ScheduleRun{Result: result, Reason: reason})
	})
	if err == nil {
		e.bell.Ring()
	}
	return err
}

// enterTx writes a ledger entry: the one place, so that there is one per local
// date. The schedule must still be the one that was judged.
func enterTx(tx store.Tx, d due, now time.Time, r api.ScheduleRun) error {
	s, err := getSchedule(tx, d.s.Name)
	if err != nil {
		return err
	}
	raw, err := tx.Get(keyLedger(d.s.Name, d.run.Date))
	if err != nil {
		return err
	}
	if raw != nil || !s.Since.Equal(d.s.Since) || !s.Paused.Equal(d.s.Paused) {
		return errSettled
	}
	r.Schedule, r.Date, r.Start, r.End, r.At = d.s.Name, d.run.Date, d.run.Start.UTC(), d.run.End.UTC(), now.Round(0).UTC()
	if err := putJSON(tx, keyLedger(r.Schedule, r.Date), r); err != nil {
		return err
	}
	if err := putJSON(tx, keyLedgerLast, r.At); err != nil {
		return err
	}
	ev := api.Event{Time: r.At, Level: "info", Code: "schedule_" + r.Result, Job: r.Job, Room: s.Job.Room, Text: fmt.Sprintf("schedule %s, run of %s %s", s.Name, r.Date, r.Result)}
	if r.Reason != "" {
		ev.Text += ": " + r.Reason
	}
	if r.Result != api.RunStarted {
		ev.Level = "warn"
	}
	_, err = event.Append(tx, ev)
	return err
}
