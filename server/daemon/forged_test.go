package daemon

import (
	"crypto/ed25519"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labswarm/api"
	"labswarm/api/order"
)

// TestReplayedMessages: every message of an earlier boot, sent again word for
// word over the connection it belonged to, changes nothing once a new boot of
// the host holds the session.
func TestReplayedMessages(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	old, cleared := s.deploy(h)
	oldPlan, oldResult := old.plan(), old.goodResult(cleared.Fence())
	s.quiet = 1
	s.restart()
	fresh := newAgent(s, h)
	if rep := fresh.enrol(); rep.Status != api.EnrolOK {
		t.Fatalf("second boot = %+v", rep)
	}
	fresh.order()
	second := fresh.commence()
	before := s.slot("a1")
	old.refused("GET", api.RouteOrder, nil, api.CodeNoSession)
	old.refused("POST", api.RouteCommence, oldPlan, api.CodeNoSession)
	old.refused("POST", api.RouteResult, oldResult, api.CodeNoSession)
	old.refused("POST", api.RouteLog, api.LogRequest{BootID: old.boot, Text: "x"}, api.CodeNoSession)
	if rep := old.progress(api.StateRebooting, nil); len(rep.Commands) != 1 || rep.Commands[0] != api.CommandGoLocal {
		t.Errorf("progress of the old boot = %+v; want go_local", rep)
	}
	// The new boot speaks, but with the old boot's words.
	fresh.refused("POST", api.RouteCommence, oldPlan, api.CodeNoSession)
	fresh.refused("POST", api.RouteResult, oldResult, api.CodeNoSession)
	stale := fresh.goodResult(cleared.Fence())
	fresh.refused("POST", api.RouteResult, stale, api.CodeStaleFence)
	fresh.refused("POST", api.RouteProgress, api.Progress{BootID: old.boot, State: api.StateVerifying}, api.CodeNoSession)
	if after := s.slot("a1"); after.State != before.State || after.Attempt != before.Attempt || after.PONR != before.PONR || after.Verified {
		t.Errorf("the slot moved from %+v to %+v", before, after)
	}
	var ack api.ResultAck
	fresh.ok("POST", api.RouteResult, fresh.goodResult(second.Fence()), &ack)
	s.wantState("a1", api.StateDone)
	// After the end nothing moves it either: neither a replay nor a late word.
	fresh.ok("POST", api.RouteResult, fresh.goodResult(second.Fence()), &ack)
	bad := fresh.goodResult(second.Fence())
	bad.OK, bad.Readback = false, strings.Repeat("0", 64)
	if status, raw := fresh.call("POST", api.RouteResult, bad); status == http.StatusOK {
		t.Errorf("another result after the first = %d %s; want a refusal", status, raw)
	}
	fresh.progress(api.StateWriting, nil)
	s.wantState("a1", api.StateDone)
}

// TestStaleFenceIsRefusedByTheAgent: a commence of an earlier attempt, and one
// of another server's key, clear no order.
func TestStaleFenceIsRefusedByTheAgent(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	old := newAgent(s, h)
	old.enrol()
	old.order()
	var stale order.Envelope
	old.ok("POST", api.RouteCommence, old.plan(), &stale)
	s.quiet = 1
	s.restart()
	a := newAgent(s, h)
	a.enrol()
	a.order()
	if _, err := a.v.Clear(&stale, a.plan().PlanDigest, 0); err == nil {
		t.Error("the commence of an earlier boot cleared the order")
	}
	// The same order id, nonce and boot, but a fence that is not above the floor, signed with the right key.
	sign := func(key ed25519.PrivateKey, fence uint64, epoch string) *order.Envelope {
		c := order.Commence{OrderID: a.o.ID, BootID: a.boot, AgentNonce: a.nonce, FenceEpoch: epoch, Fence: fence, PlanDigest: a.plan().PlanDigest}
		env, err := order.Sign(key, order.TypeCommence, c)
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	key := s.srv.keys.Server
	_, foreign, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string]*order.Envelope{
		"at the floor": sign(key, a.o.FenceFloor, a.o.FenceEpoch), "below it": sign(key, 0, a.o.FenceEpoch),
		"of another epoch": sign(key, a.o.FenceFloor+1, "another"), "of a foreign key": sign(foreign, a.o.FenceFloor+1, a.o.FenceEpoch),
	} {
		if _, err := a.v.Clear(env, a.plan().PlanDigest, 0); err == nil {
			t.Errorf("a fence %s cleared the order", name)
		}
	}
	a.commence() // the server's own does
}

// TestLogOfAFailure: the last words of an agent are kept for people, up to 256
// KiB, and only from the boot that holds the session.
func TestLogOfAFailure(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	a, _ := s.deploy(h)
	text := strings.Repeat("x", 256<<10-8) + "the end\n"
	if status, raw := a.call("POST", api.RouteLog, api.LogRequest{BootID: a.boot, Text: text}); status != http.StatusNoContent {
		t.Errorf("256 KiB of log = %d %s", status, raw)
	}
	if status, _ := a.call("POST", api.RouteLog, api.LogRequest{BootID: a.boot, Text: strings.Repeat(text, 2)}); status != http.StatusRequestEntityTooLarge {
		t.Errorf("512 KiB of log = %d; want 413", status)
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "logs", "*a1*.log"))
	if err != nil || len(files) != 1 {
		t.Fatalf("kept logs: %v, %v", files, err)
	}
	if raw, err := os.ReadFile(files[0]); err != nil || string(raw) != text {
		t.Errorf("kept log: %d bytes, %v", len(raw), err)
	}
	raw, err := json.Marshal(api.LogRequest{BootID: a.boot, Text: "\x1b[31m\u0000"})
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := a.call("POST", api.RouteLog, json.RawMessage(raw)); status != http.StatusNoContent {
		t.Errorf("a log with control characters = %d", status)
	}
}
