package control

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/server/decide"
	"labswarm/server/store"
)

// room adds hosts a1.. to r1.
func (b *bench) room(n int) {
	b.t.Helper()
	for i := range n {
		if _, err := b.PutHost(b.t.Context(), api.Host{Name: fmt.Sprintf("a%d", i+1), Room: "r1", MAC: fmt.Sprintf("52:54:00:00:00:%02x", i+1)}); err != nil {
			b.t.Fatal(err)
		}
	}
}

// wants is want for several hosts, by initials: P A B E C W D R K(onfirmed) S N F H(eld) X(cancelled).
func (b *bench) wants(states string) {
	b.t.Helper()
	letters := map[api.State]string{api.StatePending: "P", api.StateArmed: "A", api.StateWaking: "M", api.StateBooting: "B", api.StateEnrolled: "E", api.StateChecking: "C", api.StateWriting: "W", api.StateDone: "D",
		api.StateRebooting: "R", api.StateConfirmed: "K", api.StateSkipped: "S", api.StateNoShow: "N", api.StateFailed: "F", api.StateHeld: "H", api.StateCancelled: "X"}
	j, err := b.Job(b.t.Context(), 1)
	if err != nil {
		b.t.Fatal(err)
	}
	got := ""
	for _, s := range j.Slots {
		got += letters[s.State]
	}
	if got != states {
		b.t.Fatalf("at %s hosts are %s; want %s (waiting for %q, paused by %q)", time.Now().Format(time.TimeOnly), got, states, j.Waiting, j.PausedBy)
	}
}

// write takes host i to WRITING; finish takes it to its end.
func (b *bench) write(i, boot int) (cert string, req *api.EnrolRequest, fence uint64, o order.Order) {
	b.t.Helper()
	if a := b.boot(i); a != decide.Agent {
		b.t.Fatalf("host a%d boots %s; want agent", i+1, a)
	}
	cert, req = b.agent(i, boot)
	b.progress(cert, req, api.StateChecking, 1)
	fence, o = b.commence(cert, req)
	return cert, req, fence, o
}

func (b *bench) finish(i, boot int, ok bool) {
	b.t.Helper()
	cert, req, fence, o := b.write(i, boot)
	r := &api.Result{BootID: req.BootID, OrderID: o.ID, Fence: fence, OK: ok, Readback: "right", Code: api.CodeDiskWrite, Error: "no"}
	if _, err := b.Result(b.t.Context(), cert, r); err != nil {
		b.t.Fatal(err)
	}
}

func TestWindowOpensLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		defer b.end()
		b.room(2)
		now := time.Now()
		j := b.create(api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1", JobPolicy: api.JobPolicy{NotBefore: now.Add(2 * time.Hour), NotAfter: now.Add(3 * time.Hour)}})
		if !strings.Contains(j.Waiting, "opens at") {
			t.Errorf("the job waits for %q", j.Waiting)
		}
		b.wants("PP")
		if a := b.boot(0); a != decide.Local {
			t.Errorf("before the window a host boots %s", a)
		}
		time.Sleep(2*time.Hour - time.Second)
		b.wants("PP")
		time.Sleep(3 * time.Second)
		b.wants("AA")
		if a := b.boot(0); a != decide.Agent {
			t.Errorf("inside the window a host boots %s", a)
		}
		time.Sleep(time.Hour)
		b.wants("NN") // one fetched its boot files and never spoke, one was never seen
		if a := b.boot(1); a != decide.Local {
			t.Errorf("after the window a host boots %s", a)
		}
	})
}

// TestForgottenJobIsOverBeforeMorning: without a window a job arms for four
// hours; whoever has begun may finish for eight more.
func TestForgottenJobIsOverBeforeMorning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		defer b.end()
		b.room(2)
		b.create(api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1"})
		time.Sleep(4*time.Hour - time.Minute)
		cert, req, fence, o := b.write(0, 1)
		for i := range int64(60) { // slow, but it moves
			b.progress(cert, req, api.StateWriting, i)
			time.Sleep(30 * time.Second)
		}
		b.wants("WN")
		if a := b.boot(1); a != decide.Local {
			t.Errorf("next morning: %s; want local", a)
		}
		if _, err := b.Result(t.Context(), cert, &api.Result{BootID: req.BootID, OrderID: o.ID, Fence: fence, OK: true, Readback: "right"}); err != nil {
			t.Error(err)
		}
		b.wants("DN")
	})
}

func TestCanaryGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		defer b.end()
		b.room(3)
		j := b.create(api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1", JobPolicy: api.JobPolicy{Canary: 1}})
		b.wants("APP")
		if !strings.Contains(j.Waiting, "a1 goes first") {
			t.Errorf("the job waits for %q", j.Waiting)
		}
		if a := b.boot(1); a != decide.Local {
			t.Errorf("a host that is not armed boots %s", a)
		}
		b.finish(0, 1, true)
		time.Sleep(2 * time.Minute)
		b.wants("RPP") // verified is not yet seen booting
		if a := b.boot(0); a != decide.Local {
			t.Fatalf("a finished host boots %s", a)
		}
		time.Sleep(2 * time.Second)
		b.wants("KAA")
	})
}

// TestFailuresPauseTheJob: a bad batch of disks stops at the second one, also
// those who wait for their commence. A person lets the others go on.
func TestFailuresPauseTheJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		defer b.end()
		b.room(5)
		b.create(api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1", JobPolicy: api.JobPolicy{MaxFailures: "50%"}})
		if a := b.boot(3); a != decide.Agent {
			t.Fatal(a)
		}
		waiting, wreq := b.agent(3, 9)
		b.progress(waiting, wreq, api.StateChecking, 1)
		b.finish(0, 1, false)
		b.wants("FAACA")
		b.finish(1, 1, false)
		b.wants("FFACA")
		j, err := b.Job(t.Context(), 1)
		if err != nil || j.Paused.IsZero() || !strings.Contains(j.PausedBy, "2 failed hosts") || !hasEvent(t, b, "job_paused") {
			t.Fatalf("after two of five failed: paused %v by %q, %v", j.Paused, j.PausedBy, err)
		}
		if a := b.boot(2); a != decide.Local {
			t.Errorf("a host of a paused job boots %s", a)
		}
		var p *api.Problem
		if _, err := b.ask(waiting, wreq); !errors.As(err, &p) || p.Code != api.CodeNotNow {
			t.Errorf("commence of a paused job: %v; want not_now", err)
		}
		if _, err := b.ResumeJob(t.Context(), 1, "eva"); err != nil {
			t.Fatal(err)
		}
		if _, err := b.ask(waiting, wreq); err != nil {
			t.Errorf("commence after the pause: %v", err)
		}
		b.finish(4, 1, false) // the third failure is the first since
		b.wants("FFAWF")
		if j, err := b.Job(t.Context(), 1); err != nil || !j.Paused.IsZero() {
			t.Errorf("paused again by %q, %v", j.PausedBy, err)
		}
	})
}

// ask is commence that may fail.
func (b *bench) ask(cert string, req *api.EnrolRequest) (fence uint64, err error) {
	b.t.Helper()
	raw, err := b.Order(b.t.Context(), cert)
	if err != nil {
		return 0, err
	}
	var o order.Order
	decode(b.t, raw, &o)
	d := req.Evidence.Disks[0]
	p := api.PlanCounts{CellsWrite: 100, BytesWrite: 100 << 20}
	_, err = b.Commence(b.t.Context(), cert, &api.CommenceRequest{OrderID: o.ID, BootID: req.BootID, Disk: d, Plan: p, PlanDigest: order.PlanDigest(o.ID, diskID(d), p.CellsWrite, p.CellsKeep, p.CellsZero, p.BytesWrite)})
	return o.FenceFloor, err
}

// TestTooLateToBegin: a host that would not be ready is not begun; its outcome
// says why, and its agent is sent home.
func TestTooLateToBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		defer b.end()
		b.room(2)
		b.create(api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1", ExpiresInS: 3600})
		time.Sleep(59*time.Minute + 40*time.Second) // 20 s left, the finish alone takes longer
		b.boot(0)
		cert, req := b.agent(0, 1)
		b.progress(cert, req, api.StateChecking, 1)
		var p *api.Problem
		if _, err := b.ask(cert, req); !errors.As(err, &p) || p.Code != api.CodeNotNow {
			t.Fatalf("commence = %v; want not_now", err)
		}
		b.wants("SA")
		if s := b.slot(0); s.PONR || !strings.Contains(s.Error, "its disk is untouched") {
			t.Errorf("skipped with ponr %v, %q", s.PONR, s.Error)
		}
		if got := b.Commands(t.Context(), cert); len(got) != 1 || got[0] != api.CommandCancel {
			t.Errorf("the agent is told %v", got)
		}
	})
}

func TestHoldPolicyAndExtend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		defer b.end()
		b.room(1)
		b.create(api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1", ExpiresInS: 3600, JobPolicy: api.JobPolicy{OnWindowEnd: "hold"}})
		cert, req, _, _ := b.write(0, 1)
		for i := range int64(180) {
			b.progress(cert, req, api.StateWriting, i)
			time.Sleep(20 * time.Second)
		}
		time.Sleep(2 * time.Second)
		b.wants("H")
		time.Sleep(2 * time.Minute) // power lost
		if a := b.boot(0); a != decide.Hold {
			t.Errorf("half written, the window over: %s; want hold", a)
		}
		if _, err := b.ExtendJob(t.Context(), 1, time.Now(), "eva"); err == nil {
			t.Error("extended to an earlier time")
		}
		j, err := b.ExtendJob(t.Context(), 1, time.Now().Add(time.Hour), "eva")
		if err != nil || j.Slots[0].State != api.StateArmed {
			t.Fatalf("extended: %s, %v", j.Slots[0].State, err)
		}
		time.Sleep(2 * time.Minute) // another boot: a refusal sticks to its own
		b.finish(0, 2, true)
		b.wants("D")
	})
}

func TestActsOnHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		defer b.end()
		b.room(3)
		b.create(api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1"})
		act := func(host, act, code string) {
			t.Helper()
			_, err := b.ActOnHost(t.Context(), 1, host, act, "eva")
			var p *api.Problem
			if (code == "") != (err == nil) || code != "" && (!errors.As(err, &p) || p.Code != code) {
				t.Errorf("%s %s = %v; want %q", act, host, err, code)
			}
		}
		act("a1", api.ActSkip, "")
		act("a1", api.ActSkip, api.CodeConflict)
		act("a2", api.ActHold, "")
		b.wants("SHA")
		if a := b.boot(1); a != decide.Local {
			t.Errorf("a held host boots %s", a)
		}
		act("a2", api.ActRelease, "")
		act("a2", api.ActRelease, api.CodeConflict)
		act("a3", api.ActRetry, api.CodeConflict)
		act("a9", api.ActRetry, api.CodeNotFound)
		act("a3", "dance", api.CodeNotFound)
		b.finish(2, 1, false)
		b.wants("SAF")
		act("a3", api.ActSkip, api.CodeConflict)
		act("a3", api.ActRetry, "")
		time.Sleep(2 * time.Minute)
		b.wants("SAA")
		b.finish(2, 2, true)
		// a1 goes to another job meanwhile: this one cannot have it back.
		other := b.create(api.JobCreate{Image: "deb", Hosts: []string{"a1"}, Confirm: "deb"})
		act("a1", api.ActRetry, api.CodeHostBusy)
		if _, err := b.CancelJob(t.Context(), other.ID, "eva"); err != nil {
			t.Fatal(err)
		}
		act("a1", api.ActRetry, "")
		time.Sleep(2 * time.Second)
		b.wants("AAD")
		if a := b.boot(0); a != decide.Agent {
			t.Errorf("a retried host boots %s", a)
		}
		if _, err := b.CancelJob(t.Context(), 1, "eva"); err != nil {
			t.Fatal(err)
		}
		act("a1", api.ActRetry, api.CodeConflict)
	})
}

func TestNonsensePolicies(t *testing.T) {
	b := newBench(t, store.NewMem())
	defer b.end()
	b.room(1)
	now := time.Now()
	for name, p := range map[string]api.JobPolicy{
		"over":          {NotAfter: now.Add(-time.Hour)},
		"ends first":    {NotBefore: now.Add(2 * time.Hour), NotAfter: now.Add(time.Hour)},
		"endless":       {NotAfter: now.Add(8 * 24 * time.Hour)},
		"in two years":  {NotBefore: now.Add(2 * 366 * 24 * time.Hour)},
		"end policy":    {OnWindowEnd: "dance"},
		"overrun":       {MaxOverrunS: -1},
		"canary":        {Canary: -1},
		"failures":      {MaxFailures: "many"},
		"failures 0":    {MaxFailures: "0"},
		"failures 200%": {MaxFailures: "200%"},
	} {
		req := api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1", JobPolicy: p}
		var pr *api.Problem
		if _, err := b.PlanJob(t.Context(), &req); !errors.As(err, &pr) || pr.Code != api.CodeUsage {
			t.Errorf("%s: plan = %v; want it refused", name, err)
		}
		if _, err := b.CreateJob(t.Context(), &req, ""); !errors.As(err, &pr) || pr.Code != api.CodeUsage {
			t.Errorf("%s: create = %v; want it refused", name, err)
		}
	}
	if _, err := b.PlanJob(t.Context(), &api.JobCreate{Image: "deb", Room: "r1", After: "poweroff", JobPolicy: api.JobPolicy{Canary: 1}}); err == nil {
		t.Error("a canary that nobody sees")
	}
}
