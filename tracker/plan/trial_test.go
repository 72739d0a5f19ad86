package plan

import (
	"strings"
	"testing"
	"time"

	"labswarm/tracker/registry"
)

// stage is a room of six at a gigabit whose hosts report what they get.
type stage struct {
	*testing.T
	hosts []registry.Host
	seeds []registry.Seed
	caps  map[string]int
	now   time.Time
	plan  []Assignment
}

const mib = 1 << 20 // bytes of a piece; a gigabit is 119 of them a second

func newStage(t *testing.T) *stage {
	s := &stage{T: t, hosts: rooms("aaaaaa"), seeds: server(1000), now: time.Unix(1000, 0)}
	s.next(0, nil)
	return s
}

// next is the plan after a while in which everybody reported with its planned
// parent; rates are MiB/s by host, -1 = not known, others get 100.
func (s *stage) next(after time.Duration, rates map[string]int) []Assignment {
	s.now = s.now.Add(after)
	for _, a := range s.plan {
		h := find(s.T, s.hosts, a.Host)
		rate, ok := rates[a.Host]
		if !ok {
			rate = 100
		}
		h.LastSeen, h.Parent, h.Lately, h.Gained = s.now, a.Parent, 2*time.Second, 2*rate
		if rate < 0 {
			h.Lately, h.Gained = 0, 0
		}
	}
	s.plan = Plan(s.view())
	return s.plan
}

func (s *stage) view() View {
	return View{Pieces: 10_000, PieceLen: mib, Now: s.now, Seeds: s.seeds, Hosts: s.hosts, Prev: s.plan, RoomMbps: s.caps}
}

// allAt gives every host the same rate.
func allAt(rate int) map[string]int {
	m := map[string]int{}
	for _, h := range rooms("aaaaaa") {
		m[h.ID] = rate
	}
	return m
}

// TestSlowHead: another host is tried in its place; that one is fast, so it was to
// blame and stays a leaf as long as it is slow.
func TestSlowHead(t *testing.T) {
	s := newStage(t)
	want(t, s.next(2*time.Second, allAt(10)), "a2<server", "a3<a2", "a4<a3", "a5<a4", "a6<a5", "a1<a6 trial")
	unknown := map[string]int{"a1": 10, "a2": -1}
	want(t, s.next(2*time.Second, unknown), "a2<server", "a3<a2", "a4<a3", "a5<a4", "a6<a5", "a1<a6 trial")
	guilty := []string{"a2<server", "a3<a2", "a4<a3", "a5<a4", "a6<a5", "a1<a6 unknown"}
	want(t, s.next(2*time.Second, map[string]int{"a1": 10}), guilty...)
	want(t, s.next(2*time.Minute, map[string]int{"a1": 10}), guilty...)
	want(t, s.next(2*time.Second, nil), "a2<server", "a3<a2", "a4<a3", "a5<a4", "a6<a5", "a1<a6")
}

// TestNewHead: what the next host got from the slow head says nothing about itself,
// also when its first report names the seed already.
func TestNewHead(t *testing.T) {
	s := newStage(t)
	s.next(2*time.Second, allAt(10))
	want(t, s.next(500*time.Millisecond, allAt(10)), "a2<server", "a3<a2", "a4<a3", "a5<a4", "a6<a5", "a1<a6 trial")
}

// TestHeadStumbled: at its new place it gets as much as others.
func TestHeadStumbled(t *testing.T) {
	s := newStage(t)
	s.next(2*time.Second, allAt(10))
	want(t, s.next(4*time.Second, map[string]int{"a1": 90}), "a2<server", "a3<a2", "a4<a3", "a5<a4", "a6<a5", "a1<a6")
}

// TestTwoSlowHeads: what the third one gets tells of both.
func TestTwoSlowHeads(t *testing.T) {
	s := newStage(t)
	s.next(2*time.Second, allAt(10))
	want(t, s.next(3*time.Second, allAt(12)), "a3<server", "a4<a3", "a5<a4", "a6<a5", "a1<a6 trial", "a2<a1 trial")
	want(t, s.next(3*time.Second, map[string]int{"a1": 10, "a2": 12}), "a3<server", "a4<a3", "a5<a4", "a6<a5", "a1<a6 unknown", "a2<a6 unknown")
}

// TestSlowSeed: three heads are tried, none is better: all are in good standing
// again, and no other is tried for a minute, then for two.
func TestSlowSeed(t *testing.T) {
	s := newStage(t)
	trials := func(d time.Duration) (n int) {
		head := s.plan[0].Host
		for end := s.now.Add(d); s.now.Before(end); {
			if as := s.next(3*time.Second, allAt(10)); as[0].Host != head {
				head = as[0].Host
				n++
			}
		}
		for _, a := range s.plan {
			if a.Leaf {
				t.Errorf("after %v: %+v is still a leaf", d, a)
			}
		}
		return n
	}
	for _, part := range []struct {
		d time.Duration
		n int
	}{{60 * time.Second, 3}, {30 * time.Second, 3}, {90 * time.Second, 0}, {45 * time.Second, 3}, {200 * time.Second, 0}} {
		if n := trials(part.d); n != part.n {
			t.Errorf("%d trials in %v; want %d", n, part.d, part.n)
		}
	}
}

// TestNoTrial: what a head gets may have a good reason.
func TestNoTrial(t *testing.T) {
	for name, change := range map[string]func(s *stage, v *View){
		"nothing":            func(*stage, *View) {},
		"two fifths":         func(s *stage, _ *View) { s.hosts[0].Gained = 96 },
		"not measured":       func(s *stage, _ *View) { s.hosts[0].Lately = 0 },
		"old word":           func(s *stage, _ *View) { s.hosts[0].LastSeen = s.now.Add(-6 * time.Second) },
		"another source":     func(s *stage, _ *View) { s.hosts[0].Parent = "a3" },
		"done":               func(s *stage, _ *View) { s.hosts[0].Done, s.hosts[0].Have = true, 10_000 },
		"nearly done":        func(s *stage, _ *View) { s.hosts[0].Have = 9950 },
		"next left the seed": func(s *stage, _ *View) { s.hosts[1].Rejected = []string{"server"} },
		"slow seed":          func(s *stage, _ *View) { s.seeds[0].LinkMbps = 100 },
		"capped room":        func(_ *stage, v *View) { v.RoomMbps = map[string]int{"a": 150} },
		"slow room": func(s *stage, _ *View) {
			for i := range s.hosts {
				s.hosts[i].LinkMbps = 100
			}
		},
		"rates unknown": func(s *stage, _ *View) {
			for i := range s.hosts {
				s.hosts[i].LinkMbps = 0
			}
		},
		"size unknown": func(_ *stage, v *View) { v.PieceLen = 0 },
		"alone":        func(_ *stage, v *View) { v.Hosts = v.Hosts[:1] },
	} {
		s := newStage(t)
		s.next(2*time.Second, nil)
		s.hosts[0].Gained = 20 // 84 Mb/s
		v := s.view()
		change(s, &v)
		tried := strings.Contains(strings.Join(parents(Plan(v)), " "), CauseTrial)
		if tried != (name == "nothing") {
			t.Errorf("%s: tried %v", name, tried)
		}
	}
}

// TestParole: who was left comes back after a while, to the end of the chain, if
// it gets no less than others; who is left again waits twice as long.
func TestParole(t *testing.T) {
	s := newStage(t)
	last := func(want string) {
		t.Helper()
		if got := parents(s.plan); got[len(got)-1] != want {
			t.Errorf("plan %v; want %s at the end", got, want)
		}
	}
	leave := func(kid string) {
		find(t, s.hosts, kid).Rejected = []string{"a2"}
		s.next(2*time.Second, nil)
		find(t, s.hosts, kid).Rejected = nil
	}
	leave("a3")
	last("a2<a6 left")
	s.next(paroleAfter-time.Second, nil)
	last("a2<a6 left")
	s.next(time.Second, map[string]int{"a2": 20})
	last("a2<a6 left")
	s.next(time.Second, nil)
	last("a2<a6")
	s.hosts = append(s.hosts, registry.Host{ID: "a7", Room: "a", Order: 7, Alive: true, LinkMbps: 1000})
	s.next(time.Second, nil)
	last("a7<a2")
	leave("a7")
	last("a2<a7 left")
	s.next(2*paroleAfter-time.Second, nil)
	last("a2<a7 left")
	s.next(time.Second, nil)
	last("a2<a7")
}
