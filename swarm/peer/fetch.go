package peer

import (
	"fmt"
	"time"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"labswarm/swarm/frame"
	"labswarm/swarm/window"
	"labswarm/swarm/wire"
)

// Block states of a fetch.
const (
	blockFree = iota // not asked for
	blockOpen        // asked for
	blockGot         // in the buffer
)

// fetch is one piece on its way from one connection into one buffer.
type fetch struct {
	piece   int
	buf     *buffer
	from    *source
	blk     int // bytes per block
	state   []uint8
	got     int  // blocks in the buffer
	refused bool // the source will not send (all of) it

	plain    bool         // asked for plain
	frameLen int          // length of the frame that comes in place of the piece, 0 = it comes plain
	turns    int          // changes of frameLen
	frame    *cachedFrame // what came, once complete; nil when there was no room

	checked chan error // holds what the hash says; made when the piece is complete
}

// bar says that a piece came with a wrong hash: for a while only the server may
// send it.
type bar struct {
	attempts int       // wrong copies from the server
	wrong    int       // wrong copies at all
	until    time.Time // after which others may send it as well
}

// size is the length of block i in bytes.
func (f *fetch) size(i int) int { return min(f.blk, f.total()-i*f.blk) }

// total is the number of bytes that travel.
func (f *fetch) total() int {
	if f.frameLen > 0 {
		return f.frameLen
	}
	return len(f.buf.b)
}

// plainSize is the part of the piece in bytes that block i stands for.
func (f *fetch) plainSize(i int) int64 {
	begin, cell := i*f.blk, int64(len(f.buf.b))
	return share(cell, begin+f.size(i), f.total()) - share(cell, begin, f.total())
}

// barred reports whether a piece must not be asked for from s now: after a
// wrong copy it comes from the server, from others only when the server cannot
// be had for a while.
func (n *Node) barred(piece int, s *source) bool {
	b := n.bars[piece]
	return b != nil && !s.Server && time.Now().Before(b.until)
}

// fill asks c for as much as the rules allow. mu is held.
func (n *Node) fill(c *conn) {
	if c.src == nil || !c.ready || c.choked || n.ctx.Err() != nil {
		return
	}
	depth := int(window.Depth(int64(n.wireRate), c.rtt, n.cfg.PieceLen, c.blk))
	for _, f := range c.order { // begun pieces are finished, also by a source we are leaving
		c.ask(f, depth)
	}
	if c.src != n.active && len(n.bars) == 0 {
		return
	}
	for c.openSize < depth && c.open < c.reqq {
		piece := n.pick(c)
		if piece < 0 {
			return
		}
		buf := n.pool.grabFetch()
		if buf == nil {
			n.bound = true // hashing or the disk is the brake: TCP will push back
			return
		}
		blocks := (len(buf.b) + c.blk - 1) / c.blk
		f := &fetch{piece: piece, buf: buf, from: c.src, blk: c.blk, state: make([]uint8, blocks),
			plain: !c.frames || n.bars[piece] != nil} // after a wrong copy frames are not trusted either
		n.inflight[f.piece] = f
		c.fetches[f.piece] = f
		c.order = append(c.order, f)
		c.ask(f, depth)
	}
}

// pick chooses the next piece to ask c for, -1 when there is none: by the
// window from the active source, and only barred pieces from any other.
func (n *Node) pick(c *conn) int {
	if c.src != n.active {
		best := -1
		for p := range n.bars {
			if (best < 0 || p < best) && n.inflight[p] == nil && !n.have.Has(p) && c.theirs.Has(p) && !n.barred(p, c.src) {
				best = p
			}
		}
		return best
	}
	p := window.Pick(window.Query{
		Have: n.have, Source: c.theirs, Window: n.window, Max: 1,
		Busy:   func(i int) bool { return n.inflight[i] != nil },
		Barred: func(i int) bool { return n.barred(i, c.src) },
	})
	if len(p) == 0 {
		return -1
	}
	return p[0]
}

// ask requests free blocks of f while depth bytes and the peer's queue allow.
func (c *conn) ask(f *fetch, depth int) {
	if f.refused {
		return
	}
	for i, s := range f.state {
		if c.openSize >= depth || c.open >= c.reqq {
			return
		}
		if s != blockFree {
			continue
		}
		if c.open == 0 {
			c.lastRx.Store(time.Now().UnixNano())
		}
		f.state[i] = blockOpen
		c.open++
		c.openSize += f.size(i)
		if f.plain {
			wire.PutBlock(&c.ctrl, pp.Request, f.piece, i*f.blk, f.size(i))
		} else {
			wire.PutFrameRequest(&c.ctrl, c.ownID, f.piece, i*f.blk, f.size(i))
		}
		c.push()
	}
}

// readBlock reads a Piece message's payload straight into the piece's buffer.
func (c *conn) readBlock(m wire.Message) error {
	n := c.n
	f, i, unasked, err := c.place(m)
	if err != nil {
		return err
	}
	if f == nil { // the reader skips it
		if unasked > maxUnasked {
			return fmt.Errorf("%w: %d bytes nobody asked for", wire.ErrProtocol, unasked)
		}
		return nil
	}
	dst := f.buf.b[m.Begin : m.Begin+m.Length]
	for len(dst) > 0 {
		k, err := c.r.Read(dst)
		dst = dst[k:]
		if err != nil {
			return fmt.Errorf("read block of piece %d: %w", f.piece, err)
		}
		c.lastRx.Store(time.Now().UnixNano())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	c.landed(f, i)
	n.fill(c)
	return nil
}

// place finds the block that a Piece message carries: f is nil when it is not
// wanted. unasked counts the bytes of such blocks on this connection.
func (c *conn) place(m wire.Message) (f *fetch, i, unasked int, err error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if m.Frame && (m.FrameLen < 1 || m.FrameLen > frame.MaxLen(int(c.n.cfg.PieceLen))) {
		return nil, 0, 0, fmt.Errorf("%w: frame of %d bytes for a piece of %d", wire.ErrProtocol, m.FrameLen, c.n.cfg.PieceLen)
	}
	f = c.fetches[m.Index]
	wanted := f != nil && m.Begin%f.blk == 0
	if wanted {
		if wanted, err = c.shape(f, m); err != nil {
			return nil, 0, 0, err
		}
	}
	if wanted {
		i = m.Begin / f.blk
		wanted = i < len(f.state) && f.state[i] != blockGot && m.Length == f.size(i)
	}
	if !wanted {
		c.unasked += m.Length
		return nil, 0, c.unasked, nil
	}
	return f, i, c.unasked, nil
}

// landed books block i of f, which is in the buffer now, and passes a complete
// piece on to be hashed.
func (c *conn) landed(f *fetch, i int) {
	n := c.n
	size, plain := f.size(i), f.plainSize(i)
	if f.state[i] == blockOpen {
		c.open--
		c.openSize -= size
	}
	f.state[i] = blockGot
	f.got++
	n.rxWire += int64(size)
	n.rx += plain
	n.rxBy[f.from.name()] += plain
	if f.from.Server {
		n.rxServer += plain
	}
	if f.got < len(f.state) {
		return
	}
	c.dropFetch(f)
	n.queued++
	n.check(f)
}

// dropFetch takes f off the connection's list.
func (c *conn) dropFetch(f *fetch) {
	delete(c.fetches, f.piece)
	for i, g := range c.order {
		if g == f {
			c.order = append(c.order[:i], c.order[i+1:]...)
			return
		}
	}
}

// forget takes all open requests back, after a choke.
func (c *conn) forget() {
	for _, f := range c.order {
		for i, s := range f.state {
			if s == blockOpen {
				f.state[i] = blockFree
			}
		}
	}
	c.open, c.openSize = 0, 0
}

// refused handles a BEP 6 reject. While we are choked it only takes the request
// back; otherwise the peer does not have the piece after all.
func (c *conn) refused(m wire.Message) {
	f := c.fetches[m.Index]
	if f == nil || m.Begin%f.blk != 0 || m.Begin/f.blk >= len(f.state) {
		return
	}
	i := m.Begin / f.blk
	if f.state[i] != blockOpen {
		return
	}
	f.state[i] = blockFree
	c.open--
	c.openSize -= f.size(i)
	if c.choked {
		return
	}
	f.refused = true
	c.theirs.Remove(f.piece)
	for _, s := range f.state {
		if s == blockOpen {
			return // the rest is on its way or will be refused as well
		}
	}
	c.dropFetch(f)
	delete(c.n.inflight, f.piece)
	c.n.pool.releaseFetch(f.buf, -1)
	c.n.kick()
}
