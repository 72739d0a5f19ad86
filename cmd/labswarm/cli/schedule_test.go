package cli

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"labswarm/api"
)

// A desk's schedules: what was asked is kept, answers are the same for all.
func (d *desk) sched(what string) (api.ScheduleInfo, error) {
	d.set(func() { d.asked = append(d.asked, what) })
	at := time.Date(2026, 12, 1, 22, 0, 0, 0, time.UTC)
	return api.ScheduleInfo{Schedule: api.Schedule{Name: "n", Weekdays: []string{"tue"}, Start: "22:00", End: "06:00", TZ: "Europe/Berlin", Job: api.JobCreate{Image: "deb", Room: "A101"}},
		Next: []api.ScheduleNext{{Date: "2026-12-01", Start: at, End: at.Add(8 * time.Hour)}, {Date: "2026-12-08", Start: at, End: at, Skip: "calendar x"}},
		Last: &api.ScheduleRun{Date: "2026-11-24", Result: api.RunStarted, Job: 7, Reason: "1h0m0s late"}}, nil
}

func (d *desk) Schedules(context.Context) ([]api.ScheduleInfo, error) {
	i, err := d.sched("list")
	return []api.ScheduleInfo{i}, err
}

func (d *desk) Schedule(_ context.Context, name string) (api.ScheduleInfo, error) {
	return d.sched("show " + name)
}

func (d *desk) PutSchedule(_ context.Context, p *api.SchedulePut) (api.ScheduleInfo, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return api.ScheduleInfo{}, err
	}
	return d.sched("put " + string(raw))
}
func (d *desk) RemoveSchedule(_ context.Context, n string) error {
	_, err := d.sched("rm " + n)
	return err
}
func (d *desk) PauseSchedule(_ context.Context, n string, pause bool, _ string) (api.ScheduleInfo, error) {
	return d.sched(map[bool]string{true: "pause ", false: "resume "}[pause] + n)
}

func (d *desk) RunSchedule(_ context.Context, n, confirm, _ string) (api.Job, error) {
	return d.steered("run " + n + " " + confirm)
}

func (d *desk) ScheduleRuns(_ context.Context, n string) ([]api.ScheduleRun, error) {
	i, err := d.sched("runs " + n)
	return []api.ScheduleRun{*i.Last}, err
}

func (d *desk) Calendars(context.Context) ([]api.Calendar, error) {
	return []api.Calendar{{Name: "x", Days: []string{"2026-12-24..2027-01-06"}}}, nil
}

func (d *desk) PutCalendar(_ context.Context, c api.Calendar) (api.Calendar, error) {
	_, err := d.sched("calendar " + c.Name + " " + strings.Join(c.Days, " "))
	return c, err
}
func (d *desk) RemoveCalendar(_ context.Context, n string) error {
	_, err := d.sched("rm calendar " + n)
	return err
}

func TestSchedule(t *testing.T) {
	d, dir := open(t)
	for _, tt := range []struct{ args, asked, out string }{
		{"ls", "list", "next  2026-12-01"}, {"next", "list", "skipped: calendar x"}, {"show n", "show n", "last  2026-11-24  started  job 7  1h0m0s late"},
		{"pause n", "pause n", "22:00 to 06:00"}, {"resume n", "resume n", "22:00 to 06:00"}, {"run n --confirm A101", "run n A101", "job 5"}, {"history n", "runs n", "2026-11-24  started"},
		{"rm n", "rm n", ""}, {"calendar ls", "", "2026-12-24..2027-01-06"}, {"calendar set x 2026-12-24 2026-12-26..2027-01-06", "calendar x 2026-12-24 2026-12-26..2027-01-06", "2 entries"},
		{"calendar rm x", "rm calendar x", ""},
	} {
		d.set(func() { d.asked = nil })
		code, out, errOut := run(t.Context(), t, dir, append([]string{"schedule"}, strings.Fields(tt.args)...)...)
		if code != ExitOK || !strings.Contains(out, tt.out) || strings.Join(d.asked, ", ") != tt.asked {
			t.Errorf("schedule %s: exit code %d, asked %q, printed %q %q", tt.args, code, d.asked, out, errOut)
		}
	}
	if _, out, _ := run(t.Context(), t, dir, "schedule", "ls", "--json"); !json.Valid([]byte(out)) {
		t.Errorf("ls --json: %q", out)
	}
}

func TestScheduleAdd(t *testing.T) {
	d, dir := open(t)
	base := "schedule add n --image deb --room A101 --start 22:00 --end 06:00 --days mon,tue"
	if code, _, errOut := run(t.Context(), t, dir, strings.Fields(base+" --confirm A101 --tz Europe/Berlin --skip x --canary 2 --max-overrun 90m --catch-up never")...); code != ExitOK {
		t.Fatalf("exit code %d, %s", code, errOut)
	}
	var p api.SchedulePut
	if err := json.Unmarshal([]byte(strings.TrimPrefix(d.asked[0], "put ")), &p); err != nil {
		t.Fatal(err)
	}
	if p.Name != "n" || len(p.Weekdays) != 2 || p.Confirm != "A101" || p.TZ != "Europe/Berlin" || p.Skip[0] != "x" || p.Job.Canary != 2 || p.Job.MaxOverrunS != 5400 || p.CatchUp != "never" || p.Job.Room != "A101" || p.DryRun {
		t.Errorf("asked for %+v", p)
	}
	if code, out, _ := run(t.Context(), t, dir, strings.Fields(base+" --dry-run")...); code != ExitOK || !strings.Contains(d.asked[1], `"dry_run":true`) || !strings.Contains(out, "next  2026-12-01") {
		t.Errorf("dry run: exit code %d, asked %q, printed %q", code, d.asked, out)
	}
	d.set(func() { d.asked = nil })
	for _, args := range []string{base, "schedule add n", base + " --date 2026-12-01", base + " --hosts a", base + " --max-overrun x --confirm A101", "schedule run n", "schedule calendar set x", "schedule show"} {
		if code, _, _ := run(t.Context(), t, dir, strings.Fields(args)...); code != ExitUsage || len(d.asked) != 0 {
			t.Errorf("%s: exit code %d, asked %q; want 2 and nothing", args, code, d.asked)
		}
	}
}
