package daemon

import (
	"errors"
	"strings"
	"testing"
	"time"

	"labswarm/api"
)

// TestPlanKnowsWhatAHostKeeps: a host that was given a version keeps all but
// what the next one changed. An unknown host fetches all.
func TestPlanKnowsWhatAHostKeeps(t *testing.T) {
	s := newSite(t)
	s.host("a1")
	first, err := s.cli.Images(t.Context())
	if err != nil || len(first) != 1 {
		t.Fatal(first, err)
	}
	s.given(first[0].Version)
	next := s.another() // one cell differs
	s.host("a2")
	plan, err := s.cli.PlanJob(t.Context(), api.JobCreate{Image: s.image, Version: next, Room: "r1"})
	if err != nil {
		t.Fatal(err)
	}
	knows, not := plan.Hosts[0], plan.Hosts[1]
	if cells := first[0].Cells; knows.Holds != s.image+"/"+first[0].Version || knows.KeepCells != cells-1 || knows.FetchCells != 1 || knows.FetchBytes != 256<<10 || not.FetchCells != cells || not.Holds != "" {
		t.Errorf("of %d cells: %+v, %+v", cells, knows, not)
	}
}

// TestSteeringOverTheSocket: jobs and schedules, through every route.
func TestSteeringOverTheSocket(t *testing.T) {
	s := newSite(t)
	s.host("a1")
	s.host("a2")
	ctx := t.Context()
	j := s.createJob()
	want := func(what string, states string, j api.Job, err error) {
		t.Helper()
		got := ""
		for _, sl := range j.Slots {
			got += string(sl.State) + " "
		}
		if err != nil || strings.TrimSpace(got) != states {
			t.Errorf("%s: %s, %v; want %s", what, got, err, states)
		}
	}
	paused, err := s.cli.PauseJob(ctx, j.ID)
	want("pause", "ARMED ARMED", paused, err)
	if paused.PausedBy == "" {
		t.Error("nobody has paused it")
	}
	got, err := s.cli.ResumeJob(ctx, j.ID)
	want("resume", "ARMED ARMED", got, err)
	end := j.NotAfter.Add(time.Hour)
	got, err = s.cli.ExtendJob(ctx, j.ID, end)
	if want("extend", "ARMED ARMED", got, err); !got.NotAfter.Equal(end) {
		t.Errorf("extended to %s; want %s", got.NotAfter, end)
	}
	for _, step := range []struct{ act, states string }{{api.ActHold, "ARMED HELD"}, {api.ActRelease, "ARMED ARMED"}, {api.ActSkip, "ARMED SKIPPED"}, {api.ActRetry, "ARMED PENDING"}} {
		got, err = s.cli.ActOnHost(ctx, j.ID, "A2", step.act) // names are the same in any case
		want(step.act, step.states, got, err)
	}
	var p *api.Problem
	if _, err := s.cli.PauseJob(ctx, 99); !errors.As(err, &p) || p.Code != api.CodeNotFound {
		t.Errorf("pause of no job: %v", err)
	}

	if _, err := s.cli.PutCalendar(ctx, api.Calendar{Name: "c", Days: []string{"2030-01-01"}}); err != nil {
		t.Fatal(err)
	}
	put := api.SchedulePut{Confirm: "r1", Schedule: api.Schedule{Name: "n", Weekdays: []string{"mon"}, Start: "22:00", End: "06:00", TZ: "Europe/Berlin", Skip: []string{"c"}, Job: api.JobCreate{Image: s.image, Room: "r1"}}}
	i, err := s.cli.PutSchedule(ctx, put)
	if err != nil || len(i.Next) != 5 {
		t.Fatalf("put: %+v, %v", i, err)
	}
	if i, err = s.cli.PauseSchedule(ctx, "n", true); err != nil || i.Paused.IsZero() {
		t.Errorf("pause: %+v, %v", i, err)
	}
	if i, err = s.cli.PauseSchedule(ctx, "N", false); err != nil || !i.Paused.IsZero() {
		t.Errorf("resume: %+v, %v", i, err)
	}
	if _, err := s.cli.RunSchedule(ctx, "n", "r1"); !errors.As(err, &p) || p.Code != api.CodeHostBusy {
		t.Errorf("run over a live job: %v", err)
	}
	s.restart()
	all, err := s.cli.Schedules(ctx)
	if err != nil || len(all) != 1 || all[0].Name != "n" {
		t.Errorf("after a restart: %+v, %v", all, err)
	}
	if runs, err := s.cli.ScheduleRuns(ctx, "n"); err != nil || len(runs) != 0 {
		t.Errorf("runs: %+v, %v", runs, err)
	}
	if err := s.cli.RemoveCalendar(ctx, "c"); !errors.As(err, &p) || p.Code != api.CodeConflict {
		t.Errorf("a calendar in use was removed: %v", err)
	}
	if err := errors.Join(s.cli.RemoveSchedule(ctx, "n"), s.cli.RemoveCalendar(ctx, "c")); err != nil {
		t.Error(err)
	}
	if _, err := s.cli.Schedule(ctx, "n"); !errors.As(err, &p) || p.Code != api.CodeNotFound {
		t.Errorf("a schedule that was removed: %v", err)
	}
	if cals, err := s.cli.Calendars(ctx); err != nil || len(cals) != 0 {
		t.Errorf("calendars: %+v, %v", cals, err)
	}
}
