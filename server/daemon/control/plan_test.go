package control

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"labswarm/api"
	"labswarm/server/store"
)

func TestPlanIsAgreedTo(t *testing.T) {
	b := newBench(t, store.NewMem())
	defer b.end()
	b.room(3)
	if _, err := b.PutHost(t.Context(), api.Host{Name: "a3", Room: "r1", MAC: "52:54:00:00:00:03", Exclude: true}); err != nil {
		t.Fatal(err)
	}
	req := api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1"}
	plan, err := b.PlanJob(t.Context(), &req)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Erase != 2 || plan.ConfirmText != "r1" || plan.Hosts[2].Verdict != api.VerdictSkip || plan.Request.Confirm != "" || plan.FreeBytes <= 0 {
		t.Errorf("plan = %+v", plan)
	}
	if d := plan.NotAfter.Sub(plan.NotBefore); d != 4*time.Hour || plan.MaxOverrunS != 8*3600 || plan.OnWindowEnd != "finish" {
		t.Errorf("window of %s, %d s of overrun, %s", d, plan.MaxOverrunS, plan.OnWindowEnd)
	}
	refused := func(what, code, text string) {
		t.Helper()
		var p *api.Problem
		if _, err := b.CreateJob(t.Context(), &req, ""); !errors.As(err, &p) || p.Code != code || !strings.Contains(p.Detail, text) {
			t.Errorf("%s: %v; want %s with %q", what, err, code, text)
		}
	}
	refused("no plan", api.CodeConfirm, "name the plan")
	req.PlanDigest = plan.PlanDigest
	refused("no count", api.CodeConfirm, "2 hosts, 0 were confirmed")
	req.ConfirmHosts = 3
	refused("wrong count", api.CodeConfirm, "3 were confirmed")
	req.ConfirmHosts, req.Confirm = 2, "r2"
	refused("wrong room", api.CodeConfirm, "r1")
	req.Confirm = "r1"

	// The facts change: the difference is named. They change back: it is true again.
	put := func(h api.Host) {
		t.Helper()
		if _, err := b.PutHost(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	put(api.Host{Name: "a2", Room: "r1", MAC: "52:54:00:00:00:77"})
	refused("another PC", api.CodePlanStale, "is: host a2 mac 52:54:00:00:00:77")
	put(api.Host{Name: "a2", Room: "r1", MAC: "52:54:00:00:00:02", Disk: "bus=nvme"})
	refused("another disk rule", api.CodePlanStale, `rule "bus=nvme"`)
	put(api.Host{Name: "a2", Room: "r1", MAC: "52:54:00:00:00:02"})
	put(api.Host{Name: "a4", Room: "r1", MAC: "52:54:00:00:00:04"})
	refused("one more", api.CodePlanStale, "is: host a4")
	if err := b.RemoveHost(t.Context(), "a4"); err != nil {
		t.Fatal(err)
	}
	other := req
	other.After = "poweroff"
	if _, err := b.CreateJob(t.Context(), &other, ""); err == nil {
		t.Error("a job that is not the one of the plan")
	}
	if jobs, err := b.Jobs(t.Context()); err != nil || len(jobs) != 0 {
		t.Fatalf("refusals left jobs: %v, %v", jobs, err)
	}
	if _, err := b.CreateJob(t.Context(), &req, ""); err != nil {
		t.Error(err)
	}
	refused("the same hosts again", api.CodeHostBusy, "a1 (ARMED in job 1)")
	plan, err = b.PlanJob(t.Context(), &req)
	if err != nil || plan.Erase != 0 || len(plan.Conflicts) != 2 || plan.Hosts[0].Verdict != api.VerdictRefuse {
		t.Errorf("plan over a live job: %+v, %v", plan, err)
	}
}

// TestPlanTellsWhatIsKnown: what a host showed and held last is in its line.
func TestPlanTellsWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		defer b.end()
		b.room(2)
		b.create(api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1"})
		b.finish(0, 1, true)
		if _, err := b.CancelJob(t.Context(), 1, "eva"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Minute)
		now := time.Now()
		req := api.JobCreate{Image: "deb", Room: "r1", JobPolicy: api.JobPolicy{NotAfter: now.Add(5 * time.Minute)}}
		plan, err := b.PlanJob(t.Context(), &req)
		if err != nil {
			t.Fatal(err)
		}
		known, strange := plan.Hosts[0], plan.Hosts[1]
		if known.Verdict != api.VerdictGo || known.Fits != "yes" || known.DiskSerial != "S" || known.LinkMbps != 1000 || known.Holds != "deb/1" || known.KeepCells != 100 || known.FetchBytes != 0 || !known.InWindow || known.LastSeen.IsZero() {
			t.Errorf("a host that has the version: %+v", known)
		}
		if strange.Fits != "unknown" || strange.FetchCells != 100 || strange.FetchBytes != 100<<20 || strange.Holds != "" || !slices.ContainsFunc(strange.Risk, func(r string) bool { return strings.Contains(r, "never seen") }) {
			t.Errorf("a host nobody has seen: %+v", strange)
		}
		if plan.Erase != 2 || plan.InWindow != 2 || plan.EtaMinS <= 0 || plan.EtaMaxS <= plan.EtaMinS || plan.SeedBytes != 100<<20 {
			t.Errorf("forecast: %+v", plan)
		}
		// Times alone do not make a plan stale; a disk that shrank does.
		req.NotAfter = now.Add(time.Minute)
		tight, err := b.PlanJob(t.Context(), &req)
		if err != nil || tight.InWindow != 0 || tight.PlanDigest == plan.PlanDigest {
			t.Errorf("a window of one minute: %d fit, %v", tight.InWindow, err)
		}
		req.NotAfter = time.Time{}
		before, err := b.PlanJob(t.Context(), &req)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if again, err := b.PlanJob(t.Context(), &req); err != nil || again.PlanDigest != before.PlanDigest {
			t.Errorf("an hour later the plan is another one: %v\n%v", before.Facts, again.Facts)
		}
		if _, err := b.Enrol(t.Context(), "x", nil, netip.MustParseAddr("10.0.0.9"), &api.EnrolRequest{BootID: strings.Repeat("1", 32), Nonce: strings.Repeat("1", 32)}); err != nil {
			t.Log(err) // an unknown machine changes nothing
		}
	})
}
