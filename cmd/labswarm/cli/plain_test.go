package cli

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labswarm/api"
)

func (d *desk) Code(_ context.Context, code string) (api.ReadOut, error) {
	if c, ok := api.CheckReadOut(code); !ok || c != "DW-4K7P" {
		return api.ReadOut{}, &api.Problem{Status: 404, Code: api.CodeNotFound, Detail: "no PC has reported the code"}
	}
	return api.ReadOut{Code: "DW-4K7P", Host: "pc1", Room: "A101", Job: 5, Image: "deb/1", PONR: true, Error: "cannot write",
		Fault: &api.DiskFault{Op: "write", Off: 1024, Sector: 2, Errno: "EIO"}, Log: "logs/x.log"}, nil
}

func TestHostCode(t *testing.T) {
	_, dir := open(t)
	code, out, _ := run(t.Context(), t, dir, "host", "show", "--code", "dw 4k7p")
	for _, want := range []string{"pc1 in room A101", "its old system is gone", "EIO, write at byte 1024, sector 2", "logs/x.log"} {
		if code != ExitOK || !strings.Contains(out, want) {
			t.Errorf("exit code %d, %q lacks %q", code, out, want)
		}
	}
	if code, _, errOut := run(t.Context(), t, dir, "host", "show", "--code", "DW-9999"); code != ExitFailed || !strings.Contains(errOut, "no PC has reported") {
		t.Errorf("unknown code: exit code %d, %q", code, errOut)
	}
	for _, args := range [][]string{{"host", "show"}, {"host", "show", "pc1", "--code", "DW-4K7P"}} {
		if code, _, _ := run(t.Context(), t, dir, args...); code != ExitUsage {
			t.Errorf("%v: exit code %d; want %d", args, code, ExitUsage)
		}
	}
}

func TestAnnouncements(t *testing.T) {
	at := time.Date(2026, 11, 21, 2, 4, 52, 0, time.Local)
	a := newAnnouncer([]api.Host{{Name: "A101-a13", HostPlace: api.HostPlace{Seat: "a13"}}})
	job := api.Job{ID: 118, EtaS: -1, Slots: slots(api.StateWriting, api.StateWriting)}
	job.Slots = append(job.Slots, api.Slot{Host: "A101-a13", State: api.StateWriting})
	say := func(after time.Duration, want ...string) {
		t.Helper()
		if got := a.next(at.Add(after), job); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("after %v: %q; want %q", after, got, want)
		}
	}
	say(0, "02:04:52 3 PCs are writing. 0 of 3 done.")
	job.Slots[2].State, job.Slots[2].Error, job.Slots[2].ReadOut = api.StateFailed, "disk cannot write.", "DW-4K7P"
	job.Slots[0].State = api.StateDone
	say(time.Second, "02:04:53 seat a13 failed: disk cannot write, code DW-4K7P. 1 of 3 done.") // a failure does not wait
	say(2*time.Second, "02:04:54 "+job.Slots[0].Host+" is done, written and verified. 1 of 3 done.")
	say(5 * time.Second)
	job.Percent, job.EtaS = 41.5, 300
	say(6*time.Second, "02:04:58 job 118 is at 40 percent, about 5m00s left. 1 of 3 done.")
	say(60 * time.Second)
}

// TestAnnouncementsAreFew: whatever happens, there is one sentence in 2 s beside
// the failures, every failure is said once, and the last state is said.
func TestAnnouncementsAreFew(t *testing.T) {
	states := api.AllStates()
	rapid.Check(t, func(rt *rapid.T) {
		a, now := newAnnouncer(nil), time.Unix(1e9, 0)
		job := api.Job{ID: 1, EtaS: -1, Slots: make([]api.Slot, 4)}
		var last time.Time
		for range rapid.IntRange(1, 40).Draw(rt, "pictures") {
			now = now.Add(time.Duration(rapid.IntRange(1, 1500).Draw(rt, "ms")) * time.Millisecond)
			failures := 0
			for i := range job.Slots {
				s := &job.Slots[i]
				old := s.State
				s.Host, s.State = fmt.Sprint("h", i), rapid.SampledFrom(states).Draw(rt, "state")
				if old != s.State && (s.State == api.StateFailed || s.State == api.StateHeld) && a.said[s.Host] != s.State {
					failures++
				}
			}
			lines := a.next(now, job)
			others := 0
			for _, l := range lines {
				if strings.Contains(l, " failed: ") || strings.Contains(l, " is held for a person: ") {
					failures--
				} else {
					others++
				}
			}
			if failures != 0 || others > 1 || others == 1 && !last.IsZero() && now.Sub(last) < announceEvery {
				rt.Fatalf("%v since the last, %d failures not said: %q", now.Sub(last), failures, lines)
			}
			if others == 1 {
				last = now
			}
		}
		a.next(now.Add(announceEvery), job)
		for _, s := range job.Slots {
			if a.said[s.Host] != s.State {
				rt.Fatalf("%s is %s, said was %s", s.Host, s.State, a.said[s.Host])
			}
		}
	})
}

func TestPlainWatchAndConsole(t *testing.T) {
	_, dir := open(t, api.Job{ID: 5, Result: "partial", Slots: slots(api.StateConfirmed, api.StateFailed)})
	code, out, _ := run(t.Context(), t, dir, "--plain", "job", "watch", "5")
	if code != ExitPartial || strings.ContainsAny(out, "\r\x1b") || !strings.Contains(out, " failed: ") || !strings.Contains(out, "1 of 2 done.") {
		t.Errorf("exit code %d: %q", code, out)
	}
	t.Setenv("LABSWARM_ACCESSIBLE", "1")
	if code, _, errOut := run(t.Context(), t, dir); code != ExitUsage || !strings.Contains(errOut, "labswarm job watch --plain") {
		t.Errorf("console: exit code %d, %q", code, errOut)
	}
}

func TestFilters(t *testing.T) {
	d, dir := open(t, api.Job{ID: 5, Slots: slots(api.StateWriting, api.StateFailed)})
	names := []string{d.jobs[0].Slots[0].Host, d.jobs[0].Slots[1].Host}
	if code, out, _ := run(t.Context(), t, dir, "job", "show", "5", "--filter", "state=failed"); code != ExitOK || strings.Contains(out, names[0]+" ") || !strings.Contains(out, names[1]+" ") {
		t.Errorf("job show: exit code %d: %s", code, out)
	}
	if code, out, _ := run(t.Context(), t, dir, "events", "--filter", "host!=pc1"); code != ExitOK || out != "" {
		t.Errorf("events: exit code %d: %s", code, out)
	}
	if code, out, _ := run(t.Context(), t, dir, "events", "--filter", "level=warn", "--json"); code != ExitOK || strings.Count(out, `"message_type":"event"`) != 2 {
		t.Errorf("events: exit code %d: %s", code, out)
	}
	for _, args := range [][]string{{"host", "ls"}, {"job", "show", "5"}, {"events"}} {
		code, _, errOut := run(t.Context(), t, dir, append(args, "--filter", "colour=red")...)
		if code != ExitUsage || !strings.Contains(errOut, `no column "colour"`) {
			t.Errorf("%v: exit code %d, %q", args, code, errOut)
		}
	}
	now := time.Unix(1e9, 0)
	h := api.Host{Name: "a", Room: "A", Firmware: "secureboot", LastSeen: now.Add(-49 * time.Hour)}
	if r := hostRow(h, &api.Slot{State: api.StateNoShow, LastIP: "10.0.0.9"}, now); r["fw"] != "secure" || r["seen"] != "2" || r["state"] != "NO_SHOW" || r["address"] != "10.0.0.9" {
		t.Errorf("row %v", r)
	}
}
