// Package plan decides who fetches from whom: Plan is a pure function from
// what is known of a swarm to one assignment per host. No net, no clock, no
// randomness.
//
// The plan is a forest of relay chains rooted at the seeds (swarm.md section 3:
// a chain beats every mesh, sends one copy over every link and needs one from
// the seed). A chain is a list, in which everybody fetches from the one before;
// the last plan's lists are taken over, those who are gone are cut out, and
// newcomers are put in. So a host keeps its parent as long as that one lives,
// and the number of chains cannot grow by a death. Called by package tracker
// and by the simulator.
package plan

import (
	"time"

	"labswarm/tracker/registry"
)

// Assignment is the plan for one host. Names are host or seed ids.
type Assignment struct {
	Host   string
	Parent string
	// Fallbacks are grandparent, great-grandparent, then seeds; of a slow leaf the
	// seeds come first. The first seed is the last seed of Parent and these.
	Fallbacks []string
	Slots     int    // children planned for it, at least 1
	Leaf      bool   // slow or suspect: it feeds no healthy host
	Cause     string // why it is a leaf, see the Cause constants; "" when it is none
	Release   bool   // done, and nobody depends on it: it may go
	// UploadMbps caps what it sends, Mb/s; 0 = no cap. Set on hosts over which
	// data enters a capped room.
	UploadMbps int
	Record     Record // kept for the next plan
}

// Causes of being a leaf. Those of a slow host (link to left) stay once they
// are given; the others last as long as the accusations stand.
const (
	CauseLink    = "link"    // its link is half of what is usual, or less; or it is slow and its link is the brake
	CauseDisk    = "disk"    // slow, and its disk is the brake
	CauseCPU     = "cpu"     // slow, and its processor is the brake
	CauseUnknown = "unknown" // slow, and it does not say why
	CauseLeft    = "left"    // its child left it: it did not deliver
	CauseTrial   = "trial"   // a head that gets little: another one is tried in its place
	CauseAccused = "accused" // one host had a wrong piece from it
	CauseSuspect = "suspect" // it left or accused several living hosts: the fault is probably its own
	CauseRevoked = "revoked" // two hosts had wrong pieces from it
)

// Explain puts a cause into words for people.
func Explain(cause string) string {
	return map[string]string{
		CauseLink:    "its network link is much slower than usual here: look at cable, switch port and adapter",
		CauseDisk:    "its disk is slower than the network: look at the disk",
		CauseCPU:     "its processor is slower than the network",
		CauseUnknown: "it is much slower than the others and does not say why: its cable, its switch port, or the uplink of its room",
		CauseLeft:    "the host behind it left it, as it did not deliver",
		CauseTrial:   "it gets little from the server; for some seconds another one is tried in its place",
		CauseAccused: "one host had a wrong cell from it: look at its memory",
		CauseSuspect: "it accused or left several others: its own memory or adapter is the suspect",
		CauseRevoked: "two hosts had wrong cells from it: look at its memory, or who sits there",
	}[cause]
}

// View is all that Plan looks at.
type View struct {
	Pieces   int
	PieceLen int64           // bytes; 0 = unknown: no trials
	Now      time.Time       // zero = unknown: no trials
	Seeds    []registry.Seed // at least one; the first is the server, which feeds any room
	Hosts    []registry.Host // living, dead and released ones
	Prev     []Assignment    // the result of the last call, in its order; nil at first
	// Expected counts hosts that are booting and will join soon. While there are
	// any, the last done host of a chain stays as their source: without it each
	// of them would draw another copy from the seed.
	Expected int
	RoomMbps map[string]int // what may be sent into and inside a room, Mb/s; no entry = no cap
}

// Plan returns one assignment per living host: chain by chain from head to
// tail, then the leaves, then the hosts already released. It is stable: called
// again with its own result as Prev and nothing else changed, it returns the
// same.
func Plan(v View) []Assignment {
	if len(v.Seeds) == 0 {
		return nil
	}
	p := newPlanner(v)
	p.keep()
	for p.round() {
	}
	p.hang()
	return p.assignments()
}

// round arranges the chains, and reports whether that gave a verdict on somebody,
// which may call for another round. It ends: a host is tried, acquitted and
// convicted once in a call at most.
func (p *planner) round() (again bool) {
	before := p.leafCount()
	again = p.judge()
	again = p.parole() || again
	p.settle()
	p.join()
	p.settle()
	return p.try() || again || p.leafCount() != before
}

func (p *planner) leafCount() (n int) {
	for _, s := range p.seats {
		if s.cause != "" {
			n++
		}
	}
	return n
}

// settle applies the rules for leaves and for the heads of chains until none
// asks for another change: a chain put behind another one, or a new head, may
// call for the next. It ends, as every round has fewer chains, fewer hosts in
// them, or fewer heads at the wrong seed.
func (p *planner) settle() {
	for again := true; again; {
		p.demote()
		again = p.root()
	}
}

// seat is a host that takes part, with its place in the plan.
type seat struct {
	*registry.Host
	room  int    // number of its room
	cause string // why it is a leaf, "" = it is none
	chain *chain // nil = in no chain: a leaf, or not placed yet
	hung  bool   // it has a place among the leaves
	back  bool   // it was a leaf and is none any more
	rec   Record

	leafKids int // leaf chains that begin at it

	up   *seat // parent; nil: the seed below
	seed int   // index of the seed that feeds it when up is nil
}

// chain is a list of hosts of which the first is fed by a seed and each other
// one by the host before it.
type chain struct {
	seed  int // index in planner.seeds; -1 = to be chosen
	seats []*seat
	rooms map[int]int // hosts by room
}

// planner is one call of Plan.
type planner struct {
	view     View
	verdict  Verdict
	seeds    []registry.Seed // without those that are revoked
	seedAt   map[string]int  // index in seeds
	seats    []*seat         // living hosts that take part, in View's order
	byID     map[string]*seat
	released []string
	rooms    map[string]int // numbers of rooms
	roomN    []int          // living hosts by room
	usual    []int          // link that is usual in a room, Mb/s; 0 = unknown
	link     int            // median link of all hosts, Mb/s; 0 = unknown

	chains []*chain
	leaves []*leafChain
	wanted map[string]*seat // chain hosts by the parent they report
	margin int
}

func newPlanner(v View) *planner {
	p := &planner{
		view: v, verdict: Arbitrate(v.Hosts, v.Seeds), seedAt: map[string]int{}, byID: make(map[string]*seat, len(v.Hosts)),
		rooms: map[string]int{}, wanted: map[string]*seat{}, margin: max(8, v.Pieces/50),
	}
	for _, s := range v.Seeds {
		if !p.verdict.Seeds[s.ID] {
			p.seedAt[s.ID] = len(p.seeds)
			p.seeds = append(p.seeds, s)
		}
	}
	all := make([]seat, len(v.Hosts))
	for i := range v.Hosts {
		h := &v.Hosts[i]
		switch {
		case !h.Alive:
		case h.Released && h.Done:
			p.released = append(p.released, h.ID)
		default:
			s := &all[i]
			*s = seat{Host: h, room: p.roomOf(h.Room), cause: p.verdict.Cause[h.ID]}
			p.roomN[s.room]++
			p.seats = append(p.seats, s)
			p.byID[h.ID] = s
		}
	}
	p.links()
	return p
}

func (p *planner) roomOf(name string) int {
	r, ok := p.rooms[name]
	if !ok {
		r = len(p.rooms)
		p.rooms[name] = r
		p.roomN = append(p.roomN, 0)
	}
	return r
}

// links finds the link speeds that are usual. The hosts that may go count too:
// what is usual must not change because the first ones are done.
func (p *planner) links() {
	byRoom, all := make([][]int, len(p.rooms)), []int{}
	for i := range p.view.Hosts {
		h := &p.view.Hosts[i]
		if !h.Alive || h.LinkMbps <= 0 {
			continue
		}
		all = append(all, h.LinkMbps)
		if r, ok := p.rooms[h.Room]; ok {
			byRoom[r] = append(byRoom[r], h.LinkMbps)
		}
	}
	p.link = median(all)
	p.usual = make([]int, len(p.rooms))
	for r := range p.usual {
		p.usual[r] = max(median(byRoom[r]), p.link)
	}
}

// slowLink tells whether a host's link alone makes it a leaf.
func (p *planner) slowLink(s *seat) bool { return s.LinkMbps > 0 && s.LinkMbps*2 <= p.usual[s.room] }

// keep takes over the last plan without those who are gone.
func (p *planner) keep() {
	var c *chain
	var l *leafChain
	last := ""
	taken := make(map[string]bool, len(p.seats))
	for _, a := range p.view.Prev {
		s := p.byID[a.Host]
		if taken[a.Host] {
			continue
		}
		taken[a.Host] = true
		follows := a.Parent == last
		last = a.Host
		if s != nil {
			s.rec = a.Record
		}
		if !a.Leaf {
			if c == nil || !follows {
				c = p.newChain(p.seedIndex(a.Parent))
			}
			if s != nil {
				c.insert(len(c.seats), s)
			}
			continue
		}
		if l == nil || !follows {
			l = &leafChain{root: p.byID[a.Parent]}
			p.leaves = append(p.leaves, l)
		}
		if s == nil {
			continue
		}
		if s.cause == "" {
			s.cause = stays(a.Cause)
			s.back = s.cause == ""
		}
		if s.cause != "" {
			l.seats = append(l.seats, s)
			s.hung = true
		}
	}
}

// stays returns the cause if it lasts without new evidence, else "".
func stays(cause string) string {
	switch cause {
	case CauseAccused, CauseSuspect, CauseRevoked:
		return ""
	}
	return cause
}

// seedIndex is the index of a seed that may be used, -1 for any other id.
func (p *planner) seedIndex(id string) int {
	if i, ok := p.seedAt[id]; ok {
		return i
	}
	return -1
}

func (p *planner) newChain(seed int) *chain {
	c := &chain{seed: seed, rooms: map[int]int{}}
	p.chains = append(p.chains, c)
	return c
}
