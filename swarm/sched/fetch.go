package sched

import (
	"errors"
	"slices"
	"time"

	"labswarm/swarm/window"
)

// Block states of a fetch.
const (
	blockFree = iota // not asked for
	blockOpen        // asked for
	blockGot         // received
)

const maxTurns = 4 // changes between plain and frame within one piece

// ErrTurns is a peer that changes between plain and frame again and again.
var ErrTurns = errors.New("a piece changes again and again between plain and frame")

// Fetch is one piece on its way over one connection, in blocks.
type Fetch struct {
	Piece    int
	From     *Source
	Plain    bool // asked for plain
	FrameLen int  // bytes of the frame that comes in place of the piece, 0 = it comes plain

	block   int // bytes per request
	cell    int // bytes of the piece
	state   []uint8
	got     int  // blocks received
	refused bool // the source will not send (all of) it
	turns   int  // changes of FrameLen
}

// Begin is the offset of block i in what travels.
func (f *Fetch) Begin(i int) int { return i * f.block }

// Size is the length of block i in bytes.
func (f *Fetch) Size(i int) int { return min(f.block, f.total()-i*f.block) }

// Ahead is how many bytes of what was asked for come from block i on, that one
// included, without what a message has besides. A block that is here or that was
// not asked for ends the count.
func (f *Fetch) Ahead(i int) (bytes int) {
	for ; i < len(f.state) && f.state[i] == blockOpen; i++ {
		bytes += f.Size(i)
	}
	return bytes
}

// total is the number of bytes that travel.
func (f *Fetch) total() int {
	if f.FrameLen > 0 {
		return f.FrameLen
	}
	return f.cell
}

// plainSize is the part of the piece in bytes that block i stands for.
func (f *Fetch) plainSize(i int) int64 {
	begin := f.Begin(i)
	return Share(int64(f.cell), begin+f.Size(i), f.total()) - Share(int64(f.cell), begin, f.total())
}

// Share is the part of cell bytes that the first n of total bytes stand for.
func Share(cell int64, n, total int) int64 { return cell * int64(n) / int64(total) }

// bar says that a piece came with a wrong hash: for a while only the server may
// send it.
type bar struct {
	attempts int       // wrong copies from the server
	wrong    int       // wrong copies at all
	at       time.Time // of the last one
	until    time.Time // after which others may send it as well
}

// barred reports whether a piece must not be asked for from s now: after a
// wrong copy it comes from the server. When that cannot be had it comes soon
// from a source that never sent anything wrong, and in the end from anybody.
func (c *Child) barred(piece int, s *Source, now time.Time) bool {
	b := c.bars[piece]
	if b == nil || s.Server || !now.Before(b.until) {
		return false
	}
	return s.bad > 0 || now.Sub(b.at) < serverWait || c.serverLinked()
}

// serverLinked reports whether the server is connected.
func (c *Child) serverLinked() bool {
	return slices.ContainsFunc(c.sources, func(s *Source) bool { return s.Server && s.link != nil && s.link.ready })
}

// Fill asks l for as much as the rules allow.
func (c *Child) Fill(l *Link, now time.Time) {
	if l.src == nil || !l.ready || l.choked {
		return
	}
	depth := int(window.Depth(int64(c.meter.wireRate), l.rtt, c.pieceLen, l.block))
	if l.openSize > depth-depth/4 {
		return // requests go in bunches: each message on its own costs both sides a wake-up
	}
	for _, f := range l.order { // begun pieces are finished, also by a source we are leaving
		l.ask(f, depth, now)
	}
	if l.src != c.active && len(c.bars) == 0 {
		return
	}
	for l.openSize < depth && l.open < l.reqq {
		piece := c.pick(l, now)
		if piece < 0 {
			return
		}
		blocks := (int(c.pieceLen) + l.block - 1) / l.block
		f := &Fetch{Piece: piece, From: l.src, block: l.block, cell: int(c.pieceLen), state: make([]uint8, blocks),
			Plain: !l.frames || c.bars[piece] != nil} // after a wrong copy frames are not trusted either
		if !c.hands.Reserve(f) {
			c.bound = true // hashing or the disk is the brake: TCP will push back
			return
		}
		c.inflight[piece] = f
		l.fetches[piece] = f
		l.order = append(l.order, f)
		l.ask(f, depth, now)
	}
}

// pick chooses the next piece to ask l for, -1 when there is none: by the
// window from the active source, and only barred pieces from any other.
func (c *Child) pick(l *Link, now time.Time) int {
	if l.src != c.active {
		best := -1
		for p := range c.bars {
			if (best < 0 || p < best) && c.inflight[p] == nil && !c.have.Has(p) && l.theirs.Has(p) && !c.barred(p, l.src, now) {
				best = p
			}
		}
		return best
	}
	p := window.Pick(window.Query{
		Have: c.have, Source: l.offers, Window: c.window, Max: 1,
		Busy:   func(i int) bool { return c.inflight[i] != nil },
		Barred: func(i int) bool { return c.barred(i, l.src, now) },
	})
	if len(p) == 0 {
		return -1
	}
	return p[0]
}

// Landed books block i of f, which Place has named and which is in memory now.
// plain is what it stands for in bytes of the piece. complete: every block is
// there, the piece is to be hashed and then given to Written or Wrong.
func (c *Child) Landed(l *Link, f *Fetch, i int) (plain int64, complete bool) {
	size := f.Size(i)
	plain = f.plainSize(i)
	if f.state[i] == blockOpen {
		l.open--
		l.openSize -= size
	}
	f.state[i] = blockGot
	f.got++
	c.meter.rxWire += int64(size)
	c.meter.rx += plain
	if f.got < len(f.state) {
		c.giveUp(l, f)
		return plain, false
	}
	l.drop(f)
	return plain, true
}

// giveUp drops a piece that the peer will not send all of, once nothing of it is on
// its way any more. It reports whether it did: somebody else may be asked for it.
func (c *Child) giveUp(l *Link, f *Fetch) bool {
	if !f.refused || slices.Contains(f.state, blockOpen) {
		return false
	}
	l.drop(f)
	delete(c.inflight, f.Piece)
	c.hands.Release(f)
	return true
}

// Refused handles a BEP 6 reject. While we are choked it only takes the request
// back; otherwise the peer does not have the piece after all. It reports
// whether a piece was dropped: somebody else may be asked for it.
func (c *Child) Refused(l *Link, piece, begin int) bool {
	f := l.fetches[piece]
	if f == nil || begin%f.block != 0 || begin/f.block >= len(f.state) {
		return false
	}
	i := begin / f.block
	if f.state[i] != blockOpen {
		return false
	}
	f.state[i] = blockFree
	l.open--
	l.openSize -= f.Size(i)
	if l.choked {
		return false
	}
	f.refused = true
	l.theirs.Remove(piece)
	l.offers.Remove(piece)
	return c.giveUp(l, f) // else the rest is on its way or will be refused as well
}

// Wrong drops a piece whose hash does not match. Nothing of it has gone
// anywhere; it is fetched again, from the server. attempts counts the wrong
// copies of this piece that came from the server itself.
func (c *Child) Wrong(f *Fetch, now time.Time) (attempts int) {
	b := c.bars[f.Piece]
	if b == nil {
		b = &bar{}
		c.bars[f.Piece] = b
	}
	b.wrong++
	b.at = now
	b.until = now.Add(5*time.Second + window.Backoff(b.wrong))
	s := f.From
	s.bad++
	if s.Server {
		b.attempts++
	}
	if !s.Server && s.bad%badPieces == 0 && c.active == s && len(c.sources) > 1 {
		c.leave(s, wrongHashes(s.bad), true, now)
	}
	delete(c.inflight, f.Piece)
	c.hands.Release(f)
	return b.attempts
}

// Written books a piece that is on the disk: from now on it is held.
func (c *Child) Written(f *Fetch, now time.Time) {
	delete(c.inflight, f.Piece)
	delete(c.bars, f.Piece)
	if f.From == c.active {
		f.From.rejected = ""
	}
	c.have.Add(f.Piece)
	if c.active != nil && c.active.link != nil {
		c.Fill(c.active.link, now)
	}
}
