package peer

import (
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// frameGrain is the unit in which the cache of frames hands out memory, bytes.
const frameGrain = 4 << 10

// cachedFrame is a frame in RAM, outside Go's heap: tens of MiB there would make
// the garbage collector keep as much again. Its bytes are never changed while
// anybody uses it.
type cachedFrame struct {
	b     []byte
	piece int
	used  uint64 // order of use; the higher, the later
	refs  int    // users: the fetch it came with, senders
	in    bool   // it can be found under its piece
	span
}

// span is a piece of the cache's memory, in bytes.
type span struct{ off, len int }

// frameCache keeps the frames of pieces that were found right, for the children
// that will ask for them. It counts bytes: frames are of any length.
//
// What goes first when it is full: frames that every child has passed, the least
// recently used of them first; then the frame whose use is farthest away, that is
// farthest in front of the nearest child that still has to ask for it. So a child
// that lags keeps what it needs next, where dropping the oldest would take just
// that away and make it go on plain to the end.
type frameCache struct {
	mu    sync.Mutex
	mem   []byte // pages cost memory once they are used
	free  []span // ascending, never touching each other
	at    map[int]*cachedFrame
	clock uint64
}

// newFrameCache maps room for limit bytes.
func newFrameCache(limit int64) (*frameCache, error) {
	c := &frameCache{at: map[int]*cachedFrame{}}
	n := int(limit / frameGrain * frameGrain)
	if n == 0 {
		return c, nil
	}
	var err error
	c.mem, err = unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes for compressed pieces: %w", n, err)
	}
	c.free = []span{{0, n}}
	return c, nil
}

// close unmaps the memory. Nobody may use a frame any more.
func (c *frameCache) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	mem := c.mem
	c.mem, c.free = nil, nil
	clear(c.at)
	if mem == nil {
		return nil
	}
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap compressed pieces: %w", err)
	}
	return nil
}

// alloc makes room for a frame of n bytes, for the caller to fill, keep and
// release; nil when it is not worth more than what is here already, or everything
// is in use. fronts are the lowest missing pieces of the children.
func (c *frameCache) alloc(piece, n int, fronts []int) *cachedFrame {
	size := (n + frameGrain - 1) / frameGrain * frameGrain
	c.mu.Lock()
	defer c.mu.Unlock()
	if n == 0 || size > len(c.mem) {
		return nil
	}
	for {
		for i, s := range c.free {
			if s.len < size {
				continue
			}
			if c.free[i] = (span{s.off + size, s.len - size}); c.free[i].len == 0 {
				c.free = slices.Delete(c.free, i, i+1)
			}
			return &cachedFrame{b: c.mem[s.off : s.off+n : s.off+size], piece: piece, refs: 1, span: span{s.off, size}}
		}
		v := c.victimLocked(piece, fronts)
		if v == nil {
			return nil
		}
		c.removeLocked(v)
	}
}

// victimLocked is the frame to give up for one of the given piece, nil when that
// itself would be the first to go or nothing can be had.
func (c *frameCache) victimLocked(piece int, fronts []int) *cachedFrame {
	var worst *cachedFrame
	far := 0
	for _, f := range c.at {
		if f.refs > 0 {
			continue
		}
		d := distance(f.piece, fronts)
		if worst == nil || d > far || d == far && f.used < worst.used {
			worst, far = f, d
		}
	}
	if far < distance(piece, fronts) {
		return nil
	}
	return worst
}

const passed = 1 << 30 // farther than any piece

// distance is how many pieces the nearest child is behind the given one; passed
// when no child needs it any more.
func distance(piece int, fronts []int) int {
	d := passed
	for _, front := range fronts {
		if front <= piece {
			d = min(d, piece-front)
		}
	}
	return d
}

// trim gives back what f does not need beyond its first n bytes.
func (c *frameCache) trim(f *cachedFrame, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.b = f.b[:n]
	if size := (n + frameGrain - 1) / frameGrain * frameGrain; size < f.len {
		c.freeLocked(span{f.off + size, f.len - size})
		f.len, f.b = size, f.b[:n:size]
	}
}

// get returns the frame of a piece for the caller to release, nil when it is not
// here.
func (c *frameCache) get(piece int) *cachedFrame {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.at[piece]
	if f == nil {
		return nil
	}
	c.clock++
	f.refs, f.used = f.refs+1, c.clock
	return f
}

// put lets f, which the caller still holds, be found in place of an earlier frame
// of its piece.
func (c *frameCache) put(f *cachedFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.len == 0 {
		return // memory of the caller's
	}
	if old := c.at[f.piece]; old != nil && old != f {
		c.removeLocked(old)
	}
	c.clock++
	c.at[f.piece], f.in, f.used = f, true, c.clock
}

// release ends one use of f; nil is nothing.
func (c *frameCache) release(f *cachedFrame) {
	if f == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.refs--; f.refs == 0 && !f.in {
		c.freeLocked(f.span)
	}
}

// drop forgets the frame of a piece; who sends it may finish.
func (c *frameCache) drop(piece int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.at[piece]; f != nil {
		c.removeLocked(f)
	}
}

func (c *frameCache) removeLocked(f *cachedFrame) {
	delete(c.at, f.piece)
	if f.in = false; f.refs == 0 {
		c.freeLocked(f.span)
	}
}

// freeLocked puts s among the free spans and joins it with its neighbours.
func (c *frameCache) freeLocked(s span) {
	if s.len == 0 || c.mem == nil { // never was ours, or is unmapped
		return
	}
	i, _ := slices.BinarySearchFunc(c.free, s, func(a, b span) int { return a.off - b.off })
	c.free = slices.Insert(c.free, i, s)
	if i+1 < len(c.free) && s.off+s.len == c.free[i+1].off {
		c.free[i].len += c.free[i+1].len
		c.free = slices.Delete(c.free, i+1, i+2)
	}
	if i > 0 && c.free[i-1].off+c.free[i-1].len == c.free[i].off {
		c.free[i-1].len += c.free[i].len
		c.free = slices.Delete(c.free, i, i+1)
	}
}

// figures counts what is kept, for tests and logs.
func (c *frameCache) figures() (frames, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.at {
		bytes += f.len
	}
	return len(c.at), bytes
}
