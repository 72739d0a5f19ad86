package peer

import (
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"labswarm/swarm/wire"
)

// chain starts a seed and n hosts, each with the one before as parent and the
// rest of the chain up to the seed as fallbacks.
func chain(t *testing.T, tr *torrent, n int, seedMod func(*Config)) (seed *member, hosts []*member) {
	seed = start(t, "seed", tr, newStore(t, tr, nil), func(c *Config) {
		c.Seed = true
		if seedMod != nil {
			seedMod(c)
		}
	})
	up := []*member{seed}
	for i := range n {
		h := start(t, nodeName(i), tr, newStore(t, tr, []int{}), nil)
		h.from(up[0], up[1:]...)
		up = append([]*member{h}, up...)
		hosts = append(hosts, h)
	}
	return seed, hosts
}

// TestUploadLimitChanges: a cap set in the middle of a transfer is kept, and taken
// away again.
func TestUploadLimitChanges(t *testing.T) {
	var n Node
	n.SetUploadLimit(1 << 20)
	if l := n.limiter.Load(); l == nil || l.Limit() != 1<<20 || l.Burst() < wire.MaxBlock {
		t.Fatalf("limiter = %+v; want 1 MiB/s", l)
	}
	same := n.limiter.Load()
	n.SetUploadLimit(1 << 20)
	if n.limiter.Load() != same {
		t.Error("the same cap again made a new limiter: its tokens are gone")
	}
	n.SetUploadLimit(0)
	if l := n.limiter.Load(); l != nil {
		t.Errorf("limiter = %+v; want none", l)
	}
}

func TestChain(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 256, testPiece)
	seed, hosts := chain(t, tr, 4, nil)
	calm := true // this machine has not stood still for seconds: no repair was necessary
	for i, h := range hosts {
		h.wait()
		h.store.check()
		s := h.Stats()
		if s.Switches > 0 {
			calm = false
			t.Logf("host %d switched %d times, last because %s", i, s.Switches, s.SwitchReason)
		}
	}
	for i, h := range hosts {
		s := h.Stats()
		if s.Have != 256 || s.Front != 256 || s.HashFailures != 0 {
			t.Errorf("host %d: %+v; want everything, no failures", i, s)
		}
		if !calm {
			continue
		}
		if got := s.BytesFromServer + s.BytesFromPeers; got != int64(len(tr.data)) {
			t.Errorf("host %d received %d bytes; want exactly %d", i, got, len(tr.data))
		}
		if i > 0 && s.BytesFromServer > int64(len(tr.data))/10 {
			t.Errorf("host %d took %d bytes from the seed; want them from its parent", i, s.BytesFromServer)
		}
		for p, w := range h.store.writes {
			if w != 1 {
				t.Errorf("host %d wrote piece %d %d times; want once", i, p, w)
			}
		}
		if !slices.IsSorted(h.store.order) {
			t.Errorf("host %d wrote out of order: %v", i, h.store.order)
		}
	}
	if sent := seed.Stats().BytesUploaded; float64(sent) > 1.3*float64(len(tr.data)) {
		t.Errorf("seed sent %d bytes for an image of %d; want at most 1.3 copies", sent, len(tr.data))
	}
}

func TestParentKilled(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 300, testPiece)
	// The cap makes sure that the death comes in the middle.
	_, hosts := chain(t, tr, 3, func(c *Config) { c.Limiter = rate.NewLimiter(8<<20, wire.MaxBlock) })
	until(t, "the middle host is at a quarter", func() bool { return hosts[1].Stats().Have > 75 })
	hosts[1].kill()
	if got := hosts[1].Stats().Have; got >= 300 {
		t.Fatalf("the parent was killed too late, at %d pieces", got)
	}
	hosts[2].wait()
	hosts[2].store.check()
	s := hosts[2].Stats()
	if s.Switches < 1 || !slices.Contains(s.Rejected, hosts[1].name) {
		t.Errorf("switches %d, rejected %v; want a switch away from %s", s.Switches, s.Rejected, hosts[1].name)
	}
	if s.BySource[hosts[0].name] == 0 {
		t.Errorf("nothing came from the grandparent: %v", s.BySource)
	}
}

// TestGoesBack: a parent that was away for a moment is taken again, so that the
// seed does not have to send the rest.
func TestGoesBack(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 300, testPiece)
	seed := start(t, "seed", tr, newStore(t, tr, nil), func(c *Config) {
		c.Seed, c.Limiter = true, rate.NewLimiter(2<<20, wire.MaxBlock)
	})
	slowly := rate.NewLimiter(8<<20, wire.MaxBlock)
	parent := start(t, "parent", tr, newStore(t, tr, nil), func(c *Config) { c.Limiter = slowly })
	h := start(t, "h", tr, newStore(t, tr, []int{}), nil)
	h.from(parent, seed)
	until(t, "some pieces have come", func() bool { return h.Stats().Have > 20 })
	parent.kill()
	until(t, "the host has gone to the seed", func() bool { return h.Stats().Parent == "seed" })
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", parent.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	start(t, "again", tr, newStore(t, tr, nil), func(c *Config) {
		if err := c.Listener.Close(); err != nil {
			t.Error(err)
		}
		c.Listener, c.Limiter = l, slowly
	})
	until(t, "the host is back at its parent", func() bool { return h.Stats().Parent == "parent" })
	if got := h.Stats().Rejected; got != nil {
		t.Errorf("still rejected: %v", got)
	}
	h.wait()
	h.store.check()
}

// TestAllSourcesGone: a host that lost everybody waits and goes on when they
// are back at the same address.
func TestAllSourcesGone(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 64, testPiece)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	h := start(t, "h", tr, newStore(t, tr, []int{}), nil)
	h.SetSources(Assignment{Parent: Peer{Addr: addr, ID: "seed", Server: true}})
	until(t, "the host has tried in vain", func() bool { return len(h.Stats().Rejected) == 1 })
	if l, err = net.Listen("tcp", addr.String()); err != nil {
		t.Fatal(err)
	}
	start(t, "seed", tr, newStore(t, tr, nil), func(c *Config) { c.Seed, c.Listener = true, l })
	h.wait()
	h.store.check()
}

// liar is a store whose pieces are wrong, under a node that does not look.
func liar(t *testing.T, tr *torrent, wrong func(i int) bool) *member {
	bad := &torrent{data: slices.Clone(tr.data), pieceLen: tr.pieceLen, infoHash: tr.infoHash}
	for i := range tr.hashes {
		if wrong(i) {
			bad.piece(i)[100] ^= 0x40
		}
	}
	for i := range tr.hashes {
		bad.hashes = append(bad.hashes, sha1Of(bad.piece(i)))
	}
	m := start(t, "liar", bad, newStore(t, bad, nil), asSeed)
	m.cfg.Seed = false // for ref: not the server
	return m
}

func TestCorruptParent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		wrong func(int) bool
	}{
		{"every piece", func(int) bool { return true }},
		{"one in ten", func(i int) bool { return i%10 == 3 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tr := newTorrent(t, 100, testPiece)
			seed := start(t, "seed", tr, newStore(t, tr, nil), asSeed)
			bad := liar(t, tr, c.wrong)
			accused := make(chan Peer, 1000)
			h := start(t, "h", tr, newStore(t, tr, []int{}), func(c *Config) {
				c.OnAccuse = func(_ int, p Peer) { accused <- p }
			})
			h.SetSources(Assignment{Parent: bad.ref(), Fallbacks: []Peer{seed.ref()}})
			h.wait()
			h.store.check()
			s := h.Stats()
			if s.HashFailures == 0 || len(accused) != s.HashFailures {
				t.Errorf("%d hash failures, %d accusations; want the same number, not 0", s.HashFailures, len(accused))
			}
			for len(accused) > 0 {
				if p := <-accused; p.ID != "liar" {
					t.Errorf("accused %s; want liar", p.ID)
				}
			}
			if total := s.BytesFromServer + s.BytesFromPeers; total > 2*int64(len(tr.data)) {
				t.Errorf("fetched %d bytes for %d; want at most twice", total, len(tr.data))
			}
		})
	}
}

// TestCorruptServer: wrong bytes even from the server mean that this host is
// broken; it stops instead of fetching for ever.
func TestCorruptServer(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 20, testPiece)
	bad := liar(t, tr, func(i int) bool { return i == 5 })
	h := start(t, "h", tr, newStore(t, tr, []int{}), nil)
	h.SetSources(Assignment{Parent: Peer{Addr: bad.addr, ID: "server", Server: true}})
	select {
	case <-h.ended:
	case <-time.After(deadline):
		t.Fatal("the node did not stop")
	}
	var ce *CorruptError
	if !errors.As(h.err, &ce) || ce.Piece != 5 {
		t.Errorf("Run = %v; want a CorruptError for piece 5", h.err)
	}
	if h.store.bad > 0 {
		t.Errorf("%d wrong pieces reached the storage", h.store.bad)
	}
}

func TestWriteError(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 100, testPiece)
	seed, hosts := chain(t, tr, 1, nil)
	child := start(t, "child", tr, newStore(t, tr, []int{}), nil)
	st := newStore(t, tr, []int{})
	st.writeErr = func(i int) error {
		if i == 20 {
			return errDisk
		}
		return nil
	}
	h := start(t, "sick", tr, st, nil)
	child.from(h, hosts[0], seed)
	h.from(hosts[0], seed)
	select {
	case <-h.ended:
	case <-time.After(deadline):
		t.Fatal("the node did not stop after a write error")
	}
	var se *StorageError
	if !errors.As(h.err, &se) || se.Piece != 20 || se.Op != "write" || !errors.Is(h.err, errDisk) {
		t.Errorf("Run = %v; want a StorageError of piece 20 with the disk's error", h.err)
	}
	if !errors.Is(h.WriteErr(), errDisk) {
		t.Errorf("WriteErr = %v; want the disk's error", h.WriteErr())
	}
	if got := st.writes[20]; got != 2 {
		t.Errorf("piece 20 was written %d times; want twice, then stop", got)
	}
	if s := h.Stats(); s.BytesFromServer+s.BytesFromPeers > int64(len(tr.data)) {
		t.Errorf("fetched %d bytes of an image of %d", s.BytesFromServer+s.BytesFromPeers, len(tr.data))
	}
	child.wait() // its parent is gone, the rest of the chain serves it
	child.store.check()
}

// TestWriteErrorOnce: one failure is repeated and then forgotten.
func TestWriteErrorOnce(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 30, testPiece)
	seed, _ := chain(t, tr, 0, nil)
	st := newStore(t, tr, []int{})
	failed := false
	st.writeErr = func(i int) error {
		if i == 7 && !failed {
			failed = true
			return errDisk
		}
		return nil
	}
	h := start(t, "h", tr, st, nil)
	h.from(seed)
	h.wait()
	st.check()
}

func TestResume(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 120, testPiece)
	var held []int
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 120 {
		if i < 30 || r.IntN(2) == 0 {
			held = append(held, i)
		}
	}
	seed, hosts := chain(t, tr, 1, nil)
	h := start(t, "resumed", tr, newStore(t, tr, held), nil)
	h.from(hosts[0], seed)
	h.wait()
	h.store.check()
	if got, want := h.Stats().BytesFromServer+h.Stats().BytesFromPeers, int64((120-len(held))*testPiece); got != want {
		t.Errorf("fetched %d bytes; want %d, only what was missing", got, want)
	}
	for _, i := range held {
		if h.store.writes[i] > 0 {
			t.Errorf("piece %d was there and was written again", i)
		}
	}
}

// TestLateJoiner hangs a host behind one that is done and lets the server go.
func TestLateJoiner(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 80, testPiece)
	seed, hosts := chain(t, tr, 2, nil)
	hosts[1].wait()
	seed.kill()
	late := start(t, "late", tr, newStore(t, tr, []int{}), nil)
	late.from(hosts[1], hosts[0], seed)
	late.wait()
	late.store.check()
	if got := late.Stats().BySource[hosts[1].name]; got != int64(len(tr.data)) {
		t.Errorf("%d bytes from its parent; want all %d", got, len(tr.data))
	}
}

func TestReassign(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 300, testPiece)
	slow := func(c *Config) { c.Seed, c.Limiter = true, rate.NewLimiter(6<<20, wire.MaxBlock) }
	a := start(t, "a", tr, newStore(t, tr, nil), slow)
	b := start(t, "b", tr, newStore(t, tr, nil), asSeed)
	h := start(t, "h", tr, newStore(t, tr, []int{}), nil)
	h.from(a)
	until(t, "some pieces came from the first parent", func() bool { return h.Stats().Have > 10 })
	h.from(b, a)
	h.wait()
	h.store.check()
	s := h.Stats()
	if s.BySource["a"] == 0 || s.BySource["b"] == 0 || s.Switches != 0 {
		t.Errorf("by source %v, switches %d; want bytes of both and no switch of its own", s.BySource, s.Switches)
	}
	if got := s.BySource["a"] + s.BySource["b"]; got != int64(len(tr.data)) {
		t.Errorf("received %d bytes; want exactly %d: what was on its way is finished", got, len(tr.data))
	}
}

func TestDrop(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 40, testPiece)
	seed, hosts := chain(t, tr, 1, nil)
	h := hosts[0]
	h.wait()
	h.Drop(11)
	h.Drop(-1)
	h.Drop(40)
	select {
	case <-h.Done():
		if h.Stats().Have != 40 {
			t.Fatal("Done is closed although a piece was dropped")
		}
	default:
	}
	h.wait()
	h.store.check()
	if got := h.store.writes[11]; got != 2 {
		t.Errorf("piece 11 written %d times; want 2", got)
	}
	seed.Drop(3)
	if got := seed.Stats().Have; got != 40 {
		t.Errorf("seed holds %d after Drop; want 40", got)
	}
}

// TestRestore: a piece that a seed could not read is refused; when it is right again a host that was refused it, and
// is still connected, gets it.
func TestRestore(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 60, testPiece)
	st := newStore(t, tr, nil)
	st.readBad[33] = true
	seed := start(t, "seed", tr, st, asSeed)
	h := start(t, "h", tr, newStore(t, tr, []int{}), nil)
	h.from(seed)
	until(t, "all but the damaged piece have come", func() bool { return h.Stats().Have == 59 && seed.Stats().ReadFailures == 1 })
	st.mu.Lock()
	delete(st.readBad, 33)
	st.mu.Unlock()
	seed.Restore(33)
	seed.Restore(33)
	seed.Restore(7)
	h.wait()
	h.store.check()
	if s := h.Stats(); s.HashFailures != 0 || s.Switches != 0 {
		t.Errorf("%+v; want no wrong piece and no other source", s)
	}
}

// TestUnreadablePiece: what a host's disk gives back wrong never leaves it; the
// child gets it elsewhere.
func TestUnreadablePiece(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 60, testPiece)
	seed := start(t, "seed", tr, newStore(t, tr, nil), asSeed)
	st := newStore(t, tr, nil)
	st.readBad[33] = true
	sick := start(t, "sick", tr, st, nil)
	h := start(t, "h", tr, newStore(t, tr, []int{}), nil)
	h.from(sick, seed)
	h.wait()
	h.store.check()
	if s := h.Stats(); s.HashFailures != 0 {
		t.Errorf("%d wrong pieces were sent; want 0", s.HashFailures)
	}
	if s := sick.Stats(); s.ReadFailures != 1 {
		t.Errorf("read failures %d; want 1", s.ReadFailures)
	}
}
