package control

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/server/access"
	"labswarm/server/event"
	"labswarm/server/schedule"
	"labswarm/server/store"
)

const (
	nextShown = 5
	runsShown = 400 // newest entries of the ledger
)

func getSchedule(tx store.Tx, name string) (api.Schedule, error) {
	var s api.Schedule
	ok, err := getJSON(tx, keySched(name), &s)
	if err == nil && !ok {
		err = notFound("schedule %q is not known; `labswarm schedule ls` shows what there is", name)
	}
	return s, err
}

func schedules(tx store.Tx) ([]api.Schedule, error) { return scanJSON[api.Schedule](tx, prefixSched) }

func calendars(tx store.Tx) (map[string]api.Calendar, error) {
	list, err := scanJSON[api.Calendar](tx, prefixCal)
	out := map[string]api.Calendar{}
	for _, c := range list {
		out[strings.ToLower(c.Name)] = c
	}
	return out, err
}

func scanJSON[T any](tx store.Tx, prefix string) ([]T, error) {
	out := []T{}
	for key, raw := range tx.Scan(prefix, "", 0) {
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("read %s: %w", key, err)
		}
		out = append(out, v)
	}
	return out, nil
}

// info shows a schedule with its past and future.
func (e *Engine) info(tx store.Tx, s api.Schedule, cals map[string]api.Calendar, now time.Time) (api.ScheduleInfo, error) {
	out := api.ScheduleInfo{Schedule: s, Next: []api.ScheduleNext{}}
	e.sched.mu.Lock()
	out.Clock = e.sched.doubt
	e.sched.mu.Unlock()
	var last []byte
	for _, raw := range tx.Scan(ledgerOf(s.Name), "", 0) {
		last = raw
	}
	if last != nil {
		out.Last = new(api.ScheduleRun)
		if err := json.Unmarshal(last, out.Last); err != nil {
			return out, fmt.Errorf("read the ledger of %s: %w", s.Name, err)
		}
	}
	p, err := schedule.Compile(s, cals)
	if err != nil {
		return out, nil //nolint:nilerr // a calendar was taken away: it is shown all the same, and the log says why it does not run
	}
	for _, r := range p.Next(now, nextShown+2) {
		raw, err := tx.Get(keyLedger(s.Name, r.Date))
		if err != nil {
			return out, err
		}
		if raw != nil || r.Start.Before(s.Since) || len(out.Next) >= nextShown {
			continue
		}
		n := api.ScheduleNext{Date: r.Date, Start: r.Start.UTC(), End: r.End.UTC(), Skip: r.Skip}
		if n.Skip == "" && !s.Paused.IsZero() {
			n.Skip = "paused by " + s.PausedBy
		}
		out.Next = append(out.Next, n)
	}
	return out, nil
}

// Schedules lists the schedules, by name.
func (e *Engine) Schedules(ctx context.Context) ([]api.ScheduleInfo, error) {
	out := []api.ScheduleInfo{}
	err := e.cfg.Store.View(ctx, func(tx store.Tx) error {
		out = out[:0]
		all, err := schedules(tx)
		if err != nil {
			return err
		}
		cals, err := calendars(tx)
		if err != nil {
			return err
		}
		for _, s := range all {
			i, err := e.info(tx, s, cals, time.Now())
			if err != nil {
				return err
			}
			out = append(out, i)
		}
		return nil
	})
	return out, problem(err)
}

// Schedule returns one schedule.
func (e *Engine) Schedule(ctx context.Context, name string) (out api.ScheduleInfo, err error) {
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		s, err := getSchedule(tx, name)
		if err != nil {
			return err
		}
		cals, err := calendars(tx)
		if err != nil {
			return err
		}
		out, err = e.info(tx, s, cals, time.Now())
		return err
	})
	return out, problem(err)
}

// PutSchedule saves a schedule. Whoever saves it agrees that it erases disks,
// night after night: the room's name is typed here, once.
func (e *Engine) PutSchedule(ctx context.Context, req *api.SchedulePut) (api.ScheduleInfo, error) {
	s := req.Schedule
	if s.TZ == "" {
		s.TZ = localZone()
	}
	if !s.Job.NotBefore.IsZero() || !s.Job.NotAfter.IsZero() || s.Job.ExpiresInS != 0 || s.Job.JobConfirm != (api.JobConfirm{}) || s.Job.Confirm != "" || s.Job.DryRun || len(s.Job.ConfirmProtected) > 0 {
		return api.ScheduleInfo{}, badRequest(api.CodeUsage, "schedule %s: its job has no window and no confirmation of its own", s.Name)
	}
	plan, err := e.PlanJob(ctx, &s.Job)
	if err != nil {
		return api.ScheduleInfo{}, err
	}
	if len(plan.Protected) > 0 {
		return api.ScheduleInfo{}, conflict(api.CodeConflict, "schedule %s: protected hosts are written by no schedule: %s", s.Name, strings.Join(plan.Protected, ", "))
	}
	if !req.DryRun {
		named := s.Job
		named.Confirm = req.Confirm
		if err := checkConfirm(&named, plan.Image); err != nil {
			return api.ScheduleInfo{}, err
		}
	}
	var out api.ScheduleInfo
	save := func(tx store.Tx) error {
		now := time.Now()
		s.Paused, s.PausedBy, s.Since = time.Time{}, "", now.UTC()
		cals, err := calendars(tx)
		if err != nil {
			return err
		}
		p, err := schedule.Compile(s, cals)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(p.Next(now, 3), func(r schedule.Run) bool { return !r.Start.Before(s.Since) }) {
			return badRequest(api.CodeUsage, "schedule %s: it would never run (a window that has begun does not count)", s.Name)
		}
		if err := e.checkOverlap(tx, s, p, cals, now); err != nil {
			return err
		}
		if req.DryRun {
			out, err = e.info(tx, s, cals, now)
			return err
		}
		if err := putJSON(tx, keySched(s.Name), s); err != nil {
			return err
		}
		if out, err = e.info(tx, s, cals, now); err != nil {
			return err
		}
		return logSchedule(tx, s, "schedule_saved", "saved: "+s.Start+" to "+s.End+" "+s.TZ+access.By(ctx))
	}
	if req.DryRun {
		err = e.cfg.Store.View(ctx, save)
		out.Plan = &plan
	} else if err = e.cfg.Store.Update(ctx, save); err == nil {
		e.bell.Ring()
	}
	return out, problem(err)
}

func logSchedule(tx store.Tx, s api.Schedule, code, text string) error {
	_, err := event.Append(tx, api.Event{Time: time.Now().UTC(), Level: "info", Code: code, Room: s.Job.Room, Text: "schedule " + s.Name + " " + text})
	return err
}

// localZone is the IANA name of the server's zone.
func localZone() string {
	if tz := time.Local.String(); tz != "Local" {
		return tz
	}
	if link, err := os.Readlink("/etc/localtime"); err == nil {
		if _, name, ok := strings.Cut(link, "zoneinfo/"); ok {
			return name
		}
	}
	return "UTC"
}

// RemoveSchedule deletes a schedule. Its ledger stays: a new one of that name
// runs no date twice.
func (e *Engine) RemoveSchedule(ctx context.Context, name string) error {
	return problem(e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		s, err := getSchedule(tx, name)
		if err != nil {
			return err
		}
		for _, key := range []string{keySched(name), keySchedOK(name)} {
			if err := tx.Delete(key); err != nil {
				return err
			}
		}
		return logSchedule(tx, s, "schedule_removed", "removed"+access.By(ctx))
	}))
}

// PauseSchedule pauses a schedule or ends the pause. What would have begun
// meanwhile is not caught up. Ending a pause also says that the server's clock
// is right.
func (e *Engine) PauseSchedule(ctx context.Context, name string, pause bool, by string) (api.ScheduleInfo, error) {
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		s, err := getSchedule(tx, name)
		if err != nil || pause == !s.Paused.IsZero() {
			return err
		}
		now := time.Now().UTC()
		if s.Paused, s.PausedBy = now, by; !pause {
			s.Paused, s.PausedBy, s.Since = time.Time{}, "", now
		}
		if err := putJSON(tx, keySched(name), s); err != nil {
			return err
		}
		return logSchedule(tx, s, "schedule_paused", map[bool]string{true: "paused by ", false: "resumed by "}[pause]+by)
	})
	if err != nil {
		return api.ScheduleInfo{}, problem(err)
	}
	if !pause {
		e.sched.mu.Lock()
		e.sched.clock.Accept()
		e.sched.doubt = ""
		e.sched.mu.Unlock()
	}
	e.bell.Ring()
	return e.Schedule(ctx, name)
}

// RunSchedule makes the schedule's job now, for as long as its window is. The
// runs of its days are not touched by that.
func (e *Engine) RunSchedule(ctx context.Context, name, confirm, idemKey string) (api.Job, error) {
	digest, err := digestOf([]string{"run", strings.ToLower(name), confirm})
	if err != nil {
		return api.Job{}, err
	}
	if j, err := e.madeBefore(ctx, idemKey, digest); err != nil || j != nil { // what is planned now is another job
		return orZero(j), err
	}
	i, err := e.Schedule(ctx, name)
	if err != nil {
		return api.Job{}, err
	}
	var p *schedule.Plan
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		cals, err := calendars(tx)
		if err != nil {
			return err
		}
		p, err = schedule.Compile(i.Schedule, cals)
		return err
	})
	if err != nil {
		return api.Job{}, problem(err)
	}
	req := i.Job
	req.Confirm, req.ExpiresInS = confirm, int64(p.Length()/time.Second)
	plan, err := e.PlanJob(ctx, &req)
	if err != nil {
		return api.Job{}, err
	}
	req.PlanDigest, req.ConfirmHosts = plan.PlanDigest, plan.Erase
	return e.createJob(ctx, &req, idemKey, digest)
}

// ScheduleRuns returns the ledger of a schedule, newest first.
func (e *Engine) ScheduleRuns(ctx context.Context, name string) ([]api.ScheduleRun, error) {
	var out []api.ScheduleRun
	err := e.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		if out, err = scanJSON[api.ScheduleRun](tx, ledgerOf(name)); err != nil || len(out) > 0 {
			return err
		}
		_, err = getSchedule(tx, name)
		return err
	})
	slices.Reverse(out)
	return out[:min(len(out), runsShown)], problem(err)
}

// Calendars lists the calendars, by name.
func (e *Engine) Calendars(ctx context.Context) (out []api.Calendar, err error) {
	err = e.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		out, err = scanJSON[api.Calendar](tx, prefixCal)
		return err
	})
	return out, problem(err)
}

// PutCalendar saves a calendar.
func (e *Engine) PutCalendar(ctx context.Context, c api.Calendar) (api.Calendar, error) {
	if err := schedule.CheckCalendar(c); err != nil {
		return c, problem(err)
	}
	return c, e.cfg.Store.Update(ctx, func(tx store.Tx) error { return putJSON(tx, keyCal(c.Name), c) })
}

// RemoveCalendar deletes a calendar that no schedule names.
func (e *Engine) RemoveCalendar(ctx context.Context, name string) error {
	return problem(e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		raw, err := tx.Get(keyCal(name))
		if err != nil {
			return err
		}
		if raw == nil {
			return notFound("calendar %q is not known", name)
		}
		all, err := schedules(tx)
		if err != nil {
			return err
		}
		for _, s := range all {
			if slices.ContainsFunc(append(slices.Clone(s.Skip), s.Only...), func(n string) bool { return strings.EqualFold(n, name) }) {
				return conflict(api.CodeConflict, "calendar %s is needed by schedule %s", name, s.Name)
			}
		}
		return tx.Delete(keyCal(name))
	}))
}
