package daemon

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/server/decide"
	"labswarm/server/netboot"
)

func (s *site) ask(p netboot.Proto, mac, uuid string) decide.Decision {
	s.t.Helper()
	return s.srv.engine.DecideBoot(s.t.Context(), netboot.Request{Proto: p, MAC: mac, UUID: uuid}).Decision
}

func TestNothingButALiveSlotBootsTheAgent(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	excluded, err := s.cli.PutHost(t.Context(), api.Host{Name: "a2", Room: "r1", MAC: "52:54:00:00:00:32", Exclude: true})
	if err != nil {
		t.Fatal(err)
	}
	s.createJob()
	for _, p := range decide.Protos() {
		unknown := decide.Local
		if p == decide.ProtoProxy || p == decide.Proto4011 {
			unknown = decide.Ignore
		}
		for name, tc := range map[string]struct {
			mac, uuid string
			want      decide.Action
		}{
			"unknown":               {"52:54:00:00:77:77", "77777777-4455-6677-8899-aabbccddeeff", unknown},
			"no MAC":                {"", "", unknown},
			"excluded":              {excluded.MAC, "", decide.Local},
			"UUID contradicts":      {h.MAC, "77777777-4455-6677-8899-aabbccddeeff", decide.Local},
			"MAC of a2, UUID of a1": {excluded.MAC, h.UUID, decide.Local},
		} {
			if d := s.ask(p, tc.mac, tc.uuid); d.Action != tc.want {
				t.Errorf("%s by %s: %s (%s); want %s", name, p, d.Action, d.Reason, tc.want)
			}
		}
	}
	s.wantState("a1", api.StateArmed)
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		mac := fmt.Sprintf("52:54:00:%02x:%02x:%02x", 1+rng.IntN(255), rng.IntN(256), rng.IntN(256))
		uuid := fmt.Sprintf("%08x-1111-2222-3333-%012x", rng.Uint32(), rng.Uint64N(1<<48))
		if d := s.ask(decide.Protos()[rng.IntN(len(decide.Protos()))], mac, uuid); d.Action == decide.Agent {
			t.Fatalf("%s %s boots the agent: %+v", mac, uuid, d)
		}
	}
}

func TestOneBootHearsOneAnswer(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	if d := s.ask(decide.ProtoProxy, h.MAC, h.UUID); d.Action != decide.Local {
		t.Fatal(d)
	}
	s.createJob()
	// The same boot goes on asking: the refusal sticks, whatever the protocol.
	for _, p := range []netboot.Proto{decide.Proto4011, decide.ProtoTFTP, decide.ProtoHTTPIPXE, decide.ProtoHTTPFile} {
		if d := s.ask(p, h.MAC, ""); d.Action != decide.Local || d.Reason != decide.ReasonSticky {
			t.Errorf("%s after a refusal: %+v", p, d)
		}
	}
	s.wantState("a1", api.StateArmed)
	s.restart()
	for _, p := range []netboot.Proto{decide.ProtoProxy, decide.Proto4011, decide.ProtoTFTP, decide.ProtoHTTPIPXE, decide.ProtoHTTPFile} {
		if d := s.ask(p, h.MAC, ""); d.Action != decide.Agent {
			t.Errorf("%s of an armed host: %+v", p, d)
		}
	}
	s.wantState("a1", api.StateBooting)
	// Agent may turn into Local at any time.
	if _, err := s.cli.CancelJob(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if d := s.ask(decide.ProtoHTTPFile, h.MAC, ""); d.Action != decide.Local {
		t.Errorf("kernel of a cancelled job: %+v", d)
	}
}

func TestBootLoopEnds(t *testing.T) {
	s := newSite(t)
	s.quiet = time.Nanosecond
	h := s.host("a1")
	s.createJob()
	agents := 0
	for range 12 {
		s.restart() // a new boot session each
		if s.ask(decide.ProtoHTTPIPXE, h.MAC, h.UUID).Action != decide.Agent {
			continue
		}
		agents++
		for range 3 { // firmware that fetches twice counts once
			s.srv.engine.InitramfsFetched(h.MAC)
		}
	}
	if agents != 6 {
		t.Errorf("the agent was booted %d times; want 6", agents)
	}
	if d := s.ask(decide.ProtoProxy, h.MAC, h.UUID); d.Action != decide.Local {
		t.Errorf("after the loop: %+v", d)
	}
}

func TestHalfWrittenDiskIsHeldWhenAttemptsAreUsedUp(t *testing.T) {
	s := newSite(t)
	s.quiet = time.Nanosecond
	s.restart()
	h := s.host("a1")
	s.createJob()
	for range 3 {
		s.deploy(h)
		s.restart()
	}
	s.boot(h, decide.Hold)
	sl := s.wantState("a1", api.StateFailed)
	if sl.Code != api.CodeAttempts || !sl.PONR || sl.Attempt != 3 {
		t.Errorf("slot: %+v", sl)
	}
	s.boot(h, decide.Hold)
}

func TestTwoComputersWithOneIdentity(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	first, cleared := s.deploy(h)
	clone := newAgent(s, h)
	if rep := clone.enrol(); rep.Status != api.EnrolWait {
		t.Fatalf("clone = %+v; want wait", rep)
	}
	time.Sleep(1100 * time.Millisecond) // longer than a message can have been under way
	first.progress(api.StateWriting, nil)
	rep := clone.enrol()
	if rep.Status != api.EnrolGoLocal || !strings.Contains(rep.Reason, "two computers") {
		t.Errorf("clone while the first talks = %+v; want go_local and why", rep)
	}
	var ack api.ResultAck
	first.ok("POST", api.RouteResult, first.goodResult(cleared.Fence()), &ack)
	if sl := s.wantState("a1", api.StateDone); sl.Attempt != 1 {
		t.Errorf("the clone cost an attempt: %+v", sl)
	}
	events, err := s.srv.engine.EventsSince(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, e := range events {
		found = found || e.Code == "identity_conflict"
	}
	if !found {
		t.Error("nobody was told of the conflict")
	}
}

func TestSightings(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	a, cleared := s.deploy(h)
	see := func() { s.srv.engine.Sighting(netboot.Sighting{Kind: netboot.SightOS, MAC: h.MAC, Hostname: "pc"}) }
	see() // while writing: a lie
	var ack api.ResultAck
	a.ok("POST", api.RouteResult, a.goodResult(cleared.Fence()), &ack)
	a.progress(api.StateRebooting, nil)
	s.wantState("a1", api.StateRebooting)
	see()
	deadline := time.Now().Add(10 * time.Second)
	for s.slot("a1").State != api.StateConfirmed && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if sl := s.wantState("a1", api.StateConfirmed); !sl.OSSeen {
		t.Errorf("slot: %+v", sl)
	}
}
