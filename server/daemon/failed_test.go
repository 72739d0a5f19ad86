package daemon

import (
	"testing"

	"labswarm/api"
)

// TestFailedHostIsNotWaitedFor: a host whose disk refuses a write is FAILED with
// what the agent said (disk, place, errno), the one that fetched from it is sent
// elsewhere in the very next answer, and gets done.
func TestFailedHostIsNotWaitedFor(t *testing.T) {
	s := newSite(t)
	h1, h2 := s.host("a1"), s.host("a2")
	s.createJob()
	sick, c1 := s.deploy(h1)
	well, c2 := s.deploy(h2)
	parent := func(a *agent, have int) string {
		rep := a.progress(api.StateWriting, func(p *api.Progress) { p.InSwarm, p.CellsHave, p.Front = true, have, have })
		if rep.Assignment == nil {
			t.Fatal("no assignment")
		}
		return rep.Assignment.Parent.HostID
	}
	parent(sick, 5)
	if got := parent(well, 0); got != "a1" {
		t.Fatalf("a2 fetches from %q; want a1, else nothing is tested", got)
	}
	const why = "write 1048576 bytes at byte 4194304 (sector 8192) of vda: input/output error"
	res := sick.goodResult(c1.Fence())
	res.OK, res.Readback, res.Code, res.Error = false, "", api.CodeDiskWrite, why
	var ack api.ResultAck
	sick.ok("POST", api.RouteResult, res, &ack)
	if sl := s.wantState("a1", api.StateFailed); ack.State != api.StateFailed || sl.Code != api.CodeDiskWrite || sl.Error != why {
		t.Errorf("the slot of a1: %+v, ack %+v; want FAILED with code %s and %q", sl, ack, api.CodeDiskWrite, why)
	}
	if got := parent(well, 3); got != "server" {
		t.Errorf("a2 is sent to %q after a1 has failed; want the server", got)
	}
	well.ok("POST", api.RouteResult, well.goodResult(c2.Fence()), &ack)
	s.wantState("a2", api.StateDone)
	s.wantState("a1", api.StateFailed)
}
