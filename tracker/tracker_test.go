package tracker

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"labswarm/api"
	"labswarm/tracker/plan"
	"labswarm/tracker/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	ih   = [20]byte{1, 2, 3}
	spec = SwarmSpec{InfoHash: ih, Name: "lab/2026-01-01.1", Pieces: 1000,
		Seeds: []registry.Seed{{Addr: netip.MustParseAddrPort("192.0.2.1:7441")}}}
)

func host(i, have int, parent string) HostReport {
	return HostReport{HostID: fmt.Sprintf("h%d", i), Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)}), 7441),
		Have: have, Front: have, Done: have == 1000, Parent: parent}
}

// with runs f beside a running Tracker, in virtual time.
func with(t *testing.T, f func(tr *Tracker)) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(nil)
		if err := tr.AddSwarm(spec); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- tr.Run(ctx) }()
		f(tr)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v; want nil", err)
		}
	})
}

func update(t *testing.T, tr *Tracker, r HostReport) {
	t.Helper()
	if err := tr.Update(ih, r); err != nil {
		t.Fatal(err)
	}
}

func parentOf(t *testing.T, tr *Tracker, host string) string {
	t.Helper()
	a, ok := tr.Assignment(ih, host)
	if !ok {
		return "-"
	}
	seed := api.PeerRef{HostID: "server", Addr: "192.0.2.1:7441", Server: true}
	if a.Parent.HostID != "server" && !slices.Contains(a.Fallbacks, seed) {
		t.Errorf("%s: the seed is not among its fallbacks %+v", host, a.Fallbacks)
	}
	return a.Parent.HostID
}

func TestDeathIsNoticed(t *testing.T) {
	with(t, func(tr *Tracker) {
		for i := 1; i <= 3; i++ {
			update(t, tr, host(i, 0, ""))
		}
		for range 8 { // 16 s in which h2 says nothing
			time.Sleep(2 * time.Second)
			update(t, tr, host(1, 5, "server"))
			update(t, tr, host(3, 5, "h1"))
		}
		if got := parentOf(t, tr, "h2"); got != "-" {
			t.Errorf("the dead host has parent %s; want no assignment", got)
		}
		if got := parentOf(t, tr, "h3"); got != "h1" {
			t.Errorf("parent of h3 = %s; want h1", got)
		}
	})
}

// TestSuspectIsTold: a host that accuses two others hears that it is the suspect,
// at once, so that it tests its memory; those it accuses hear nothing of the kind.
func TestSuspectIsTold(t *testing.T) {
	with(t, func(tr *Tracker) {
		for i := 1; i <= 3; i++ {
			update(t, tr, host(i, 0, ""))
		}
		ch, cancel := tr.Subscribe(ih, "h3")
		defer cancel()
		r := host(3, 5, "h2")
		for i, accused := range []string{"h1", "h2"} {
			r.Accused = []string{accused}
			update(t, tr, r)
			for _, id := range []string{"h1", "h2", "h3"} {
				if a, _ := tr.Assignment(ih, id); a.Suspect != (i == 1 && id == "h3") {
					t.Errorf("after %d accusations by h3: %s is told suspect = %v", i+1, id, a.Suspect)
				}
			}
		}
		if a := <-ch; !a.Suspect || !a.Parent.Server {
			t.Errorf("what h3 hears: %+v; want that it is the suspect and fetches from the server", a)
		}
	})
}

// TestStrayedHost: a host that keeps away from its planned parent makes a leaf
// of it, but not on the strength of a report that was under way.
func TestStrayedHost(t *testing.T) {
	with(t, func(tr *Tracker) {
		for i := 1; i <= 3; i++ {
			update(t, tr, host(i, 0, ""))
		}
		r := host(3, 100, "h1")
		r.ParentSlow = true
		update(t, tr, r)
		if got := parentOf(t, tr, "h3"); got != "h2" {
			t.Errorf("parent of h3 = %s at once; want h2, it had no time to follow", got)
		}
		for range 6 {
			time.Sleep(time.Second)
			update(t, tr, host(1, 200, "server"))
			update(t, tr, host(2, 60, "h1"))
			update(t, tr, r)
		}
		if got := parentOf(t, tr, "h3"); got != "h1" {
			t.Errorf("parent of h3 = %s; want h1, the one it uses", got)
		}
		if got := parentOf(t, tr, "h2"); got != "h3" && got != "h1" {
			t.Errorf("parent of the slow h2 = %s; want somebody of the chain", got)
		}
	})
}

// TestLatestWins: a reader that was busy gets the newest assignment only.
func TestLatestWins(t *testing.T) {
	with(t, func(tr *Tracker) {
		ch, cancel := tr.Subscribe(ih, "h3") // before it has reported
		defer cancel()
		for i := 1; i <= 3; i++ {
			update(t, tr, host(i, 0, ""))
		}
		tr.Leave(ih, "h2")
		tr.Leave(ih, "h1")
		a := <-ch
		if a.Parent.HostID != "server" {
			t.Errorf("first assignment read has parent %s; want the newest, server", a.Parent.HostID)
		}
		select {
		case b := <-ch:
			t.Errorf("a second assignment %+v is waiting; want none", b)
		default:
		}
		update(t, tr, host(4, 500, "")) // goes before it
		if b := <-ch; b.Rev <= a.Rev || b.Parent.HostID != "h4" {
			t.Errorf("next assignment %+v after rev %d; want a higher rev and parent h4", b, a.Rev)
		}
		cancel()
		cancel()
		if _, open := <-ch; open {
			t.Error("channel is open after cancel")
		}
	})
}

func TestReleaseOnce(t *testing.T) {
	with(t, func(tr *Tracker) {
		update(t, tr, host(1, 900, "server"))
		update(t, tr, host(2, 890, "h1"))
		update(t, tr, host(1, 1000, ""))
		if a, _ := tr.Assignment(ih, "h1"); a.Release {
			t.Error("h1 released while h2 depends on it")
		}
		update(t, tr, host(2, 1000, ""))
		for _, id := range []string{"h1", "h2"} {
			if a, _ := tr.Assignment(ih, id); !a.Release {
				t.Errorf("%s is not released although all are done", id)
			}
		}
		update(t, tr, host(3, 0, ""))
		if got := parentOf(t, tr, "h3"); got != "server" {
			t.Errorf("late joiner was sent to %s, which has been released; want server", got)
		}
	})
}

// TestExpect: the host kept for a booting one goes when nobody is expected.
func TestExpect(t *testing.T) {
	with(t, func(tr *Tracker) {
		tr.Expect([20]byte{9}, 1) // unknown: passed over
		tr.Expect(ih, 1)
		update(t, tr, host(1, 1000, ""))
		if a, _ := tr.Assignment(ih, "h1"); a.Release {
			t.Error("h1 released although another host is expected")
		}
		update(t, tr, host(2, 0, ""))
		if got := parentOf(t, tr, "h2"); got != "h1" {
			t.Errorf("parent of the late h2 = %s; want h1", got)
		}
		update(t, tr, host(2, 1000, "h1"))
		tr.Expect(ih, 0)
		for _, id := range []string{"h1", "h2"} {
			if a, _ := tr.Assignment(ih, id); !a.Release {
				t.Errorf("%s is not released although nobody is expected", id)
			}
		}
	})
}

func TestErrors(t *testing.T) {
	tr := New(nil)
	if err := tr.Update(ih, host(1, 0, "")); err == nil {
		t.Error("report for an unknown swarm was accepted")
	}
	if ch, _ := tr.Subscribe(ih, "h"); ch != nil {
		if _, open := <-ch; open {
			t.Error("subscription to an unknown swarm is open")
		}
	}
	bad := []SwarmSpec{{}, {InfoHash: ih, Pieces: 1}, {InfoHash: ih, Pieces: 1, Seeds: []registry.Seed{{}}},
		{InfoHash: ih, Pieces: 1, Seeds: append(spec.Seeds[:1:1], spec.Seeds[0])}}
	for i, s := range bad {
		if err := tr.AddSwarm(s); err == nil {
			t.Errorf("bad spec %d was accepted", i)
		}
	}
	if err := tr.AddSwarm(spec); err != nil {
		t.Fatal(err)
	}
	other := spec
	other.Pieces = 7
	if err := tr.AddSwarm(other); err == nil {
		t.Error("the same swarm with another number of pieces was accepted")
	}
	r := host(1, 0, "")
	r.HostID = "server"
	if err := tr.Update(ih, r); err == nil {
		t.Error("a host took the seed's name")
	}
	ch, cancel := tr.Subscribe(ih, "h1")
	tr.RemoveSwarm(ih)
	if _, open := <-ch; open {
		t.Error("subscription is open after RemoveSwarm")
	}
	cancel()
}

// TestRevoke: with the second accuser a source is out, in the plan that the
// report's answer carries already; and the flags say so.
func TestRevoke(t *testing.T) {
	with(t, func(tr *Tracker) {
		for i := 1; i <= 4; i++ {
			update(t, tr, host(i, 0, ""))
		}
		accuse := func(i int, whom string) {
			r := host(i, 10, "")
			r.Accused = []string{whom}
			update(t, tr, r)
		}
		accuse(2, "h1")
		if d := cmp.Diff([]Flag{{"h1", plan.CauseAccused}}, tr.Flags(ih)); d != "" {
			t.Errorf("flags (-want +got):\n%s", d)
		}
		accuse(4, "h1")
		if d := cmp.Diff([]Flag{{"h1", plan.CauseRevoked}}, tr.Flags(ih)); d != "" {
			t.Errorf("flags (-want +got):\n%s", d)
		}
		tr.Leave(ih, "h2") // done and gone: its word stays
		tr.Leave(ih, "h4")
		update(t, tr, host(5, 0, ""))
		for _, id := range []string{"h3", "h5"} {
			a, _ := tr.Assignment(ih, id)
			for _, p := range append(a.Fallbacks, a.Parent) {
				if p.HostID == "h1" {
					t.Errorf("%s is sent to the revoked h1", id)
				}
			}
		}
		if tr.Flags([20]byte{9}) != nil {
			t.Error("flags of an unknown swarm")
		}
	})
}

// TestRoomsAndLinks: what hosts and seeds say of themselves reaches the planner.
func TestRoomsAndLinks(t *testing.T) {
	with(t, func(tr *Tracker) {
		wide := spec
		wide.RoomMbps = map[string]int{"B": 200}
		wide.Seeds = []registry.Seed{{Addr: spec.Seeds[0].Addr, LinkMbps: 2500}, {ID: "relay", Room: "C", Addr: netip.MustParseAddrPort("192.0.2.2:7441")}}
		if err := tr.AddSwarm(wide); err != nil {
			t.Fatal(err)
		}
		for i, r := range []string{"A", "B", "C", "A", "A"} {
			h := host(i+1, 0, "")
			h.Room, h.LinkMbps = r, 1000
			if i == 4 {
				h.LinkMbps = 100
			}
			update(t, tr, h)
		}
		for id, want := range map[string]string{"h1": "server", "h2": "server", "h3": "relay", "h4": "h1", "h5": "h4"} {
			if got := parentOf(t, tr, id); got != want {
				t.Errorf("parent of %s = %s; want %s", id, got, want)
			}
		}
		if a, _ := tr.Assignment(ih, "h2"); a.UploadMbps != 200 {
			t.Errorf("upload cap of the first host in room B = %d; want 200", a.UploadMbps)
		}
		if d := cmp.Diff([]Flag{{"h5", plan.CauseLink}}, tr.Flags(ih)); d != "" {
			t.Errorf("flags (-want +got):\n%s", d)
		}
	})
}

// TestSlowHostIsNamed: one that takes a fraction of what its parent holds is
// found by its reports, after half a minute, with its own word for the cause.
func TestSlowHostIsNamed(t *testing.T) {
	with(t, func(tr *Tracker) {
		for i := 1; i <= 5; i++ {
			update(t, tr, host(i, 0, ""))
		}
		have := []int{0, 0, 0, 0, 0}
		for range 18 {
			time.Sleep(2 * time.Second)
			for i := range have {
				r := host(i+1, 0, "")
				r.Parent = parentOf(t, tr, r.HostID)
				switch i {
				case 3:
					have[i], r.Brake = have[i]+4, api.BrakeDisk
				case 4: // behind it
					have[i] = min(have[i]+20, have[3])
				default:
					have[i] += 20
				}
				r.Have, r.Front = have[i], have[i]
				update(t, tr, r)
			}
		}
		if d := cmp.Diff([]Flag{{"h4", plan.CauseDisk}}, tr.Flags(ih)); d != "" {
			t.Errorf("flags (-want +got):\n%s", d)
		}
		if got := parentOf(t, tr, "h5"); got != "h3" {
			t.Errorf("parent of the host behind it = %s; want h3", got)
		}
	})
}

// TestPlainClientsGetHostsAhead: not only the seed, and nobody who feeds nobody.
func TestPlainClientsGetHostsAhead(t *testing.T) {
	with(t, func(tr *Tracker) {
		for i, have := range []int{900, 800, 100, 700} {
			update(t, tr, host(i+1, have, ""))
		}
		r := host(1, 900, "")
		r.Accused = []string{"h4"}
		update(t, tr, r)
		got, ok := directory{tr}.Peers(ih, netip.MustParseAddrPort("192.0.2.99:6881"), 30)
		want := []netip.AddrPort{spec.Seeds[0].Addr, host(1, 0, "").Addr, host(2, 0, "").Addr}
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" || !ok {
			t.Errorf("peers (-want +got):\n%s", d)
		}
	})
}
