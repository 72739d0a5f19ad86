package plan

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"labswarm/tracker/registry"
)

const pieces = 1000

var seeds = []registry.Seed{{ID: "server", Addr: netip.MustParseAddrPort("192.0.2.1:7441")}}

// room builds hosts h1, h2 ... in joining order, all alive, holding the given
// numbers of pieces.
func room(have ...int) []registry.Host {
	var out []registry.Host
	for i, n := range have {
		out = append(out, registry.Host{ID: fmt.Sprintf("h%d", i+1), Order: uint64(i + 1), Have: n, Front: n, Alive: true, Done: n == pieces})
	}
	return out
}

// lines renders a plan as "child<parent,fallback,..." with flags.
func lines(as []Assignment) []string {
	var out []string
	for _, a := range as {
		s := a.Host + "<" + a.Parent
		for _, f := range a.Fallbacks {
			s += "," + f
		}
		if a.Leaf {
			s += " leaf " + a.Cause
		}
		if a.Release {
			s += " release"
		}
		out = append(out, s)
	}
	return out
}

func check(t *testing.T, got []Assignment, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, lines(got)); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
}

func TestBootOrder(t *testing.T) {
	got := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: room(0, 0, 0, 0, 0)})
	check(t, got, "h1<server", "h2<h1,server", "h3<h2,h1,server", "h4<h3,h2,h1,server", "h5<h4,h3,h2,server")
}

func TestNoSeed(t *testing.T) {
	if got := Plan(View{Pieces: pieces, Hosts: room(0, 0)}); got != nil {
		t.Errorf("Plan without a seed = %v; want nil", got)
	}
}

func TestDeath(t *testing.T) {
	hosts := room(300, 290, 280, 270)
	prev := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts})
	hosts[1].Alive = false
	got := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: prev})
	check(t, got, "h1<server", "h3<h1,server", "h4<h3,h1,server")
	hosts[1].Alive, hosts[1].Order, hosts[1].Have = true, 5, 0 // back, with an empty disk
	got = Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: got})
	check(t, got, "h1<server", "h3<h1,server", "h4<h3,h1,server", "h2<h4,h3,h1,server")
}

func TestLateAndResumed(t *testing.T) {
	prev := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: room(500, 490, 480)})
	hosts := room(500, 490, 480, 0, 700)
	got := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: prev})
	check(t, got, "h5<server", "h1<h5,server", "h2<h1,h5,server", "h3<h2,h1,h5,server", "h4<h3,h2,h1,server")
}

// TestSkewIsNoOvertaking: the child reported later than its parent and seems
// ahead: nothing changes.
func TestSkewIsNoOvertaking(t *testing.T) {
	hosts := room(500, 490, 480)
	prev := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts})
	hosts[2].Have, hosts[2].Parent = 700, "h2"
	check(t, Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: prev}), lines(prev)...)
}

func TestSlowParentBecomesLeaf(t *testing.T) {
	hosts := room(500, 490, 480, 470)
	prev := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts})
	hosts[2].Rejected = []string{"h2"}
	hosts[2].Blamed = []string{"h2"}
	got := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: prev})
	check(t, got, "h1<server", "h3<h1,server", "h4<h3,h1,server", "h2<h4,server,h3,h1 leaf left")
	hosts = append(hosts, registry.Host{ID: "h9", Order: 9, Alive: true})
	got = Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: got})
	check(t, got, "h1<server", "h3<h1,server", "h4<h3,h1,server", "h9<h4,h3,h1,server", "h2<h4,server,h3,h1 leaf left")
}

// TestAccuserOfManyIsTheSuspect: bad RAM in one host must not dismantle the chain.
func TestAccuserOfManyIsTheSuspect(t *testing.T) {
	hosts := room(500, 490, 480, 470)
	prev := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts})
	hosts[2].Blamed = []string{"h1", "h2"}
	hosts[2].Rejected = []string{"h2"}
	got := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: prev})
	check(t, got, "h1<server", "h2<h1,server", "h4<h2,h1,server", "h3<h4,h2,h1,server leaf suspect")
}

func TestRelease(t *testing.T) {
	hosts := room(pieces, pieces, 900, pieces)
	got := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: room(pieces, pieces, pieces)})
	check(t, got, "h1<server release", "h2<h1,server release", "h3<h2,h1,server release")
	prev := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: room(400, 390, 380, 370)})
	got = Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: prev})
	check(t, got, "h1<server", "h2<h1,server", "h3<h2,h1,server", "h4<h3,h2,h1,server release")
	hosts[3].Released = true
	hosts = append(hosts, registry.Host{ID: "h5", Order: 5, Alive: true})
	got = Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: got})
	check(t, got, "h1<server", "h2<h1,server", "h3<h2,h1,server", "h5<h3,h2,h1,server", "h4<server release")
}

// TestReleaseWaitsForExpected: while somebody is booting, one done host stays
// as the source, and the newcomer fetches from it instead of from the seed.
func TestReleaseWaitsForExpected(t *testing.T) {
	hosts := room(pieces, pieces, pieces)
	got := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Expected: 2})
	check(t, got, "h1<server release", "h2<h1,server release", "h3<h2,h1,server")
	hosts[0].Released, hosts[1].Released = true, true
	hosts = append(hosts, registry.Host{ID: "h4", Order: 4, Alive: true})
	got = Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: got, Expected: 1})
	check(t, got, "h3<server", "h4<h3,server", "h1<server release", "h2<server release")
	hosts[3].Done, hosts[3].Have = true, pieces
	got = Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: got})
	check(t, got, "h3<server release", "h4<h3,server release", "h1<server release", "h2<server release")
}

// TestExpectedHostsKeepOneSource: while hosts are still booting the last done
// one stays for them.
func TestExpectedHostsKeepOneSource(t *testing.T) {
	got := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: room(pieces, pieces, pieces), Expected: 1})
	check(t, got, "h1<server release", "h2<h1,server release", "h3<h2,h1,server")
}

// TestRestartedTracker: after the server was killed hosts report again in any
// order. Whoever reports is put beside those it exchanges pieces with; in boot
// order, or the reverse, that gives the old chain.
func TestRestartedTracker(t *testing.T) {
	all := room(500, 495, 490, 485, 480)
	for i := range all {
		all[i].Parent = "server"
		if i > 0 {
			all[i].Parent = all[i-1].ID
		}
	}
	report := func(t rapid.TB, order []int) []Assignment {
		var prev []Assignment
		var hosts []registry.Host
		for i, j := range order {
			h := all[j]
			h.Order = uint64(i)
			hosts = append(hosts, h)
			prev = Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: prev})
			planned := map[string]string{}
			for _, a := range prev {
				planned[a.Host] = a.Parent
			}
			child := fmt.Sprintf("h%d", j+2)
			if _, known := planned[child]; known && planned[child] != h.ID {
				t.Fatalf("order %v: %s joined and its child %s was given %s", order, h.ID, child, planned[child])
			}
			if _, known := planned[h.Parent]; known && planned[child] == "" && planned[h.ID] != h.Parent {
				t.Fatalf("order %v: %s joined behind %s; want %s", order, h.ID, planned[h.ID], h.Parent)
			}
		}
		return prev
	}
	want := []string{"h1<server", "h2<h1,server", "h3<h2,h1,server", "h4<h3,h2,h1,server", "h5<h4,h3,h2,server"}
	check(t, report(t, []int{0, 1, 2, 3, 4}), want...)
	check(t, report(t, []int{4, 3, 2, 1, 0}), want...)
	rapid.Check(t, func(t *rapid.T) {
		report(t, rapid.Permutation([]int{0, 1, 2, 3, 4}).Draw(t, "order"))
	})
}

// TestRestartedTrackerRooms: several chains through several rooms, a tracker
// that knows nothing, and reports in any order: when all have reported everybody
// has the parent it had.
func TestRestartedTrackerRooms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hosts := rooms("abcabcdaa")
		seeds := server(rapid.SampledFrom([]int{1000, 2000, 10_000}).Draw(t, "seed"))
		had := map[string]string{}
		for i, a := range Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts}) {
			had[a.Host] = a.Parent
			for j := range hosts {
				if hosts[j].ID == a.Host {
					hosts[j].Have, hosts[j].Parent = 500-5*i, a.Parent
				}
			}
		}
		var prev []Assignment
		var known []registry.Host
		for i, h := range rapid.Permutation(hosts).Draw(t, "order") {
			h.Order = uint64(i)
			known = append(known, h)
			prev = Plan(View{Pieces: pieces, Seeds: seeds, Hosts: known, Prev: prev})
		}
		got := map[string]string{}
		for _, a := range prev {
			got[a.Host] = a.Parent
		}
		if d := cmp.Diff(had, got); d != "" {
			t.Fatalf("parents before and after the restart:\n%s", d)
		}
	})
}

// TestStability: while everybody makes progress and nobody complains, nobody's
// sources change; and when one dies only its child gets another parent.
func TestStability(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 40).Draw(t, "n")
		hosts := room(make([]int, n)...)
		prev := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts})
		parent := func(as []Assignment) map[string]string {
			m := map[string]string{}
			for _, a := range as {
				m[a.Host] = a.Parent
			}
			return m
		}
		want := parent(prev)
		for range 5 {
			for i := range hosts { // reports come at any time: the order of progress is blurred
				hosts[i].Have = min(hosts[i].Have+rapid.IntRange(0, 300).Draw(t, "progress"), pieces)
				hosts[i].Done = hosts[i].Have == pieces
				hosts[i].Parent = want[hosts[i].ID]
			}
			prev = Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: prev})
			if d := cmp.Diff(want, parent(prev)); d != "" {
				t.Fatalf("parents changed in a healthy chain:\n%s", d)
			}
		}
		dead := rapid.IntRange(0, n-1).Draw(t, "dead")
		hosts[dead].Alive = false
		got := parent(Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: prev}))
		delete(want, hosts[dead].ID)
		if dead+1 < n {
			up := "server"
			if dead > 0 {
				up = hosts[dead-1].ID
			}
			want[hosts[dead+1].ID] = up
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("after one death (-want +got):\n%s", d)
		}
	})
}
