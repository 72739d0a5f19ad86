package peer

import (
	"crypto/sha1" //nolint:gosec // BEP 3 piece hashes are SHA-1
	"fmt"
	"hash"
	"time"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"labswarm/swarm/frame"
	"labswarm/swarm/sched"
	"labswarm/swarm/wire"
)

// fetch is one piece on its way from one connection into one buffer.
type fetch struct {
	*sched.Fetch
	buf     *buffer
	frame   *cachedFrame // what came in place of the piece, once complete; nil when there was no room
	checked chan error   // holds what the hash says; made when the piece is complete
	sum     runningSum
}

// runningSum is the hash of a piece as far as it is here, of the goroutine that
// reads it: what has just come is still in the processor's cache.
type runningSum struct {
	h    hash.Hash
	upTo int // bytes; -1: the bytes came in another way, all of them are hashed at the end
}

// add hashes what has been put at begin in the buffer. Bytes may come twice, and as
// parts of a frame: then what was hashed may not be in the buffer any more.
func (s *runningSum) add(begin int, b []byte) {
	if begin != s.upTo {
		s.upTo = -1
		return
	}
	if s.h == nil {
		s.h = sha1.New() //nolint:gosec // see the import
	}
	s.h.Write(b)
	s.upTo += len(b)
}

// whole returns the hash of a piece of n bytes; false: it is not known.
func (s *runningSum) whole(n int) (sum [20]byte, ok bool) {
	if s.upTo != n {
		return sum, false
	}
	s.h.Sum(sum[:0])
	return sum, true
}

// Reserve implements sched.Hands: a buffer to fetch into. From now on children may
// ask for the piece. mu is held.
func (n *Node) Reserve(f *sched.Fetch) bool {
	buf := n.pool.grabFetch()
	if buf == nil {
		return false
	}
	n.fetches[f.Piece] = &fetch{Fetch: f, buf: buf}
	if now := time.Now(); n.early.Tell(n.child, f.Piece, now) {
		for o := range n.conns {
			if o.own && o.src == nil {
				wire.PutSuggest(&o.ctrl, f.Piece)
				if len(o.upq) == 0 { // else it goes with the piece that it waits for
					o.hint(now)
				}
			}
		}
	}
	return true
}

// Release implements sched.Hands. mu is held; nothing fills the buffer any more.
func (n *Node) Release(f *sched.Fetch) {
	n.pool.releaseFetch(n.fetches[f.Piece].buf, -1)
	delete(n.fetches, f.Piece)
	n.early.Forget(f.Piece)
}

// fill asks c for as much as the rules allow. mu is held.
func (n *Node) fill(c *conn) {
	if n.ctx.Err() == nil {
		n.child.Fill(c.link, time.Now())
	}
}

// Request implements sched.Wire. mu is held.
func (c *conn) Request(f *sched.Fetch, i int) {
	if f.Plain {
		wire.PutBlock(&c.ctrl, pp.Request, f.Piece, f.Begin(i), f.Size(i))
	} else {
		wire.PutFrameRequest(&c.ctrl, c.ownID, f.Piece, f.Begin(i), f.Size(i))
	}
	c.push()
}

// Close implements sched.Wire.
func (c *conn) Close(why error) { c.close(why) }

// readBlock reads a Piece message's payload straight into the piece's buffer.
func (c *conn) readBlock(m wire.Message) error {
	n := c.n
	f, i, unasked, ahead, err := c.place(m)
	if err != nil {
		return err
	}
	if f == nil { // the reader skips it
		if unasked > maxUnasked {
			return fmt.Errorf("%w: %d bytes nobody asked for", wire.ErrProtocol, unasked)
		}
		return nil
	}
	c.in.expect(ahead - c.r.Buffered())
	dst := f.buf.b[m.Begin : m.Begin+m.Length]
	for len(dst) > 0 {
		k, err := c.r.Read(dst)
		dst = dst[k:]
		if err != nil {
			return fmt.Errorf("read block of piece %d: %w", f.Piece, err)
		}
		c.lastRx.Store(time.Now().UnixNano())
	}
	switch {
	case m.Frame || !c.slow.Load():
		f.sum.upTo = -1
	default:
		f.sum.add(m.Begin, f.buf.b[m.Begin:m.Begin+m.Length])
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	c.landed(f, i)
	n.fill(c)
	return nil
}

// place finds the block that a Piece message carries: f is nil when it is not
// wanted. unasked counts the bytes of such blocks on this connection. ahead is how many
// bytes of the piece are still to come, this block's included: the peer holds the
// piece, it sends them one after the other.
func (c *conn) place(m wire.Message) (f *fetch, i, unasked, ahead int, err error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	b := sched.Block{Piece: m.Index, Begin: m.Begin, Length: m.Length}
	if m.Frame {
		if b.FrameLen = m.FrameLen; b.FrameLen < 1 || b.FrameLen > frame.MaxLen(int(c.n.cfg.PieceLen)) {
			return nil, 0, 0, 0, fmt.Errorf("%w: frame of %d bytes for a piece of %d", wire.ErrProtocol, m.FrameLen, c.n.cfg.PieceLen)
		}
	}
	sf, i, unasked, err := c.link.Place(b)
	if err != nil {
		return nil, 0, 0, 0, fmt.Errorf("%w: %w", wire.ErrProtocol, err)
	}
	if sf == nil {
		return nil, 0, unasked, 0, nil
	}
	return c.n.fetches[m.Index], i, unasked, sf.Ahead(i), nil
}

// landed books block i of f, which is in the buffer now, and passes a complete
// piece on to be hashed.
func (c *conn) landed(f *fetch, i int) {
	n := c.n
	plain, complete := n.child.Landed(c.link, f.Fetch, i)
	n.rxBy[f.From.Name()] += plain
	if f.From.Server {
		n.rxServer += plain
	}
	if complete {
		n.queued++
		n.check(f)
	}
}

// refused handles a BEP 6 reject.
func (c *conn) refused(m wire.Message) {
	if c.n.child.Refused(c.link, m.Index, m.Begin) {
		c.n.kick()
	}
}
