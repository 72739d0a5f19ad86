package sim

import (
	"errors"
	"time"

	"labswarm/swarm/sched"
)

const (
	inFlight    = 512 << 10        // bytes under way per connection (socket buffers of both sides), at least two blocks
	userTimeout = 15 * time.Second // of unacknowledged data, after which the kernel gives up (swarm/peer, tune)
	keepAlive   = 30 * time.Second // until keepalive finds out that an idle peer is gone
	maxChildren = 64               // accepted connections (peer.Config.MaxPeers)
	handshake   = 10 * time.Second // for the answer of a peer that is connected but does nothing
)

var (
	errReset   = errors.New("connection reset by peer")
	errRefused = errors.New("connection refused")
	errTimeout = errors.New("connection timed out")
)

// request is one block that a child asks for.
type request struct {
	f     *sched.Fetch
	block int
	size  int
}

// conn is one connection of a child to a source.
type conn struct {
	s             *Sim
	child, parent *host
	src           *sched.Source
	link          *sched.Link
	queue         []request
	flying        int           // bytes sent and not arrived
	last          time.Duration // arrival of the last block
	serving       bool          // the parent has unchoked the child
	closed        bool          // the child's end
	ended         bool          // the parent's end
	held          []func()      // what waits for a cut to end
	settled       bool          // the attempt to connect has had its end
}

// up runs fn at the parent, down at the child, one latency from now.
func (c *conn) up(fn func()) {
	c.pass(c.s.latency(), func() {
		if !c.ended {
			c.parent.do(fn)
		}
	})
}

func (c *conn) down(fn func()) {
	c.pass(c.s.latency(), func() {
		if !c.closed {
			c.child.do(func() {
				if !c.closed {
					fn()
				}
			})
		}
	})
}

// pass lets something arrive in d, or when the cut in between is over.
func (c *conn) pass(d time.Duration, fn func()) {
	c.s.after(d, func() {
		if split(c.child.room, c.parent.room) {
			c.held = append(c.held, fn)
			return
		}
		fn()
	})
}

// dial connects child to src: sched.Child has asked for it.
func (s *Sim) dial(child *host, src *sched.Source) {
	c := &conn{s: s, child: child, src: src, parent: s.byAddr[src.Addr]}
	p := c.parent
	switch {
	case p == nil || p.off || split(child.room, p.room):
		c.fail(sched.DialTime, errTimeout)
	case p.dead || !p.joined || p.children >= maxChildren:
		c.fail(2*s.latency(), errRefused)
	default:
		s.after(5*s.latency(), func() { // SYN, TLS, BitTorrent
			p.do(func() { child.do(c.open) })
			c.fail(handshake, errTimeout)
		})
	}
}

// fail ends an attempt to connect in d, unless it has had its end by then.
func (c *conn) fail(d time.Duration, why error) {
	c.s.after(d, func() {
		c.child.do(func() {
			if c.settled {
				return
			}
			c.settled = true
			c.child.child.Lost(c.src, why.Error(), true, c.s.time())
			c.child.kick()
		})
	})
}

// open is the moment when both handshakes are done.
func (c *conn) open() {
	if c.settled {
		return
	}
	if c.parent.dead || split(c.child.room, c.parent.room) {
		c.fail(0, errReset)
		return
	}
	c.settled = true
	c.parent.children++
	c.parent.accepted = append(c.parent.accepted, c)
	c.child.conns = append(c.child.conns, c)
	sc := c.s.Scenario
	c.link = sched.NewLink(c.src, c, sc.Cells, int(sc.Cell)/sc.Blocks, sched.MaxQueue)
	c.child.child.Attach(c.link)
	c.up(func() { // interested
		if sched.Unchoke(true, true, c.serving) {
			c.serving = true
			c.down(func() { c.link.Unchoke(); c.child.child.Fill(c.link, c.s.time()) })
		}
	})
	c.down(func() { // extension handshake and bitfield
		if c.parent.have.Full() {
			c.link.HasAll()
		} else {
			for i := range sc.Cells {
				if c.parent.have.Has(i) {
					c.link.Has(i)
				}
			}
		}
		for _, i := range c.parent.early.Told() {
			c.link.Soon(i)
		}
		c.link.Settle(sched.Terms{Block: int(sc.Cell) / sc.Blocks, Reqq: sched.MaxQueue})
		c.child.child.Fill(c.link, c.s.time())
	})
}

// Request implements sched.Wire.
func (c *conn) Request(f *sched.Fetch, i int) {
	r := request{f, i, f.Size(i)}
	c.up(func() { c.request(r) })
}

// Close implements sched.Wire: the child hangs up.
func (c *conn) Close(why error) {
	c.s.after(0, func() { c.child.do(func() { c.shut(why) }) })
	c.pass(c.s.latency(), c.end)
}

// shut ends the child's side.
func (c *conn) shut(why error) {
	if c.closed {
		return
	}
	c.closed = true
	h := c.child
	h.conns = remove(h.conns, c)
	h.child.Detach(c.link)
	h.child.Lost(c.src, why.Error(), !errors.Is(why, sched.ErrRetired), c.s.time())
	h.kick()
}

// end ends the parent's side.
func (c *conn) end() {
	if c.ended {
		return
	}
	c.ended = true
	c.queue = nil
	c.parent.children--
	c.parent.accepted = remove(c.parent.accepted, c)
}

// request is what the parent does with one.
func (c *conn) request(r request) {
	switch sched.Admit(c.serving, c.parent.holding(r.f.Piece), len(c.queue), true) {
	case sched.Queue:
		c.queue = append(c.queue, r)
		c.pump()
	case sched.Refuse:
		c.refuse(r)
	case sched.HangUp:
		c.end()
		c.down(func() { c.shut(errReset) })
	}
}

func (c *conn) refuse(r request) {
	c.down(func() {
		if c.child.child.Refused(c.link, r.f.Piece, r.f.Begin(r.block)) {
			c.child.kick()
		}
	})
}

// pump sends what the child has asked for as far as the socket takes it.
func (c *conn) pump() {
	p := c.parent
	for len(c.queue) > 0 && c.flying+c.queue[0].size <= max(inFlight, 2*c.queue[0].size) {
		r, rest, ok := sched.Next(c.queue, func(r request) sched.Holding { return p.holding(r.f.Piece) }, c.refuse)
		if c.queue = rest; !ok {
			return
		}
		c.flying += r.size
		end := carry(c.s.now, c.s.way(p, c.child), r.size)
		c.last = max(c.last, end)
		wrong := p.spec.Corrupt > 0 && c.s.rng.Float64() < p.spec.Corrupt/float64(c.s.Scenario.Blocks)
		wrong = wrong || p.spec.Corrupt == 1
		c.pass(c.last-c.s.now+c.s.latency(), func() {
			if !c.ended {
				c.flying -= r.size
				p.do(c.pump)
			}
			cutShort := p.dead && end > p.diedAt // the last byte never left it
			if !c.closed && !cutShort {
				c.child.do(func() { c.arrive(r, wrong) })
			}
		})
	}
}

// arrive is a block at the child.
func (c *conn) arrive(r request, wrong bool) {
	if c.closed {
		return
	}
	now := c.s.time()
	h := c.child
	c.link.Received(now)
	f, i, _, err := c.link.Place(sched.Block{Piece: r.f.Piece, Begin: r.f.Begin(r.block), Length: r.size})
	if err != nil {
		c.shut(err)
		return
	}
	if f == nil {
		h.wasted += int64(r.size)
		return
	}
	if wrong {
		h.wrong[f] = true
	}
	if c.src.Server {
		h.fromSeed += int64(r.size)
	}
	h.progress = c.s.now
	if _, complete := h.child.Landed(c.link, f, i); complete {
		h.complete(f)
	}
	h.child.Fill(c.link, now)
}

// receiving tells the child's side about bytes of blocks that are on their way:
// a real reader sees them trickle in.
func (c *conn) receiving() {
	if c.flying > 0 && !c.ended && !c.parent.off && !split(c.child.room, c.parent.room) {
		c.link.Received(c.s.time())
	}
}

// release lets arrive what a cut has held, as retransmissions.
func (c *conn) release() {
	held := c.held
	c.held = nil
	for _, fn := range held {
		c.pass(200*time.Millisecond, fn)
	}
}

func remove(list []*conn, c *conn) []*conn {
	for i, o := range list {
		if o == c {
			return append(list[:i], list[i+1:]...)
		}
	}
	return list
}
