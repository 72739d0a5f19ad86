package plan

import (
	"cmp"
	"slices"
)

func (c *chain) insert(i int, s *seat) {
	c.seats = slices.Insert(c.seats, i, s)
	c.rooms[s.room]++
	s.chain = c
}

func (c *chain) remove(i int) *seat {
	s := c.seats[i]
	c.seats = slices.Delete(c.seats, i, i+1)
	if c.rooms[s.room]--; c.rooms[s.room] == 0 {
		delete(c.rooms, s.room)
	}
	s.chain = nil
	return s
}

// allowed is how many chains a seed may feed: as many full-rate hosts as its
// link can carry.
func (p *planner) allowed(seed int) int {
	if p.link == 0 {
		return 1
	}
	return max(1, p.seeds[seed].LinkMbps/p.link)
}

// anyRoom tells whether a seed feeds rooms in general: the server does, and
// every other seed that stands in no room of its own.
func (p *planner) anyRoom(seed int) bool { return seed == 0 || p.seeds[seed].Room == "" }

// relay is the seed that stands in a host's room, -1 = none.
func (p *planner) relay(s *seat) int {
	for i := 1; i < len(p.seeds); i++ {
		if p.seeds[i].Room != "" && p.seeds[i].Room == s.Room {
			return i
		}
	}
	return -1
}

// counts is the number of chains by seed.
func (p *planner) counts() []int {
	n := make([]int, len(p.seeds))
	for _, c := range p.chains {
		if c.seed >= 0 {
			n[c.seed]++
		}
	}
	return n
}

// spare is the seed for any room that can feed most chains more, -1 = none can.
func (p *planner) spare() int {
	best, most := -1, 0
	for i, n := range p.counts() {
		if left := p.allowed(i) - n; p.anyRoom(i) && left > most {
			best, most = i, left
		}
	}
	return best
}

// root gives every chain its seed, and reports whether that changed something.
// Chains beyond what a seed can feed are put behind others: that is so when a
// seed went away, or its link turned out to be slower.
func (p *planner) root() (changed bool) {
	p.chains = slices.DeleteFunc(p.chains, func(c *chain) bool { return len(c.seats) == 0 })
	for _, c := range p.chains {
		seed := c.seed
		if r := p.relay(c.seats[0]); r >= 0 && r != seed && p.counts()[r] < p.allowed(r) {
			seed = r // a seed has everything: a change of seed costs nothing
		}
		if seed < 0 {
			seed = max(p.spare(), 0)
		}
		changed = changed || seed != c.seed
		c.seed = seed
	}
	for i, n := range p.counts() {
		for ; n > p.allowed(i); n-- {
			changed = true
			if s := p.spare(); s >= 0 && p.anyRoom(i) {
				p.least(i).seed = s
			} else {
				p.fold(i)
			}
		}
	}
	return changed
}

// least is the chain of a seed whose head has least.
func (p *planner) least(seed int) *chain {
	var least *chain
	for _, c := range p.chains {
		if c.seed == seed && (least == nil || c.seats[0].Have < least.seats[0].Have ||
			c.seats[0].Have == least.seats[0].Have && c.seats[0].Order > least.seats[0].Order) {
			least = c
		}
	}
	return least
}

// fold puts the least advanced chain of a seed behind, and if need be between,
// the hosts of another chain of that seed: one with a room of its own, or the
// shortest.
func (p *planner) fold(seed int) {
	from := p.least(seed)
	var to *chain
	shared := false
	for _, c := range p.chains {
		if c.seed != seed || c == from {
			continue
		}
		meets := false
		for r := range from.rooms {
			meets = meets || c.rooms[r] > 0
		}
		if to == nil || meets && !shared || meets == shared && len(c.seats) < len(to.seats) {
			to, shared = c, meets
		}
	}
	to.seats = p.merge(to.seats, from.seats)
	for _, s := range from.seats {
		to.rooms[s.room]++
		s.chain = to
	}
	p.chains = slices.DeleteFunc(p.chains, func(c *chain) bool { return c == from })
}

// merge makes one list of two so that nobody stands behind one that has clearly
// less, with as few changes of parents as that allows.
func (p *planner) merge(a, b []*seat) []*seat {
	var out []*seat
	for len(a) > 0 && len(b) > 0 {
		if !a[0].Done && (b[0].Done || a[0].Have+p.margin < b[0].Have) {
			a, b = b, a
		}
		out = append(out, a[0])
		a = a[1:]
	}
	return append(append(out, a...), b...)
}

// join puts newcomers into the chains: those with most first, then in the order
// of joining.
func (p *planner) join() {
	var fresh []*seat
	for _, s := range p.seats {
		if s.chain == nil && s.cause == "" {
			fresh = append(fresh, s)
		}
	}
	if len(fresh) == 0 {
		return
	}
	for _, c := range p.chains {
		for _, s := range c.seats {
			p.want(s)
		}
	}
	slices.SortFunc(fresh, func(a, b *seat) int {
		return cmp.Or(cmp.Compare(b.Have, a.Have), cmp.Compare(a.Order, b.Order), cmp.Compare(a.ID, b.ID))
	})
	for _, s := range fresh {
		c, i := p.place(s)
		c.insert(i, s)
		p.want(s)
		p.reunite(s)
	}
}

// want notes whom a chain host fetches from by its own word.
func (p *planner) want(s *seat) {
	if s.Parent != "" && p.wanted[s.Parent] == nil {
		p.wanted[s.Parent] = s
	}
}

// place finds the newcomer's chain and index.
func (p *planner) place(s *seat) (*chain, int) {
	if !s.back {
		if c, i := p.beside(s); c != nil {
			return c, i
		}
	}
	var best *chain
	at, cost := 0, maxCost
	consider := func(c *chain) {
		if i, k := p.scan(c, s); k < cost || k == cost && c.rooms[s.room] == best.rooms[s.room] && len(c.seats) < len(best.seats) {
			best, at, cost = c, i, k
		}
	}
	known := false
	for _, c := range p.chains {
		if c.rooms[s.room] > 0 {
			known = true
			consider(c)
		}
	}
	if cost <= costMisfit {
		return best, at
	}
	if !known {
		seed := p.relay(s)
		if seed < 0 || p.counts()[seed] >= p.allowed(seed) {
			seed = p.spare()
		}
		if seed >= 0 {
			return p.newChain(seed), 0
		}
	}
	for _, c := range p.chains {
		if c.rooms[s.room] == 0 && p.anyRoom(c.seed) {
			consider(c)
		}
	}
	return best, at
}

// skew is how far a child may seem to be ahead of its parent: a report may be
// seconds old.
func (p *planner) skew() int { return p.margin + p.view.Pieces/4 }

// kid is the chain host that fetches from s by its own word, and can: a host
// that came back with an empty disk feeds nobody. nil = there is none.
func (p *planner) kid(s *seat) *seat {
	kid := p.wanted[s.ID]
	if kid == nil || kid == s || kid.chain == nil || !kid.Done && s.Have+p.skew() < kid.Have {
		return nil
	}
	return kid
}

// beside finds the place of one that was in the middle of the transfer when the
// tracker was started anew: among those it exchanges pieces with.
func (p *planner) beside(s *seat) (*chain, int) {
	if up := p.byID[s.Parent]; up != nil && up.chain != nil && (up.Done || s.Done || up.Have+p.skew() >= s.Have) {
		i := slices.Index(up.chain.seats, up) + 1
		if i == len(up.chain.seats) || !rival(up.chain.seats[i], s) {
			return up.chain, i
		}
	}
	first := p.seedIndex(s.Parent) >= 0 && s.Have > 0 && !s.Done
	if kid := p.kid(s); kid != nil && (!first || kid.chain.seats[0] == kid) {
		return kid.chain, slices.Index(kid.chain.seats, kid)
	}
	if !first {
		return nil, 0
	}
	for _, c := range p.chains { // the head of a chain, whose followers reported first
		head := c.seats[0]
		if p.seedIndex(head.Parent) < 0 && head.Parent != "" && (c.rooms[s.room] > 0 || p.spare() < 0) && head.Have <= s.Have+p.skew() {
			return c, 0
		}
	}
	if seed := p.spare(); seed >= 0 {
		return p.newChain(seed), 0
	}
	return nil, 0
}

// reunite puts the one that fetches from s, and those who fetch from that one,
// directly behind s: they were put elsewhere while s was not known.
func (p *planner) reunite(s *seat) {
	kid := p.kid(s)
	if kid == nil || s.back { // what they fetch from a former leaf is what is left over
		return
	}
	from := kid.chain
	i := slices.Index(from.seats, kid)
	if i > 0 && from.seats[i-1] == s {
		return
	}
	run := []*seat{from.remove(i)}
	for i < len(from.seats) && from.seats[i] != s && from.seats[i].Parent == run[len(run)-1].ID {
		run = append(run, from.remove(i))
	}
	at := slices.Index(s.chain.seats, s) + 1
	for j, r := range run {
		s.chain.insert(at+j, r)
	}
	if len(from.seats) == 0 {
		p.chains = slices.DeleteFunc(p.chains, func(c *chain) bool { return c == from })
	}
}

// rival tells whether next, which stands behind the parent that s reports, does
// fetch from it too and holds more: s was a leaf there, or is late.
func rival(next, s *seat) bool { return !next.Done && next.Parent == s.Parent && next.Have > s.Have }

// Costs of a place in a chain, best first.
const (
	costFits   = 0 // in the host's room, the faster before it and the slower behind
	costMisfit = 1 // in its room
	costEdge   = 2 // between two rooms, or at an end of the chain
	costSplit  = 3 // in the middle of another room
	maxCost    = 4
)

// scan finds the best place for s in a chain: nobody who holds clearly more may
// come to stand behind it, and it must not stand behind one that holds clearly
// less. Among the best the last place is taken.
func (p *planner) scan(c *chain, s *seat) (at, cost int) {
	n := len(c.seats)
	if s.Done { // it needs nobody: it takes no one's parent away
		return n, p.seam(c, n, s)
	}
	// One in the middle of the transfer, whose parent has not reported to a new
	// tracker yet, must not come between two that exchange pieces.
	running := s.Parent != "" && s.Have > 0
	above := n // index of the nearest unfinished host before i, -1 = none
	at, cost = n, maxCost
	for i := n; ; i-- {
		if above >= i {
			for above = i - 1; above >= 0 && c.seats[above].Done; above-- {
			}
		}
		last := i == 0 || !c.seats[i-1].Done && c.seats[i-1].Have > s.Have+p.margin
		if (last || above < 0 || c.seats[above].Have+p.margin >= s.Have) && !(running && i < n && p.flows(c, i)) {
			if k := p.seam(c, i, s); k < cost {
				at, cost = i, k
			}
		}
		if last || cost == costFits || c.rooms[s.room] == 0 && cost == costEdge {
			return at, min(cost, costSplit)
		}
	}
}

// flows tells whether the i-th host of a chain fetches from the one before it.
func (p *planner) flows(c *chain, i int) bool {
	if i == 0 {
		return c.seats[0].Parent == p.seeds[c.seed].ID
	}
	return c.seats[i].Parent == c.seats[i-1].ID
}

// seam is the cost of putting s before c.seats[i].
func (p *planner) seam(c *chain, i int, s *seat) int {
	var before, after *seat
	if i > 0 {
		before = c.seats[i-1]
	}
	if i < len(c.seats) {
		after = c.seats[i]
	}
	mineUp, mineDown := before != nil && before.room == s.room, after != nil && after.room == s.room
	switch {
	case mineUp && p.faster(s, before) || mineDown && p.faster(after, s):
		return costMisfit
	case mineUp || mineDown:
		return costFits
	case before != nil && after != nil && before.room == after.room:
		return costSplit
	}
	return costEdge
}

// faster tells whether a is clearly faster than b: by link, else by rate.
func (p *planner) faster(a, b *seat) bool {
	la, lb := p.linkOf(a), p.linkOf(b)
	if la != lb {
		return la > lb
	}
	return a.RateBps > 0 && b.RateBps > 0 && a.RateBps > b.RateBps+b.RateBps/4
}

// linkOf is a host's link, the usual one when it is not known.
func (p *planner) linkOf(s *seat) int {
	if s.LinkMbps > 0 {
		return s.LinkMbps
	}
	return p.usual[s.room]
}
