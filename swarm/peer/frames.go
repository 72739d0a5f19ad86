package peer

import (
	"bytes"
	"container/list"
	"sync"

	"labswarm/swarm/frame"
	"labswarm/swarm/sched"
	"labswarm/swarm/wire"
)

// FrameSource is what a Storage may be besides: it also keeps pieces as zstd
// frames of package frame, made once, to be sent in place of the plain piece.
type FrameSource interface {
	// Frame returns the frame of a piece, in buf when that is long enough, and
	// whether there is one worth sending. The content must be right: receivers
	// hash what comes out of it. Safe for concurrent use.
	Frame(piece int, buf []byte) ([]byte, bool)
}

// frameCache keeps the frames of pieces that were found right, least recently
// used out first. It counts bytes: frames are of any length. A frame is never
// changed, so who sends one that has just gone out of the cache may go on.
type frameCache struct {
	mu    sync.Mutex
	lru   *list.List // of cachedFrame, most recently used in front
	at    map[int]*list.Element
	bytes int64
	limit int64
}

type cachedFrame struct {
	piece int
	b     []byte
}

func newFrameCache(limit int64) *frameCache {
	return &frameCache{lru: list.New(), at: map[int]*list.Element{}, limit: limit}
}

// get returns the frame of a piece, nil when it is not here.
func (c *frameCache) get(piece int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.at[piece]
	if e == nil {
		return nil
	}
	c.lru.MoveToFront(e)
	return e.Value.(cachedFrame).b
}

// put keeps the frame of a piece in place of an earlier one.
func (c *frameCache) put(piece int, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(c.at[piece])
	c.at[piece] = c.lru.PushFront(cachedFrame{piece, b})
	c.bytes += int64(len(b))
	for c.bytes > c.limit {
		c.dropLocked(c.lru.Back())
	}
}

// drop forgets the frame of a piece.
func (c *frameCache) drop(piece int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(c.at[piece])
}

func (c *frameCache) dropLocked(e *list.Element) {
	if e == nil {
		return
	}
	f := c.lru.Remove(e).(cachedFrame)
	delete(c.at, f.piece)
	c.bytes -= int64(len(f.b))
}

// frame returns the frame of a piece we hold: from RAM or from the storage; nil
// when the piece has to travel plain.
func (n *Node) frame(piece int) []byte {
	if b := n.frames.get(piece); b != nil {
		return b
	}
	src, ok := n.cfg.Storage.(FrameSource)
	if !ok {
		return nil
	}
	b, ok := src.Frame(piece, nil)
	if !ok || !frame.Worth(len(b), int(n.cfg.PieceLen)) {
		return nil
	}
	if err := frame.Check(b, int(n.cfg.PieceLen)); err != nil {
		n.log.Error("frame cannot be served, the piece goes plain", "piece", piece, "err", err)
		return nil
	}
	n.frames.put(piece, b)
	return b
}

// unpack turns a received frame into the plain piece, in the same buffer. The
// frame's bytes are kept: they are what our children get.
func (n *Node) unpack(f *fetch) error {
	if f.FrameLen == 0 {
		return nil
	}
	f.frame = bytes.Clone(f.buf.b[:f.FrameLen])
	return n.decoder.Decode(f.buf.b, f.frame)
}

// frameBlock sends the part of a frame that was asked for. Nobody knows a
// frame's length before its first block has come, so requests beyond the end
// are normal and get no answer.
func (s *sender) frameBlock(u upload, f []byte) error {
	if u.begin >= len(f) {
		return s.flush()
	}
	end := min(u.begin+u.length, len(f))
	s.ctrl = wire.AppendFrameHeader(s.ctrl, s.ownID, u.piece, u.begin, len(f), end-u.begin)
	cell := s.c.n.cfg.PieceLen
	return s.payload(f[u.begin:end], sched.Share(cell, end, len(f))-sched.Share(cell, u.begin, len(f)))
}

// frameOf returns the frame to answer a request from, nil to answer plain. The
// frame in use stays while its blocks are asked for one after the other, even
// if the cache drops it.
func (s *sender) frameOf(u upload) []byte {
	if !u.frame {
		return nil
	}
	if s.frame == nil || s.framePiece != u.piece {
		s.frame, s.framePiece = s.c.n.frame(u.piece), u.piece
	}
	return s.frame
}
