package plan

import (
	"cmp"
	"slices"
	"time"
)

// Trials of heads. Behind a slow head everybody is slow, so nobody can be compared
// with it. But it is known what its seed can send. A head that gets far less is put
// aside, to the end of the chain, and the next host takes its place: nothing is sent
// twice but the few pieces that the next one lacked, and the chain runs on
// meanwhile. If the next one does much better, the old head was the brake. If not,
// it is the seed or the way, and the old head is in good standing again.
const (
	headPart  = 3                // a head that gets less than this part of what it should is tried
	clearly   = 2                // times as fast as the old head the next one must be
	series    = 3                // heads tried in a row before it is held to be the way
	trialRest = time.Minute      // after a series in vain; doubled each time
	trialMost = 30 * time.Second // without a word on the next one, after which the old one is acquitted
	freshWord = 5 * time.Second  // age of a report that a head is judged by
	worthIt   = 10 * time.Second // time left for a chain at the pace of its head below which nothing is tried
	guessSeed = 1000             // Mb/s of a seed that does not know its link
	guessHost = 100              // Mb/s of hosts that do not know theirs
)

// Record is what the planner remembers of a host from one plan to the next.
type Record struct {
	Leaf    time.Time // when it was called slow, or was left
	Paroles int       // times that it came back from that

	Head time.Time // since when it is the head of a chain behind this seed; zero = it is none

	// Of a trial: it was the head of a chain and was put aside.
	Tried time.Time // the last time; zero = never
	Vain  int       // times that brought nothing
	Seed  string    // that fed it
	Bps   int64     // what it received then, bytes per second
	Heir  string    // who took its place; "" = judged
}

// judge ends trials whose outcome is known, and reports whether it ended one.
func (p *planner) judge() (some bool) {
	for again := true; again; {
		again = false
		for _, s := range p.seats {
			if s.rec.Heir == "" {
				continue
			}
			switch guilty, known := p.verdictOn(s); {
			case !known:
				continue
			case guilty:
				s.cause, s.rec.Heir, s.rec.Leaf = cmp.Or(s.Brake, CauseUnknown), "", p.view.Now
			default:
				p.acquit(s)
			}
			some, again = true, true
		}
	}
	return some
}

// verdictOn tells whether the host that was put aside was the brake.
func (p *planner) verdictOn(s *seat) (guilty, known bool) {
	heir := p.byID[s.rec.Heir]
	switch {
	case heir == nil || heir.Done || s.Done || p.view.Now.Sub(s.rec.Tried) > trialMost || s.cause != CauseTrial:
		return false, true
	case heir.rec.Heir != "" && heir.rec.Heir != s.ID && heir.cause == CauseTrial: // it was no better: who comes after it tells of both
		return false, false
	case heir.rec.Tried.After(s.rec.Tried) || heir.rec.Tried.Equal(s.rec.Tried): // that is over
		return heir.cause != "" && s.rec.Bps < clearly*heir.rec.Bps, true
	case heir.cause != "":
		return false, true
	case heir.Parent != s.rec.Seed:
		return false, false
	}
	now := p.headRate(heir)
	if now < 0 || heir.chain != nil && heir.chain.seats[0] == heir && p.starved(heir.chain) && p.mayTry(s.rec.Seed) {
		return false, false // it will be tried as well
	}
	// It recovered, if at its new place it gets half as much as the next one.
	return now > clearly*s.rec.Bps && p.rate(s)*clearly < now, true
}

// acquit takes a host that was put aside off the leaves.
func (p *planner) acquit(s *seat) {
	s.rec.Heir = ""
	s.rec.Vain++
	if s.cause == CauseTrial { // else it is a leaf for another reason by now
		p.free(s)
	}
}

// free takes a host off the leaves, to be put into a chain again.
func (p *planner) free(s *seat) {
	s.cause, s.back, s.hung = "", true, false
	for _, l := range p.leaves {
		l.seats = slices.DeleteFunc(l.seats, func(o *seat) bool { return o == s })
	}
}

// rate is what a host received lately, bytes per second; -1 = not known.
func (p *planner) rate(s *seat) int64 {
	if s.Lately <= 0 {
		return -1
	}
	return int64(float64(s.Gained) * float64(p.view.PieceLen) / s.Lately.Seconds())
}

// headRate is the rate of a head, all of it measured since it is one; -1 = not known.
// The reports of a host that connected late would else tell of its last parent.
func (p *planner) headRate(s *seat) int64 {
	if s.rec.Head.IsZero() || s.LastSeen.Add(-s.Lately).Before(s.rec.Head) {
		return -1
	}
	return p.rate(s)
}

// try puts heads aside that get far less than their seed could send.
func (p *planner) try() (some bool) {
	if p.view.PieceLen <= 0 || p.view.Now.IsZero() {
		return false
	}
	for _, c := range p.chains {
		for p.starved(c) && p.mayTry(p.seeds[c.seed].ID) {
			head, next := c.seats[0], c.seats[1]
			c.remove(0)
			head.cause = CauseTrial
			r := &head.rec
			r.Tried, r.Seed, r.Bps, r.Heir = p.view.Now, p.seeds[c.seed].ID, p.rate(head), next.ID
			some = true
		}
	}
	return some
}

// starved tells whether the head of a chain gets far less than it should, and
// another one could take its place.
func (p *planner) starved(c *chain) bool {
	if len(c.seats) < 2 {
		return false
	}
	head, next := c.seats[0], c.seats[1]
	seed := p.seeds[c.seed]
	switch {
	case head.Done || next.Done || head.Parent != seed.ID || contains(next.Rejected, seed.ID) || contains(seed.AccusedBy, next.ID):
		return false
	case p.view.Now.Sub(head.LastSeen) > freshWord || head.rec.Tried.Equal(p.view.Now):
		return false
	}
	bps := p.headRate(head)
	if bps < 0 || bps*headPart >= p.due(c) {
		return false
	}
	left := int64(p.view.Pieces-head.Have) * p.view.PieceLen
	return left >= bps*int64(worthIt/time.Second)
}

// due is what the head of a chain should get, bytes per second: its part of the
// seed's link, or its own, or what its room may have.
func (p *planner) due(c *chain) int64 {
	mbps := p.seeds[c.seed].LinkMbps
	if mbps <= 0 {
		mbps = guessSeed
	}
	kids := p.counts()[c.seed]
	for _, l := range p.leaves {
		if l.root == nil && len(l.seats) > 0 {
			kids++
		}
	}
	mbps /= max(kids, 1)
	own := p.usual[c.seats[0].room]
	if own <= 0 {
		own = guessHost
	}
	mbps = min(mbps, own)
	if limit := p.view.RoomMbps[c.seats[0].Room]; limit > 0 {
		mbps = min(mbps, limit)
	}
	return int64(mbps) * 125_000
}

// mayTry tells whether another head may be put aside for a seed: after a series in
// vain it has to wait, each time twice as long.
func (p *planner) mayTry(seed string) bool {
	vain := 0
	var last time.Time
	for _, s := range p.seats {
		if s.rec.Seed != seed || s.rec.Tried.IsZero() {
			continue
		}
		vain += s.rec.Vain
		if s.rec.Heir != "" {
			vain++
		}
		if s.rec.Tried.After(last) {
			last = s.rec.Tried
		}
	}
	if vain == 0 || vain%series != 0 {
		return true
	}
	return p.view.Now.Sub(last) >= trialRest<<min(vain/series-1, 5)
}
