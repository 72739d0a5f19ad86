package sched

import (
	"net/netip"
	"slices"
	"time"

	"labswarm/swarm/window"
)

const (
	// DialTime is how long a connection to a source may take.
	DialTime   = 3 * time.Second
	stallTime  = 4 * time.Second  // without a byte while requests are open
	waitTime   = 8 * time.Second  // without a byte from a source that only says that it waits; more than Patience
	muteTime   = time.Second      // the same, while another host could send; we go back when it was only a pause
	forgive    = 10 * time.Second // a new assignment may return to a source we left this long ago
	badPieces  = 3                // wrong pieces from one source after which we go to the next
	serverWait = 3 * time.Second  // after a wrong piece, for the server to be connected
	maxReturn  = 3                // failures after which we do not go back to a source by ourselves
	goodAgain  = 60 * time.Second // without a failure after which the earlier ones are forgotten
	hungry     = 2 * time.Second  // backoff of a source at most while there is no other
)

// mute is the verdict on a parent that owes us bytes and sends none. Its child
// and all behind that stand still meanwhile: in a chain that fills its links
// such a second is never made up for. To go to the seed costs more than waiting
// for the rule about stalled connections.
const mute window.Verdict = "it sends nothing while the next source could"

// Peer names a source.
type Peer struct {
	Addr   netip.AddrPort // where it listens
	ID     string         // name in logs and figures; Addr is used when empty
	Server bool           // the seed in the server: trusted for pieces that others sent wrong
}

// Name is the label of p in logs and figures.
func (p Peer) Name() string {
	if p.ID != "" {
		return p.ID
	}
	return p.Addr.String()
}

// Source is one entry of the assignment, with what this host thinks of it.
type Source struct {
	Peer
	link       *Link     // nil while not connected
	pending    bool      // a dial or its connection is under way
	fails      int       // failures in a row
	notBefore  time.Time // backoff
	rejected   string    // why we left it; "" = in good standing
	rejectedAt time.Time
	final      bool // do not go back to it before the tracker says so
	bad        int  // pieces with a wrong hash
}

// reject books a failure of s.
func (s *Source) reject(reason string, now time.Time) {
	if now.Sub(s.rejectedAt) > goodAgain {
		s.fails = 0
	}
	s.fails++
	s.notBefore = now.Add(window.Backoff(s.fails))
	s.rejected, s.rejectedAt = reason, now
}

// pardon forgets what s did.
func (s *Source) pardon() {
	s.rejected, s.final, s.fails, s.notBefore = "", false, 0, time.Time{}
}

// open reports whether s may be tried now.
func (s *Source) open(now time.Time) bool { return !s.notBefore.After(now) }

// SetSources replaces the sources, in the order of preference. The child goes
// to the first at once, unless it has just left that one by itself; pieces half
// received from the old one are finished first. Sources that stay keep their
// connection. It reports whether anything is new.
func (c *Child) SetSources(list []Peer, now time.Time) bool {
	if c.sameSources(list) {
		return false
	}
	old := map[netip.AddrPort]*Source{}
	for _, s := range c.sources {
		old[s.Addr] = s
	}
	c.sources = nil
	for _, p := range list {
		s := old[p.Addr]
		if s == nil {
			s = &Source{}
		}
		s.Peer = p
		switch {
		case now.Sub(s.rejectedAt) > forgive:
			s.pardon()
		case !s.final:
			s.notBefore = time.Time{} // it was lost; the tracker has news: after a partition nobody waits out a backoff
		}
		c.sources = append(c.sources, s)
	}
	c.active, c.left, c.heir, c.tried = nil, nil, nil, nil
	c.monitor.Reset()
	return true
}

func (c *Child) sameSources(list []Peer) bool {
	if len(list) != len(c.sources) {
		return false
	}
	for i, p := range list {
		if c.sources[i].Peer != p {
			return false
		}
	}
	return true
}

// Active is the source in use, nil when none can be had.
func (c *Child) Active() *Source { return c.active }

// Parent is the name of the connected source in use, "" when there is none.
func (c *Child) Parent() string {
	if c.active == nil || c.active.link == nil {
		return ""
	}
	return c.active.Name()
}

// Rejected names the sources of the present assignment that were left (lost,
// slow, wrong bytes).
func (c *Child) Rejected() []string {
	var out []string
	for _, s := range c.sources {
		if s.rejected != "" {
			out = append(out, s.Name())
		}
	}
	return out
}

// leave turns away from a source whose connection still works; final: not to
// come back by ourselves.
func (c *Child) leave(s *Source, reason string, final bool, now time.Time) {
	s.reject(reason, now)
	s.final = final
	c.left, c.leftWhy = s, reason
	if c.active == s {
		c.active = nil
	}
	if s.link != nil {
		s.link.wire.Close(ErrRetired)
	}
}

// choose makes sure that there is an active source, if one can be had now.
func (c *Child) choose(now time.Time) (sw Switch, changed bool) {
	if a := c.active; a != nil {
		if a.link != nil || a.pending || a.rejected == "" {
			return sw, false
		}
		c.left, c.leftWhy, c.active = a, a.rejected, nil
		c.monitor.Reset()
	}
	if c.active = c.candidate(now); c.active == nil {
		return sw, false // the next tick looks again; backoff has its end
	}
	from, why := c.left, c.leftWhy
	c.left, c.heir = nil, nil
	if from == nil || from == c.active {
		return sw, false
	}
	c.switches++
	c.lastWhy = why
	return Switch{From: from.Peer, To: c.active.Peer, Why: why}, true
}

// candidate is the source to use now that there is none: the one for whose sake
// the last was left, else by the order of the assignment; nil when all must wait.
// While there is none at all that is not long: after a partition nobody is to wait
// out a backoff.
func (c *Child) candidate(now time.Time) *Source {
	if h := c.heir; h != nil && h.link != nil && h.open(now) {
		return h
	}
	cs := make([]window.Candidate, len(c.sources))
	for i, s := range c.sources {
		cs[i] = window.Candidate{Rejected: s.rejected != "", NotBefore: s.notBefore}
	}
	if i, _ := window.Choose(cs, now); i >= 0 {
		return c.sources[i]
	}
	var longest *Source
	for _, s := range c.sources {
		if now.Sub(s.rejectedAt) >= hungry && (longest == nil || s.rejectedAt.Before(longest.rejectedAt)) {
			longest = s
		}
	}
	if longest != nil {
		longest.notBefore = now
	}
	return longest
}

// better is a source before the active one in the assignment's order that is
// worth another try: it was lost or had nothing for us, not slow or wrong.
func (c *Child) better(now time.Time) *Source {
	for _, s := range c.sources {
		if s == c.active {
			return nil
		}
		if !s.final && s.fails < maxReturn && s.open(now) {
			return s
		}
	}
	return nil
}

// goBack returns to a better source once it is connected and has something for
// us: a parent that stumbled must not cost the seed another copy.
func (c *Child) goBack(now time.Time) (sw Switch, changed bool) {
	if c.active == nil {
		return sw, false
	}
	s := c.better(now)
	if s == nil || s.link == nil || !s.link.ready || c.gives(s, 1, now) == 0 {
		return sw, false
	}
	sw = Switch{From: c.active.Peer, To: s.Peer, Back: true}
	s.rejected = ""
	c.active = s
	c.monitor.Reset()
	return sw, true
}

// watched lists the sources after the active one that we stay connected to, in
// order to know what is possible and to go there without delay: the next one
// (the grandparent), and if that has failed us before or is behind us also
// those after it, up to one that may help. Without the latter a child of a
// starving parent would wait for a grandparent that is dead, or until it has
// caught up. One that holds as much as we do is waiting like us: to pass that
// over would lead every host of a long chain to the seed before its first piece
// has come.
func (c *Child) watched(now time.Time) []*Source {
	var out []*Source
	for _, s := range c.sources[slices.Index(c.sources, c.active)+1:] {
		if !s.open(now) {
			continue
		}
		out = append(out, s)
		if s.rejected == "" && !c.behind(s) {
			break
		}
	}
	return out
}

// behind reports whether s is known to hold less than we do, and nothing new.
func (c *Child) behind(s *Source) bool {
	return s.link != nil && s.link.ready && s.link.theirs.Count() < c.have.Count() && window.Obtainable(c.have, s.link.theirs, 1, nil) == 0
}

// next is the watched source to compare the active one with, and to go to: one
// that has something for us before one that has not, then one that was not slow
// before one that was, then by the order of the assignment: a grandparent that
// was lost and is back costs less than the seed. Never one that is known to
// send wrong bytes. nil when none is connected.
func (c *Child) next(now time.Time) *Source {
	var best *Source
	rank := func(s *Source) int {
		r := 0
		if c.gives(s, 1, now) > 0 {
			r += 2
		}
		if !s.final {
			r++
		}
		return r
	}
	for _, s := range c.watched(now) {
		if s.link != nil && s.link.ready && s.bad < badPieces && (best == nil || rank(s) > rank(best)) {
			best = s
		}
	}
	return best
}

// wanted lists the sources to be connected to.
func (c *Child) wanted(now time.Time) []*Source {
	var w []*Source
	if c.active != nil {
		w = append(append(w, c.active), c.watched(now)...)
		if s := c.better(now); s != nil {
			w = append(w, s)
		}
	}
	if len(c.bars) > 0 {
		for _, s := range c.sources {
			if s.Server && s.open(now) {
				w = append(w, s)
				break
			}
		}
	}
	return w
}
