package sched

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"labswarm/swarm/window"
)

// Tick is the period of Turn with measure set.
const Tick = 200 * time.Millisecond

// ErrRetired ends a connection that is not needed any more: nobody's fault.
var ErrRetired = errors.New("not needed any more")

// Hands carries out for the whole host what a Child decides. The methods are
// called from within the Child's and must not call back into it.
type Hands interface {
	// Dial connects to s in the background. Child.Attach follows when that
	// works, and Child.Lost at the end in any case; false: not now.
	Dial(s *Source) bool
	// Reserve finds memory for the piece of f; false: all is in use.
	Reserve(f *Fetch) bool
	// Release gives that memory back: the piece is dropped.
	Release(f *Fetch)
}

// Switch is a change of source by the child itself.
type Switch struct {
	From, To Peer
	Why      string
	Back     bool // to a source earlier in the assignment: no failure of From
}

// Child is the deciding half of one host in one swarm. It is not safe for
// concurrent use: the owner has a lock. Make it with NewChild.
type Child struct {
	hands    Hands
	have     *window.Set
	pieceLen int64
	window   int // pieces

	inflight map[int]*Fetch // asked for, or received and not yet written
	bars     map[int]*bar
	links    []*Link   // to sources, also to those of earlier assignments; in the order of connecting
	sources  []*Source // of the assignment, in its order
	active   *Source   // whom we fetch from, one of sources, or nil
	left     *Source   // the source we left last, until its successor is chosen
	leftWhy  string
	heir     *Source // for whose sake it was left, nil when it was not for anybody's
	rival    *Source // whom the active one is compared with
	tried    *Source // left by a rate rule; taken again if that brings nothing
	monitor  window.Monitor
	bound    bool    // since the last tick something could not be asked for want of a buffer
	link     float64 // bytes per second of this host's own link; 0 = unknown
	switches int
	lastWhy  string // reason of the last switch
	meter    meter
}

// linkFull is the share of the link's speed from which on this host could not
// receive more from anybody; headers take another 5 %.
const linkFull = 0.8

// SetLink tells the speed of this host's own link, Mb/s; 0 = unknown. A host
// that receives at that speed blames no parent: one behind a slow link would
// else go from source to source, and at each take a part of a link that others
// need.
func (c *Child) SetLink(mbps int) { c.link = float64(max(mbps, 0)) * 1e6 / 8 }

// meter measures the rate of reception.
type meter struct {
	rx, rxWire     int64   // bytes received: plain, and as they travelled
	rate, wireRate float64 // bytes per second, smoothed over about a second
	at             time.Time
	atRx, atWire   int64
}

// NewChild returns the scheduler of a host that holds have, which the owner and
// the Child share, of pieces of pieceLen bytes.
func NewChild(hands Hands, have *window.Set, pieceLen int64) *Child {
	return &Child{
		hands: hands, have: have, pieceLen: pieceLen, window: window.Size(pieceLen),
		inflight: map[int]*Fetch{}, bars: map[int]*bar{},
	}
}

// Turn is one round of housekeeping: it chooses the source, keeps the
// connections that are wanted and asks for pieces. measure is set every Tick
// and clear in between, when something has happened; only then rates are
// measured, stalled connections dropped and slow parents judged.
func (c *Child) Turn(now time.Time, measure bool) []Switch {
	if measure {
		c.dropStalled(now)
		c.meter.measure(now)
	}
	if c.have.Full() {
		c.active = nil
		c.retire(nil)
		return nil
	}
	if measure {
		c.judge(now)
	}
	var out []Switch
	if sw, ok := c.choose(now); ok {
		out = append(out, sw)
	}
	if sw, ok := c.goBack(now); ok {
		out = append(out, sw)
	}
	wanted := c.wanted(now)
	for _, s := range wanted {
		c.dial(s, now)
	}
	c.retire(wanted)
	for _, s := range c.sources {
		if s.link != nil {
			c.Fill(s.link, now)
		}
	}
	return out
}

// measure updates the rates.
func (m *meter) measure(now time.Time) {
	if m.at.IsZero() {
		m.at, m.atRx, m.atWire = now, m.rx, m.rxWire
		return
	}
	d := now.Sub(m.at).Seconds()
	if d < Tick.Seconds()/2 {
		return
	}
	part := min(d, 1) // smoothed over about a second
	m.rate += (float64(m.rx-m.atRx)/d - m.rate) * part
	m.wireRate += (float64(m.rxWire-m.atWire)/d - m.wireRate) * part
	m.at, m.atRx, m.atWire = now, m.rx, m.rxWire
}

// WireRate is the rate of reception in bytes per second as they travel.
func (c *Child) WireRate() float64 { return c.meter.wireRate }

// dropStalled closes connections that owe us bytes and send none.
func (c *Child) dropStalled(now time.Time) {
	for _, l := range c.links {
		if c.owes(l) && l.quiet(now) > stallTime {
			l.wire.Close(fmt.Errorf("stalled: no byte for %v with %d requests open", stallTime, l.open))
		}
	}
}

// owes reports whether l should be sending: requests are open, or half a piece is
// here and the rest could be asked for, or belongs to a source that is not in use
// any more.
func (c *Child) owes(l *Link) bool {
	return l.open > 0 || len(l.order) > 0 && (l.src != c.active || !l.choked)
}

// judge applies the rules about slow parents.
func (c *Child) judge(now time.Time) {
	a := c.active
	if a == nil || a.link == nil || !a.link.ready {
		c.monitor.Reset()
		return
	}
	s := window.Sample{At: now, Have: c.have.Count(), Parent: a.link.theirs.Count(), Other: -1, Rx: c.meter.rxWire, Bound: c.bound}
	c.bound = false
	if c.link > 0 && c.meter.wireRate >= linkFull*c.link {
		s.Bound = true
	}
	gives := c.gives(a, c.window, now)
	s.Gives, s.Far = gives > 0, gives >= c.window
	next := c.next(now)
	if next != c.rival {
		c.rival = next
		c.monitor.OtherChanged()
	}
	if next != nil {
		s.Costly = next.Server
		s.OtherGives = c.gives(next, 1, now) > 0
		if !next.link.theirs.Full() {
			s.Other = next.link.theirs.Count()
		}
	}
	v := c.monitor.Add(s)
	if a.link.open > 0 && a.link.quiet(now) > muteTime && s.OtherGives && !s.Costly {
		v = mute
	}
	switch {
	case v == window.Barren && c.tried != nil:
		c.tried.rejected, c.tried.final, c.tried.notBefore = "", false, time.Time{}
		c.tried = nil
	case v == window.Stay || v == window.Barren || next == nil:
	case v == window.Starving || v == mute: // a source that failed before is better than nothing
		c.monitor.Reset()
		c.leave(a, string(v), false, now)
		c.heir = next
	case !next.final: // one that was slow itself is not
		c.monitor.Switched()
		c.tried = a
		c.leave(a, string(v), true, now)
		c.heir = next
	}
}

// gives counts the missing pieces s could send now, up to limit. A piece that
// must not come from it does not count: else a parent that holds nothing but
// what it has sent wrong would never count as starving us.
func (c *Child) gives(s *Source, limit int, now time.Time) int {
	if s.link == nil || s.link.choked {
		return 0
	}
	var barred func(int) bool
	if len(c.bars) > 0 {
		barred = func(p int) bool { return c.barred(p, s, now) }
	}
	return window.Obtainable(c.have, s.link.theirs, limit, barred)
}

// retire closes the connections to sources that are not wanted, once nothing is
// on its way from them.
func (c *Child) retire(wanted []*Source) {
	for _, l := range c.links {
		if !slices.Contains(wanted, l.src) && (l.open == 0 || c.have.Full()) {
			l.wire.Close(ErrRetired)
		}
	}
}

// dial connects to s, unless that is so or must wait.
func (c *Child) dial(s *Source, now time.Time) {
	if s.link == nil && !s.pending && s.open(now) {
		s.pending = c.hands.Dial(s)
	}
}

// Lost ends a Dial: it failed, or its connection has ended. ErrRetired blames
// nobody, nor does ending, that is: this host is shutting down.
func (c *Child) Lost(s *Source, why string, blame bool, now time.Time) {
	s.link, s.pending = nil, false
	if blame {
		s.reject("lost: "+why, now)
	}
}

// Figures is a snapshot of what a Child has counted.
type Figures struct {
	Rx, RxWire int64 // bytes received: plain, and as they travelled
	RateBps    int64 // plain bytes per second
	InFlight   int   // pieces asked for, or received and not yet written
	Switches   int   // times the child left a source by itself
	SwitchWhy  string
	Links      int // connections to sources
	Open       int // requests under way
}

// Figures returns the present figures.
func (c *Child) Figures() Figures {
	f := Figures{Rx: c.meter.rx, RxWire: c.meter.rxWire, RateBps: int64(c.meter.rate), InFlight: len(c.inflight),
		Switches: c.switches, SwitchWhy: c.lastWhy, Links: len(c.links)}
	for _, l := range c.links {
		f.Open += l.open
	}
	return f
}
