package seeder

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"labswarm/swarm/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ram is an image version in RAM.
type ram struct {
	ih     [20]byte
	data   [][]byte
	closed atomic.Int32
}

const pieceLen = 256 << 10

func newRAM(t *testing.T, name string, pieces int) *ram {
	t.Helper()
	r := &ram{ih: sha1.Sum([]byte(name))}
	for range pieces {
		b := make([]byte, pieceLen)
		if _, err := rand.Read(b); err != nil {
			t.Fatal(err)
		}
		r.data = append(r.data, b)
	}
	return r
}

func (r *ram) InfoHash() [20]byte  { return r.ih }
func (r *ram) Pieces() int         { return len(r.data) }
func (r *ram) PieceLen() int64     { return pieceLen }
func (r *ram) Hash(i int) [20]byte { return sha1.Sum(r.data[i]) }
func (r *ram) Close() error        { r.closed.Add(1); return nil }
func (r *ram) ReadPiece(i int, buf []byte) error {
	if i >= len(r.data) {
		return errors.New("no such piece")
	}
	copy(buf, r.data[i])
	return nil
}

// sink is a host's disk.
type sink struct {
	mu  sync.Mutex
	got map[int][]byte
}

func (s *sink) Have(int) bool               { return false }
func (s *sink) ReadPiece(int, []byte) error { return errors.New("not here") }
func (s *sink) WritePiece(i int, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got[i] = bytes.Clone(b)
	return nil
}

// serve runs a seeder and returns its address.
func serve(t *testing.T, cfg Config) (*Seeder, netip.AddrPort) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listener, cfg.PeerID = l, [20]byte{1}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return s, netip.MustParseAddrPort(l.Addr().String())
}

// fetch runs a host until it has everything, or until d has passed.
func fetch(t *testing.T, r *ram, from netip.AddrPort, d time.Duration) (*sink, bool) {
	t.Helper()
	st := &sink{got: map[int][]byte{}}
	n, err := peer.New(peer.Config{InfoHash: r.ih, PeerID: [20]byte{2}, Pieces: r.Pieces(), PieceLen: pieceLen, Hash: r.Hash, Storage: st})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan error, 1)
	go func() { end <- n.Run(ctx) }()
	n.SetSources(peer.Assignment{Parent: peer.Peer{Addr: from, ID: "server", Server: true}})
	complete := false
	select {
	case <-n.Done():
		complete = true
	case <-time.After(d):
	}
	cancel()
	if err := <-end; err != nil {
		t.Fatal(err)
	}
	return st, complete
}

// sent counts image bytes, as wanted for plain pieces.
func sent(s *Seeder, ih [20]byte) int64 {
	n, _ := s.Sent(ih)
	return n
}

func TestHostsGetWhatTheyMayAndBytesAreCounted(t *testing.T) {
	var allowed atomic.Bool
	s, addr := serve(t, Config{AllowPeer: func(netip.Addr) bool { return allowed.Load() }})
	a, b := newRAM(t, "a", 6), newRAM(t, "b", 3)
	for _, r := range []*ram{a, b} {
		if err := s.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if st, _ := fetch(t, a, addr, 300*time.Millisecond); len(st.got) != 0 {
		t.Fatalf("an address that is not allowed got %d pieces", len(st.got))
	}
	if n := sent(s, a.ih); n != 0 {
		t.Errorf("Sent = %d before anything was sent", n)
	}
	allowed.Store(true)
	for _, r := range []*ram{a, b} {
		st, ok := fetch(t, r, addr, 20*time.Second)
		if !ok {
			t.Fatal("the image did not arrive")
		}
		for i, want := range r.data {
			if !bytes.Equal(st.got[i], want) {
				t.Errorf("piece %d is wrong", i)
			}
		}
		// The last block counts once the call that sent it has returned.
		for end := time.Now().Add(20 * time.Second); sent(s, r.ih) < int64(len(r.data))*pieceLen && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if n := sent(s, r.ih); n != int64(len(r.data))*pieceLen {
			t.Errorf("Sent = %d; want %d", n, len(r.data)*pieceLen)
		}
	}
	s.Remove(a.ih)
	if s.Has(a.ih) || !s.Has(b.ih) || sent(s, a.ih) != 0 {
		t.Error("Remove did not remove, or removed too much")
	}
	if _, ok := fetch(t, a, addr, 300*time.Millisecond); ok {
		t.Error("a removed image is still served")
	}
	if err := s.Add(a); err != nil { // again, as the next job does
		t.Error(err)
	}
}

func TestSourcesAreClosedOnce(t *testing.T) {
	r, twin := newRAM(t, "a", 1), newRAM(t, "a", 1)
	t.Run("", func(t *testing.T) {
		s, _ := serve(t, Config{AllowPeer: func(netip.Addr) bool { return true }})
		for _, src := range []*ram{r, twin} {
			if err := s.Add(src); err != nil {
				t.Fatal(err)
			}
		}
		if twin.closed.Load() != 1 {
			t.Error("the second source of one image was not closed at once")
		}
	})
	if n := r.closed.Load(); n != 1 {
		t.Errorf("closed %d times; want once", n)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("New took an empty configuration")
	}
}
