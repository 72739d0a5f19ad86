//go:build e2e

package e2e

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/e2e/classroom"
	"labswarm/internal/testvm"
)

// TestNight is a night that nobody watches: four terminals are switched off, a
// schedule begins by itself, magic packets wake three of them, they are reimaged
// and switch themselves off, and the report names the one that never woke. Switched
// on next morning, that one boots its own system; not a byte of its disk changes.
func TestNight(t *testing.T) {
	needLAN(t)
	needVMs(t, testvm.BIOS)
	img := tinyImage(t, "tiny")
	s := open(t, withPrograms(t, classroom.Options{ImageFile: img, Terminals: 4, Firmware: []testvm.Firmware{testvm.BIOS}, DiskBytes: 256 << 20,
		Tune: func(i int, c *testvm.Config) error {
			if i < 3 {
				return dirty(i, c)
			}
			return copyFile(img, c.Disks[0].Path)
		}}))
	pcs := s.Terminals()
	if err := s.AddHosts(t.Context(), pcs...); err != nil {
		t.Fatal(err)
	}
	dead := pcs[3]
	before := hash(t, dead.Disk)
	night, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	var asleep sync.WaitGroup
	defer asleep.Wait()
	for _, pc := range pcs {
		asleep.Go(func() {
			if err := pc.Sleep(night); err != nil {
				t.Errorf("%s: %v", pc.Name, err)
				return
			}
			t.Logf("%s: magic packet", pc.Name)
			if pc == dead { // its power supply is broken
				return
			}
			if err := pc.PowerOn(night); err != nil {
				t.Error(err)
			}
		})
	}
	job := startedJob(t, night, s, classroomSchedule(t, s))
	if job.Result != "partial" {
		t.Errorf("the job ended %q; want partial", job.Result)
	}
	asleep.Wait()
	for _, pc := range pcs[:3] {
		select {
		case <-pc.VM().Done():
		case <-night.Done():
			t.Fatalf("%s did not switch itself off", pc.Name)
		}
		if c, err := classroom.CompareDisk(t.Context(), img, pc.Disk, pc.Name); err != nil {
			t.Errorf("%s: %v", pc.Name, err)
		} else {
			t.Logf("%s: off, %d used bytes equal", pc.Name, c.Bytes)
		}
	}
	nightReport(t, s, job.ID, dead.Name)
	if err := dead.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitLocal(t, s, dead, 3*time.Minute)
	if hash(t, dead.Disk) != before {
		t.Errorf("%s: its disk changed although it slept through the night", dead.Name)
	}
}

// nightWindow is the schedule's window: long enough for three terminals on a busy
// machine to reach their commence, short enough for a test.
const nightWindow = 2 * time.Minute

// classroomSchedule adds a schedule that begins with the next minute, and returns
// its name.
func classroomSchedule(t *testing.T, s *classroom.Session) string {
	t.Helper()
	start := time.Now().UTC().Truncate(time.Minute).Add(time.Minute)
	if time.Until(start) < 5*time.Second { // a window that has begun does not count
		start = start.Add(time.Minute)
	}
	out, err := s.Admin(t.Context(), "schedule", "add", "night", "--date", start.Format(time.DateOnly), "--start", start.Format("15:04"),
		"--end", start.Add(nightWindow).Format("15:04"), "--tz", "UTC", "--room", classroom.Room, "--image", s.Image, "--confirm", classroom.Room,
		"--wake", "--after", "poweroff")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", out)
	return "night"
}

// startedJob waits until the schedule has made its job, and then for the job's end.
func startedJob(t *testing.T, ctx context.Context, s *classroom.Session, schedule string) api.Job {
	t.Helper()
	var job api.Job
	states := map[string]api.State{}
	for tick := time.NewTicker(500 * time.Millisecond); ; {
		if job.ID == 0 {
			job.ID = runOf(t, s, schedule)
		}
		if job.ID != 0 {
			fresh, err := s.Job(ctx, job.ID)
			if err != nil {
				t.Fatalf("%v\nserver log:\n%s", err, s.ServerLog(20))
			}
			job = fresh
			for _, sl := range job.Slots {
				if states[sl.Host] != sl.State {
					states[sl.Host] = sl.State
					t.Logf("%s: %s %s", sl.Host, sl.State, sl.Error)
				}
			}
			if job.Result != "" {
				tick.Stop()
				return job
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("job %d did not end\nserver log:\n%s", job.ID, s.ServerLog(30))
		case <-tick.C:
		}
	}
}

// runOf is the job of the schedule's one run, 0 before it has begun.
func runOf(t *testing.T, s *classroom.Session, schedule string) uint64 {
	t.Helper()
	out, err := s.Admin(t.Context(), "schedule", "history", schedule, "--json")
	if err != nil {
		t.Fatal(err)
	}
	var runs []api.ScheduleRun
	if err := json.Unmarshal(out, &runs); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if len(runs) == 0 {
		return 0
	}
	if runs[0].Result != api.RunStarted {
		t.Fatalf("the schedule's run: %+v", runs[0])
	}
	return runs[0].Job
}

// nightReport checks both documents: three written and verified, one that never came.
func nightReport(t *testing.T, s *classroom.Session, job uint64, noShow string) {
	t.Helper()
	document := func(format string) []byte {
		out, err := s.Admin(t.Context(), "job", "report", fmt.Sprint(job), "--format", format)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	var r struct {
		Result string
		Hosts  []struct {
			Name     string
			State    api.State
			Verified bool
			Error    string
			Written  int `json:"cells_written"`
		}
	}
	if err := json.Unmarshal(document("json"), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Hosts) != 4 || r.Result != "partial" {
		t.Fatalf("report: %+v", r)
	}
	for _, h := range r.Hosts {
		good := h.State == api.StateDone && h.Verified && h.Written > 0
		if h.Name == noShow {
			good = h.State == api.StateNoShow && !h.Verified && h.Written == 0 && strings.Contains(h.Error, "magic packets")
		}
		if !good {
			t.Errorf("report: %+v", h)
		}
	}
	rows, err := csv.NewReader(strings.NewReader(string(document("csv")))).ReadAll()
	if err != nil || len(rows) != 5 {
		t.Fatalf("CSV: %q, %v", rows, err)
	}
	states := map[string]int{}
	for _, row := range rows[1:] {
		states[row[7]]++ // state
	}
	if states[string(api.StateDone)] != 3 || states[string(api.StateNoShow)] != 1 {
		t.Errorf("states in the CSV: %v", states)
	}
}
