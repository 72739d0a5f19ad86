package tracker_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"labswarm/api"
	"labswarm/swarm/peer"
	"labswarm/swarm/wire"
	"labswarm/tracker"
	"labswarm/tracker/registry"
)

// This test joins tracker and data plane as the server's daemon and the agents
// do: real nodes on loopback, assignments through Subscribe, reports through
// Update; hosts die, come back and join late.

const (
	livePieces   = 400
	livePieceLen = 32 << 10
)

// ram keeps pieces in memory.
type ram struct {
	mu   sync.Mutex
	data []byte
	have [livePieces]bool

	check func(i int, b []byte) // of what is written; may be nil
}

func (m *ram) at(i int) []byte { return m.data[i*livePieceLen : (i+1)*livePieceLen] }

func (m *ram) Have(i int) bool { m.mu.Lock(); defer m.mu.Unlock(); return m.have[i] }

func (m *ram) ReadPiece(i int, buf []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(buf, m.at(i))
	return nil
}

func (m *ram) WritePiece(i int, buf []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.at(i), buf)
	m.have[i] = true
	if m.check != nil {
		m.check(i, buf)
	}
	return nil
}

// lab is the swarm under test.
type lab struct {
	t      *testing.T
	tr     *tracker.Tracker
	ih     [20]byte
	hashes [livePieces][20]byte
}

// pc is one host; its disk outlives its process.
type pc struct {
	l     *lab
	id    string
	disk  *ram
	node  *peer.Node
	stop  context.CancelFunc
	ended sync.WaitGroup

	mu      sync.Mutex
	accused []string      // since the last report
	kick    chan struct{} // report now
	short   int           // pieces fewer than it has, in its reports
}

// boot starts the host's agent: node, subscription and reports.
func (p *pc) boot() {
	l := p.l
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	cfg := l.config(p.disk, ln)
	copy(cfg.PeerID[:], fmt.Sprintf("-LS0001-%012s", p.id))
	cfg.OnAccuse = func(_ int, from peer.Peer) {
		p.mu.Lock()
		p.accused = append(p.accused, from.ID)
		p.mu.Unlock()
		select {
		case p.kick <- struct{}{}:
		default:
		}
	}
	if p.node, err = peer.New(cfg); err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	p.ended.Go(func() {
		if err := p.node.Run(ctx); err != nil {
			l.t.Errorf("%s: %v", p.id, err)
		}
	})
	ch, unsubscribe := l.tr.Subscribe(l.ih, p.id)
	p.ended.Go(func() {
		for a := range ch {
			p.node.SetSources(sources(l.t, a))
		}
	})
	p.ended.Go(func() {
		defer unsubscribe()
		p.reports(ctx, addr)
	})
}

// reports tells the tracker how far the host is until ctx ends.
func (p *pc) reports(ctx context.Context, addr netip.AddrPort) {
	for ctx.Err() == nil {
		s := p.node.Stats()
		p.mu.Lock()
		accused := p.accused
		p.accused = nil
		p.mu.Unlock()
		if err := p.l.tr.Update(p.l.ih, tracker.HostReport{
			HostID: p.id, Addr: addr, Room: "live", Have: s.Have - p.short, Front: s.Front - p.short, Done: s.Have-p.short == s.Pieces,
			RateBps: s.RateBps, Parent: s.Parent, ParentSlow: len(s.Rejected) > 0, Accused: accused,
		}); err != nil {
			p.l.t.Errorf("report of %s: %v", p.id, err)
		}
		select {
		case <-ctx.Done():
		case <-p.kick:
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// crash ends the agent without a word to the tracker.
func (p *pc) crash() {
	p.stop()
	p.ended.Wait()
}

func sources(t *testing.T, a api.Assignment) peer.Assignment {
	ref := func(r api.PeerRef) peer.Peer {
		addr, err := netip.ParseAddrPort(r.Addr)
		if err != nil {
			t.Errorf("assignment names %q: %v", r.Addr, err)
		}
		return peer.Peer{Addr: addr, ID: r.HostID, Server: r.Server}
	}
	out := peer.Assignment{Parent: ref(a.Parent)}
	for _, f := range a.Fallbacks {
		out.Fallbacks = append(out.Fallbacks, ref(f))
	}
	return out
}

func (l *lab) config(disk *ram, ln net.Listener) peer.Config {
	return peer.Config{InfoHash: l.ih, Pieces: livePieces, PieceLen: livePieceLen, Storage: disk, Listener: ln,
		Hash: func(i int) [20]byte { return l.hashes[i] }}
}

func (l *lab) pc(i int) *pc {
	return &pc{l: l, id: fmt.Sprintf("h%02d", i), disk: &ram{data: make([]byte, livePieces*livePieceLen)}, kick: make(chan struct{}, 1)}
}

// have is the number of pieces on the host's disk.
func (p *pc) have() int {
	n := 0
	for i := range livePieces {
		if p.disk.Have(i) {
			n++
		}
	}
	return n
}

func (l *lab) until(what string, cond func() bool) {
	l.t.Helper()
	for end := time.Now().Add(90 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("timed out waiting until %s", what)
		}
	}
}

// startLab runs a tracker and a seed that sends bps bytes a second, until the test
// ends; src is the content.
func startLab(t *testing.T, bps int) (l *lab, src *ram, seed *peer.Node) {
	t.Helper()
	l = &lab{t: t, ih: [20]byte{7}}
	src = &ram{data: make([]byte, livePieces*livePieceLen)}
	r := rand.New(rand.NewPCG(3, 4))
	for i := range livePieces {
		for j := range 64 {
			src.at(i)[j*100] = byte(r.Uint32())
		}
		l.hashes[i] = sha1.Sum(src.at(i))
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := l.config(src, ln)
	cfg.Seed, cfg.PeerID = true, [20]byte{1}
	cfg.Limiter = rate.NewLimiter(rate.Limit(bps), wire.MaxBlock)
	if seed, err = peer.New(cfg); err != nil {
		t.Fatal(err)
	}
	l.tr = tracker.New(nil)
	if err := l.tr.AddSwarm(tracker.SwarmSpec{InfoHash: l.ih, Name: "live", Pieces: livePieces,
		Seeds: []registry.Seed{{Addr: ln.Addr().(*net.TCPAddr).AddrPort()}}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for _, run := range []func(context.Context) error{seed.Run, l.tr.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	return l, src, seed
}

func TestRoomWithDeathsAndLateJoiners(t *testing.T) {
	l, src, seed := startLab(t, 6<<20) // about 2 s a copy, so that deaths come in the middle
	var pcs []*pc
	for i := range 8 {
		pcs = append(pcs, l.pc(i))
	}
	for _, p := range pcs[:6] {
		p.boot()
		defer p.crash()
	}
	l.until("the fourth host is at a quarter", func() bool { return pcs[3].have() > livePieces/4 })
	pcs[0].crash() // the head of the chain
	pcs[3].crash() // and one in the middle
	for _, p := range pcs[6:] {
		p.boot() // late
		defer p.crash()
	}
	l.until("the last host is at a half", func() bool { return pcs[5].have() > livePieces/2 })
	kept := pcs[3].have()
	pcs[3].boot() // resumes what its disk holds
	defer pcs[3].crash()
	alive := append([]*pc{pcs[3]}, append(pcs[1:3:3], pcs[4:]...)...)
	l.until("everybody is done", func() bool {
		for _, p := range alive {
			if p.have() < livePieces {
				return false
			}
		}
		return true
	})
	for _, p := range alive {
		p.crash()
		if !bytes.Equal(p.disk.data, src.data) {
			t.Errorf("disk of %s differs from the source", p.id)
		}
	}
	s := pcs[3].node.Stats()
	if got, most := s.BytesFromPeers+s.BytesFromServer, int64(livePieces-kept+4)*livePieceLen; got > most {
		t.Errorf("the resumed host fetched %d bytes; want at most %d, what it lacked", got, most)
	}
	copies := float64(seed.Stats().BytesUploaded) / float64(len(src.data))
	t.Logf("seed sent %.2f copies to %d hosts, two deaths and two late joiners included", copies, len(pcs))
	if copies > 2.5 {
		t.Errorf("seed sent %.2f copies; want the chain to carry the rest", copies)
	}
}
