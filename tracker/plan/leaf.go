package plan

import (
	"cmp"
	"slices"
)

// leafChain is a list of leaves behind a chain host or a seed.
type leafChain struct {
	root  *seat // nil: the seed below
	seed  int   // index in planner.seeds
	seats []*seat
}

// shuns tells whether s left or accused a host and so must not be sent to it.
func shuns(s, up *seat) bool {
	return contains(s.Rejected, up.ID) || contains(s.Blamed, up.ID) || contains(up.AccusedBy, s.ID)
}

// feedsLeaf tells whether a leaf may feed another one: if its link is all that is
// wrong with it, or both are put aside for some seconds.
func feedsLeaf(up, s *seat) bool {
	return up.cause == CauseLink || up.cause == CauseTrial && s.cause == CauseTrial
}

// demote takes hosts out of the chains that hold others back. Who is ahead of
// whom is no reason: reports are seconds apart, and in a healthy chain the one
// that reported last seems ahead.
func (p *planner) demote() {
	for _, s := range p.seats {
		if s.cause == "" && p.slowLink(s) {
			s.cause = CauseLink
		}
		if s.cause != "" && s.chain != nil {
			s.chain.remove(slices.Index(s.chain.seats, s))
		}
	}
	for again := true; again; {
		again = false
		for _, c := range p.chains {
			again = p.demoteLeft(c) || again
		}
		again = p.demoteSlow() || again
	}
}

// demoteLeft makes leaves of hosts whose child has left them.
func (p *planner) demoteLeft(c *chain) (some bool) {
	for i := 1; i < len(c.seats); {
		up, kid := c.seats[i-1], c.seats[i]
		if kid.Done || !contains(kid.Rejected, up.ID) {
			i++
			continue
		}
		p.makeLeaf(up, i-1, CauseLeft)
		some = true
		i = max(i-1, 1) // the child has a new parent now: look again
	}
	return some
}

// makeLeaf takes s, the i-th of its chain, out of it.
func (p *planner) makeLeaf(s *seat, i int, cause string) {
	s.chain.remove(i)
	s.cause, s.rec.Leaf = cmp.Or(s.Brake, cause), p.view.Now
}

// hang gives every leaf a parent.
func (p *planner) hang() {
	old := p.leaves
	p.leaves = nil
	var loose []*leafChain
	for _, l := range old {
		for _, part := range p.split(l) {
			if part.root == nil {
				loose = append(loose, part)
				continue
			}
			part.root.leafKids++
			p.leaves = append(p.leaves, part)
		}
	}
	for _, l := range loose {
		p.hangChain(l)
	}
	var fresh []*seat
	for _, s := range p.seats {
		if s.cause != "" && !s.hung {
			fresh = append(fresh, s)
		}
	}
	slices.SortFunc(fresh, func(a, b *seat) int {
		return cmp.Or(cmp.Compare(p.linkOf(b), p.linkOf(a)), cmp.Compare(b.Have, a.Have), cmp.Compare(a.Order, b.Order), cmp.Compare(a.ID, b.ID))
	})
	for _, s := range fresh {
		if l := p.leafTail(s); l != nil {
			l.seats = append(l.seats, s)
			continue
		}
		p.hangChain(&leafChain{seats: []*seat{s}})
	}
	p.toTails()
	// Those at a seed are looked at last the next time too.
	slices.SortStableFunc(p.leaves, func(a, b *leafChain) int { return cmp.Compare(atSeed(a), atSeed(b)) })
}

// toTails moves leaves from hosts that feed a healthy one by now to hosts at the
// end of a chain that feed nobody: a leaf that joined early hangs on the first of
// its room, and what it takes of that host's link is missing to all behind it. It
// stays in its room: an uplink is as full as a host's link.
func (p *planner) toTails() {
	for _, l := range p.leaves {
		if l.root == nil || !burdened(l.root) {
			continue
		}
		if up := p.freeTail(l.seats[0], l.root.room); up != nil {
			l.root.leafKids--
			up.leafKids++
			l.root = up
		}
	}
}

// burdened tells whether a chain host feeds one that is not done.
func burdened(s *seat) bool {
	i := slices.Index(s.chain.seats, s)
	return i+1 < len(s.chain.seats) && !s.chain.seats[i+1].Done
}

// freeTail finds a chain host in a leaf's room, or else in the one it is fed from,
// that feeds nobody; nil = none.
func (p *planner) freeTail(s *seat, fedFrom int) (best *seat) {
	for _, c := range p.chains {
		for _, up := range c.seats {
			fits := up.leafKids == 0 && !burdened(up) && p.ahead(up, s) && !shuns(s, up)
			if fits && (up.room == s.room || best == nil && up.room == fedFrom && fedFrom != s.room) {
				best = up
			}
		}
	}
	return best
}

// atSeed is 1 for a leaf chain that a seed feeds.
func atSeed(l *leafChain) int {
	if l.root == nil {
		return 1
	}
	return 0
}

// split cuts a leaf chain of the last plan where one may not feed the next. A
// part without root has to be hung anew; so has one that a seed fed for want of
// somebody better.
func (p *planner) split(l *leafChain) (parts []*leafChain) {
	part := &leafChain{root: l.root}
	for i, s := range l.seats {
		up := l.root
		if i > 0 {
			up = l.seats[i-1]
		}
		if up == nil || i == 0 && up.chain == nil || i > 0 && !feedsLeaf(up, s) || shuns(s, up) || p.verdict.Direct[s.ID] {
			part = &leafChain{}
		}
		if len(part.seats) == 0 {
			parts = append(parts, part)
		}
		part.seats = append(part.seats, s)
	}
	return parts
}

// hangChain gives a leaf chain a root: a chain host, else a seed.
func (p *planner) hangChain(l *leafChain) {
	head := l.seats[0]
	if l.root = p.leafRoot(head); l.root != nil {
		l.root.leafKids++
	} else if r := p.relay(head); r >= 0 && !p.verdict.Direct[head.ID] {
		l.seed = r
	}
	p.leaves = append(p.leaves, l)
}

// leafTail finds a leaf chain in the host's room to whose end it may be
// appended: slow links behind slow links that are no slower.
func (p *planner) leafTail(s *seat) *leafChain {
	if p.verdict.Direct[s.ID] {
		return nil
	}
	for _, l := range p.leaves {
		up := l.seats[len(l.seats)-1]
		fits := up.cause == CauseTrial || up.LinkMbps*10 >= p.linkOf(s)*7
		if up.room == s.room && feedsLeaf(up, s) && fits && !shuns(s, up) && p.ahead(up, s) {
			return l
		}
	}
	return nil
}

// ahead tells whether up can feed s: it is done, or not clearly behind. One that was
// the head until now is ahead of all; it waits until its parent has passed it.
func (p *planner) ahead(up, s *seat) bool {
	if s.cause == CauseTrial {
		return up.Done || up.Have+p.skew() >= s.Have
	}
	return up.Done || up.Have+p.margin >= s.Have
}

// leafRoot finds the chain host to hang a leaf on, nil = none, the seed has to
// feed it: first one that feeds no leaves yet, in its own room, with no host
// behind it that needs its whole link, and the last of those. Two that are known to
// be slow take less from one that feeds nobody else than one of them takes from all
// behind its parent.
func (p *planner) leafRoot(s *seat) *seat {
	if p.verdict.Direct[s.ID] {
		return nil
	}
	var best *seat
	var bestKey [3]int
	for _, c := range p.chains {
		for i, up := range c.seats {
			key := [3]int{up.leafKids, 0, 0}
			if provenSlow(s.cause) {
				key[0] = max(up.leafKids-1, 0)
			}
			if up.room != s.room {
				key[1] = 1
			}
			if i+1 < len(c.seats) && !c.seats[i+1].Done {
				key[2] = 1
			}
			if (best == nil || slices.Compare(key[:], bestKey[:]) <= 0) && p.ahead(up, s) && !shuns(s, up) {
				best, bestKey = up, key
			}
		}
	}
	return best
}
