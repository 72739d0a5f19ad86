package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"labswarm/api"
	"labswarm/server/store"
)

func weekly(name, zone string, days ...string) api.SchedulePut {
	if days == nil {
		days = []string{"mon", "tue", "wed", "thu", "fri"}
	}
	return api.SchedulePut{Confirm: "r1", Schedule: api.Schedule{Name: name, Weekdays: days, Start: "22:00", End: "02:00", TZ: zone, Job: api.JobCreate{Image: "deb", Room: "r1"}}}
}

func (b *bench) put(p api.SchedulePut) api.ScheduleInfo {
	b.t.Helper()
	i, err := b.PutSchedule(b.t.Context(), &p)
	if err != nil {
		b.t.Fatal(err)
	}
	return i
}

// runs is the ledger, oldest first: date, result and reason in a line.
func (b *bench) runs(name string) (out []string) {
	b.t.Helper()
	list, err := b.ScheduleRuns(b.t.Context(), name)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := range list {
		r := list[len(list)-1-i]
		out = append(out, strings.TrimSpace(r.Date+" "+r.Result+" "+r.Reason))
	}
	return out
}

// idle is a bench whose engine does nothing by itself: the test is its clock.
func idle(t *testing.T, st store.Store) *bench {
	t.Helper()
	b := newBench(t, st)
	b.end()
	return b
}

// pass lets time pass in steps, with the chores that the engine has then.
func (b *bench) pass(d, step time.Duration) {
	b.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(step)
		now := time.Now()
		if err := errors.Join(b.sweep(b.t.Context(), now), b.runSchedules(b.t.Context(), now, now.Sub(b.started))); err != nil {
			b.t.Fatal(err)
		}
	}
}

// small is a store whose snapshots are empty: a year has hundreds of them.
type small struct{ store.Store }

func (small) Snapshot(context.Context, io.Writer) error { return nil }

// TestAYearOfNights: every due night has exactly one job, over both clock
// changes of two zones.
func TestAYearOfNights(t *testing.T) {
	for zone, start := range map[string]string{"Europe/Berlin": "02:30", "America/New_York": "01:30"} { // hours that come twice, or never
		synctest.Test(t, func(t *testing.T) { // begins 2000-01-01 00:00 UTC
			b := idle(t, small{store.NewMem()})
			b.room(1)
			if _, err := b.PutCalendar(t.Context(), api.Calendar{Name: "holidays", Days: []string{"2000-12-24..2001-01-06", "2000-07-04"}}); err != nil {
				t.Fatal(err)
			}
			p := weekly("nightly", zone, "mon", "tue", "wed", "thu", "fri", "sat", "sun")
			p.Start, p.End, p.Skip = start, "04:00", []string{"Holidays"}
			b.put(p)
			for range 366 { // the nights in steps of 40 minutes, the days in one
				b.pass(10*time.Hour, 40*time.Minute)
				b.pass(14*time.Hour, 14*time.Hour)
			}
			seen, jobs := map[string]bool{}, map[uint64]bool{}
			list, err := b.ScheduleRuns(t.Context(), "nightly")
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range list {
				if seen[r.Date] || r.Job != 0 && jobs[r.Job] {
					t.Errorf("%s: %s ran twice: %+v", zone, r.Date, r)
				}
				seen[r.Date], jobs[r.Job] = true, true
				if holiday := r.Date >= "2000-12-24" || r.Date == "2000-07-04"; holiday != (r.Result == api.RunSkipped) || !holiday && r.Result != api.RunStarted {
					t.Errorf("%s: %s was %s (%s)", zone, r.Date, r.Result, r.Reason)
				}
			}
			if len(list) < 365 || len(list) > 367 {
				t.Errorf("%s: %d entries in a year", zone, len(list))
			}
			for d := time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC); d.Year() == 2000; d = d.AddDate(0, 0, 1) {
				if !seen[d.Format(time.DateOnly)] {
					t.Errorf("%s: no run on %s", zone, d.Format(time.DateOnly))
				}
			}
			all, err := b.Jobs(t.Context())
			if err != nil || all[0].Schedule != "nightly" {
				t.Errorf("the newest job is of schedule %q, %v", all[0].Schedule, err)
			}
		})
	}
}

func TestScheduledNight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // Saturday 2000-01-01 00:00 UTC
		b := idle(t, store.NewMem())
		b.room(2)
		i := b.put(weekly("n", "UTC", "sat"))
		if len(i.Next) != 5 || i.Next[0].Date != "2000-01-01" || i.Next[4].Date != "2000-01-29" {
			t.Errorf("next: %+v", i.Next)
		}
		b.pass(22*time.Hour-time.Second, 22*time.Hour-time.Second)
		if jobs, err := b.Jobs(t.Context()); err != nil || len(jobs) != 0 {
			t.Fatalf("early: %v, %v", jobs, err)
		}
		b.pass(time.Second, time.Second)
		j, err := b.Job(t.Context(), 1)
		if err != nil || j.Schedule != "n" || len(j.Slots) != 2 || !j.NotAfter.Equal(time.Date(2000, 1, 2, 2, 0, 0, 0, time.UTC)) {
			t.Fatalf("job: %+v, %v", j, err)
		}
		b.wants("AA")
		if i, err := b.Schedule(t.Context(), "n"); err != nil || i.Last == nil || i.Last.Job != 1 || i.Next[0].Date != "2000-01-08" {
			t.Errorf("afterwards: %+v, %v", i, err)
		}
		// By hand, while its own job lives: refused as any other.
		var p *api.Problem
		if _, err := b.RunSchedule(t.Context(), "n", "r1", ""); !errors.As(err, &p) || p.Code != api.CodeHostBusy {
			t.Errorf("run now: %v", err)
		}
		b.pass(5*time.Hour, 5*time.Hour)
		b.wants("NN")
		if _, err := b.RunSchedule(t.Context(), "n", "wrong", ""); !errors.As(err, &p) || p.Code != api.CodeConfirm {
			t.Errorf("run now without the room's name: %v", err)
		}
		if j, err := b.RunSchedule(t.Context(), "n", "r1", ""); err != nil || j.NotAfter.Sub(j.Created) != 4*time.Hour {
			t.Errorf("run now: %+v, %v", j, err)
		}
		if got := b.runs("n"); len(got) != 1 {
			t.Errorf("a run by hand is in the ledger: %v", got)
		}
	})
}

func TestMissedPausedAndBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := idle(t, store.NewMem())
		b.room(1)
		b.put(weekly("n", "UTC", "sat", "sun", "mon", "tue", "wed", "thu", "fri"))
		time.Sleep(2*24*time.Hour + 23*time.Hour) // the server is away for two nights, and comes back inside the third
		b.pass(10*time.Second, 5*time.Second)
		if _, err := b.PauseSchedule(t.Context(), "n", true, "eva"); err != nil {
			t.Fatal(err)
		}
		b.pass(24*time.Hour, 20*time.Minute)
		if _, err := b.PauseSchedule(t.Context(), "n", false, "eva"); err != nil { // inside the window of that day
			t.Fatal(err)
		}
		b.pass(20*time.Hour, 20*time.Minute)
		b.create(api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1", ExpiresInS: 8 * 3600})
		b.pass(4*time.Hour, 20*time.Minute)
		want := []string{"2000-01-01 missed the server was not there while its window was open", "2000-01-02 missed the server was not there while its window was open",
			"2000-01-03 started 1h0m0s late", "2000-01-04 skipped paused by eva", "2000-01-05 skipped conflict: hosts are in a job that has not ended: a1 (ARMED in job 2); wait for it or cancel it"}
		if got := b.runs("n"); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("ledger:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if !hasEvent(t, b, "schedule_missed") { // it is told: notify.Triggers
			t.Error("no event says that a run was missed")
		}
	})
}

// TestScheduleTimes: what the figures say of a schedule.
func TestScheduleTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // Saturday 2000-01-01 00:00 UTC
		b := idle(t, store.NewMem())
		b.room(1)
		b.put(weekly("n", "UTC", "sat", "mon"))
		times := func() string {
			t.Helper()
			list, err := b.ScheduleTimes(t.Context())
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			return list[0].Next.UTC().Format("01-02 15:04") + " " + list[0].Success.UTC().Format("06-01-02 15:04")
		}
		if got := times(); got != "01-01 22:00 01-01-01 00:00" {
			t.Errorf("before the first run: %s", got)
		}
		b.pass(22*time.Hour+time.Minute, time.Hour+time.Minute)
		if got := times(); got != "01-03 22:00 01-01-01 00:00" {
			t.Errorf("while it runs: %s", got)
		}
		b.finish(0, 1, true)
		b.pass(time.Hour, time.Minute)
		if got := times(); got != "01-03 22:00 "+b.jobEnd(1).Format("06-01-02 15:04") {
			t.Errorf("after the first run: %s, job ended %s", got, b.jobEnd(1))
		}
		if _, err := b.PauseSchedule(t.Context(), "n", true, "eva"); err != nil {
			t.Fatal(err)
		}
		if got := times(); !strings.HasPrefix(got, "01-01 00:00") { // none
			t.Errorf("paused: %s", got)
		}
	})
}

func (b *bench) jobEnd(id uint64) time.Time {
	b.t.Helper()
	j, err := b.Job(b.t.Context(), id)
	if err != nil || j.Result != "ok" {
		b.t.Fatalf("job %d is %q: %+v, %v", id, j.Result, j.Slots, err)
	}
	return j.Ended
}

// cut is a store that loses power at the n-th commit: before it, or after it
// was durable but before anybody heard.
type cut struct {
	store.Store
	left  int
	after bool
}

var errPower = errors.New("power cut")

func (c *cut) Update(ctx context.Context, fn func(store.Tx) error) error {
	c.left--
	if c.left > 0 || c.left < 0 && !c.after {
		return c.Store.Update(ctx, fn)
	}
	if c.left < 0 {
		return errPower
	}
	if c.after {
		if err := c.Store.Update(ctx, fn); err != nil {
			return err
		}
	} else {
		c.left = -1 << 30 // down from here on
		c.after = true
	}
	return errPower
}

// TestRestartAtEveryCommit: wherever the server stops, the night has one job
// and one entry.
func TestRestartAtEveryCommit(t *testing.T) {
	for n := 1; n <= 8; n++ {
		for _, after := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				mem := store.NewMem()
				b := idle(t, mem)
				b.room(2)
				b.put(weekly("n", "UTC", "sat"))
				time.Sleep(22 * time.Hour)
				b.cfg.Store = &cut{Store: mem, left: n, after: after}
				now := time.Now()
				first := errors.Join(b.runSchedules(t.Context(), now, 0), b.sweep(t.Context(), now))
				b.start() // a new process on what was stored
				b.end()
				b.pass(time.Minute, 5*time.Second)
				jobs, err := b.Jobs(t.Context())
				if err != nil || len(jobs) != 1 || len(b.runs("n")) != 1 || b.runs("n")[0] != "2000-01-01 started" {
					t.Errorf("cut at commit %d (durable %v, %v): %d jobs, ledger %v, %v", n, after, first, len(jobs), b.runs("n"), err)
				}
				if n == 1 && first == nil {
					t.Error("the cut was not felt: this test proves nothing")
				}
			})
		}
	}
}

func TestClockInDoubtStartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := idle(t, store.NewMem())
		b.room(1)
		b.put(weekly("n", "UTC", "sat", "sun", "mon", "tue"))
		b.pass(time.Minute, time.Minute)
		at := func(wall time.Time) {
			t.Helper()
			if err := b.runSchedules(t.Context(), wall.Round(0), time.Since(b.started)); err != nil {
				t.Fatal(err)
			}
		}
		at(time.Now().Add(22*time.Hour + 5*time.Minute)) // the wall clock jumps into the window
		if got := b.runs("n"); got != nil || !hasEvent(t, b, "clock_doubt") {
			t.Fatalf("a jump of the clock started %v", got)
		}
		at(time.Now())
		b.pass(23*time.Hour, time.Hour)
		if got := b.runs("n"); got != nil {
			t.Fatalf("in doubt, but started: %v", got)
		}
		i, err := b.PauseSchedule(t.Context(), "n", true, "eva")
		if err == nil {
			i, err = b.PauseSchedule(t.Context(), "n", false, "eva")
		}
		if err != nil || i.Clock != "" {
			t.Fatalf("resumed: %q, %v", i.Clock, err)
		}
		b.pass(24*time.Hour, 10*time.Minute)
		if got := fmt.Sprint(b.runs("n")); got != "[2000-01-02 started]" {
			t.Errorf("ledger: %s", got)
		}
		// Restarted with a clock that went back a day: the night is not run again.
		time.Sleep(time.Hour)
		b.start()
		b.end()
		if err := b.runSchedules(t.Context(), time.Now().Add(-24*time.Hour).Round(0), 0); err != nil {
			t.Fatal(err)
		}
		if i, err := b.Schedule(t.Context(), "n"); err != nil || !strings.Contains(i.Clock, "a run was noted") {
			t.Errorf("clock a day behind: %q, %v", i.Clock, err)
		}
	})
}

func TestScheduleRefusals(t *testing.T) {
	b := newBench(t, store.NewMem())
	defer b.end()
	b.room(2)
	b.put(weekly("n", "Europe/Berlin"))
	refused := func(p api.SchedulePut, code, text string) {
		t.Helper()
		var pr *api.Problem
		if _, err := b.PutSchedule(t.Context(), &p); !errors.As(err, &pr) || pr.Code != code || !strings.Contains(pr.Detail, text) {
			t.Errorf("%+v: %v; want %s with %q", p, err, code, text)
		}
	}
	with := func(set func(*api.SchedulePut)) api.SchedulePut {
		p := weekly("m", "Europe/Berlin", "sat")
		set(&p)
		return p
	}
	refused(with(func(p *api.SchedulePut) { p.Confirm = "r2" }), api.CodeConfirm, "r1")
	refused(with(func(p *api.SchedulePut) { p.TZ = "Mars/Olympus" }), api.CodeUsage, "not known")
	refused(with(func(p *api.SchedulePut) { p.Start = "26:00" }), api.CodeUsage, "26:00")
	refused(with(func(p *api.SchedulePut) { p.Weekdays = []string{"fri"} }), api.CodeConflict, "overlaps n: both want host a1")
	refused(with(func(p *api.SchedulePut) {
		p.Weekdays = []string{"fri"}
		p.Job.Room = ""
		p.Job.Hosts = []string{"a2"}
		p.Confirm = "deb"
	}), api.CodeConflict, "host a2")
	refused(with(func(p *api.SchedulePut) { p.Weekdays = nil; p.Date = "2001-01-01" }), api.CodeUsage, "never run")
	refused(with(func(p *api.SchedulePut) { p.Job.Room = "r9"; p.Confirm = "r9" }), api.CodeNotFound, "r9")
	refused(with(func(p *api.SchedulePut) { p.Job.Image = "none" }), api.CodeNotFound, "none")
	refused(with(func(p *api.SchedulePut) { p.Job.NotAfter = time.Now().Add(time.Hour) }), api.CodeUsage, "no window")
	refused(with(func(p *api.SchedulePut) { p.Skip = []string{"x"} }), api.CodeUsage, "calendar")
	dry := with(func(p *api.SchedulePut) { p.DryRun, p.Confirm = true, "" })
	if i, err := b.PutSchedule(t.Context(), &dry); err != nil || len(i.Next) != 5 || i.Plan == nil || i.Plan.Erase != 2 {
		t.Errorf("dry run: %+v, %v", i, err)
	}
	if all, err := b.Schedules(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("refusals and a dry run left schedules: %+v, %v", all, err)
	}
	if _, err := b.PutCalendar(t.Context(), api.Calendar{Name: "c", Days: []string{"2030-01-01"}}); err != nil {
		t.Fatal(err)
	}
	b.put(with(func(p *api.SchedulePut) { p.Skip = []string{"c"} }))
	if err := b.RemoveCalendar(t.Context(), "c"); err == nil {
		t.Error("a calendar that is needed was removed")
	}
	if err := errors.Join(b.RemoveSchedule(t.Context(), "m"), b.RemoveCalendar(t.Context(), "c")); err != nil {
		t.Error(err)
	}
	if err := b.RemoveSchedule(t.Context(), "m"); err == nil {
		t.Error("removed twice")
	}
}
