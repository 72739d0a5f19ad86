package peer

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"labswarm/swarm/peercert"
	"labswarm/swarm/wire"
)

// TestSlowLoris: handshakes that never end take a few places, for a while, and
// nobody else waits for them.
func TestSlowLoris(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 8, testPiece)
	r := newRoster(t, tr, "s")
	seed := start(t, "seed", tr, newStore(t, tr, nil), r.seed)
	bt := wire.NewHandshake(tr.infoHash, [20]byte{'x'}).Append(nil)
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	var open atomic.Int32
	ended := make(chan error, 3*maxPendingEach)
	for i := range 3 * maxPendingEach {
		nc, err := from.DialContext(t.Context(), "tcp", seed.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { shutQuiet(nc) })
		if _, err := nc.Write([][]byte{{0x16, 3, 1, 1, 0, 1}, {}, bt[:1]}[i%3]); err != nil && !isReset(err) {
			t.Fatal(err)
		}
		if err := nc.SetReadDeadline(time.Now().Add(deadline)); err != nil {
			t.Fatal(err)
		}
		open.Add(1)
		go func() {
			b, err := io.ReadAll(nc)
			if len(b) > 0 && b[0] != 21 { // a TLS alert may be said
				err = fmt.Errorf("answered %q", b)
			}
			if isReset(err) {
				err = nil
			}
			open.Add(-1)
			ended <- err
		}()
	}
	h := start(t, "h", tr, newStore(t, tr, []int{}), r.host("h"))
	h.from(seed)
	h.wait() // while they hang
	until(t, "only a few of one address hang", func() bool { return open.Load() <= maxPendingEach })
	for range 3 * maxPendingEach {
		if err := <-ended; err != nil {
			t.Errorf("a handshake that never ends: %v; want it closed", err)
		}
	}
}

// TestOneCertificateFewConnections: a member cannot take every place.
func TestOneCertificateFewConnections(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 4, testPiece)
	r := newRoster(t, tr, "s")
	seed := start(t, "seed", tr, newStore(t, tr, nil), r.seed)
	cfg := r.pass(peercert.ID{Host: "h", Job: 7, Boot: "b"}).Client("seed", true)
	in := func() *tls.Conn {
		nc, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", seed.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { shutQuiet(nc) })
		if err := nc.SetDeadline(time.Now().Add(deadline)); err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Write(wire.NewHandshake(tr.infoHash, [20]byte{'x'}).Append(nil)); err != nil {
			t.Fatal(err)
		}
		return nc.(*tls.Conn)
	}
	var held []*tls.Conn
	for range maxSame {
		nc := in()
		if _, err := wire.ReadHandshake(nc); err != nil {
			t.Fatal(err)
		}
		held = append(held, nc)
	}
	if b, err := io.ReadAll(in()); len(b) > 0 {
		t.Errorf("one more connection of the same certificate: %d bytes, %v; want none", len(b), err)
	}
	seed.Expel("somebody else")
	until(t, "all are children", func() bool { return seed.Stats().Children == maxSame })
	seed.Expel("h")
	until(t, "the expelled are gone", func() bool { return seed.Stats().Children == 0 })
	for _, nc := range held {
		if _, err := io.ReadAll(nc); err != nil && !isReset(err) {
			t.Errorf("an expelled connection: %v; want it closed", err)
		}
	}
	if _, err := wire.ReadHandshake(in()); err != nil {
		t.Errorf("after the others have gone: %v; want to be let in", err)
	}
}

// TestBadPass: a pass of another swarm and one that cannot be had let nobody in.
func TestBadPass(t *testing.T) {
	t.Parallel()
	tr, other := newTorrent(t, 4, testPiece), newTorrent(t, 4, testPiece)
	r := newRoster(t, tr, "s")
	wrong := newRoster(t, other, "s").pass(peercert.ID{Host: "seed", Seed: true})
	for name, pass := range map[string]func() (*peercert.Pass, error){
		"another swarm": func() (*peercert.Pass, error) { return wrong, nil },
		"none":          func() (*peercert.Pass, error) { return nil, nil },
		"error":         func() (*peercert.Pass, error) { return nil, context.Canceled },
	} {
		seed := start(t, "seed", tr, newStore(t, tr, nil), func(c *Config) { c.Seed, c.Pass = true, pass })
		for _, s := range []stranger{{ih: tr.infoHash}, {ih: tr.infoHash, tls: r.pass(peercert.ID{Host: "h"}).Client("seed", true)}} {
			if got := s.visit(t, seed.addr); got != 0 {
				t.Errorf("%s: %d bytes", name, got)
			}
		}
		h := start(t, "h", tr, newStore(t, tr, nil), func(c *Config) { c.Pass = pass })
		if _, err := h.secure(nil, Peer{}); err == nil {
			t.Errorf("%s: dialled all the same", name)
		}
	}
}

// TestTLSGarbageAfterHandshake: bytes that are no record end the connection.
func TestTLSGarbageAfterHandshake(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 4, testPiece)
	r := newRoster(t, tr, "s")
	seed := start(t, "seed", tr, newStore(t, tr, nil), r.seed)
	raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", seed.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer shutQuiet(raw)
	if err := raw.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	nc := tls.Client(raw, r.pass(peercert.ID{Host: "h"}).Client("seed", true))
	if _, err := nc.Write(wire.NewHandshake(tr.infoHash, [20]byte{'x'}).Append(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := wire.ReadHandshake(nc); err != nil {
		t.Fatal(err)
	}
	until(t, "it is a child", func() bool { return seed.Stats().Children == 1 })
	if _, err := raw.Write(append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...)); err != nil { // a record nobody encrypted
		t.Fatal(err)
	}
	until(t, "it was hung up on", func() bool { return seed.Stats().Children == 0 })
	h := start(t, "h", tr, newStore(t, tr, []int{}), r.host("h"))
	h.from(seed)
	h.wait()
}
