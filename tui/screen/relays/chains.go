package relays

import (
	"cmp"
	"slices"

	"labswarm/api"
	"labswarm/tui/snapshot"
)

// chain is hosts that feed each other, one after the other. From feeds the
// first of them: the server, a relay, or a host of an earlier chain.
type chain struct {
	from  string
	hosts []*api.Slot
	ring  bool // from is fed by the chain itself: what the hosts said last is not true any more
}

// chains reads who feeds whom out of the hosts of a job: each host that has a
// parent is in exactly one chain. At a host that feeds several, the greatest
// part of the tree goes on and the others begin chains of their own behind it.
// idle are the hosts that nobody feeds now. Pure.
func chains(slots []api.Slot) (out []chain, idle []*api.Slot) {
	t := tree{at: map[string]*api.Slot{}, kids: map[string][]*api.Slot{}, size: map[string]int{}, done: map[string]bool{}}
	for i := range slots {
		t.at[slots[i].Host] = &slots[i]
	}
	var roots []string
	for i := range slots {
		s := &slots[i]
		if s.Parent == "" {
			idle = append(idle, s)
			continue
		}
		if t.kids[s.Parent] == nil && (t.at[s.Parent] == nil || t.at[s.Parent].Parent == "") {
			roots = append(roots, s.Parent)
		}
		t.kids[s.Parent] = append(t.kids[s.Parent], s)
	}
	slices.SortFunc(roots, func(a, b string) int {
		return cmp.Or(cmp.Compare(first(a), first(b)), cmp.Compare(t.known(a), t.known(b)), snapshot.Natural(a, b))
	})
	slices.SortFunc(idle, func(a, b *api.Slot) int { return snapshot.Natural(a.Host, b.Host) })
	for _, r := range roots {
		t.measure(r)
		out = t.from(out, r)
	}
	// Whoever is left is in a ring, or behind one.
	left := slices.SortedFunc(func(yield func(*api.Slot) bool) {
		for i := range slots {
			if s := &slots[i]; s.Parent != "" && !t.done[s.Host] && !yield(s) {
				return
			}
		}
	}, func(a, b *api.Slot) int { return snapshot.Natural(a.Host, b.Host) })
	for _, s := range left {
		if !t.done[s.Host] {
			at := len(out)
			out = t.line(out, s)
			out[at].ring = true
		}
	}
	return out, idle
}

// server is the parent's name of hosts that are fed by the server itself.
const server = "server"

func first(name string) int {
	if name == server {
		return 0
	}
	return 1
}

type tree struct {
	at   map[string]*api.Slot
	kids map[string][]*api.Slot
	size map[string]int // hosts behind a name
	done map[string]bool
}

// known is 1 for hosts of the job: relays stand before them.
func (t *tree) known(name string) int {
	if t.at[name] != nil {
		return 1
	}
	return 0
}

// measure counts the hosts behind a root. It does not recurse: a chain may be as long as a room.
func (t *tree) measure(root string) {
	order := []string{root}
	for i := 0; i < len(order); i++ {
		for _, k := range t.kids[order[i]] {
			order = append(order, k.Host)
		}
	}
	for _, n := range slices.Backward(order) {
		t.size[n] = 1
		for _, k := range t.kids[n] {
			t.size[n] += t.size[k.Host]
		}
	}
}

// from adds the chains that begin at a name.
func (t *tree) from(out []chain, name string) []chain {
	kids := t.kids[name]
	slices.SortFunc(kids, func(a, b *api.Slot) int {
		return cmp.Or(cmp.Compare(t.size[b.Host], t.size[a.Host]), snapshot.Natural(a.Host, b.Host))
	})
	for _, k := range kids {
		if !t.done[k.Host] {
			out = t.line(out, k)
		}
	}
	return out
}

// line adds the chain that begins with a host, and those that branch off it.
func (t *tree) line(out []chain, s *api.Slot) []chain {
	todo := []*api.Slot{s}
	for len(todo) > 0 {
		s, todo = todo[0], todo[1:]
		c := chain{from: s.Parent}
		for s != nil && !t.done[s.Host] {
			t.done[s.Host] = true
			c.hosts = append(c.hosts, s)
			kids := t.kids[s.Host]
			slices.SortFunc(kids, func(a, b *api.Slot) int {
				return cmp.Or(cmp.Compare(t.size[b.Host], t.size[a.Host]), snapshot.Natural(a.Host, b.Host))
			})
			s = nil
			for _, k := range kids {
				switch {
				case t.done[k.Host]:
				case s == nil:
					s = k
				default:
					todo = append(todo, k)
				}
			}
		}
		if len(c.hosts) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// slowBelow is the rate under which an edge is called slow: three fifths of the
// median of the hosts that are being written. Bytes per second, 0 = too few to
// compare.
func slowBelow(slots []api.Slot) int64 {
	var rates []int64
	for i := range slots {
		if s := &slots[i]; s.State == api.StateWriting && s.Parent != "" && s.RateBps > 0 {
			rates = append(rates, s.RateBps)
		}
	}
	const few = 3
	if len(rates) < few {
		return 0
	}
	slices.Sort(rates)
	return rates[len(rates)/2] * 3 / 5
}
