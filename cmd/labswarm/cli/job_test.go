package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labswarm/api"
)

// steered is what a desk was asked to do to jobs.
func (d *desk) steered(what string) (api.Job, error) {
	d.set(func() { d.asked = append(d.asked, what) })
	return api.Job{ID: 5, NotAfter: time.Now().Add(time.Hour), Slots: slots(api.StateArmed)}, nil
}

func (d *desk) PauseJob(context.Context, uint64, string) (api.Job, error) { return d.steered("pause") }
func (d *desk) ResumeJob(context.Context, uint64, string) (api.Job, error) {
	return d.steered("resume")
}
func (d *desk) ExtendJob(_ context.Context, _ uint64, end time.Time, _ string) (api.Job, error) {
	return d.steered("extend by " + time.Until(end).Round(time.Minute).String())
}

func (d *desk) ActOnHost(_ context.Context, _ uint64, host, act, _ string) (api.Job, error) {
	return d.steered(act + " " + host)
}

func TestWindowFlagsReachTheServer(t *testing.T) {
	d, dir := open(t)
	if code, _, errOut := run(t.Context(), t, dir, "job", "create", "--image", "deb", "--room", "A101", "--confirm", "A101", "--at", "2h", "--until", "3h", "--on-window-end", "hold",
		"--max-overrun", "45m", "--canary", "2", "--max-failures", "10%", "--wake"); code != ExitOK {
		t.Fatalf("exit code %d, %s", code, errOut)
	}
	p := d.made[0].JobPolicy
	if !near(p.NotBefore, 2*time.Hour) || !near(p.NotAfter, 5*time.Hour) || p.OnWindowEnd != "hold" || p.MaxOverrunS != 2700 || p.Canary != 2 || p.MaxFailures != "10%" || !p.Wake {
		t.Errorf("asked for %+v", p)
	}
	for _, bad := range [][]string{{"--at", "tonight"}, {"--until", "-3h"}, {"--max-overrun", "x"}, {"-o", "x.json"}} {
		if code, _, _ := run(t.Context(), t, dir, append([]string{"job", "create", "--image", "deb", "--room", "A101", "--confirm", "A101"}, bad...)...); code != ExitUsage {
			t.Errorf("%v: exit code %d; want 2", bad, code)
		}
	}
	if len(d.made) != 1 {
		t.Errorf("%d jobs made; want 1", len(d.made))
	}
}

func near(at time.Time, d time.Duration) bool {
	off := time.Until(at) - d
	return off > -time.Minute && off < time.Minute
}

// TestPlanIsCarriedOut: what was kept is what is asked for, with its digest.
func TestPlanIsCarriedOut(t *testing.T) {
	d, dir := open(t)
	file := filepath.Join(t.TempDir(), "plan.json")
	if code, _, errOut := run(t.Context(), t, dir, "job", "create", "--image", "deb", "--room", "A101", "--dry-run", "-o", file); code != ExitOK || !strings.Contains(errOut, "--plan "+file) {
		t.Fatalf("exit code %d, %s", code, errOut)
	}
	raw, err := os.ReadFile(file)
	var p api.JobPlan
	if err != nil || json.Unmarshal(raw, &p) != nil || p.PlanDigest != "seen" {
		t.Fatalf("%v, %s", err, raw)
	}
	if code, _, errOut := run(t.Context(), t, dir, "job", "create", "--plan", file, "--confirm", "A101"); code != ExitOK || len(d.made) != 1 {
		t.Fatalf("exit code %d, %s", code, errOut)
	}
	if j := d.made[0]; j.PlanDigest != "seen" || j.ConfirmHosts != 1 || j.Image != "deb" || j.Room != "A101" || j.Confirm != "A101" {
		t.Errorf("asked for %+v", j)
	}
	if err := os.WriteFile(file+".bad", []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--plan", file, "--room", "B"}, {"--plan", file, "--canary", "1"}, {"--plan", file + ".bad", "--confirm", "A101"}, {"--plan", file}} {
		if code, _, _ := run(t.Context(), t, dir, append([]string{"job", "create"}, args...)...); code != ExitUsage {
			t.Errorf("%v: exit code %d; want 2", args, code)
		}
	}
	if code, _, _ := run(t.Context(), t, dir, "job", "create", "--plan", file+".none", "--confirm", "A101"); code != ExitFailed {
		t.Error("a plan that is not there")
	}
}

func TestSteering(t *testing.T) {
	d, dir := open(t, api.Job{ID: 5, NotAfter: time.Now().Add(time.Hour), Slots: slots(api.StateArmed)})
	for _, args := range []string{"pause 5", "resume 5", "extend 5 --by 30m", "extend 5 --until 5h", "retry 5 a b", "skip 5 a", "exclude 5 a", "hold 5 a", "release 5 a"} {
		if code, out, errOut := run(t.Context(), t, dir, append([]string{"job"}, strings.Fields(args)...)...); code != ExitOK || !strings.Contains(out, "1 ARMED") {
			t.Errorf("%s: exit code %d, %q, %q", args, code, out, errOut)
		}
	}
	if got, want := strings.Join(d.asked, ", "), "pause, resume, extend by 1h30m0s, extend by 5h0m0s, retry a, retry b, skip a, skip a, hold a, release a"; got != want {
		t.Errorf("asked of the server: %s; want %s", got, want)
	}
	for _, args := range []string{"pause", "extend 5", "extend 5 --by -1h", "extend 5 --by 1h --until 5h", "retry 5", "skip x a"} {
		if code, _, _ := run(t.Context(), t, dir, append([]string{"job"}, strings.Fields(args)...)...); code != ExitUsage {
			t.Errorf("%s: exit code %d; want 2", args, code)
		}
	}
}
