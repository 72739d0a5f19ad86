package plan

import (
	"cmp"
	"slices"
	"time"

	"labswarm/api"
)

// The rule for slow hosts (swarm.md section 3, Bad-node rule). In a chain
// everybody behind a slow host is slow too, so a chain falls into runs: a run
// begins at a host that could have more from its parent and ends before the
// next such host. Only the first of a run can be to blame.
const (
	outlier    = 6                       // median absolute deviations beyond the median
	floorPart  = 8                       // the deviation counts as an eighth of the median at least: jitter is no fault
	minSample  = 3                       // measured hosts outside of a run to compare it with
	minRoom    = 4                       // hosts in a room below which nobody is called slow
	reportSkew = 2500 * time.Millisecond // two reports may be so far apart

	paroleAfter = 15 * time.Second // doubled each time
	paroleRate  = 3                // part of the usual rate that a host must get; it may have to share its source
)

// pace is a chain host with its measured speed.
type pace struct {
	*seat
	up    *seat // before it in the chain, nil for a head
	first bool  // of its run
	run   int
}

// entry tells whether data comes into the room over q, so that a narrow way
// into the room looks like a slow host.
func (q *pace) entry() bool { return q.up == nil || q.up.room != q.room }

// demoteSlow makes leaves of hosts that hold their runs back, the slowest
// first, and reports whether there was one. Never more than a quarter of a
// room: more are no outliers.
func (p *planner) demoteSlow() (some bool) {
	paces := p.runs()
	if len(paces) == 0 {
		return false
	}
	slow := make([]int, len(p.roomN))
	for _, s := range p.seats {
		if provenSlow(s.cause) {
			slow[s.room]++
		}
	}
	var blamed []*pace
	for i := range paces {
		q := &paces[i]
		if !q.first || q.Done || p.roomN[q.room] < minRoom {
			continue
		}
		if q.entry() && (slow[q.room] > 0 || p.view.RoomMbps[q.Room] > 0) {
			continue // the next first one is no faster: it is the way into the room
		}
		if q.up != nil && slower(q, paces) || q.up == nil && p.braked(q) {
			blamed = append(blamed, q)
		}
	}
	slices.SortStableFunc(blamed, func(a, b *pace) int { return cmp.Compare(b.PieceTime, a.PieceTime) })
	for _, q := range blamed {
		if slow[q.room]*4 < p.roomN[q.room] {
			slow[q.room]++
			p.makeLeaf(q.seat, slices.Index(q.chain.seats, q.seat), CauseUnknown)
			some = true
		}
	}
	return some
}

// parole lets hosts come back that were called slow, or were left, a while ago and
// get no less now than others: to the end of a chain, where a mistake costs nothing.
// It reports whether there was one. Whoever is found guilty again waits longer.
func (p *planner) parole() (some bool) {
	if p.view.PieceLen <= 0 || p.view.Now.IsZero() {
		return false
	}
	var usual []int64
	for _, s := range p.seats {
		if bps := p.rate(s); bps >= 0 { // all count: what is usual must not depend on the verdicts
			usual = append(usual, bps)
		}
	}
	for _, s := range p.seats {
		wait := paroleAfter << min(s.rec.Paroles, 6)
		if s.Done || !slowCause(s.cause) || s.cause == CauseTrial || s.rec.Leaf.IsZero() || p.slowLink(s) || p.view.Now.Sub(s.rec.Leaf) < wait || p.rate(s)*paroleRate < median(usual) || p.rate(s) <= 0 {
			continue
		}
		s.rec.Leaf = time.Time{}
		s.rec.Paroles++
		p.free(s)
		some = true
	}
	return some
}

// provenSlow tells whether a leaf was measured to be slow.
func provenSlow(cause string) bool {
	return cause == CauseDisk || cause == CauseCPU || cause == CauseUnknown
}

// slowCause tells whether a leaf is held to be slow, in place of wrong.
func slowCause(cause string) bool {
	switch cause {
	case CauseLink, CauseDisk, CauseCPU, CauseUnknown, CauseLeft, CauseTrial:
		return true
	}
	return false
}

// runs lists the chain hosts that were measured behind their present parent.
// The first of a run is the one whose parent is a seed, done, or ahead by
// clearly more than what two reports may differ.
func (p *planner) runs() []pace {
	var times []time.Duration
	for _, s := range p.seats {
		if s.PieceTime > 0 {
			times = append(times, s.PieceTime)
		}
	}
	if len(times) == 0 {
		return nil
	}
	out := make([]pace, 0, len(times))
	lead := p.margin + int(reportSkew/median(times))
	run := 0
	for _, c := range p.chains {
		if len(c.seats) == 0 {
			continue
		}
		var up *seat
		from := p.seeds[max(c.seed, 0)].ID
		for _, s := range c.seats {
			first := up == nil || up.Done || up.Have > s.Have+lead
			if first {
				run++
			}
			if s.PieceTime > 0 && (s.Done || s.Parent == from) {
				out = append(out, pace{seat: s, up: up, first: first, run: run})
			}
			up, from = s, s.ID
		}
	}
	return out
}

// slower tells whether q is beyond the limit: median and 6 MAD of the others in
// its room, or of all when they are too few; with too few at all, twice its
// parent's time.
func slower(q *pace, all []pace) bool {
	var room, swarm []time.Duration
	for i := range all {
		o := &all[i]
		if o.run == q.run {
			continue
		}
		swarm = append(swarm, o.PieceTime)
		if o.room == q.room {
			room = append(room, o.PieceTime)
		}
	}
	if len(room) < minSample {
		room = swarm
	}
	if len(room) < minSample {
		return q.up.PieceTime > 0 && q.PieceTime > 2*q.up.PieceTime
	}
	mid := median(room)
	for i, t := range room {
		room[i] = (t - mid).Abs()
	}
	return q.PieceTime > mid+outlier*max(median(room), mid/floorPart)
}

// braked tells whether the head of a chain, with which nobody can be compared,
// holds it back by its own word: its disk or processor, at well below the
// usual link.
func (p *planner) braked(q *pace) bool {
	if q.Brake != api.BrakeDisk && q.Brake != api.BrakeCPU {
		return false
	}
	if list := q.chain.seats; len(list) > 1 && list[1].Brake == q.Brake {
		return false // its neighbour is no better
	}
	return p.usual[q.room] > 0 && q.RateBps*8 < int64(p.usual[q.room])*600_000
}

// median of unsorted values, the upper one of two; 0 of none.
func median[T cmp.Ordered](v []T) T {
	var zero T
	if len(v) == 0 {
		return zero
	}
	s := slices.Clone(v)
	slices.Sort(s)
	return s[len(s)/2]
}

func contains(list []string, id string) bool { return slices.Contains(list, id) }
