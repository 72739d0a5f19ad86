package peer

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"labswarm/swarm/peercert"
	"labswarm/swarm/wire"
)

// roster issues certificates for the swarm of a test.
type roster struct {
	t  testing.TB
	ca *peercert.Authority
}

func newRoster(t testing.TB, tr *torrent, scope string) *roster {
	t.Helper()
	ca, err := peercert.NewAuthority(bytes.Repeat([]byte{1}, 32), tr.infoHash, scope)
	if err != nil {
		t.Fatal(err)
	}
	return &roster{t, ca}
}

func (r *roster) pass(id peercert.ID) *peercert.Pass {
	r.t.Helper()
	p, err := r.ca.NewPass(id)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// seed and host are changes of a Config that give the node its certificate.
func (r *roster) seed(c *Config) {
	p := r.pass(peercert.ID{Host: "seed", Seed: true})
	c.Seed, c.Pass = true, func() (*peercert.Pass, error) { return p, nil }
}

func (r *roster) host(name string) func(*Config) {
	p := r.pass(peercert.ID{Host: name, Job: 7, Boot: "b-" + name})
	return func(c *Config) { c.Pass = func() (*peercert.Pass, error) { return p, nil } }
}

// TestTLSChain: a seed with frames and four hosts in a row, exact bytes, and
// not one connection without certificates.
func TestTLSChain(t *testing.T) {
	t.Parallel()
	tr := softTorrent(t, 120)
	frames := encode(t, tr)
	r := newRoster(t, tr, "s")
	st := newStore(t, tr, nil)
	seed := start(t, "seed", tr, st, func(c *Config) {
		r.seed(c)
		c.Storage = &framedStore{fileStore: st, frames: frames}
	})
	parent, all := seed, []*member{seed}
	for i := range 4 {
		h := start(t, nodeName(i), tr, newStore(t, tr, []int{}), func(c *Config) {
			r.host(nodeName(i))(c)
			keepAll(c)
		})
		h.from(parent, seed)
		parent, all = h, append(all, h)
	}
	for _, h := range all[1:] {
		h.wait()
		h.store.check()
		if s := h.Stats(); s.FramesReceived < len(frames) || s.HashFailures > 0 || s.BytesFromPeers+s.BytesFromServer < int64(len(tr.data)) {
			t.Errorf("%s: %+v; want all %d frames and every byte", h.name, s, len(frames))
		}
	}
	for _, h := range all {
		h.mu.Lock()
		for c := range h.conns {
			if _, ok := c.nc.(*secured); !ok {
				t.Errorf("%s has a connection with %s of type %T", h.name, c.name, c.nc)
			}
		}
		h.mu.Unlock()
	}
}

// stranger is somebody at the door of a seed.
type stranger struct {
	first  []byte      // said in the clear instead of TLS
	tls    *tls.Config // else a handshake with these settings
	ih     [20]byte    // asked for in the BitTorrent handshake
	served bool        // he should get content: the negative control
}

// tlsAlert is the length of an alert in the clear (RFC 8446 6).
const tlsAlert = 7

// visit says all that a client says to get content, and returns how many bytes
// of payload came back before the connection ended.
func (s stranger) visit(t *testing.T, addr netip.AddrPort) int {
	t.Helper()
	nc, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer shutQuiet(nc)
	if err := nc.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	if s.tls != nil {
		tc := tls.Client(nc, s.tls)
		if tc.HandshakeContext(t.Context()) != nil {
			return 0
		}
		nc = tc
	}
	hello := bytes.NewBuffer(append(s.first, wire.NewHandshake(s.ih, [20]byte{'x'}).Append(nil)...))
	wire.PutExtended(hello, 0, []byte("d8:labswarmd3:blki16384ee1:md8:labswarmi1eee"))
	wire.PutState(hello, interested)
	if _, err := nc.Write(hello.Bytes()); err != nil {
		return 0
	}
	answer := make([]byte, wire.HandshakeLen)
	got, err := io.ReadFull(nc, answer) // whoever gets this far is in
	if err != nil {
		if to := net.Error(nil); errors.As(err, &to) && to.Timeout() {
			t.Error("the connection was not closed")
		}
		if s.tls == nil && got == tlsAlert && answer[0] == 21 {
			return 0
		}
		return got
	}
	p := &plainPeer{t: t, nc: nc}
	p.say(func(b *bytesBuffer) { wire.PutBlock(b, request, 0, 0, 16<<10) })
	for m, ok := p.next(4); ok; m, ok = p.next(4) {
		switch m.Type {
		case unchoke:
			p.say(func(b *bytesBuffer) { wire.PutBlock(b, request, 0, 0, 16<<10) })
		case piece:
			return got + m.Length
		}
	}
	return got
}

// TestStrangersAtTheDoor: whoever has not the right certificate gets not a byte
// of BitTorrent, let alone of the image.
func TestStrangersAtTheDoor(t *testing.T) {
	t.Parallel()
	tr, other := newTorrent(t, 4, testPiece), newTorrent(t, 4, testPiece)
	r, foreign, ended, twin := newRoster(t, tr, "now"), newRoster(t, other, "now"), newRoster(t, tr, "last night"), newRoster(t, other, "now")
	id := peercert.ID{Host: "h", Job: 7, Boot: "b1"}
	mux, addr := startMux(t)
	var seeds []*member
	for i, x := range []*torrent{tr, other} {
		s := start(t, nodeName(i), x, newStore(t, x, nil), func(c *Config) {
			if err := c.Listener.Close(); err != nil {
				t.Error(err)
			}
			newRoster(t, x, "now").seed(c)
			c.Listener = nil
			c.Admit = func(got peercert.ID) error {
				if got != id {
					return fmt.Errorf("%v is not in a live job", got)
				}
				return nil
			}
		})
		if err := mux.Add(s.Node); err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, s)
	}
	good := func(mods ...func(*tls.Config)) *tls.Config {
		c := r.pass(id).Client("seed", true)
		for _, f := range mods {
			f(c)
		}
		return c
	}
	bt := wire.NewHandshake(tr.infoHash, [20]byte{'x'}).Append(nil)
	for name, s := range map[string]stranger{
		"member":                  {tls: good(), ih: tr.infoHash, served: true},
		"member of both":          {tls: foreign.pass(id).Client("seed", true), ih: other.infoHash, served: true},
		"no certificate":          {tls: good(func(c *tls.Config) { c.Certificates = nil }), ih: tr.infoHash},
		"foreign authority":       {tls: good(func(c *tls.Config) { c.Certificates = foreign.pass(id).Client("", false).Certificates }), ih: tr.infoHash},
		"last job":                {tls: good(func(c *tls.Config) { c.Certificates = ended.pass(id).Client("", false).Certificates }), ih: tr.infoHash},
		"no live job":             {tls: r.pass(peercert.ID{Host: "h", Job: 6, Boot: "b1"}).Client("seed", true), ih: tr.infoHash},
		"earlier boot":            {tls: r.pass(peercert.ID{Host: "h", Job: 7, Boot: "b0"}).Client("seed", true), ih: tr.infoHash},
		"other host":              {tls: r.pass(peercert.ID{Host: "i", Job: 7, Boot: "b1"}).Client("seed", true), ih: tr.infoHash},
		"other swarm inside":      {tls: good(), ih: other.infoHash},
		"other swarm at the door": {tls: twin.pass(id).Client("seed", true), ih: tr.infoHash},
		"unknown swarm":           {tls: good(func(c *tls.Config) { c.ServerName = peercert.ServerName([20]byte{5}) }), ih: tr.infoHash},
		"no server name":          {tls: good(func(c *tls.Config) { c.ServerName = "" }), ih: tr.infoHash},
		"TLS 1.2":                 {tls: good(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), ih: tr.infoHash},
		"protocol of the API":     {tls: good(func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }), ih: tr.infoHash},
		"plain client":            {ih: tr.infoHash},
		"rubbish":                 {first: bytes.Repeat([]byte{0xee}, 100), ih: tr.infoHash},
		"rubbish like TLS":        {first: append([]byte{0x16, 3, 1, 0, 60}, bytes.Repeat([]byte{0xee}, 60)...), ih: tr.infoHash},
		"record of 64 KiB":        {first: append([]byte{0x16, 3, 1, 0xff, 0xff}, bt...), ih: tr.infoHash},
	} {
		t.Run(name, func(t *testing.T) {
			before := seeds[0].Stats().BytesUploaded + seeds[1].Stats().BytesUploaded
			got := s.visit(t, addr)
			if s.served != (got > 0) {
				t.Errorf("%d bytes came; served should be %v", got, s.served)
			}
			if s.served {
				until(t, "the bytes are counted", func() bool { return seeds[0].Stats().BytesUploaded+seeds[1].Stats().BytesUploaded > before })
				return
			}
			if n := seeds[0].Stats().BytesUploaded + seeds[1].Stats().BytesUploaded; n != before {
				t.Errorf("%d image bytes were sent", n-before)
			}
		})
	}
}

// TestWrongParents: a child takes nothing from somebody who is not whom it was
// told, and goes on to the one who is.
func TestWrongParents(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 8, testPiece)
	r, foreign := newRoster(t, tr, "s"), newRoster(t, tr, "another")
	seed := start(t, "seed", tr, newStore(t, tr, nil), r.seed)
	for name, tt := range map[string]struct {
		mod func(*Config)
		as  Peer
	}{
		"foreign authority": {mod: foreign.seed, as: Peer{ID: "seed", Server: true}},
		"another host":      {mod: r.host("a"), as: Peer{ID: "b"}},
		"host as server":    {mod: r.host("server"), as: Peer{ID: "server", Server: true}},
		"without TLS":       {mod: asSeed, as: Peer{ID: "seed", Server: true}},
		"plain":             {mod: func(c *Config) { c.Seed, c.PlainPeers = true, true }, as: Peer{ID: "seed", Server: true}},
		"no name":           {mod: r.host("a"), as: Peer{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := start(t, "bad", tr, newStore(t, tr, nil), tt.mod)
			tt.as.Addr = bad.addr
			h := start(t, "h", tr, newStore(t, tr, []int{}), r.host("h"))
			h.SetSources(Assignment{Parent: tt.as, Fallbacks: []Peer{seed.ref()}})
			h.wait()
			h.store.check()
			if s := h.Stats(); s.BytesFromServer != int64(len(tr.data)) || s.BytesFromPeers != 0 || bad.Stats().BytesUploaded != 0 {
				t.Errorf("%+v, the wrong parent sent %d; want all from the right one", s, bad.Stats().BytesUploaded)
			}
		})
	}
}

// TestPlainBesideTLS: with PlainPeers one port serves both kinds; our own hosts
// keep to TLS.
func TestPlainBesideTLS(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 4, testPiece)
	r := newRoster(t, tr, "s")
	seed := start(t, "seed", tr, newStore(t, tr, nil), func(c *Config) {
		r.seed(c)
		c.PlainPeers = true
	})
	if got := (stranger{ih: tr.infoHash}).visit(t, seed.addr); got <= wire.HandshakeLen {
		t.Errorf("a plain client got %d bytes with PlainPeers; want content", got)
	}
	h := start(t, "h", tr, newStore(t, tr, []int{}), r.host("h"))
	h.from(seed)
	h.wait()
	h.store.check()
	bad := r.pass(peercert.ID{Host: "x"}).Client("seed", true)
	bad.Certificates = nil
	if got := (stranger{ih: tr.infoHash, tls: bad}).visit(t, seed.addr); got != 0 {
		t.Errorf("TLS without certificate got %d bytes; want none", got)
	}
}
