package plan

import "time"

const maxFallbacks = 2 // hosts among the fallbacks, before the seeds

// assignments turns the lists into the plan.
func (p *planner) assignments() []Assignment {
	kids := make(map[*seat]int, len(p.seats))
	place := func(list []*seat, root *seat, seed int) {
		for _, s := range list {
			s.up, s.seed = root, seed
			kids[root]++
			root = s
		}
	}
	for _, c := range p.chains {
		place(c.seats, nil, c.seed)
	}
	for _, l := range p.leaves {
		place(l.seats, l.root, l.seed)
	}
	p.noteHeads()
	out := make([]Assignment, 0, len(p.seats)+len(p.released))
	add := func(s *seat) {
		out = append(out, Assignment{Host: s.ID, Parent: p.parentID(s), Fallbacks: p.fallbacks(s), Slots: max(kids[s], 1), Leaf: s.cause != "", Cause: s.cause, Record: s.rec})
	}
	for _, c := range p.chains {
		for _, s := range c.seats {
			add(s)
		}
	}
	for _, l := range p.leaves {
		for _, s := range l.seats {
			add(s)
		}
	}
	p.release(out)
	p.caps(out)
	for _, id := range p.released {
		out = append(out, Assignment{Host: id, Parent: p.seeds[0].ID, Fallbacks: p.otherSeeds(nil, 0), Slots: 1, Release: true})
	}
	return out
}

// noteHeads keeps since when the heads of chains are fed by their seeds.
func (p *planner) noteHeads() {
	was := make(map[string]string, len(p.chains))
	for _, a := range p.view.Prev {
		if p.seedIndex(a.Parent) >= 0 && !a.Leaf {
			was[a.Host] = a.Parent
		}
	}
	for _, s := range p.seats {
		switch {
		case s.chain == nil || s.up != nil:
			s.rec.Head = time.Time{}
		case s.rec.Head.IsZero() || was[s.ID] != p.seeds[s.seed].ID:
			s.rec.Head = p.view.Now
		}
	}
}

func (p *planner) parentID(s *seat) string {
	if s.up != nil {
		return s.up.ID
	}
	return p.seeds[s.seed].ID
}

// fallbacks lists the ancestors above the parent, nearest first, then the
// seeds. In a chain the nearest ancestors are those of the own room. For a slow
// host the seeds come first: it would take every ancestor for faster than its
// parent, and as their links feed others it is not to try one after the other. A
// switch to a seed takes more (package window).
func (p *planner) fallbacks(s *seat) []string {
	var out []string
	for up := s.up; up != nil && up.up != nil && len(out) < maxFallbacks; up = up.up {
		out = append(out, up.up.ID)
	}
	skip := -1
	if s.up == nil {
		skip = s.seed
	}
	if slowCause(s.cause) {
		return append(p.otherSeeds(s, skip), out...)
	}
	return append(out, p.otherSeeds(s, skip)...)
}

// otherSeeds lists the seeds a host may fall back to: the one in its room,
// those for any room, the server last.
func (p *planner) otherSeeds(s *seat, skip int) []string {
	var out []string
	own := -1
	if s != nil {
		own = p.relay(s)
	}
	if own >= 0 && own != skip {
		out = append(out, p.seeds[own].ID)
	}
	for i := 1; i < len(p.seeds); i++ {
		if p.anyRoom(i) && i != skip {
			out = append(out, p.seeds[i].ID)
		}
	}
	if skip != 0 {
		out = append(out, p.seeds[0].ID)
	}
	return out
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
		for _, c := range p.chains {
			for i := len(c.seats) - 1; i >= 0; i-- {
				if c.seats[i].Done {
					needed[c.seats[i].ID] = true
					break
				}
			}
		}
	}
	for i := range out {
		out[i].Release = p.byID[out[i].Host].Done && !needed[out[i].Host]
	}
}

// caps sets what hosts may send where data enters a capped room: the one
// outside that feeds it, and the first one inside, behind which everybody gets
// no more than it sends.
func (p *planner) caps(out []Assignment) {
	if len(p.view.RoomMbps) == 0 {
		return
	}
	at := make(map[string]int, len(out))
	for i := range out {
		at[out[i].Host] = i
	}
	lower := func(s *seat, mbps int) {
		if a := &out[at[s.ID]]; mbps > 0 && (a.UploadMbps == 0 || mbps < a.UploadMbps) {
			a.UploadMbps = mbps
		}
	}
	for i := range out {
		s := p.byID[out[i].Host]
		limit := p.view.RoomMbps[s.Room]
		if s.up == nil || s.up.room != s.room {
			lower(s, limit)
			if s.up != nil && s.cause == "" { // a leaf must not hold back those beside it
				lower(s.up, limit)
			}
		}
	}
}
