package peer

import (
	"container/list"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// buffer holds one piece. b is page-aligned memory outside Go's heap, fit for
// O_DIRECT.
type buffer struct {
	b     []byte
	piece int           // what it holds while cached, -1 otherwise
	refs  int           // users: the fetch that fills it, uploads that send from it
	elem  *list.Element // place in the cache, nil when not cached
}

// pool is all piece buffers of a node and, in those that nobody uses, the RAM
// cache of pieces whose hash was checked.
//
// Bounds: fetching holds at most half of the buffers (grabFetch), uploads at
// most the other half (their semaphore), so neither can starve the other, and
// a ring of hosts that serve each other cannot wait in a circle. A buffer is
// free only when its last user has released it.
type pool struct {
	mu       sync.Mutex
	mem      []byte
	free     []*buffer
	lru      *list.List // of *buffer, most recently used in front
	cached   map[int]*buffer
	limit    int // cached buffers kept at most
	fetching int // buffers held by grabFetch
	maxFetch int
}

// newPool maps n buffers of size bytes; pages cost memory once they are used.
func newPool(n int, size int64, cacheBytes int64) (*pool, error) {
	mem, err := unix.Mmap(-1, 0, n*int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d piece buffers of %d bytes: %w", n, size, err)
	}
	p := &pool{
		mem: mem, lru: list.New(), cached: map[int]*buffer{},
		limit: int(min(max(cacheBytes/size, 2), int64(n))), maxFetch: n / 2,
	}
	for i := range n {
		o := i * int(size)
		p.free = append(p.free, &buffer{b: mem[o : o+int(size) : o+int(size)], piece: -1})
	}
	return p, nil
}

// close unmaps the memory. Nobody may use a buffer any more.
func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mem == nil {
		return nil
	}
	mem := p.mem
	p.mem, p.free, p.cached = nil, nil, map[int]*buffer{}
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap piece buffers: %w", err)
	}
	return nil
}

// grabFetch returns a buffer to fetch into, nil when fetching holds its share.
func (p *pool) grabFetch() *buffer {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fetching >= p.maxFetch {
		return nil
	}
	b := p.takeLocked()
	if b != nil {
		p.fetching++
	}
	return b
}

// grabUpload returns a buffer to read a piece into for sending; the caller
// holds a slot of the upload semaphore, so there is one, unless the node ends.
func (p *pool) grabUpload() *buffer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.takeLocked()
}

// takeLocked takes a free buffer, or the least recently used unused cached one.
func (p *pool) takeLocked() *buffer {
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		b.refs = 1
		return b
	}
	for e := p.lru.Back(); e != nil; e = e.Prev() {
		if b := e.Value.(*buffer); b.refs == 0 {
			p.uncacheLocked(b)
			b.refs = 1
			return b
		}
	}
	return nil
}

// releaseFetch ends a fetch's use of b. keep >= 0: b holds that piece, right
// and written, and goes into the cache.
func (p *pool) releaseFetch(b *buffer, keep int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fetching--
	if keep >= 0 {
		p.cacheLocked(b, keep)
	}
	p.releaseLocked(b)
}

// get returns the cached piece with one more user, or nil.
func (p *pool) get(piece int) *buffer {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.cached[piece]
	if b == nil {
		return nil
	}
	b.refs++
	p.lru.MoveToFront(b.elem)
	return b
}

// has reports whether a piece is cached.
func (p *pool) has(piece int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cached[piece] != nil
}

// put makes b, held by the caller, the cached copy of piece. The caller keeps
// its use of b.
func (p *pool) put(b *buffer, piece int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cacheLocked(b, piece)
}

// release ends one use of b.
func (p *pool) release(b *buffer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.releaseLocked(b)
}

// drop forgets the cached copy of piece; who sends from it may finish.
func (p *pool) drop(piece int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.cached[piece]; b != nil {
		p.uncacheLocked(b)
		if b.refs == 0 {
			p.free = append(p.free, b)
		}
	}
}

func (p *pool) cacheLocked(b *buffer, piece int) {
	if old := p.cached[piece]; old != nil {
		if old == b {
			return
		}
		p.uncacheLocked(old)
		if old.refs == 0 {
			p.free = append(p.free, old)
		}
	}
	b.piece = piece
	b.elem = p.lru.PushFront(b)
	p.cached[piece] = b
}

func (p *pool) uncacheLocked(b *buffer) {
	p.lru.Remove(b.elem)
	delete(p.cached, b.piece)
	b.piece, b.elem = -1, nil
}

func (p *pool) releaseLocked(b *buffer) {
	b.refs--
	if b.refs == 0 && b.elem == nil {
		p.free = append(p.free, b)
		return
	}
	// Keep the cache within its limit: drop the oldest that nobody uses.
	for e := p.lru.Back(); e != nil && p.lru.Len() > p.limit; {
		prev := e.Prev()
		if old := e.Value.(*buffer); old.refs == 0 {
			p.uncacheLocked(old)
			p.free = append(p.free, old)
		}
		e = prev
	}
}
