package sched

import (
	"fmt"
	"slices"
	"time"

	"labswarm/swarm/window"
)

// Wire carries out on one connection what is decided here.
type Wire interface {
	// Request asks the peer for block i of f.
	Request(f *Fetch, i int)
	// Close ends the connection for a reason; Child.Detach and Child.Lost follow.
	Close(why error)
}

// Link is the child's side of one connection. The zero value is a connection
// that came in, from which nothing is fetched.
type Link struct {
	src    *Source // nil for a connection that came in
	wire   Wire
	ready  bool        // the peer has said what it can do
	choked bool        // it chokes us
	frames bool        // pieces can be asked for as frames
	theirs *window.Set // what it holds
	offers *window.Set // the same and what it will hold soon: it may be asked for that
	block  int         // bytes per request
	reqq   int         // requests it queues
	rtt    time.Duration
	lastRx time.Time // of the last payload byte, or of the first open request
	waits  time.Time // when it said last that it waits for the piece itself

	fetches  map[int]*Fetch
	order    []*Fetch // the same, oldest first
	open     int      // requests on their way
	openSize int      // bytes of them
	unasked  int      // bytes received that nobody asked for
}

// NewLink returns the child's side of a connection to src, nil for one that
// came in, choked and with nothing known of the peer. block is the request size
// in bytes and reqq the number of requests open at once until Settle says more.
func NewLink(src *Source, wire Wire, pieces, block, reqq int) *Link {
	return &Link{src: src, wire: wire, choked: true, theirs: window.NewSet(pieces), offers: window.NewSet(pieces), block: block, reqq: reqq, fetches: map[int]*Fetch{}}
}

// Terms is what the extension handshakes have agreed on.
type Terms struct {
	Block  int // bytes per request
	Reqq   int // requests the peer queues
	Frames bool
}

// Settle makes the link usable. The form of requests does not change under open
// ones: then it returns false.
func (l *Link) Settle(t Terms) bool {
	l.reqq, l.ready = t.Reqq, true
	if len(l.fetches) > 0 {
		return false
	}
	l.block, l.frames = t.Block, t.Frames
	return true
}

// Ready reports whether Settle has been called.
func (l *Link) Ready() bool { return l.ready }

// Open is the number of requests on their way.
func (l *Link) Open() int { return l.open }

// Has books what the peer says it holds.
func (l *Link) Has(piece int) {
	l.theirs.Add(piece)
	l.Soon(piece)
}

// Soon books that the peer has asked for a piece itself: it may be asked for it,
// and is judged by what it holds all the same. What it has refused of the piece
// before is asked for again.
func (l *Link) Soon(piece int) {
	l.offers.Add(piece)
	if f := l.fetches[piece]; f != nil {
		f.refused = false
	}
}

// Front is the lowest piece that the other side lacks; complete when it lacks none.
func (l *Link) Front() (front int, complete bool) { return l.theirs.Front(), l.theirs.Full() }

// HasAll books that the peer holds everything.
func (l *Link) HasAll() {
	l.theirs.Fill()
	l.offers.Fill()
	for _, f := range l.order {
		f.refused = false
	}
}

// Unchoke books that the peer lets us ask.
func (l *Link) Unchoke() { l.choked = false }

// Choke books that the peer does not let us ask any more. forget: it has
// forgotten what was asked for (BEP 3); else it sends rejects (BEP 6).
func (l *Link) Choke(forget bool) {
	l.choked = true
	if !forget {
		return
	}
	for _, f := range l.order {
		for i, s := range f.state {
			if s == blockOpen {
				f.state[i] = blockFree
			}
		}
	}
	l.open, l.openSize = 0, 0
}

// Received books the time of the last payload byte.
func (l *Link) Received(at time.Time) {
	if at.After(l.lastRx) {
		l.lastRx = at
	}
}

// Waits books that the other side lives and waits for pieces itself.
func (l *Link) Waits(at time.Time) { l.waits = at }

// quiet is for how long the other side has neither sent a byte nor said that it
// waits. From one that holds what was asked for words without bytes are believed for
// waitTime. One that holds none of it does wait: the first piece takes longer than
// that through a chain of many hundred hosts.
func (l *Link) quiet(now time.Time) time.Duration {
	d := now.Sub(l.lastRx)
	if d < waitTime || !slices.ContainsFunc(l.order, func(f *Fetch) bool { return l.theirs.Has(f.Piece) }) {
		d = min(d, now.Sub(l.waits))
	}
	return d
}

// Timed books the measured round trip time.
func (l *Link) Timed(rtt time.Duration) { l.rtt = rtt }

// Attach begins to use a connection that a Dial has made.
func (c *Child) Attach(l *Link) {
	l.src.link = l
	c.links = append(c.links, l)
}

// Detach ends the use of a connection: what was under way on it is dropped.
func (c *Child) Detach(l *Link) {
	c.links = slices.DeleteFunc(c.links, func(o *Link) bool { return o == l })
	for _, f := range l.order {
		delete(c.inflight, f.Piece)
		c.hands.Release(f)
	}
	l.fetches, l.order, l.open, l.openSize = nil, nil, 0, 0
	if l.src != nil && l.src.link == l {
		l.src.link = nil
	}
}

// ask requests free blocks of f while depth bytes and the peer's queue allow.
func (l *Link) ask(f *Fetch, depth int, now time.Time) {
	if f.refused {
		return
	}
	for i, s := range f.state {
		if l.openSize >= depth || l.open >= l.reqq {
			return
		}
		if s != blockFree {
			continue
		}
		if l.open == 0 {
			l.Received(now)
		}
		f.state[i] = blockOpen
		l.open++
		l.openSize += f.Size(i)
		l.wire.Request(f, i)
	}
}

// Block is what arrived: length bytes at begin of a piece, or of its frame of
// FrameLen bytes.
type Block struct {
	Piece, Begin, Length int
	FrameLen             int // 0 = plain
}

// Place finds the fetch and the block that b belongs to: f is nil when it is
// not wanted. unasked counts the bytes of such blocks on this connection.
func (l *Link) Place(b Block) (f *Fetch, i, unasked int, err error) {
	f = l.fetches[b.Piece]
	wanted := f != nil && b.Begin%f.block == 0
	if wanted {
		if wanted, err = l.shape(f, b.FrameLen); err != nil {
			return nil, 0, 0, err
		}
	}
	if wanted {
		i = b.Begin / f.block
		wanted = i < len(f.state) && f.state[i] != blockGot && b.Length == f.Size(i)
	}
	if !wanted {
		l.unasked += b.Length
		return nil, 0, l.unasked, nil
	}
	return f, i, l.unasked, nil
}

// shape makes f fit a block that came: of a frame of frameLen bytes, or plain
// (0). What came in another shape is asked for again. It returns false for a
// block that was not asked for in this form.
func (l *Link) shape(f *Fetch, frameLen int) (bool, error) {
	if frameLen > 0 && f.Plain {
		return false, nil
	}
	if frameLen == f.FrameLen {
		return true, nil
	}
	if f.turns++; f.turns > maxTurns {
		return false, ErrTurns
	}
	l.booked(f, -1)
	old := f.state
	f.FrameLen, f.got = frameLen, 0
	f.state = make([]uint8, (f.total()+f.block-1)/f.block)
	for i := range min(len(old), len(f.state)) {
		if old[i] == blockOpen {
			f.state[i] = blockOpen
		}
	}
	l.booked(f, 1)
	return true, nil
}

// booked adds the open requests of f to the link's (sign 1) or takes them off (-1).
func (l *Link) booked(f *Fetch, sign int) {
	for i, s := range f.state {
		if s == blockOpen {
			l.open += sign
			l.openSize += sign * f.Size(i)
		}
	}
}

// drop takes f off the link.
func (l *Link) drop(f *Fetch) {
	delete(l.fetches, f.Piece)
	l.order = slices.DeleteFunc(l.order, func(o *Fetch) bool { return o == f })
}

func wrongHashes(n int) string { return fmt.Sprintf("sent %d pieces with a wrong hash", n) }
