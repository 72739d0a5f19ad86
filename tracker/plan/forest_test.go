package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labswarm/api"
	"labswarm/tracker/registry"
)

// rooms builds gigabit hosts a1, b1, a2 ... in joining order from a word like
// "abac": one letter a host, its room.
func rooms(word string) []registry.Host {
	var out []registry.Host
	n := map[rune]int{}
	for i, r := range word {
		n[r]++
		out = append(out, registry.Host{ID: fmt.Sprintf("%c%d", r, n[r]), Room: string(r), Order: uint64(i + 1), Alive: true, LinkMbps: 1000})
	}
	return out
}

func server(mbps int) []registry.Seed { return []registry.Seed{{ID: "server", LinkMbps: mbps}} }

// find is the host of that name.
func find(t *testing.T, hosts []registry.Host, id string) *registry.Host {
	t.Helper()
	for i := range hosts {
		if hosts[i].ID == id {
			return &hosts[i]
		}
	}
	t.Fatalf("no host %s", id)
	return nil
}

// parents renders a plan as "child<parent" with the cause of leaves.
func parents(as []Assignment) []string {
	var out []string
	for _, a := range as {
		s := a.Host + "<" + a.Parent
		if a.Leaf {
			s += " " + a.Cause
		}
		out = append(out, s)
	}
	return out
}

func want(t *testing.T, got []Assignment, lines ...string) {
	t.Helper()
	if d := cmp.Diff(lines, parents(got)); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
}

// TestRoomsStayTogether: whatever the order of joining, a chain passes through
// every room once.
func TestRoomsStayTogether(t *testing.T) {
	got := Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: rooms("abcabcba")})
	want(t, got, "a1<server", "a2<a1", "a3<a2", "b1<a3", "b2<b1", "b3<b2", "c1<b3", "c2<c1")
}

// TestRootChains: as many chains as the seed's link can carry, never more than
// rooms.
func TestRootChains(t *testing.T) {
	hosts := rooms("abcabc")
	for _, tt := range []struct {
		mbps, chains int
	}{{0, 1}, {100, 1}, {1000, 1}, {1999, 1}, {2500, 2}, {10_000, 3}} {
		n := 0
		for _, a := range Plan(View{Pieces: pieces, Seeds: server(tt.mbps), Hosts: hosts}) {
			if a.Parent == "server" {
				n++
			}
		}
		if n != tt.chains {
			t.Errorf("a seed of %d Mb/s feeds %d chains; want %d", tt.mbps, n, tt.chains)
		}
	}
	want(t, Plan(View{Pieces: pieces, Seeds: server(2500), Hosts: hosts}), "a1<server", "a2<a1", "c1<a2", "c2<c1", "b1<server", "b2<b1")
}

// TestFewerRootChains: a seed whose link turns out slower; heads go behind tails
// that are ahead of them, everybody else keeps the parent.
func TestFewerRootChains(t *testing.T) {
	hosts := rooms("abcabc")
	prev := Plan(View{Pieces: pieces, Seeds: server(10_000), Hosts: hosts})
	got := Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: hosts, Prev: prev})
	want(t, got, "a1<server", "a2<a1", "c1<a2", "c2<c1", "b1<c2", "b2<b1")
	for i := range hosts { // room b is far ahead, a1 is ahead of a2
		hosts[i].Have = map[string]int{"b1": 900, "b2": 890, "a1": 500, "a2": 100}[hosts[i].ID]
	}
	got = Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: hosts, Prev: prev})
	want(t, got, "b1<server", "b2<b1", "a1<b2", "a2<a1", "c1<a2", "c2<c1")
}

// TestFastestFirst inside a room, before the transfer has begun.
func TestFastestFirst(t *testing.T) {
	hosts := rooms("aaab")
	hosts[2].LinkMbps = 2500
	hosts[0].RateBps, hosts[1].RateBps = 50<<20, 100<<20
	want(t, Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: hosts}), "a3<server", "a2<a3", "a1<a2", "b1<a1")
}

// TestSlowLinks: 100 Mb/s hosts in a gigabit room hang behind its last healthy
// host, one behind the other, and do not become anybody else's parent.
func TestSlowLinks(t *testing.T) {
	hosts := rooms("aaaaaabb")
	for _, id := range []string{"a1", "a4"} {
		find(t, hosts, id).LinkMbps = 100
	}
	got := Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: hosts})
	want(t, got, "a2<server", "a3<a2", "a5<a3", "a6<a5", "b1<a6", "b2<b1", "a1<a6 link", "a4<a1 link")
	all := rooms("aaa")
	for i := range all {
		all[i].LinkMbps = 100
	}
	want(t, Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: all}), "a1<server", "a2<a1", "a3<a2")
}

// TestLateHosts chain behind the last one, each behind the one before.
func TestLateHosts(t *testing.T) {
	hosts := rooms("aabb")
	for i := range hosts {
		hosts[i].Have = 500 - i
	}
	prev := Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: hosts})
	hosts = append(hosts, rooms("aabbaba")[4:]...) // a3, b3, a4
	for i := range hosts[4:] {
		hosts[4+i].Order += 10
	}
	got := Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: hosts, Prev: prev})
	want(t, got, "a1<server", "a2<a1", "b1<a2", "b2<b1", "b3<b2", "a3<b3", "a4<a3")
	for i := range hosts[:4] { // the early ones are done: a late one fetches in its own room
		hosts[i].Have, hosts[i].Done = pieces, true
	}
	late := registry.Host{ID: "a9", Room: "a", Order: 99, Alive: true, LinkMbps: 1000}
	got = Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: append(hosts[:4:4], late), Prev: prev})
	want(t, got, "a1<server", "a2<a1", "a9<a2", "b1<a9", "b2<b1")
}

// TestRelays: a room with a seed of its own is fed by it, others by the server.
func TestRelays(t *testing.T) {
	seeds := append(server(1000), registry.Seed{ID: "relay", Room: "b", LinkMbps: 1000})
	hosts := rooms("abcab")
	prev := Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: rooms("bc")})
	want(t, Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts}), "a1<server", "a2<a1", "c1<a2", "b1<relay", "b2<b1")
	// One that comes later takes over the chain whose head stands in its room.
	want(t, Plan(View{Pieces: pieces, Seeds: seeds, Hosts: rooms("bc"), Prev: prev}), "b1<relay", "c1<b1")
	// It goes away: its chain is put behind the server's.
	prev = Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts})
	want(t, Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: hosts, Prev: prev}), "a1<server", "a2<a1", "c1<a2", "b1<c1", "b2<b1")
	// It is revoked.
	seeds[1].AccusedBy = []string{"b1", "b2"}
	for _, a := range Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: prev}) {
		for _, s := range append(a.Fallbacks, a.Parent) {
			if s == "relay" {
				t.Errorf("%s is sent to the revoked relay", a.Host)
			}
		}
	}
}

// TestCaps: the feeder outside and the first host inside of a capped room.
func TestCaps(t *testing.T) {
	hosts := rooms("aabbcc")
	find(t, hosts, "b2").LinkMbps = 100 // a leaf holds nobody back
	got := map[string]int{}
	for _, a := range Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: hosts, RoomMbps: map[string]int{"b": 200, "c": 300}}) {
		got[a.Host] = a.UploadMbps
	}
	if d := cmp.Diff(map[string]int{"a1": 0, "a2": 200, "b1": 200, "b2": 0, "c1": 300, "c2": 0}, got); d != "" {
		t.Errorf("caps (-want +got):\n%s", d)
	}
}

// flow gives every host the parent it has in the plan and the given piece times
// in milliseconds, in the plan's order.
func flow(as []Assignment, hosts []registry.Host, ms ...int) {
	for i, a := range as {
		for j := range hosts {
			if hosts[j].ID == a.Host {
				hosts[j].Parent, hosts[j].PieceTime = a.Parent, time.Duration(ms[i])*time.Millisecond
			}
		}
	}
}

// TestSlowHost: the first host of a slow run is to blame, those behind it are
// not; its cause is what it says itself.
func TestSlowHost(t *testing.T) {
	for name, tt := range map[string]struct {
		have  []int
		ms    []int
		brake string
		slow  string
	}{
		"healthy":              {[]int{500, 499, 498, 497, 496, 495}, []int{10, 10, 11, 10, 10, 9}, "", ""},
		"jitter":               {[]int{900, 500, 498, 497, 496, 495}, []int{10, 13, 13, 13, 13, 13}, "", ""},
		"fifth is slow":        {[]int{900, 899, 898, 897, 300, 299}, []int{10, 10, 10, 10, 40, 40}, "", "a5<a6 unknown"},
		"fifth has a bad disk": {[]int{900, 899, 898, 897, 300, 299}, []int{10, 10, 10, 10, 40, 40}, api.BrakeDisk, "a5<a6 disk"},
		"second is slow":       {[]int{900, 400, 399, 398, 397, 396}, []int{10, 40, 40, 40, 40, 40}, api.BrakeCPU, "a2<a6 cpu"},
		"all wait for a1":      {[]int{500, 499, 498, 497, 496, 495}, []int{40, 40, 40, 40, 40, 40}, "", ""},
		"head with a bad disk": {[]int{500, 499, 498, 497, 496, 495}, []int{40, 40, 40, 40, 40, 40}, "head", "a1<a6 disk"},
		"not measured":         {[]int{900, 899, 898, 897, 300, 299}, []int{10, 10, 10, 10, 0, 0}, "", ""},
	} {
		hosts := rooms("aaaaaa")
		prev := Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: hosts})
		for i := range hosts {
			hosts[i].Have, hosts[i].RateBps = tt.have[i], 20<<20
		}
		flow(prev, hosts, tt.ms...)
		switch {
		case tt.brake == "head":
			hosts[0].Brake = api.BrakeDisk
		case tt.slow != "":
			find(t, hosts, tt.slow[:2]).Brake = tt.brake
		}
		slow := ""
		for i, l := range parents(Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: hosts, Prev: prev})) {
			if strings.Contains(l, " ") {
				slow = l
				if i != len(hosts)-1 {
					t.Errorf("%s: the leaf is in place %d of the plan", name, i)
				}
			}
		}
		if slow != tt.slow {
			t.Errorf("%s: leaf %q; want %q", name, slow, tt.slow)
		}
	}
}

// TestSlowHostsAreFew: when half a room is slow nobody is called an outlier.
func TestSlowHostsAreFew(t *testing.T) {
	hosts := rooms("aaaaaaaa")
	prev := Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: hosts})
	for i := range hosts {
		hosts[i].Have = 900 - 100*i // everybody could have more
	}
	flow(prev, hosts, 10, 10, 10, 10, 40, 40, 40, 40)
	leaves := 0
	for _, a := range Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: hosts, Prev: prev}) {
		if a.Leaf {
			leaves++
		}
	}
	if leaves > 2 {
		t.Errorf("%d of 8 hosts are called slow; want a quarter at most", leaves)
	}
}

// TestNarrowUplink: behind one, whoever is first in the room looks slow; one
// host may be tried, and in a capped room none.
func TestNarrowUplink(t *testing.T) {
	for name, tt := range map[string]struct {
		caps map[string]int
		want []string
	}{
		"uplink": {nil, []string{"b1<b5 unknown"}},
		"cap":    {map[string]int{"b": 100}, nil},
	} {
		hosts := rooms("aaaaabbbbb")
		var as []Assignment
		for round := range 3 {
			as = Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: hosts, Prev: as, RoomMbps: tt.caps})
			for i := range hosts {
				hosts[i].Have = 300*(round+1) - i
				if i >= 5 {
					hosts[i].Have = 60*(round+1) - i
				}
			}
			ms := make([]int, len(as))
			for i, a := range as {
				if ms[i] = 10; a.Host[0] == 'b' {
					ms[i] = 50
				}
			}
			flow(as, hosts, ms...)
		}
		as = Plan(View{Pieces: pieces, Seeds: server(1000), Hosts: hosts, Prev: as, RoomMbps: tt.caps})
		var leaves []string
		for _, l := range parents(as) {
			if strings.Contains(l, " ") {
				leaves = append(leaves, l)
			}
		}
		if d := cmp.Diff(tt.want, leaves); d != "" {
			t.Errorf("%s: leaves (-want +got):\n%s", name, d)
		}
	}
}

// TestArbitrate: who is believed.
func TestArbitrate(t *testing.T) {
	for name, tt := range map[string]struct {
		accused map[string][]string // by whom
		left    map[string][]string // host: whom it left
		want    map[string]string
	}{
		"nobody":                      {},
		"one accuser":                 {accused: map[string][]string{"h1": {"h2"}}, want: map[string]string{"h1": CauseAccused}},
		"two accusers":                {accused: map[string][]string{"h1": {"h2", "h3"}}, want: map[string]string{"h1": CauseRevoked}},
		"bad memory":                  {accused: map[string][]string{"h1": {"h3"}, "h2": {"h3"}}, want: map[string]string{"h3": CauseSuspect}},
		"bad memory, server too":      {accused: map[string][]string{"server": {"h3"}, "h2": {"h3"}}, want: map[string]string{"h3": CauseSuspect}},
		"the server is never revoked": {accused: map[string][]string{"server": {"h1", "h2"}}},
		"two agree on two": {accused: map[string][]string{"h1": {"h3", "h4"}, "h2": {"h3", "h4"}},
			want: map[string]string{"h1": CauseRevoked, "h2": CauseRevoked}},
		"bad memory and one really bad": {accused: map[string][]string{"h1": {"h3"}, "h2": {"h3", "h4"}, "h5": {"h3"}},
			want: map[string]string{"h2": CauseRevoked, "h3": CauseSuspect}},
		"left two":                    {left: map[string][]string{"h4": {"h1", "h2"}}, want: map[string]string{"h4": CauseSuspect}},
		"left one, accused one":       {left: map[string][]string{"h4": {"h1"}}, accused: map[string][]string{"h2": {"h4"}}, want: map[string]string{"h4": CauseSuspect}},
		"left what it accused":        {left: map[string][]string{"h4": {"h1"}}, accused: map[string][]string{"h1": {"h4"}}, want: map[string]string{"h1": CauseAccused}},
		"left two that are revoked":   {left: map[string][]string{"h4": {"h1", "h2"}}, accused: map[string][]string{"h1": {"h3", "h5"}, "h2": {"h3", "h5"}}, want: map[string]string{"h1": CauseRevoked, "h2": CauseRevoked}},
		"accused by a revoked one":    {accused: map[string][]string{"h1": {"h2", "h3"}, "h4": {"h1"}}, want: map[string]string{"h1": CauseRevoked}},
		"accusers that are gone":      {accused: map[string][]string{"h1": {"x", "y"}}, want: map[string]string{"h1": CauseRevoked}},
		"a suspect that is gone":      {accused: map[string][]string{"h1": {"x"}, "h2": {"x"}}, want: map[string]string{"x": CauseSuspect}},
		"each of two accuses another": {accused: map[string][]string{"h1": {"h2"}, "h2": {"h1"}}, want: map[string]string{"h1": CauseAccused, "h2": CauseAccused}},
	} {
		hosts, seeds := room(5, 4, 3, 2, 1), server(0)
		for i := range hosts {
			hosts[i].AccusedBy, hosts[i].Blamed = tt.accused[hosts[i].ID], tt.left[hosts[i].ID]
		}
		seeds[0].AccusedBy = tt.accused["server"]
		if tt.want == nil {
			tt.want = map[string]string{}
		}
		if d := cmp.Diff(tt.want, Arbitrate(hosts, seeds).Cause); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// TestHostileMajority: five of six hosts send wrong pieces only. The good one
// accuses whoever it is sent to, and ends at the server; so does a second one,
// and together they prove who is bad.
func TestHostileMajority(t *testing.T) {
	hosts := room(500, 500, 500, 500, 500, 100, 90)
	honest := map[string]bool{"h6": true, "h7": true}
	var prev []Assignment
	for range 12 {
		prev = Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: prev})
		for _, a := range prev {
			if !honest[a.Host] || a.Parent == "server" || honest[a.Parent] {
				continue
			}
			if bad := find(t, hosts, a.Parent); !contains(bad.AccusedBy, a.Host) {
				bad.AccusedBy = append(bad.AccusedBy, a.Host)
			}
		}
	}
	for _, a := range prev {
		if honest[a.Host] && a.Parent != "server" && !honest[a.Parent] {
			t.Errorf("%s is still sent to %s, which is bad: %v", a.Host, a.Parent, lines(prev))
		}
	}
}

// BenchmarkPlan: 2 000 hosts in 80 rooms in the middle of a transfer, and one
// that joins; the cost of every new host.
func BenchmarkPlan(b *testing.B) {
	bench := func(name string, hosts []registry.Host, prev func() []Assignment) {
		b.Run(name, func(b *testing.B) {
			v := View{Pieces: 10_000, Seeds: server(10_000), Hosts: hosts, Prev: prev()}
			for b.Loop() {
				Plan(v)
			}
		})
	}
	hosts := make([]registry.Host, 2000)
	for i := range hosts {
		hosts[i] = registry.Host{ID: fmt.Sprintf("host-%04d", i), Room: fmt.Sprintf("room-%02d", i*7%80), Order: uint64(i), Alive: true, LinkMbps: 1000}
	}
	first := Plan(View{Pieces: 10_000, Seeds: server(10_000), Hosts: hosts[:1999]})
	bench("all new", hosts, func() []Assignment { return nil })
	bench("one new", hosts, func() []Assignment { return first })
	rough := append([]registry.Host(nil), hosts...)
	at := map[string]int{}
	for i, a := range first {
		at[a.Host] = i
	}
	for i := range rough {
		a := first[min(at[rough[i].ID], len(first)-1)]
		rough[i].Parent, rough[i].PieceTime = a.Parent, 10*time.Millisecond
		rough[i].Have = 9000 - at[rough[i].ID]
		if i%20 == 0 {
			rough[i].PieceTime = 80 * time.Millisecond
			rough[i].Have -= 2000
		}
	}
	bench("5 % slow", rough, func() []Assignment { return first })
}

// TestEarlyLeafMovesToTheTail: a slow PC that was the second to boot does not take
// its share of the first one's link for the whole night.
func TestEarlyLeafMovesToTheTail(t *testing.T) {
	hosts := room(0, 0)
	hosts[0].LinkMbps, hosts[1].LinkMbps = 1000, 100
	prev := Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts})
	for i := 3; i <= 6; i++ {
		hosts = append(hosts, registry.Host{ID: fmt.Sprintf("h%d", i), Order: uint64(i), LinkMbps: 1000, Alive: true})
		prev = Plan(View{Pieces: pieces, Seeds: seeds, Hosts: hosts, Prev: prev})
	}
	for _, a := range prev {
		if a.Host == "h2" && (!a.Leaf || a.Parent != "h6") {
			t.Errorf("the slow host's place is %+v; want a leaf of h6", a)
		}
	}
}
