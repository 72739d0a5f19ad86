package peer

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"labswarm/swarm/sched"
	"labswarm/swarm/wire"
)

const (
	idleTime     = 150 * time.Second // without any message; BEP 3 keepalives come every two minutes
	messageTime  = 30 * time.Second  // for the rest of a message that has begun: 256 KiB at 9 KB/s
	keepaliveGap = 100 * time.Second // of silence after which we send one
	writeTime    = 60 * time.Second  // for one block into the socket
	extendedTime = 3 * time.Second   // to wait for a BEP 10 handshake that was promised
	maxQueue     = sched.MaxQueue    // requests we queue per peer, announced as reqq
	plainQueue   = 250               // requests a peer is taken to queue when it does not say
	maxUnasked   = 4 << 20           // payload bytes nobody asked for before we hang up
	askingTime   = 5 * time.Minute   // after its last request a peer counts as one that fetches from us
	youngTime    = time.Minute       // after it has connected
)

// conn is one peer connection, in either direction. Its reader goroutine is the
// only one that fills and gives back the buffers of its fetches, so that no
// buffer is recycled while bytes may still arrive in it.
type conn struct {
	n     *Node
	nc    net.Conn
	in    *intake
	out   *outlet // of the writer; not for TLS
	r     *wire.Reader
	src   *sched.Source // nil for a connection that came in
	name  string
	fast  bool // BEP 6 on both sides
	since time.Time

	lastRx   atomic.Int64 // Unix ns of the last payload byte, or of the first open request
	lastWait atomic.Int64 // Unix ns of the last keepalive: a parent of our kind sends them while it waits for what we asked for
	slow     atomic.Bool  // pieces come so slowly that their reader can hash them
	more     chan struct{}
	// frameAsked is when the peer last asked for bytes of a frame, Unix ns; 0 = never.
	frameAsked atomic.Int64
	gone       chan struct{} // closed by close
	once       sync.Once
	why        error // reason of close; read after gone

	// Guarded by Node.mu.
	link    *sched.Link  // what we ask of it
	own     bool         // speaks our extension
	ownID   byte         // its message number for our extension
	frames  bool         // both sides understand frames
	wants   bool         // it is interested
	asked   time.Time    // when it sent its last request
	serving bool         // we have unchoked it
	ctrl    bytes.Buffer // messages to send before the next block
	upq     []upload
}

// upload is one request of a peer.
type upload struct {
	piece, begin, length int
	frame                bool // counted in the piece's frame, if we have it
	direct               bool // to read ahead: it will go from a file, if there is one
}

// runConn works on a connection after both handshakes until it ends, and says
// why it ended. name is for people.
func (n *Node) runConn(nc net.Conn, hs wire.Handshake, src *sched.Source, name string) error {
	if err := tune(nc); err != nil {
		return err
	}
	in, r, err := newIntake(nc)
	if err != nil {
		return err
	}
	out, err := newOutlet(rawTCP(nc))
	if err != nil {
		return err
	}
	c := &conn{
		n: n, nc: nc, in: in, out: out, r: wire.NewReader(r, n.cfg.Pieces), src: src, name: name,
		fast: hs.Bits.SupportsFast(), since: time.Now(),
		more: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	if t, ok := nc.(*secured); ok {
		t.out.mu.Lock()
		t.out.out = out
		t.out.mu.Unlock()
	}
	c.link = sched.NewLink(src, c, n.cfg.Pieces, wire.PlainBlock, plainQueue)
	if err := n.attach(c, hs.Bits.SupportsExtended()); err != nil {
		return err
	}
	defer n.detach(c)
	var wg sync.WaitGroup
	wg.Go(func() { c.close(c.guard(c.writeLoop)) })
	c.close(c.guard(c.readLoop))
	wg.Wait()
	return c.why
}

// guard turns a panic over a peer's bytes into the end of this connection.
func (c *conn) guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("bug while talking to %s: %v", c.name, r)
			c.n.log.Error("panic in peer connection", "peer", c.name, "err", err)
		}
	}()
	return f()
}

// attach registers c and queues what we say first.
func (n *Node) attach(c *conn, extended bool) error {
	if !extended && !n.cfg.PlainPeers {
		return fmt.Errorf("%s is a plain client and plain clients are not admitted", c.name)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		return errRetired
	}
	switch {
	case c.fast && n.have.Full():
		wire.PutState(&c.ctrl, pp.HaveAll)
	case c.fast && n.have.Count() == 0:
		wire.PutState(&c.ctrl, pp.HaveNone)
	case n.have.Count() > 0:
		wire.PutBitfield(&c.ctrl, n.have.Bools())
	}
	if extended {
		e := wire.NewExtended(n.block, maxQueue)
		if !n.cfg.NoFrames {
			e.Labswarm.Frames = wire.FrameVersion
		}
		payload, err := e.Marshal()
		if err != nil {
			return err
		}
		wire.PutExtended(&c.ctrl, 0, payload)
	} else {
		c.link.Settle(sched.Terms{Block: wire.PlainBlock, Reqq: plainQueue})
	}
	if c.src != nil {
		wire.PutState(&c.ctrl, pp.Interested)
		n.child.Attach(c.link)
	}
	n.conns[c] = struct{}{}
	c.push()
	return nil
}

// detach gives back what c held. The reader has ended: nothing fills a buffer.
func (n *Node) detach(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
	n.child.Detach(c.link)
	n.kick()
}

// close ends the connection for a reason; the first one counts.
func (c *conn) close(why error) {
	c.once.Do(func() {
		c.why = why
		close(c.gone)
		shutQuiet(c.nc)
	})
}

// hint says a word about a piece that is in ctrl now: at once to a peer that fetches
// from us, with the next message or at the next tick to one that only watches.
// Each message on its own wakes both sides. mu is held.
func (c *conn) hint(now time.Time) {
	if !c.own || c.src == nil && (now.Sub(c.asked) < askingTime || now.Sub(c.since) < youngTime) {
		c.push()
	}
}

// push wakes the writer.
func (c *conn) push() {
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// readLoop handles what the peer sends until the connection ends.
func (c *conn) readLoop() error {
	c.r.Begun = c.hurry
	for {
		if err := c.nc.SetReadDeadline(time.Now().Add(idleTime)); err != nil {
			return fmt.Errorf("set deadline: %w", err)
		}
		m, err := c.r.Next()
		switch {
		case err != nil:
			return err
		case m.Keepalive:
			c.lastWait.Store(time.Now().UnixNano())
		case m.Unknown:
		case m.Type == pp.Piece:
			err = c.readBlock(m)
		default:
			err = c.handle(m)
		}
		if err != nil {
			return err
		}
	}
}

// hurry bounds the time for a message that has begun. Without it a peer that sends
// a byte now and then would hold its connection for ever.
func (c *conn) hurry() error {
	if err := c.nc.SetReadDeadline(time.Now().Add(messageTime)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	return nil
}

// handle applies one message other than Piece.
func (c *conn) handle(m wire.Message) error {
	n := c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	switch m.Type {
	case pp.Choke:
		c.link.Choke(!c.fast) // BEP 3: what was asked for is forgotten; BEP 6 sends rejects
	case pp.Unchoke:
		c.link.Unchoke()
	case pp.Have:
		c.link.Has(m.Index)
	case pp.Suggest:
		if c.own {
			c.link.Soon(m.Index)
		}
	case pp.Bitfield, pp.HaveAll, pp.HaveNone:
		c.haveSet(m)
	case pp.Interested:
		c.wants = true
		c.serve()
	case pp.Request:
		return c.request(upload{piece: m.Index, begin: m.Begin, length: m.Length, frame: m.Frame})
	case pp.Cancel:
		c.cancel(upload{piece: m.Index, begin: m.Begin, length: m.Length})
	case pp.Reject:
		c.refused(m)
	case pp.Extended:
		if m.ExtID != 0 {
			return nil
		}
		e, err := wire.ParseExtended(m.Ext)
		if err != nil {
			return err
		}
		c.settle(e)
	}
	n.fill(c)
	return nil
}

// haveSet takes a message that says all a peer holds. BEP 3 and 6 want one at
// the beginning; aria2 sends another in place of many have messages, so what a
// later one says is added.
func (c *conn) haveSet(m wire.Message) {
	switch m.Type {
	case pp.HaveAll:
		c.link.HasAll()
	case pp.Bitfield:
		for i, has := range m.Bitfield {
			if has {
				c.link.Has(i)
			}
		}
	}
}

// settle takes the peer's extension handshake, or its absence (the zero value),
// and decides whether it belongs here.
func (c *conn) settle(e wire.Extended) {
	c.own = e.IsOwn()
	if !c.own && !c.n.cfg.PlainPeers {
		c.close(errors.New("plain clients are not admitted"))
		return
	}
	t := sched.Terms{Block: e.BlockWith(c.n.block), Reqq: plainQueue, Frames: e.HasFrames() && !c.n.cfg.NoFrames}
	if e.Reqq > 0 {
		t.Reqq = int(min(max(e.Reqq, 1), maxQueue))
	}
	if c.link.Settle(t) {
		c.frames, c.ownID = t.Frames, e.OwnID()
	}
	if c.own && c.src == nil {
		for _, p := range c.n.early.Told() {
			wire.PutSuggest(&c.ctrl, p)
		}
	}
	c.serve()
}

// serve unchokes a peer that is interested.
func (c *conn) serve() {
	if !sched.Unchoke(c.wants, c.link.Ready(), c.serving) {
		return
	}
	c.serving = true
	wire.PutState(&c.ctrl, pp.Unchoke)
	c.push()
}
