package peer

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain lets many tests run side by side, whatever the number of cores: most
// of them wait for timers.
func TestMain(m *testing.M) {
	if from := os.Getenv(hostEnv); from != "" { // TestHostMemory
		if err := hostAlone(from); err != nil {
			panic(err)
		}
		return
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

const testPiece = 64 << 10 // bytes

// deadline is how long a test waits for something that must happen. It is no
// measurement: only a hang reaches it.
const deadline = 60 * time.Second

// torrent is content with its hashes.
type torrent struct {
	data     []byte
	pieceLen int
	hashes   [][20]byte
	infoHash [20]byte
}

func newTorrent(t testing.TB, pieces, pieceLen int) *torrent {
	t.Helper()
	tr := &torrent{data: make([]byte, pieces*pieceLen), pieceLen: pieceLen}
	for i := range pieces {
		p := tr.piece(i)
		if _, err := rand.Read(p[:min(len(p), 4096)]); err != nil {
			t.Fatal(err)
		}
		tr.hashes = append(tr.hashes, sha1.Sum(p))
	}
	if _, err := rand.Read(tr.infoHash[:]); err != nil {
		t.Fatal(err)
	}
	return tr
}

func (tr *torrent) piece(i int) []byte { return tr.data[i*tr.pieceLen : (i+1)*tr.pieceLen] }

// fileStore keeps pieces in a file, and counts and checks what is written.
type fileStore struct {
	t  testing.TB
	tr *torrent
	f  *os.File

	mu       sync.Mutex
	have     map[int]bool
	writes   map[int]int // attempts per piece
	order    []int
	bad      int             // pieces handed over whose content is wrong
	writeErr func(int) error // injected
	readBad  map[int]bool    // pieces the file gives back wrong
}

// newStore returns a store that holds the given pieces, all of them for nil.
func newStore(t testing.TB, tr *torrent, held []int) *fileStore {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := f.Truncate(int64(len(tr.data))); err != nil {
		t.Fatal(err)
	}
	s := &fileStore{t: t, tr: tr, f: f, have: map[int]bool{}, writes: map[int]int{}, readBad: map[int]bool{}}
	if held == nil {
		for i := range tr.hashes {
			held = append(held, i)
		}
	}
	for _, i := range held {
		if _, err := f.WriteAt(tr.piece(i), int64(i*tr.pieceLen)); err != nil {
			t.Fatal(err)
		}
		s.have[i] = true
	}
	return s
}

func (s *fileStore) Have(i int) bool { s.mu.Lock(); defer s.mu.Unlock(); return s.have[i] }

func (s *fileStore) ReadPiece(i int, buf []byte) error {
	if _, err := s.f.ReadAt(buf, int64(i*s.tr.pieceLen)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readBad[i] {
		buf[7] ^= 1
	}
	return nil
}

func (s *fileStore) WritePiece(i int, buf []byte) error {
	s.mu.Lock()
	s.writes[i]++
	s.order = append(s.order, i)
	if !bytes.Equal(buf, s.tr.piece(i)) {
		s.bad++
	}
	fault := s.writeErr
	s.mu.Unlock()
	if fault != nil {
		if err := fault(i); err != nil {
			return err
		}
	}
	_, err := s.f.WriteAt(buf, int64(i*s.tr.pieceLen))
	return err
}

// check compares the file with the content, and that nothing wrong came by.
func (s *fileStore) check() {
	s.t.Helper()
	got := make([]byte, len(s.tr.data))
	if _, err := s.f.ReadAt(got, 0); err != nil {
		s.t.Fatal(err)
	}
	for i := range s.tr.hashes {
		if !bytes.Equal(got[i*s.tr.pieceLen:(i+1)*s.tr.pieceLen], s.tr.piece(i)) {
			s.t.Errorf("piece %d on the disk differs from the source", i)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bad > 0 {
		s.t.Errorf("%d pieces with wrong bytes reached the storage; want 0", s.bad)
	}
}

// member is a running node.
type member struct {
	*Node
	t     testing.TB
	name  string
	store *fileStore
	addr  netip.AddrPort
	stop  context.CancelFunc
	ended chan struct{}
	err   error
}

// start runs a node on 127.0.0.1 until the test ends. mod may change its Config.
func start(t testing.TB, name string, tr *torrent, st *fileStore, mod func(*Config)) *member {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		InfoHash: tr.infoHash, Pieces: len(tr.hashes), PieceLen: int64(tr.pieceLen),
		Hash: func(i int) [20]byte { return tr.hashes[i] }, Storage: st, Listener: l,
	}
	copy(cfg.PeerID[:], "-LS0001-"+name+"............")
	if testing.Verbose() && os.Getenv("SWARM_LOG") != "" {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)
	}
	if mod != nil {
		mod(&cfg)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{Node: n, t: t, name: name, store: st, stop: cancel, ended: make(chan struct{}),
		addr: l.Addr().(*net.TCPAddr).AddrPort()}
	go func() {
		defer close(m.ended)
		m.err = n.Run(ctx)
	}()
	t.Cleanup(m.kill)
	return m
}

// kill ends the node and waits until everything of it is closed.
func (m *member) kill() {
	m.stop()
	select {
	case <-m.ended:
	case <-time.After(deadline):
		m.t.Errorf("node %s did not end", m.name)
	}
}

// ref is the member as a source for others.
func (m *member) ref() Peer { return Peer{Addr: m.addr, ID: m.name, Server: m.cfg.Seed} }

// from assigns sources.
func (m *member) from(parent *member, fallbacks ...*member) {
	a := Assignment{Parent: parent.ref()}
	for _, f := range fallbacks {
		a.Fallbacks = append(a.Fallbacks, f.ref())
	}
	m.SetSources(a)
}

// wait waits until the node holds everything.
func (m *member) wait() {
	m.t.Helper()
	select {
	case <-m.Done():
	case <-m.ended:
		m.t.Fatalf("node %s ended early: %v", m.name, m.err)
	case <-time.After(deadline):
		m.t.Fatalf("node %s is not done: %+v", m.name, m.Stats())
	}
}

// until waits for a condition.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

func asSeed(c *Config) { c.Seed = true }

var errDisk = errors.New("input/output error on the test disk")

func nodeName(i int) string { return fmt.Sprintf("h%02d", i) }

func sha1Of(b []byte) [20]byte { return sha1.Sum(b) }
