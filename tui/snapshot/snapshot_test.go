package snapshot

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"labswarm/api"
)

func names(r Room) (out []string) {
	for _, h := range r.Hosts {
		out = append(out, h.Name)
	}
	return out
}

func TestBuildOrdersAsPeopleCount(t *testing.T) {
	s := Build(Facts{Hosts: []api.Host{{Name: "pc10", Room: "B"}, {Name: "pc2", Room: "B"}, {Name: "pc02", Room: "B"}, {Name: "pc1", Room: "B"}, {Name: "x"}, {Name: "pc1a", Room: "B"}},
		Rooms: []api.Room{{Name: "A"}}})
	var rooms []string
	for _, r := range s.Rooms {
		rooms = append(rooms, r.Name)
	}
	if diff := cmp.Diff([]string{NoRoom, "A", "B"}, rooms); diff != "" {
		t.Errorf("rooms (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"pc1", "pc1a", "pc02", "pc2", "pc10"}, names(s.Rooms[2])); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
}

// TestLiveJobWins: a host's slot is that of its live job, else of the newest.
func TestLiveJobWins(t *testing.T) {
	slot := func(st api.State) []api.Slot { return []api.Slot{{Host: "a", State: st}} }
	f := Facts{Hosts: []api.Host{{Name: "a", Room: "R"}}, Jobs: []api.Job{
		{ID: 9, Ended: time.Unix(9, 0), Slots: slot(api.StateCancelled)},
		{ID: 8, Ended: time.Unix(8, 0), Slots: slot(api.StateFailed)},
		{ID: 7, Slots: slot(api.StateWriting)},
	}}
	if h := Build(f).Rooms[0].Hosts[0]; h.Job.ID != 7 || h.Slot.State != api.StateWriting {
		t.Errorf("host is shown in job %d, want the live one, 7", h.Job.ID)
	}
	f.Jobs = f.Jobs[:2]
	s := Build(f)
	if h := s.Rooms[0].Hosts[0]; h.Job.ID != 9 || s.Rooms[0].Job.ID != 9 {
		t.Errorf("host is shown in job %d, want the newest, 9", h.Job.ID)
	}
}

// TestStrangersOfLiveJobs: a host that is written to is seen, also when it was
// removed from the inventory.
func TestStrangersOfLiveJobs(t *testing.T) {
	j := api.Job{ID: 1, Room: "R", Slots: []api.Slot{{Host: "gone", State: api.StateWriting}}}
	if s := Build(Facts{Jobs: []api.Job{j}}); len(s.Rooms) != 1 || s.Rooms[0].Hosts[0].Name != "gone" {
		t.Errorf("live job: rooms %+v", s.Rooms)
	}
	j.Ended = time.Unix(1, 0)
	if s := Build(Facts{Jobs: []api.Job{j}}); len(s.Rooms) != 0 {
		t.Errorf("ended job: rooms %+v", s.Rooms)
	}
}

func TestMark(t *testing.T) {
	for _, tt := range []struct {
		s    *api.Slot
		want string
	}{
		{nil, ".."},
		{&api.Slot{State: api.StateWriting, Percent: 0}, "00"},
		{&api.Slot{State: api.StateWriting, Percent: 7.9}, "07"},
		{&api.Slot{State: api.StateWriting, Percent: 100}, "99"},
		{&api.Slot{State: api.StateWriting, Percent: math.NaN()}, "00"},
		{&api.Slot{State: api.StateWriting, Percent: 64, SilentS: 10}, "64"},
		{&api.Slot{State: api.StateWriting, Percent: 64, SilentS: 11}, "??"},
		{&api.Slot{State: api.StateFailed, SilentS: 900}, "!!"},
		{&api.Slot{State: api.StateConfirmed, SilentS: 900}, "up"},
		{&api.Slot{State: "FUTURE"}, "??"},
	} {
		if got := Mark(tt.s); got != tt.want {
			t.Errorf("Mark(%+v) = %q, want %q", tt.s, got, tt.want)
		}
	}
}

// TestCountsAddUp: every host is in one group.
func TestCountsAddUp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var f Facts
		j := api.Job{ID: 1}
		for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(0, 99), 0, 40, rapid.ID).Draw(rt, "hosts") {
			name := string(rune('a'+n%26)) + string(rune('0'+n/26))
			f.Hosts = append(f.Hosts, api.Host{Name: name, Room: string(rune('A' + n%3))})
			if n%5 > 0 {
				j.Slots = append(j.Slots, api.Slot{Host: name, State: rapid.SampledFrom(api.AllStates()).Draw(rt, "state"), SilentS: rapid.IntRange(0, 20).Draw(rt, "silent")})
			}
		}
		f.Jobs = []api.Job{j}
		s, sum := Build(f), 0
		for _, r := range s.Rooms {
			for _, n := range r.Counts {
				sum += n
			}
			if !slices.IsSortedFunc(r.Hosts, func(a, b Host) int { return Natural(a.Name, b.Name) }) {
				rt.Fatalf("room %s is not in order: %v", r.Name, names(r))
			}
		}
		if sum != len(f.Hosts) || s.Hosts != sum {
			rt.Fatalf("groups hold %d hosts, the picture says %d, there are %d", sum, s.Hosts, len(f.Hosts))
		}
	})
}

// TestNaturalIsAnOrder: sorting needs a total order.
func TestNaturalIsAnOrder(t *testing.T) {
	word := rapid.StringMatching(`[a0-3]{0,6}`)
	rapid.Check(t, func(rt *rapid.T) {
		a, b, c := word.Draw(rt, "a"), word.Draw(rt, "b"), word.Draw(rt, "c")
		if sign(Natural(a, b)) != -sign(Natural(b, a)) || (Natural(a, b) == 0) != (a == b) {
			rt.Fatalf("Natural(%q, %q) = %d, reversed %d", a, b, Natural(a, b), Natural(b, a))
		}
		if Natural(a, b) <= 0 && Natural(b, c) <= 0 && Natural(a, c) > 0 {
			rt.Fatalf("%q <= %q <= %q, but not the first and last", a, b, c)
		}
	})
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

// TestBuildLeavesItsInputAlone: the feed goes on using the facts.
func TestBuildLeavesItsInputAlone(t *testing.T) {
	f := Facts{Jobs: []api.Job{{ID: 1, Slots: []api.Slot{{Host: "a\x1b[2J", Error: "x\x07", Fallbacks: []string{"b\n"}, Disk: &api.Disk{Model: "m\x00"}, Timeline: []api.TimelineEntry{{Event: "e\x1b"}}}}}}}
	s := Build(f)
	in := f.Jobs[0].Slots[0]
	if in.Host != "a\x1b[2J" || in.Error != "x\x07" || in.Fallbacks[0] != "b\n" || in.Disk.Model != "m\x00" || in.Timeline[0].Event != "e\x1b" {
		t.Errorf("Build changed its input: %+v", in)
	}
	out := s.Rooms[0].Hosts[0].Slot
	if out.Host != "a[2J" || out.Error != "x" || out.Fallbacks[0] != "b " || out.Disk.Model != "m" || out.Timeline[0].Event != "e" {
		t.Errorf("text is not clean: %+v", out)
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[31mred", "a\u202eb", "\xff\xfe", "tab\tnl\n", "\u0085\u009b31m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range Clean(s) {
			if r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x202a && r <= 0x202e {
				t.Fatalf("Clean(%q) keeps %U", s, r)
			}
		}
	})
}
