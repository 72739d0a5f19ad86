package peer

import (
	"bytes"
	"net"
	"slices"
	"testing"
	"time"

	pp "github.com/anacrolix/torrent/peer_protocol"
	"golang.org/x/time/rate"

	"labswarm/swarm/wire"
)

// Short names for what scripted peers say.
type bytesBuffer = bytes.Buffer

const (
	interested = pp.Interested
	unchoke    = pp.Unchoke
	request    = pp.Request
	piece      = pp.Piece
)

// plainPeer is a scripted peer on one connection.
type plainPeer struct {
	t  *testing.T
	nc net.Conn
	r  *wire.Reader
}

// hello shakes hands; extended is the BEP 10 payload, "" for a client without.
func (p *plainPeer) hello(infoHash [20]byte, extended string) {
	p.t.Helper()
	if err := p.nc.SetDeadline(time.Now().Add(deadline)); err != nil {
		p.t.Fatal(err)
	}
	h := wire.NewHandshake(infoHash, [20]byte{'x'})
	if extended == "" {
		h.Bits = pp.NewPeerExtensionBytes()
	}
	b := h.Append(nil)
	if extended != "" {
		var e bytes.Buffer
		wire.PutExtended(&e, 0, []byte(extended))
		b = append(b, e.Bytes()...)
	}
	if _, err := p.nc.Write(b); err != nil {
		p.t.Fatal(err)
	}
	if _, err := wire.ReadHandshake(p.nc); err != nil {
		p.t.Fatal(err)
	}
}

// say sends messages; false: the other side has hung up.
func (p *plainPeer) say(f func(*bytesBuffer)) bool {
	var b bytes.Buffer
	f(&b)
	_, err := p.nc.Write(b.Bytes())
	return err == nil
}

// next returns the next message, ok = false when the connection has ended.
func (p *plainPeer) next(pieces int) (wire.Message, bool) {
	if p.r == nil {
		p.r = wire.NewReader(p.nc, pieces)
	}
	m, err := p.r.Next()
	return m, err == nil
}

// listen accepts connections on loopback and runs talk on each until the test ends.
func listen(t *testing.T, tr *torrent, talk func(p *plainPeer)) Peer {
	t.Helper()
	return listenAs(t, tr, "d8:labswarmd3:blki16384ee1:md8:labswarmi1eee", talk)
}

// listenAs is listen with the given extension handshake.
func listenAs(t *testing.T, tr *torrent, extended string, talk func(p *plainPeer)) Peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			p := &plainPeer{t: t, nc: nc}
			p.hello(tr.infoHash, extended)
			talk(p)
			shutQuiet(nc)
		}
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		<-ended
	})
	return Peer{Addr: l.Addr().(*net.TCPAddr).AddrPort(), ID: "odd"}
}

// TestStalledParent: one that promises everything and sends nothing is dropped.
func TestStalledParent(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 20, testPiece)
	seed := start(t, "seed", tr, newStore(t, tr, nil), asSeed)
	odd := listen(t, tr, func(p *plainPeer) {
		p.say(func(b *bytesBuffer) { wire.PutState(b, pp.HaveAll); wire.PutState(b, unchoke) })
		for _, ok := p.next(20); ok; _, ok = p.next(20) {
		}
	})
	h := start(t, "h", tr, newStore(t, tr, []int{}), nil)
	h.SetSources(Assignment{Parent: odd, Fallbacks: []Peer{seed.ref()}})
	h.wait()
	h.store.check()
	if s := h.Stats(); s.Switches == 0 || s.BySource["odd"] != 0 {
		t.Errorf("%+v; want a switch away from the stalled parent", s)
	}
}

// TestChokingParent: one that never unchokes us starves us, until we go on.
func TestChokingParent(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 20, testPiece)
	seed := start(t, "seed", tr, newStore(t, tr, nil), asSeed)
	odd := listen(t, tr, func(p *plainPeer) {
		p.say(func(b *bytesBuffer) { wire.PutState(b, pp.HaveAll) })
		for _, ok := p.next(20); ok; _, ok = p.next(20) {
		}
	})
	h := start(t, "h", tr, newStore(t, tr, []int{}), nil)
	h.SetSources(Assignment{Parent: odd, Fallbacks: []Peer{seed.ref()}})
	h.wait()
	h.store.check()
}

// TestHostileParents: whoever breaks the protocol is hung up on, and the next
// source is used.
func TestHostileParents(t *testing.T) {
	t.Parallel()
	drain := func(p *plainPeer) {
		for _, ok := p.next(20); ok; _, ok = p.next(20) {
		}
	}
	for name, talk := range map[string]func(p *plainPeer){
		"rubbish": func(p *plainPeer) {
			p.say(func(b *bytesBuffer) { b.Write(bytes.Repeat([]byte{0xee}, 1000)) })
			drain(p)
		},
		"a flood nobody asked for": func(p *plainPeer) {
			for range 2 * maxUnasked / (16 << 10) {
				if !p.say(func(b *bytesBuffer) {
					b.Write(wire.AppendPieceHeader(nil, 3, 0, 16<<10))
					b.Write(make([]byte, 16<<10))
				}) {
					return
				}
			}
			drain(p)
		},
		"refuses everything": func(p *plainPeer) {
			p.say(func(b *bytesBuffer) { wire.PutState(b, pp.HaveAll); wire.PutState(b, unchoke) })
			for m, ok := p.next(20); ok; m, ok = p.next(20) {
				if m.Type == request {
					p.say(func(b *bytesBuffer) { wire.PutBlock(b, pp.Reject, m.Index, m.Begin, m.Length) })
				}
			}
		},
		"hangs up at once": func(*plainPeer) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // two of them wait for the starving rule
			tr := newTorrent(t, 20, testPiece)
			seed := start(t, "seed", tr, newStore(t, tr, nil), asSeed)
			odd := listen(t, tr, talk)
			h := start(t, "h", tr, newStore(t, tr, []int{}), nil)
			h.SetSources(Assignment{Parent: odd, Fallbacks: []Peer{seed.ref()}})
			h.wait()
			h.store.check()
		})
	}
}

// TestSlowParent: by rates, the child of a slow host goes to its grandparent,
// while the slow host's own chain goes on.
func TestSlowParent(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 900, testPiece)
	seed := start(t, "seed", tr, newStore(t, tr, nil), func(c *Config) {
		c.Seed, c.Limiter = true, rate.NewLimiter(8<<20, wire.MaxBlock) // the line: 7 s for all
	})
	grand := start(t, "grand", tr, newStore(t, tr, []int{}), nil)
	slow := start(t, "slow", tr, newStore(t, tr, []int{}), func(c *Config) {
		c.Limiter = rate.NewLimiter(1<<20, wire.MaxBlock)
	})
	h := start(t, "h", tr, newStore(t, tr, []int{}), nil)
	grand.from(seed)
	slow.from(grand, seed)
	h.from(slow, grand, seed)
	h.wait()
	h.store.check()
	s := h.Stats()
	if !slices.Contains(s.Rejected, "slow") || s.BySource["grand"] < s.BySource["slow"] {
		t.Errorf("rejected %v, bytes by source %v; want most from the grandparent", s.Rejected, s.BySource)
	}
	if s.BytesFromServer > int64(len(tr.data))/10 {
		t.Errorf("%d bytes from the seed; want the switch to stop at the grandparent", s.BytesFromServer)
	}
}

// TestSlowDiskIsNotTheParent: a host whose own disk is slow keeps its parent.
func TestSlowDiskIsNotTheParent(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 120, testPiece)
	seed := start(t, "seed", tr, newStore(t, tr, nil), asSeed)
	parent := start(t, "parent", tr, newStore(t, tr, nil), nil)
	st := newStore(t, tr, []int{})
	st.writeErr = func(int) error { time.Sleep(40 * time.Millisecond); return nil }
	h := start(t, "h", tr, st, func(c *Config) { c.PoolBuffers = 8 })
	h.from(parent, seed)
	h.wait()
	h.store.check()
	if s := h.Stats(); s.Switches != 0 || s.BytesFromServer != 0 {
		t.Errorf("switches %d, bytes from the seed %d; want neither", s.Switches, s.BytesFromServer)
	}
}
