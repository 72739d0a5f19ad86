package peer

import (
	"time"

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

// frame returns the frame of a piece we hold, for the caller to release: from RAM
// or from the storage; nil when the piece has to travel plain.
func (n *Node) frame(piece int) *cachedFrame {
	if f := n.frames.get(piece); f != nil {
		return f
	}
	src, ok := n.cfg.Storage.(FrameSource)
	if !ok {
		return nil
	}
	longest := frame.MaxLen(int(n.cfg.PieceLen))
	f := n.frames.alloc(piece, longest, n.childFronts())
	if f == nil {
		f = &cachedFrame{b: make([]byte, longest), piece: piece, refs: 1}
	}
	b, ok := src.Frame(piece, f.b)
	if !ok || !frame.Worth(len(b), int(n.cfg.PieceLen)) {
		n.frames.release(f)
		return nil
	}
	if err := frame.Check(b, int(n.cfg.PieceLen)); err != nil {
		n.log.Error("frame cannot be served, the piece goes plain", "piece", piece, "err", err)
		n.frames.release(f)
		return nil
	}
	copy(f.b, b) // nothing is copied when the source used the buffer
	n.frames.trim(f, len(b))
	n.frames.put(f)
	return f
}

// activeChild is how long a child that asked for a frame counts as one that will
// ask for the next.
const activeChild = 10 * time.Second

// childFronts returns the lowest missing pieces of the children that take frames
// from us.
func (n *Node) childFronts() []int {
	now := time.Now().UnixNano()
	n.mu.Lock()
	defer n.mu.Unlock()
	var fronts []int
	for c := range n.conns {
		front, complete := c.link.Front()
		if at := c.frameAsked.Load(); at > 0 && now-at < int64(activeChild) && !complete {
			fronts = append(fronts, front)
		}
	}
	return fronts
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
	s.c.frameAsked.Store(time.Now().UnixNano())
	if s.frame == nil || s.frame.piece != u.piece {
		s.dropFrame()
		s.frame = s.c.n.frame(u.piece)
	}
	if s.frame == nil {
		return nil
	}
	return s.frame.b
}

// dropFrame gives back the frame in use.
func (s *sender) dropFrame() {
	s.c.n.frames.release(s.frame)
	s.frame = nil
}
