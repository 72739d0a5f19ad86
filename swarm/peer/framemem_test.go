package peer

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func newCache(t *testing.T, limit int64) *frameCache {
	t.Helper()
	c, err := newFrameCache(limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// keep puts a frame of n bytes that says which piece it is of; false: no room.
func keep(c *frameCache, piece, n int, fronts ...int) bool {
	f := c.alloc(piece, n, fronts)
	if f == nil {
		return false
	}
	for i := range f.b {
		f.b[i] = byte(piece)
	}
	c.put(f)
	c.release(f)
	return true
}

// holds reports whether the frame of a piece is there, and whether it is right.
func holds(t *testing.T, c *frameCache, piece int) bool {
	t.Helper()
	f := c.get(piece)
	if f == nil {
		return false
	}
	defer c.release(f)
	if !bytes.Equal(f.b, bytes.Repeat([]byte{byte(piece)}, len(f.b))) {
		t.Errorf("the bytes of frame %d are wrong", piece)
	}
	return true
}

// TestFrameCacheBytes: the cache stays within its bytes, whatever goes in and out
// and however long it is used, and never mixes frames up.
func TestFrameCacheBytes(t *testing.T) {
	const limit = 100 * frameGrain
	c := newCache(t, limit)
	r := rand.New(rand.NewPCG(5, 6))
	var held []*cachedFrame
	for i := range 20_000 {
		keep(c, r.IntN(60), 1+r.IntN(12*frameGrain))
		switch f := c.get(r.IntN(60)); {
		case f == nil:
		case len(held) < 5:
			held = append(held, f)
		default:
			c.release(f)
		}
		if i%7 == 0 {
			c.drop(r.IntN(60))
		}
		if i%11 == 0 && len(held) > 0 {
			f := held[0]
			held = held[1:]
			if !bytes.Equal(f.b, bytes.Repeat([]byte{byte(f.piece)}, len(f.b))) {
				t.Fatalf("frame %d changed while it was in use", f.piece)
			}
			c.release(f)
		}
		if _, n := c.figures(); n > limit {
			t.Fatalf("%d bytes; want at most %d", n, limit)
		}
	}
	for _, f := range held {
		c.release(f)
	}
	for i := range 60 {
		holds(t, c, i)
		c.drop(i)
	}
	if len(c.free) != 1 || c.free[0] != (span{0, limit}) {
		t.Errorf("everything is released and %v is free; want one span", c.free)
	}
	if keep(c, 1, limit+1) || !keep(c, 1, limit) {
		t.Error("a frame as big as the cache does not fit, or a bigger one does")
	}
}

// TestFrameCacheUse: what the slowest child needs next stays, what all have
// passed goes first, and a frame in use never goes.
func TestFrameCacheUse(t *testing.T) {
	c := newCache(t, 4*frameGrain)
	has := func(piece int) bool { return c.at[piece] != nil } // holds is a use
	for i := range 4 {
		keep(c, i, frameGrain, 0)
	}
	if keep(c, 4, frameGrain, 0) || !has(0) {
		t.Error("a frame that a lagging child needs next made room for one it needs later")
	}
	if !keep(c, 4, frameGrain, 2) || has(0) || !has(1) {
		t.Error("the frame that the child passed first did not go first")
	}
	// Two children: one far behind, one at 9. What is farthest from both goes.
	if !keep(c, 9, frameGrain, 2, 9) || has(1) {
		t.Error("a passed frame stayed")
	}
	if !keep(c, 10, frameGrain, 2, 9) || has(4) || !has(2) || !has(9) {
		t.Error("the frame between the two children stayed")
	}
	var users []*cachedFrame
	for _, i := range []int{2, 3, 9, 10} {
		users = append(users, c.get(i))
	}
	if keep(c, 11, frameGrain, 11) {
		t.Error("a frame in use was given away")
	}
	for _, f := range users {
		c.release(f)
	}
	if !keep(c, 11, frameGrain, 11) {
		t.Error("no room though every other frame was passed")
	}
}

// lag runs a parent and a child of speed s (parent = 1) over n pieces, whose
// frames take 1 each in a cache of size frames, and returns the part of the
// child's pieces for which the parent had a frame. aware false leaves the child
// out of the choice: least recently used goes first.
func lag(t *testing.T, n, size int, speed float64, aware bool) float64 {
	c := newCache(t, int64(size)*frameGrain)
	hits, front := 0, 0
	ask := func() {
		if holds(t, c, front) {
			hits++
		}
		front++
	}
	for i := range n {
		if aware {
			keep(c, i, frameGrain, front)
		} else {
			keep(c, i, frameGrain)
		}
		for float64(front) < speed*float64(i+1)-1 {
			ask()
		}
	}
	for front < n {
		ask()
	}
	return float64(hits) / float64(n)
}

// TestLaggingChild measures what the choice is worth: the part of the cells that a
// lagging child gets compressed. More than the room divided by the lag is not to
// be had, and the lag of a slower child grows to the end.
func TestLaggingChild(t *testing.T) {
	for _, speed := range []float64{0.98, 0.9, 0.7, 0.5, 0.25} {
		const n, size = 1000, 60
		lru, aware := lag(t, n, size, speed, false), lag(t, n, size, speed, true)
		t.Logf("child at %.2f of its parent's speed, %d cells, room for %d frames: %.0f %% compressed by age, %.0f %% by need", speed, n, size, 100*lru, 100*aware)
		if aware < lru || lru < 0.9 && aware < 1.8*lru {
			t.Errorf("a child at %.2f gets %.2f of the cells compressed, by age it would be %.2f; want twice as much", speed, aware, lru)
		}
	}
}
