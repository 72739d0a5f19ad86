package peer

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/time/rate"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"labswarm/swarm/sched"
	"labswarm/swarm/wire"
)

// request queues what a peer asks for, or refuses it.
func (c *conn) request(u upload) error {
	n := c.n
	if u.length < 1 || u.length > wire.MaxBlock || int64(u.begin)+int64(u.length) > n.cfg.PieceLen {
		return fmt.Errorf("%w: request for bytes %d+%d of a piece of %d", wire.ErrProtocol, u.begin, u.length, n.cfg.PieceLen)
	}
	if u.frame && !c.frames {
		return fmt.Errorf("%w: request for a frame, which was not agreed on", wire.ErrProtocol)
	}
	c.asked = time.Now()
	switch sched.Admit(c.serving, c.holding(u.piece), len(c.upq), c.fast) {
	case sched.Queue:
		c.upq = append(c.upq, u)
		c.push()
	case sched.Refuse:
		c.reject(u)
	case sched.HangUp:
		return fmt.Errorf("%w: more than %d requests", wire.ErrProtocol, maxQueue)
	}
	return nil
}

// holding says what can be done about a request of c. Others than our own kind
// are told of pieces that are here only. mu is held.
func (c *conn) holding(piece int) sched.Holding {
	h := c.n.early.Holding(piece, c.n.serves(piece), time.Now())
	if h == sched.Coming && !c.own {
		return sched.Missing
	}
	return h
}

// serves reports whether we can send a piece.
func (n *Node) serves(piece int) bool { return n.have.Has(piece) && !n.noServe[piece] }

// reject tells a BEP 6 peer that it will not get u; others are told nothing, as
// BEP 3 has no word for it.
func (c *conn) reject(u upload) {
	if c.fast {
		wire.PutBlock(&c.ctrl, pp.Reject, u.piece, u.begin, u.length)
		c.push()
	}
}

// cancel takes back a request that is not being sent yet. BEP 6 wants an answer
// to every request: the reject.
func (c *conn) cancel(u upload) {
	if i := slices.Index(c.upq, u); i >= 0 {
		c.upq = slices.Delete(c.upq, i, i+1)
		c.reject(u)
	}
}

// sender is what the writer goroutine of a connection holds.
type sender struct {
	c     *conn
	buf   *buffer // the piece being sent, nil = none; with it goes a token of n.uploads
	piece int     // in buf
	ctrl  []byte  // being written
	ownID byte    // the peer's message number for our extension

	frame *cachedFrame // being sent in place of its piece; nil = it goes plain

	file      *os.File // of filePiece, found right there: it goes by sendfile
	fileOff   int64
	filePiece int
}

// writeLoop sends control messages and requested blocks until the connection ends.
func (c *conn) writeLoop() error {
	s := &sender{c: c}
	defer s.drop()
	idle := time.NewTimer(keepaliveGap)
	defer idle.Stop()
	for {
		u, todo := s.take()
		if len(s.ctrl) == 0 && !todo {
			s.drop() // never sit on a buffer with nothing to send
			select {
			case <-c.gone:
				return errRetired
			case <-c.more:
				continue
			case <-idle.C:
				s.ctrl = append(s.ctrl[:0], 0, 0, 0, 0) // BEP 3 keepalive
			}
		}
		var err error
		if todo {
			err = s.block(u)
		} else {
			err = s.flush()
		}
		if err != nil {
			return err
		}
		idle.Reset(keepaliveGap)
	}
}

// take fetches what is to be sent next: all control bytes and one request.
func (s *sender) take() (u upload, todo bool) {
	c := s.c
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	u, c.upq, todo = sched.Next(c.upq, func(u upload) sched.Holding { return c.holding(u.piece) }, c.reject)
	s.ownID = c.ownID
	s.ctrl = append(s.ctrl[:0], c.ctrl.Bytes()...)
	c.ctrl.Reset()
	if c.ctrl.Cap() > keepCtrl {
		c.ctrl = bytes.Buffer{}
	}
	if todo && !s.holds(u.piece) {
		c.readAhead(u.piece)
	}
	return u, todo
}

// readAhead has the next other piece in the queue read while this one is sent.
func (c *conn) readAhead(piece int) {
	for _, u := range c.upq {
		if u.piece == piece || !c.n.serves(u.piece) {
			continue
		}
		u.direct = c.direct()
		select {
		case c.n.prefetch <- u:
		default:
		}
		return
	}
}

// drop gives back the buffer.
func (s *sender) drop() {
	s.dropFrame()
	s.file = nil
	s.release()
	if t, ok := s.c.nc.(*secured); ok {
		t.out.rest()
	}
}

// release gives back the buffer only.
func (s *sender) release() {
	if s.buf != nil {
		s.c.n.pool.release(s.buf)
		s.buf = nil
		<-s.c.n.uploads
	}
}

// holds reports whether the given piece is in s.buf.
func (s *sender) holds(piece int) bool { return s.buf != nil && s.piece == piece }

// hold makes s.buf the given piece.
func (s *sender) hold(piece int) error {
	n := s.c.n
	s.release()
	select {
	case n.uploads <- struct{}{}:
	case <-s.c.gone:
		return errRetired
	}
	b, err := n.load(n.ctx, piece)
	if err != nil {
		<-n.uploads
		return err
	}
	s.buf, s.piece = b, piece
	return nil
}

// flush writes the control bytes.
func (s *sender) flush() error {
	if len(s.ctrl) == 0 {
		return nil
	}
	err := s.write(net.Buffers{s.ctrl})
	s.ctrl = s.ctrl[:0]
	if cap(s.ctrl) > keepCtrl {
		s.ctrl = nil
	}
	return err
}

// keepCtrl is the room for control messages that a connection keeps, in bytes: a
// large image's bitfield comes once.
const keepCtrl = 16 << 10

// block sends one requested block after the control bytes, from the buffer
// without copying.
func (s *sender) block(u upload) error {
	c := s.c
	if f := s.frameOf(u); f != nil {
		return s.frameBlock(u, f)
	}
	if !s.holds(u.piece) {
		if sent, err := s.fromFile(u); sent || err != nil {
			return err
		}
		if err := s.flush(); err != nil { // reading may take a while
			return err
		}
		if err := s.hold(u.piece); err != nil {
			return c.cannot(u, err)
		}
	}
	s.ctrl = wire.AppendPieceHeader(s.ctrl, u.piece, u.begin, u.length)
	return s.payload(s.buf.b[u.begin:u.begin+u.length], int64(u.length))
}

// payload sends the control bytes and then b, and counts it as plain bytes of
// content.
func (s *sender) payload(b []byte, plain int64) error {
	n := s.c.n
	if limit := n.limiter.Load(); limit == nil {
		if err := s.write(net.Buffers{s.ctrl, b}); err != nil {
			return err
		}
	} else if err := s.paced(b, limit); err != nil {
		return err
	}
	s.ctrl = s.ctrl[:0]
	n.sent(plain, len(b))
	return nil
}

// sent counts payload bytes, plain ones and as they travelled.
func (n *Node) sent(plain int64, wire int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tx += plain
	n.txWire += int64(wire)
}

// cannot refuses a request for a piece that could not be read. A client that
// has no word for a refusal would wait for ever: it is hung up on.
func (c *conn) cannot(u upload, err error) error {
	if !c.fast {
		return err
	}
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.reject(u)
	return nil
}

// paced sends the control bytes and payload under the rate cap, in small steps,
// so that the child sees bytes flow and does not take us for stalled.
func (s *sender) paced(payload []byte, limit *rate.Limiter) error {
	if err := s.flush(); err != nil {
		return err
	}
	for len(payload) > 0 {
		k := min(len(payload), wire.PlainBlock)
		if err := limit.WaitN(s.c.n.ctx, k); err != nil {
			return fmt.Errorf("wait for the rate cap: %w", err)
		}
		if err := s.write(net.Buffers{payload[:k]}); err != nil {
			return err
		}
		payload = payload[k:]
	}
	return nil
}

// write writes all of bufs with a deadline.
func (s *sender) write(bufs net.Buffers) error {
	if err := s.c.nc.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	var err error
	if t, ok := s.c.nc.(*secured); ok {
		err = t.writeAll(bufs)
	} else {
		err = s.c.out.write(bufs...)
	}
	if err != nil {
		return fmt.Errorf("send to %s: %w", s.c.name, err)
	}
	return nil
}
