// Package plan decides who fetches from whom: Plan is a pure function from
// what is known of a swarm to one assignment per host. No net, no clock, no
// randomness.
//
// This first planner makes one relay chain per swarm, rooted at the seed, in
// the order of joining (swarm.md section 3: a chain beats every mesh, sends one
// copy over every link and needs one from the seed). Rooms, link speeds and
// several root chains come later, behind the same function. Called by package
// tracker.
package plan

import (
	"cmp"
	"slices"

	"labswarm/tracker/registry"
)

const (
	maxFallbacks = 2 // hosts among the fallbacks, before the seeds
	blamesAlone  = 2 // a host that blames so many living others is itself the suspect
)

// Assignment is the plan for one host. Names are host or seed ids.
type Assignment struct {
	Host      string
	Parent    string
	Fallbacks []string // grandparent, great-grandparent; always ends with the seeds
	Slots     int      // children planned for it, at least 1
	Leaf      bool     // slow or suspect: it feeds no healthy host
	Cause     string   // why it is a leaf, see the Cause constants; "" when it is none
	Release   bool     // done, and nobody depends on it: it may go
	// UploadMbps caps what it sends, Mb/s; 0 = no cap. Set on hosts over which
	// data enters a capped room.
	UploadMbps int
}

// Causes of being a leaf. Those of a slow host stay once they are given.
const (
	CauseLink    = "link"    // its link is far below what is usual in its room
	CauseDisk    = "disk"    // slow, and its disk is the brake
	CauseCPU     = "cpu"     // slow, and its processor is the brake
	CauseUnknown = "unknown" // slow, and it does not say why
	CauseLeft    = "left"    // its child left it: it did not deliver
	CauseAccused = "accused" // one host had a wrong piece from it
	CauseSuspect = "suspect" // it left or accused several living hosts: the fault is probably its own
	CauseRevoked = "revoked" // two hosts had wrong pieces from it
)

// View is all that Plan looks at.
type View struct {
	Pieces int
	Seeds  []registry.Seed // at least one; the first is the root
	Hosts  []registry.Host // living, dead and released ones
	Prev   []Assignment    // the result of the last call, in its order; nil at first
	// Expected counts hosts that are booting and will join soon. While there are
	// any, the last done host of the chain stays as their source: without it
	// each of them would draw another copy from the seed.
	Expected int
	RoomMbps map[string]int // what may be sent into and inside a room, Mb/s; no entry = no cap
}

// Plan returns one assignment per living host: the chain from its head to its
// tail, then the leaves, then the hosts already released. It is stable: a host
// keeps its parent as long as that one lives and was not left by it, and as
// long as nobody with much more progress joins between them.
func Plan(v View) []Assignment {
	if len(v.Seeds) == 0 {
		return nil
	}
	p := &planner{view: v, byID: map[string]registry.Host{}, leaf: map[string]bool{}}
	var released []string
	for _, h := range v.Hosts {
		switch {
		case !h.Alive:
		case h.Released && h.Done:
			released = append(released, h.ID)
		default:
			p.byID[h.ID] = h
		}
	}
	p.keepOrder()
	p.demote()
	p.join()
	out := p.assign()
	for _, id := range released {
		out = append(out, Assignment{Host: id, Parent: v.Seeds[0].ID, Fallbacks: seedIDs(v.Seeds[1:]), Slots: 1, Release: true})
	}
	return out
}

type planner struct {
	view   View
	byID   map[string]registry.Host // living hosts that take part
	chain  []string
	leaves []string
	leaf   map[string]bool // the same as a set
	parent map[string]string
}

// keepOrder takes over the last plan without those who are gone.
func (p *planner) keepOrder() {
	for _, a := range p.view.Prev {
		switch _, here := p.byID[a.Host]; {
		case !here:
		case a.Leaf:
			p.leaves = append(p.leaves, a.Host)
			p.leaf[a.Host] = true
		default:
			p.chain = append(p.chain, a.Host)
		}
	}
}

// demote makes leaves of hosts that hold others back: a host that was left by
// its child is slow; but one that blames several living hosts is the suspect
// itself. Who is ahead of whom is no reason: reports are seconds apart, and in
// a healthy chain the one that reported last seems ahead.
func (p *planner) demote() {
	for _, id := range slices.Clone(p.chain) {
		if p.blames(id) >= blamesAlone {
			p.makeLeaf(id)
		}
	}
	for i := 1; i < len(p.chain); {
		parent, child := p.byID[p.chain[i-1]], p.byID[p.chain[i]]
		if !child.Done && slices.Contains(child.Rejected, parent.ID) {
			p.makeLeaf(parent.ID)
			i = max(i-1, 1) // the child has a new parent now: look again
			continue
		}
		i++
	}
}

// blames counts the living hosts that id has left or accused.
func (p *planner) blames(id string) int {
	n := 0
	for _, b := range p.byID[id].Blamed {
		if _, lives := p.byID[b]; lives && b != id {
			n++
		}
	}
	return n
}

// margin is a lead, in pieces, that is not a matter of who reported last.
func (p *planner) margin() int { return max(8, p.view.Pieces/50) }

func (p *planner) makeLeaf(id string) {
	p.chain = slices.DeleteFunc(p.chain, func(s string) bool { return s == id })
	p.leaves = append(p.leaves, id)
	p.leaf[id] = true
}

// join puts newcomers into the chain.
func (p *planner) join() {
	known := map[string]bool{}
	for _, id := range append(slices.Clone(p.chain), p.leaves...) {
		known[id] = true
	}
	var fresh []registry.Host
	for id, h := range p.byID {
		if !known[id] {
			fresh = append(fresh, h)
		}
	}
	slices.SortFunc(fresh, func(a, b registry.Host) int {
		return cmp.Or(cmp.Compare(b.Have, a.Have), cmp.Compare(a.Order, b.Order))
	})
	for _, h := range fresh {
		p.chain = slices.Insert(p.chain, p.place(h), h.ID)
	}
}

// place finds the newcomer's index in the chain: beside those it already
// exchanges pieces with (the tracker was restarted in the middle of a run),
// else before those who hold much less (it was resumed, or is done), else at
// the end, where a late one disturbs nobody.
func (p *planner) place(h registry.Host) int {
	for i, id := range p.chain {
		if p.byID[id].Parent == h.ID {
			return i
		}
	}
	if i := slices.Index(p.chain, h.Parent); i >= 0 {
		return i + 1
	}
	at := len(p.chain)
	for at > 0 && p.byID[p.chain[at-1]].Have+p.margin() < h.Have {
		at--
	}
	return at
}

// assign turns the order into assignments.
func (p *planner) assign() []Assignment {
	root := p.view.Seeds[0].ID
	p.parent = map[string]string{}
	up := root
	for _, id := range p.chain {
		p.parent[id] = up
		up = id
	}
	for _, id := range p.leaves {
		p.parent[id] = p.leafParent(id)
	}
	children := map[string]int{}
	for _, up := range p.parent {
		children[up]++
	}
	var out []Assignment
	for _, id := range append(slices.Clone(p.chain), p.leaves...) {
		out = append(out, Assignment{
			Host: id, Parent: p.parent[id], Fallbacks: p.fallbacks(id), Slots: max(children[id], 1), Leaf: p.leaf[id],
		})
	}
	p.release(out)
	return out
}

// leafParent hangs a leaf behind the host it had, or the last of the chain that
// is ahead of it, or the seed.
func (p *planner) leafParent(id string) string {
	me := p.byID[id]
	fits := func(up string) bool {
		h, ok := p.byID[up]
		return ok && !p.leaf[up] && (h.Done || h.Have > me.Have) && !slices.Contains(me.Blamed, up)
	}
	for _, a := range p.view.Prev {
		if a.Host == id && a.Leaf && fits(a.Parent) {
			return a.Parent
		}
	}
	for _, up := range slices.Backward(p.chain) {
		if fits(up) {
			return up
		}
	}
	return p.view.Seeds[0].ID
}

// fallbacks lists the ancestors above the parent, nearest first, then the seeds.
func (p *planner) fallbacks(id string) []string {
	var out []string
	up := p.parent[id]
	for len(out) < maxFallbacks {
		next, ok := p.parent[up]
		if !ok || p.isSeed(next) {
			break
		}
		out = append(out, next)
		up = next
	}
	for _, s := range seedIDs(p.view.Seeds) {
		if s != p.parent[id] {
			out = append(out, s)
		}
	}
	return out
}

func (p *planner) isSeed(id string) bool {
	return slices.ContainsFunc(p.view.Seeds, func(s registry.Seed) bool { return s.ID == id })
}

// release marks done hosts that no unfinished host has as parent or fallback
// and no expected host is kept for.
func (p *planner) release(out []Assignment) {
	needed := map[string]bool{}
	for _, a := range out {
		if p.byID[a.Host].Done {
			continue
		}
		needed[a.Parent] = true
		for _, f := range a.Fallbacks {
			needed[f] = true
		}
	}
	if p.view.Expected > 0 {
		for _, id := range slices.Backward(p.chain) {
			if p.byID[id].Done {
				needed[id] = true
				break
			}
		}
	}
	for i := range out {
		out[i].Release = p.byID[out[i].Host].Done && !needed[out[i].Host]
	}
}

func seedIDs(seeds []registry.Seed) []string {
	var out []string
	for _, s := range seeds {
		out = append(out, s.ID)
	}
	return out
}
