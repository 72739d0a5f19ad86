package daemon

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"labswarm/api"
)

// TestSuspectTestsItself: a host that accuses two others is told to test its
// memory, and the admin hears of the test: once, however often it is reported.
func TestSuspectTestsItself(t *testing.T) {
	s := newSite(t)
	hosts := []api.Host{s.host("a1"), s.host("a2"), s.host("a3")}
	s.createJob()
	var agents []*agent
	for _, h := range hosts {
		a, _ := s.deploy(h)
		a.progress(api.StateWriting, func(p *api.Progress) { p.InSwarm = true })
		agents = append(agents, a)
	}
	says := func(fn func(*api.Progress)) api.Assignment {
		rep := agents[2].progress(api.StateWriting, func(p *api.Progress) { p.InSwarm = true; fn(p) })
		if rep.Assignment == nil {
			t.Fatal("no assignment")
		}
		return *rep.Assignment
	}
	if a := says(func(*api.Progress) {}); a.Suspect {
		t.Errorf("suspect before it accused anybody: %+v", a)
	}
	if a := says(func(p *api.Progress) { p.AccusedHosts = []api.Accu{{Host: "a1", Piece: 1}, {Host: "a2", Piece: 2}} }); !a.Suspect || !a.Parent.Server {
		t.Errorf("after two accusations: %+v; want the suspect, at the server", a)
	}
	for _, how := range []string{"running", "running", "passed: 1 GiB", "passed: 2 GiB"} {
		says(func(p *api.Progress) { p.SelfTest = how })
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var heard []string
	err := s.cli.Events(ctx, 0, func(e api.Event) {
		if e.Code == "memory_suspect" {
			heard = append(heard, e.Host+" "+e.Text[strings.LastIndex(e.Text, "test ")+5:])
		}
	}, func(api.Tick) { cancel() }) // what is stored comes before the first tick
	if want := []string{"a3 running", "a3 passed: 1 GiB"}; !slices.Equal(heard, want) {
		t.Errorf("events: %q (%v); want %q", heard, err, want)
	}
}
