package control

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"labswarm/api"
	"labswarm/server/store"
)

// TestProtectedHostsAreNamedTwice: with their room they are left out, and stay
// so; by name they need a confirm of their own; no schedule writes them.
func TestProtectedHostsAreNamedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := idle(t, store.NewMem())
		b.room(3)
		shield := func(name, mac string, on bool) {
			t.Helper()
			h := api.Host{Name: name, Room: "r1", MAC: mac}
			h.Protect = on
			if _, err := b.PutHost(t.Context(), h); err != nil {
				t.Fatal(err)
			}
		}
		const mac = "52:54:00:00:00:03"
		nightly := weekly("n", "UTC", "sat", "sun")
		nightly.Confirm, nightly.Job.Room, nightly.Job.Hosts = "deb", "", []string{"a3"}
		b.put(nightly)
		shield("a3", mac, true)
		var p *api.Problem
		if _, err := b.PutSchedule(t.Context(), &nightly); !errors.As(err, &p) || !strings.Contains(p.Detail, "a3") {
			t.Errorf("a schedule of a protected host = %v", err)
		}
		b.pass(23*60*60e9, 60*60e9)
		if got := b.runs("n"); len(got) != 1 || !strings.Contains(got[0], "skipped conflict: host a3 is protected") {
			t.Errorf("the night: %v", got)
		}
		req := api.JobCreate{Image: "deb", Hosts: []string{"a2", "a3"}, Confirm: "deb", ExpiresInS: 3600}
		plan, err := b.PlanJob(t.Context(), &req)
		if err != nil || len(plan.Protected) != 1 || plan.Protected[0] != "a3" || plan.Erase != 2 || !strings.Contains(strings.Join(plan.Hosts[1].Risk, ";"), "protected") {
			t.Fatalf("plan %+v, %v", plan, err)
		}
		req.PlanDigest, req.ConfirmHosts = plan.PlanDigest, plan.Erase
		for _, named := range [][]string{nil, {"a2"}, {"a3", "a2"}, {"a3", "a3"}, {""}, {"a1"}} {
			req.ConfirmProtected = named
			if _, err := b.CreateJob(t.Context(), &req, ""); !errors.As(err, &p) || p.Code != api.CodeConfirm {
				t.Errorf("confirmed %v: %v", named, err)
			}
		}
		shield("a3", mac, false)
		req.ConfirmProtected = []string{"a3"}
		if _, err := b.CreateJob(t.Context(), &req, ""); !errors.As(err, &p) || p.Code != api.CodePlanStale {
			t.Errorf("the flag has changed since the plan: %v", err)
		}
		shield("a3", mac, true)
		room := b.create(api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1", ExpiresInS: 3600})
		if s := room.Slots[2]; s.State != api.StateSkipped || !strings.Contains(s.Error, "protected") {
			t.Errorf("with its room: %s %s", s.State, s.Error)
		}
		if _, err := b.ActOnHost(t.Context(), room.ID, "a3", api.ActRetry, "eva"); !errors.As(err, &p) || !strings.Contains(p.Detail, "protected") {
			t.Errorf("retry of a protected host in a job of its room = %v", err)
		}
		if _, err := b.CancelJob(t.Context(), room.ID, "eva"); err != nil {
			t.Fatal(err)
		}
		req.ConfirmProtected = []string{"A3"}
		if plan, err = b.PlanJob(t.Context(), &req); err != nil {
			t.Fatal(err)
		}
		req.PlanDigest = plan.PlanDigest
		if j, err := b.CreateJob(t.Context(), &req, ""); err != nil || len(j.Slots) != 2 || j.Slots[1].State != api.StateArmed {
			t.Errorf("named twice: %+v, %v", j, err)
		}
	})
}

// TestWindowsNamesInThePlan: a name that Windows does not take is a risk of an
// image with Windows, unless names are not given.
func TestWindowsNamesInThePlan(t *testing.T) {
	b := idle(t, store.NewMem())
	if _, err := b.PutHost(t.Context(), api.Host{Name: "a-very-long-computer-name", Room: "r1", MAC: "52:54:00:00:00:01"}); err != nil {
		t.Fatal(err)
	}
	hosts, err := b.Hosts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		windows  bool
		personal string
		want     bool
	}{{true, "", true}, {true, "off", false}, {false, "", false}} {
		err := b.store.View(t.Context(), func(tx store.Tx) error {
			lines, _, err := planHosts(tx, &api.JobCreate{Hosts: []string{hosts[0].Name}, Personalise: tt.personal}, ImageInfo{Windows: tt.windows}, hosts)
			if err == nil && strings.Contains(strings.Join(lines[0].Risk, ";"), "Windows takes 15") != tt.want {
				t.Errorf("%+v: %v", tt, lines[0].Risk)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
