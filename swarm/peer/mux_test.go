package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"labswarm/swarm/wire"
)

// startMux runs a Mux on loopback until the test ends.
func startMux(t *testing.T) (*Mux, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := NewMux(l, nil)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Mux.Run = %v; want nil", err)
		}
	})
	return m, l.Addr().(*net.TCPAddr).AddrPort()
}

// TestMux serves two swarms on one port, takes one away and keeps the other.
func TestMux(t *testing.T) {
	t.Parallel()
	mux, addr := startMux(t)
	var seeds []*member
	var trs []*torrent
	for i := range 2 {
		tr := newTorrent(t, 40, testPiece)
		s := start(t, nodeName(i), tr, newStore(t, tr, nil), func(c *Config) {
			if err := c.Listener.Close(); err != nil {
				t.Error(err)
			}
			c.Seed, c.Listener = true, nil
		})
		if err := mux.Add(s.Node); err != nil {
			t.Fatal(err)
		}
		seeds, trs = append(seeds, s), append(trs, tr)
	}
	fetch := func(name string, tr *torrent) *member {
		h := start(t, name, tr, newStore(t, tr, []int{}), nil)
		h.SetSources(Assignment{Parent: Peer{Addr: addr, ID: "server", Server: true}})
		return h
	}
	a, b := fetch("a", trs[0]), fetch("b", trs[1])
	a.wait()
	b.wait()
	a.store.check()
	b.store.check()

	twin, err := New(seeds[0].cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := mux.Add(twin); err == nil {
		t.Error("a second node for one swarm was taken")
	}
	mux.Remove(seeds[0].Node)
	c := fetch("c", trs[0])
	until(t, "the removed swarm has refused a host", func() bool { return len(c.Stats().Rejected) == 1 })
	d := fetch("d", trs[1])
	d.wait()
}

// dial sends a handshake and returns the connection.
func dial(t *testing.T, addr netip.AddrPort, infoHash, id [20]byte) net.Conn {
	t.Helper()
	nc, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shutQuiet(nc) })
	if err := nc.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write(wire.NewHandshake(infoHash, id).Append(nil)); err != nil {
		t.Fatal(err)
	}
	return nc
}

// TestNoByteForStrangers: an unknown swarm, a forbidden address and rubbish get
// no answer at all.
func TestNoByteForStrangers(t *testing.T) {
	t.Parallel()
	mux, addr := startMux(t)
	tr := newTorrent(t, 4, testPiece)
	s := start(t, "seed", tr, newStore(t, tr, nil), func(c *Config) {
		c.Seed = true
		c.AllowPeer = func(a netip.Addr) bool { return a != netip.MustParseAddr("127.0.0.1") }
	})
	if err := mux.Add(s.Node); err != nil {
		t.Fatal(err)
	}
	for name, nc := range map[string]net.Conn{
		"unknown swarm":     dial(t, addr, [20]byte{9}, [20]byte{8}),
		"forbidden address": dial(t, addr, tr.infoHash, [20]byte{8}),
		"own id":            dial(t, addr, tr.infoHash, s.cfg.PeerID),
	} {
		if b, err := io.ReadAll(nc); len(b) > 0 || err != nil && !isReset(err) {
			t.Errorf("%s: answered %q, %v; want a closed connection", name, b, err)
		}
	}
}

// isReset: the other side closed with our bytes unread.
func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// TestPlainClientNotAdmitted: without PlainPeers, who does not speak our
// extension gets no content, whether it has the extension protocol or not.
func TestPlainClientNotAdmitted(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 4, testPiece)
	s := start(t, "seed", tr, newStore(t, tr, nil), asSeed)
	for _, extended := range []string{"", "d1:md11:ut_metadatai3eee"} {
		nc, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer shutQuiet(nc)
		p := &plainPeer{t: t, nc: nc}
		p.hello(tr.infoHash, extended)
		p.say(func(b *bytesBuffer) { wire.PutState(b, interested); wire.PutBlock(b, request, 0, 0, 16<<10) })
		for m, ok := p.next(4); ok; m, ok = p.next(4) {
			if m.Type == piece || m.Type == unchoke {
				t.Errorf("extended %q: got %v", extended, m.Type)
			}
		}
		if up := s.Stats().BytesUploaded; up != 0 {
			t.Errorf("extended %q: %d bytes sent; want 0", extended, up)
		}
	}
}
