package daemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/server/decide"
	"labswarm/server/netboot"
)

// boot asks as firmware does and wants an answer.
func (s *site) boot(h api.Host, want decide.Action) netboot.Answer {
	s.t.Helper()
	a := s.srv.engine.DecideBoot(s.t.Context(), netboot.Request{Proto: decide.ProtoProxy, MAC: h.MAC, UUID: h.UUID})
	if a.Decision.Action != want {
		s.t.Fatalf("boot of %s: %s (%s); want %s", h.Name, a.Decision.Action, a.Decision.Reason, want)
	}
	return a
}

// deploy takes one agent from boot to the point of no return.
func (s *site) deploy(h api.Host) (*agent, order.Cleared) {
	s.t.Helper()
	s.boot(h, decide.Agent)
	s.srv.engine.InitramfsFetched(h.MAC)
	a := newAgent(s, h)
	if rep := a.enrol(); rep.Status != api.EnrolOK || rep.Host != h.Name {
		s.t.Fatalf("enrol = %+v", rep)
	}
	a.order()
	a.progress(api.StateChecking, nil)
	return a, a.commence()
}

func TestDeploymentOverTheAgentAPI(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.boot(h, decide.Local) // no job yet
	s.restart()             // forgets the boot sessions, nothing else
	job := s.createJob()
	s.wantState("a1", api.StateArmed)

	a, cleared := s.deploy(h)
	sl := s.wantState("a1", api.StateWriting)
	if !sl.PONR || sl.Attempt != 1 || sl.Disk == nil || sl.Disk.Serial != "DISK-a1" {
		t.Errorf("slot after commence: %+v", sl)
	}
	for _, f := range []string{"manifest.sig", "image.torrent"} {
		if status, raw := a.call("GET", api.RouteImage+f, nil); status != http.StatusOK || len(raw) == 0 {
			t.Errorf("%s = %d, %d bytes", f, status, len(raw))
		}
	}
	rep := a.progress(api.StateWriting, func(p *api.Progress) {
		p.InSwarm, p.CellsHave, p.PhaseDone, p.PhaseTotal, p.RateBps = true, 6, 1, 2, 1000
	})
	if rep.Assignment == nil || !rep.Assignment.Parent.Server {
		t.Errorf("the only host is not directed to the server: %+v", rep.Assignment)
	}
	if sl = s.slot("a1"); sl.Percent != 50 || sl.RateBps != 1000 {
		t.Errorf("progress is not shown: %+v", sl)
	}
	a.progress(api.StateVerifying, nil)
	a.progress(api.StateFinalising, nil)
	res := a.goodResult(cleared.Fence())
	var ack api.ResultAck
	a.ok("POST", api.RouteResult, res, &ack)
	if !ack.OK || ack.State != api.StateDone {
		t.Fatalf("ack = %+v", ack)
	}
	a.ok("POST", api.RouteResult, res, &ack) // lost answer, asked again
	s.wantState("a1", api.StateDone)
	s.boot(h, decide.Local) // from this commit on
	s.wantState("a1", api.StateDone)
	a.progress(api.StateRebooting, nil)
	s.wantState("a1", api.StateRebooting)
	s.restart()
	s.boot(h, decide.Local)
	s.wantState("a1", api.StateConfirmed)

	j, err := s.cli.Job(t.Context(), job.ID)
	if err != nil || j.Result != "ok" || j.Percent != 100 || len(j.Slots[0].Timeline) < 8 || !j.Slots[0].Verified {
		t.Errorf("job at the end: %+v, %v", j, err)
	}
}

// TestPlainPeersAreToldToHosts: without the flag no host opens itself to
// clients that are not ours.
func TestPlainPeersAreToldToHosts(t *testing.T) {
	for _, plain := range []bool{false, true} {
		s := newSite(t)
		s.plain = plain
		s.restart()
		h := s.host("a1")
		s.createJob()
		s.boot(h, decide.Agent)
		a := newAgent(s, h)
		a.enrol()
		if a.order(); a.o.Swarm.PlainPeers != plain {
			t.Errorf("order with plain peers %v: %+v", plain, a.o.Swarm)
		}
	}
}

func TestCommenceIsGivenOnce(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	a, cleared := s.deploy(h)
	// The answer was lost: the same question has the same answer.
	if again := a.commence(); again.Fence() != cleared.Fence() {
		t.Errorf("fence %d, then %d for one order", cleared.Fence(), again.Fence())
	}
	// Another plan on the used order is refused.
	req := a.plan()
	req.Plan.CellsWrite++
	req.PlanDigest = order.PlanDigest(a.o.ID, a.diskID(), req.Plan.CellsWrite, req.Plan.CellsKeep, req.Plan.CellsZero, req.Plan.BytesWrite)
	a.refused("POST", api.RouteCommence, req, api.CodeStaleFence)
	// A digest that does not fit, and another disk.
	req = a.plan()
	req.PlanDigest = strings.Repeat("0", 64)
	a.refused("POST", api.RouteCommence, req, api.CodeBadOrder)
	req = a.plan()
	req.Disk.Serial = "ELSE"
	a.refused("POST", api.RouteCommence, req, api.CodeBadOrder)
	// Results with a wrong fence or order.
	res := a.goodResult(cleared.Fence() + 1)
	a.refused("POST", api.RouteResult, res, api.CodeStaleFence)
	res = a.goodResult(cleared.Fence())
	res.OrderID = "other"
	a.refused("POST", api.RouteResult, res, api.CodeStaleFence)
	s.wantState("a1", api.StateWriting)
	// A wrong read-back is a failure, and the half-written disk is held.
	res = a.goodResult(cleared.Fence())
	res.Readback = strings.Repeat("0", 64)
	var ack api.ResultAck
	a.ok("POST", api.RouteResult, res, &ack)
	if sl := s.wantState("a1", api.StateFailed); sl.Code != api.CodeVerify || sl.Verified {
		t.Errorf("wrong read-back: %+v", sl)
	}
	s.boot(h, decide.Hold)
}

func TestStrangersAndOtherBoots(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	a, _ := s.deploy(h)

	// Another certificate knows the boot id and the order id: nothing.
	thief := newAgent(s, h)
	thief.boot, thief.nonce, thief.o, thief.v = a.boot, a.nonce, a.o, a.v
	for _, route := range []string{api.RouteOrder, api.RouteImage + "manifest.json", api.RouteEvents} {
		thief.refused("GET", route, nil, api.CodeNoSession)
	}
	thief.refused("POST", api.RouteCommence, thief.plan(), api.CodeNoSession)
	thief.refused("POST", api.RouteResult, api.Result{BootID: a.boot, OrderID: a.o.ID, OK: true}, api.CodeNoSession)
	thief.refused("POST", api.RouteLog, api.LogRequest{BootID: a.boot, Text: "x"}, api.CodeNoSession)
	if rep := thief.progress(api.StateWriting, nil); len(rep.Commands) != 1 || rep.Commands[0] != api.CommandGoLocal {
		t.Errorf("progress of a stranger = %+v; want go_local", rep)
	}
	// It enrols while the first agent talks: it waits, and then is refused.
	a.progress(api.StateWriting, nil)
	if rep := thief.enrol(); rep.Status != api.EnrolWait || rep.RetryAfterS < 1 {
		t.Errorf("second boot while the first talks = %+v; want wait", rep)
	}
	s.wantState("a1", api.StateWriting)

	// A machine that is in no inventory.
	stranger := newAgent(s, api.Host{Name: "x", MAC: "52:54:00:00:99:99", UUID: "99999999-4455-6677-8899-aabbccddeeff"})
	if rep := stranger.enrol(); rep.Status != api.EnrolGoLocal || rep.Reason == "" {
		t.Errorf("enrol of a stranger = %+v; want go_local with a reason", rep)
	}
	stranger.refused("GET", api.RouteOrder, nil, api.CodeNoSession)

	// The MAC of the host, another UUID: ambiguous, no order.
	liar := newAgent(s, h)
	liar.ev.UUID = "99999999-4455-6677-8899-aabbccddeeff"
	if rep := liar.enrol(); rep.Status != api.EnrolGoLocal {
		t.Errorf("enrol with a contradicting UUID = %+v; want go_local", rep)
	}
	s.wantState("a1", api.StateWriting)

	// There is no admin route here.
	for _, route := range []string{api.RouteServer, api.RouteHosts, api.RouteJobs, api.RouteAdminEv} {
		if status, _ := a.call("GET", route, nil); status != http.StatusNotFound {
			t.Errorf("GET %s on the agent listener = %d; want 404", route, status)
		}
	}
}

func TestBadRequests(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	a := newAgent(s, h)
	for name, body := range map[string]any{
		"unknown field": map[string]any{"boot_id": a.boot, "nonce": a.nonce, "extra": 1},
		"bad boot id":   api.EnrolRequest{BootID: "x", Nonce: a.nonce},
		"bad port":      api.EnrolRequest{BootID: a.boot, Nonce: a.nonce, PeerPort: 70000},
		"not an object": []int{1},
		"huge evidence": api.EnrolRequest{BootID: a.boot, Nonce: a.nonce, Evidence: api.Evidence{Vendor: strings.Repeat("x", 40<<10)}},
	} {
		if status, raw := a.call("POST", api.RouteEnrol, body); status != 400 && status != 422 && status != 429 {
			t.Errorf("%s: %d %s; want a refusal", name, status, raw)
		}
	}
	if status, _ := a.call("POST", api.RouteProgress, map[string]string{"detail": strings.Repeat("x", 20<<10)}); status != http.StatusRequestEntityTooLarge {
		t.Errorf("20 KiB of progress = %d; want 413", status)
	}
	s.wantState("a1", api.StateArmed)
}

func TestOnlyEd25519AndTLS13(t *testing.T) {
	s := newSite(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]*tls.Config{
		"no certificate":    {},
		"ecdsa certificate": {Certificates: []tls.Certificate{clientCert(t, key)}},
		"TLS 1.2":           {Certificates: []tls.Certificate{clientCert(t, ed25519Key(t))}, MaxVersion: tls.VersionTLS12},
	} {
		cfg.InsecureSkipVerify = true
		tr := &http.Transport{TLSClientConfig: cfg}
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+s.srv.agents.Addr().String()+api.RouteOrder, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := tr.RoundTrip(req)
		if err == nil {
			res.Body.Close()
			t.Errorf("%s: the handshake succeeded", name)
		}
		tr.CloseIdleConnections()
	}
}

func TestServerRestartBetweenCommenceAndResult(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	a, cleared := s.deploy(h)
	a.progress(api.StateWriting, func(p *api.Progress) { p.InSwarm, p.BytesFromSeed = true, 5 })
	s.restart()
	// The agent notices nothing but a retry.
	rep := a.progress(api.StateWriting, func(p *api.Progress) { p.InSwarm, p.CellsHave = true, 7 })
	if len(rep.Commands) != 0 || rep.Assignment == nil {
		t.Errorf("progress after the restart = %+v; want an assignment and no command", rep)
	}
	if again := a.commence(); again.Fence() != cleared.Fence() {
		t.Errorf("fence %d before, %d after the restart", cleared.Fence(), again.Fence())
	}
	a.progress(api.StateVerifying, nil)
	var ack api.ResultAck
	a.ok("POST", api.RouteResult, a.goodResult(cleared.Fence()), &ack)
	s.restart()
	a.ok("POST", api.RouteResult, a.goodResult(cleared.Fence()), &ack)
	s.wantState("a1", api.StateDone)
	s.boot(h, decide.Local)
}

func TestPowerCutMakesANewOrder(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	old, first := s.deploy(h)
	s.boot(h, decide.Agent)
	s.wantState("a1", api.StateWriting) // it was heard of a moment ago: one packet proves nothing
	s.quiet = time.Nanosecond           // from now on nobody was heard of lately
	s.restart()
	s.boot(h, decide.Agent)
	s.wantState("a1", api.StateBooting)

	a := newAgent(s, h)
	if rep := a.enrol(); rep.Status != api.EnrolOK {
		t.Fatalf("second boot = %+v", rep)
	}
	a.order()
	if a.o.Attempt != 2 || a.o.FenceFloor < first.Fence() {
		t.Errorf("second order: attempt %d, floor %d; want 2 and at least %d", a.o.Attempt, a.o.FenceFloor, first.Fence())
	}
	// The old boot's words are worth nothing now.
	old.refused("POST", api.RouteCommence, old.plan(), api.CodeNoSession)
	old.refused("POST", api.RouteResult, old.goodResult(first.Fence()), api.CodeNoSession)
	// A replayed order of the old boot is refused by the new one.
	second := a.commence()
	if second.Fence() <= first.Fence() {
		t.Errorf("fences %d, %d do not rise", first.Fence(), second.Fence())
	}
	var ack api.ResultAck
	a.ok("POST", api.RouteResult, a.goodResult(second.Fence()), &ack)
	if sl := s.wantState("a1", api.StateDone); sl.Attempt != 2 {
		t.Errorf("attempts %d; want 2", sl.Attempt)
	}
}

func TestDiskRules(t *testing.T) {
	for name, tc := range map[string]struct {
		disks []api.Disk
		code  string
	}{
		"none":      {nil, api.CodeDiskNotFound},
		"too small": {[]api.Disk{{Serial: "S", Bytes: 1 << 20, Sector: 512, Bus: "sata"}}, api.CodeDiskTooSmall},
		"4Kn":       {[]api.Disk{{Serial: "S", Bytes: 8 << 20, Sector: 4096, Bus: "sata"}}, api.CodeDiskSector},
		"two fit":   {[]api.Disk{{Serial: "S", Bytes: 8 << 20, Sector: 512, Bus: "sata"}, {Serial: "T", Bytes: 8 << 20, Sector: 512, Bus: "sata"}}, api.CodeAmbiguous},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			h := s.host("a1")
			s.createJob()
			s.boot(h, decide.Agent)
			a := newAgent(s, h)
			a.ev.Disks = tc.disks
			if rep := a.enrol(); rep.Status != api.EnrolGoLocal || rep.Reason == "" {
				t.Errorf("enrol = %+v; want go_local with the reason", rep)
			}
			if sl := s.wantState("a1", api.StateFailed); sl.Code != tc.code || sl.PONR {
				t.Errorf("slot: %s %q ponr=%v; want %s", sl.Code, sl.Error, sl.PONR, tc.code)
			}
			a.refused("GET", api.RouteOrder, nil, api.CodeNoOrder)
		})
	}
}

func TestCancelReachesTheAgent(t *testing.T) {
	s := newSite(t)
	h1, h2 := s.host("a1"), s.host("a2")
	job := s.createJob()
	writing, cleared := s.deploy(h1)
	s.boot(h2, decide.Agent)
	waiting := newAgent(s, h2)
	waiting.enrol()
	waiting.order()
	ctx, cancel := context.WithCancel(t.Context())
	events := waiting.stream(ctx)
	if _, err := s.cli.CancelJob(t.Context(), job.ID); err != nil {
		t.Fatal(err)
	}
	if got := <-events; !strings.Contains(got, `"command":"cancel"`) {
		t.Errorf("event after cancel = %q", got)
	}
	cancel()
	for range events { // drained until the reader ends
	}
	s.wantState("a2", api.StateCancelled)
	waiting.refused("POST", api.RouteCommence, waiting.plan(), api.CodeStaleFence)
	if rep := waiting.progress(api.StateChecking, nil); len(rep.Commands) != 1 || rep.Commands[0] != api.CommandCancel {
		t.Errorf("progress after cancel = %+v", rep)
	}
	s.boot(h2, decide.Local)
	// The other host is past its point of no return: it finishes.
	s.wantState("a1", api.StateWriting)
	var ack api.ResultAck
	writing.ok("POST", api.RouteResult, writing.goodResult(cleared.Fence()), &ack)
	s.wantState("a1", api.StateDone)
}

// stream reads the agent's events; the channel is closed when ctx ends.
func (a *agent) stream(ctx context.Context) <-chan string {
	a.s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", "https://"+a.s.srv.agents.Addr().String()+api.RouteEvents, nil)
	if err != nil {
		a.s.t.Fatal(err)
	}
	cl := &http.Client{Transport: a.http.Transport}
	res, err := cl.Do(req)
	if err != nil {
		a.s.t.Fatal(err)
	}
	out := make(chan string, 16)
	go func() {
		defer close(out)
		defer res.Body.Close()
		var all []byte
		buf := make([]byte, 4096)
		for {
			n, err := res.Body.Read(buf)
			all = append(all, buf[:n]...)
			for {
				i := bytes.Index(all, []byte("\n\n"))
				if i < 0 {
					break
				}
				if block := string(all[:i]); !strings.HasPrefix(block, ":") && strings.Contains(block, "command") {
					out <- block
				}
				all = all[i+2:]
			}
			if err != nil {
				return
			}
		}
	}()
	return out
}
