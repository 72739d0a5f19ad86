package peer

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"labswarm/swarm/frame"
)

// framedStore is a fileStore that also keeps frames, as the server's does.
type framedStore struct {
	*fileStore
	mu     sync.Mutex
	frames map[int][]byte
	asked  int
}

func (s *framedStore) Frame(piece int, buf []byte) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	f := s.frames[piece]
	return append(buf[:0], f...), f != nil
}

// softTorrent has pieces of every sort: frames of one block, of several, and
// pieces that do not shrink.
func softTorrent(t testing.TB, pieces int) *torrent {
	t.Helper()
	tr := newTorrent(t, pieces, testPiece)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range pieces {
		p := tr.piece(i)
		n := []int{100, 20_000, 45_000, testPiece}[i%4]
		for k := range n {
			p[k] = byte(r.Uint32())
		}
		tr.hashes[i] = sha1.Sum(p)
	}
	return tr
}

// encode makes the frames of all pieces that shrink.
func encode(t testing.TB, tr *torrent) map[int][]byte {
	t.Helper()
	e, err := frame.NewEncoder(tr.pieceLen)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int][]byte{}
	for i := range tr.hashes {
		if f := e.Encode(nil, tr.piece(i)); frame.Worth(len(f), tr.pieceLen) {
			out[i] = f
		}
	}
	return out
}

// framedSeed starts a seed with frames.
func framedSeed(t testing.TB, tr *torrent, frames map[int][]byte) *member {
	t.Helper()
	st := newStore(t, tr, nil)
	return start(t, "seed", tr, st, func(c *Config) {
		c.Seed, c.Storage = true, &framedStore{fileStore: st, frames: frames}
	})
}

func keepAll(c *Config) { c.FrameCacheBytes = 1 << 30 }

// TestFrameChain: cells travel compressed through a chain, and every host
// forwards the very bytes it got.
func TestFrameChain(t *testing.T) {
	tr := softTorrent(t, 60)
	frames := encode(t, tr)
	seed := framedSeed(t, tr, frames)
	parent, hosts := seed, []*member{}
	for i := range 4 {
		h := start(t, nodeName(i), tr, newStore(t, tr, []int{}), keepAll)
		h.from(parent, seed)
		parent, hosts = h, append(hosts, h)
	}
	wireLen := int64(0)
	for i := range tr.hashes {
		wireLen += int64(tr.pieceLen)
		if f := frames[i]; f != nil {
			wireLen += int64(len(f) - tr.pieceLen)
		}
	}
	for _, h := range hosts {
		h.wait()
		h.store.check()
		for i, f := range frames {
			got := h.frames.get(i)
			if got == nil || !bytes.Equal(got.b, f) {
				t.Errorf("%s: frame %d differs from the seed's", h.name, i)
			}
			h.frames.release(got)
		}
		s := h.Stats()
		if s.Switches > 0 {
			continue // this machine hesitated; what was half received is counted twice
		}
		if s.FramesReceived != len(frames) || s.BytesFromPeers+s.BytesFromServer != int64(len(tr.data)) || s.WireReceived != wireLen {
			t.Errorf("%s: %d frames, %d plain bytes, %d wire bytes; want %d, %d, %d", h.name, s.FramesReceived,
				s.BytesFromPeers+s.BytesFromServer, s.WireReceived, len(frames), len(tr.data), wireLen)
		}
	}
	if s := seed.Stats(); hosts[0].Stats().Switches+hosts[1].Stats().Switches+hosts[2].Stats().Switches+hosts[3].Stats().Switches > 0 {
		t.Log("a host changed its source: the seed's bytes are not compared")
	} else if s.BytesUploaded != int64(len(tr.data)) || s.WireUploaded != wireLen {
		t.Errorf("the seed counts %d plain and %d wire bytes; want %d and %d", s.BytesUploaded, s.WireUploaded, len(tr.data), wireLen)
	}
}

// TestMixedChain: any member of a chain may be without frames.
func TestMixedChain(t *testing.T) {
	tr := softTorrent(t, 24)
	frames := encode(t, tr)
	for mask := range 16 {
		t.Run(fmt.Sprintf("without=%04b", mask), func(t *testing.T) {
			st := newStore(t, tr, nil)
			seed := start(t, "seed", tr, st, func(c *Config) {
				c.Seed, c.NoFrames, c.Storage = true, mask&1 != 0, &framedStore{fileStore: st, frames: frames}
			})
			parent, hosts := seed, []*member{}
			for i := range 3 {
				h := start(t, nodeName(i), tr, newStore(t, tr, []int{}), func(c *Config) {
					c.NoFrames = mask>>(i+1)&1 != 0
				})
				h.from(parent, seed)
				parent, hosts = h, append(hosts, h)
			}
			for i, h := range hosts {
				h.wait()
				h.store.check()
				without, first := mask>>(i+1)&1 != 0, mask&3 == 0 && i == 0
				if got := h.Stats().FramesReceived; without && got != 0 || first && got != len(frames) {
					t.Errorf("%s received %d frames", h.name, got)
				}
			}
		})
	}
}

// TestEvictedGoesPlain: a host whose cache holds no frame sends plain pieces.
func TestEvictedGoesPlain(t *testing.T) {
	tr := softTorrent(t, 40)
	seed := framedSeed(t, tr, encode(t, tr))
	a := start(t, "a", tr, newStore(t, tr, []int{}), func(c *Config) { c.FrameCacheBytes = 1 })
	b := start(t, "b", tr, newStore(t, tr, []int{}), nil)
	a.from(seed)
	b.from(a)
	for _, h := range []*member{a, b} {
		h.wait()
		h.store.check()
	}
	if a.Stats().FramesReceived == 0 || b.Stats().FramesReceived != 0 {
		t.Errorf("a received %d frames, want some; b %d, want 0", a.Stats().FramesReceived, b.Stats().FramesReceived)
	}
}

// TestLaggingChildInAChain: a child that writes half as fast as its parent still
// gets cells compressed when the parent has long been beyond its cache.
func TestLaggingChildInAChain(t *testing.T) {
	t.Parallel()
	const pieces, room = 240, 20 // frames below 50 KiB
	tr := newTorrent(t, pieces, testPiece)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range pieces {
		p := tr.piece(i)
		for k := range 45_000 {
			p[k] = byte(r.Uint32())
		}
		tr.hashes[i] = sha1.Sum(p)
	}
	seed := framedSeed(t, tr, encode(t, tr))
	var parentHas, childHas atomic.Int64
	gate := func(open func() bool) error {
		for end := time.Now().Add(deadline); !open(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				return errDisk
			}
		}
		return nil
	}
	ps, cs := newStore(t, tr, []int{}), newStore(t, tr, []int{})
	ps.writeErr = func(i int) error { return gate(func() bool { return childHas.Load() > int64(i)/2-8 }) }
	cs.writeErr = func(i int) error { return gate(func() bool { return parentHas.Load() >= int64(min(2*i, pieces)) }) }
	parent := start(t, "parent", tr, ps, func(c *Config) {
		c.FrameCacheBytes, c.PoolBuffers = room*48<<10, 8
		c.OnFront = func(have, _ int) { parentHas.Store(int64(have)) }
	})
	child := start(t, "child", tr, cs, func(c *Config) {
		c.PoolBuffers = 8
		c.OnFront = func(have, _ int) { childHas.Store(int64(have)) }
	})
	parent.from(seed)
	child.from(parent)
	parent.wait()
	child.wait()
	child.store.check()
	got := child.Stats().FramesReceived
	t.Logf("%d of %d cells came compressed; by age it would be about %d", got, pieces, 2*room)
	if got < 3*room {
		t.Errorf("%d of %d cells came compressed; want more than twice what the parent keeps", got, pieces)
	}
}

// TestRottenFrames: frames of other content from the server itself cost one
// transfer each; the piece then comes plain.
func TestRottenFrames(t *testing.T) {
	tr := softTorrent(t, 12)
	frames := encode(t, tr)
	frames[1], frames[4], frames[9] = frames[2], frames[5], frames[8]
	seed := framedSeed(t, tr, frames)
	a := start(t, "a", tr, newStore(t, tr, []int{}), nil)
	a.from(seed)
	a.wait()
	a.store.check()
	if got := a.Stats().HashFailures; got != 3 {
		t.Errorf("%d pieces were wrong; want 3", got)
	}
}
