package peer

import (
	"runtime"
	"testing"
	"time"
)

// heap is what lives on Go's heap, in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMemoryOfAManifest: a node keeps bits per piece, not more, so that its
// memory does not depend on the image: 256 GiB in 262 144 cells of 1 MiB. The
// piece buffers lie outside the heap and have a bound of their own.
func TestMemoryOfAManifest(t *testing.T) { // not parallel: it measures the process
	const pieces, hosts = 262_144, 8
	tr := newTorrent(t, 1, testPiece)
	big := func(c *Config) { c.Pieces, c.Hash = pieces, func(int) [20]byte { return tr.hashes[0] } }
	before := heap()
	seed := start(t, "seed", tr, nil, func(c *Config) {
		big(c)
		c.Seed, c.Storage = true, &nullStore{piece: tr.piece(0), have: true}
	})
	half := start(t, "half", tr, nil, func(c *Config) {
		big(c)
		c.Storage = &halfStore{nullStore{piece: tr.piece(0)}}
		c.OnFront = func(int, int) { time.Sleep(50 * time.Millisecond) } // it is in no hurry
	})
	half.from(seed)
	for i := range hosts { // all of them learn every piece of the others, as a bitfield
		h := start(t, nodeName(i), tr, nil, func(c *Config) {
			big(c)
			c.Storage = &halfStore{nullStore{piece: tr.piece(0)}}
			c.OnFront = func(int, int) { time.Sleep(50 * time.Millisecond) }
		})
		h.from(half, seed)
	}
	until(t, "all are connected", func() bool { return half.Stats().Children == hosts })
	time.Sleep(200 * time.Millisecond)
	used := heap() - before
	conns := int64(2*hosts + 2)
	t.Logf("%d nodes and %d connections: %d KiB of heap", hosts+2, conns, used>>10)
	if limit := (hosts + 2 + 2*conns) * (128 << 10); used > limit {
		t.Errorf("%d nodes and %d connections hold %d KiB of heap; want at most %d", hosts+2, conns, used>>10, limit>>10)
	}
}

// halfStore holds every other piece.
type halfStore struct{ nullStore }

func (s *halfStore) Have(i int) bool { return i%2 == 0 }
