package daemon

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/images/library"
	"labswarm/server/daemon/relays"
	"labswarm/swarm/peer"
	"labswarm/swarm/peercert"
)

// target is a host's disk in RAM.
type target struct {
	cell int64
	mu   sync.Mutex
	data []byte
}

func (d *target) Have(int) bool { return false }
func (d *target) at(i int) []byte {
	return d.data[int64(i)*d.cell : int64(i+1)*d.cell]
}
func (d *target) ReadPiece(i int, buf []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(buf, d.at(i))
	return nil
}
func (d *target) WritePiece(i int, buf []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.at(i), buf)
	return nil
}

// admitted waits until a relay knows the run of the swarm that the host is in.
func (a *agent) admitted(addr, name string) {
	a.s.t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		d := tls.Dialer{Config: a.pass().Client(name, false)}
		var nc net.Conn
		if nc, err = d.DialContext(a.s.t.Context(), "tcp", addr); err != nil {
			continue
		}
		if err = nc.Close(); err == nil {
			return
		}
	}
	a.s.t.Fatalf("the relay does not admit a host of the job: %v", err)
}

// leech fetches an image as a host would, from a relay with the server behind it.
func leech(t *testing.T, a *agent, v *library.Version, relay string) (*target, peer.Stats) {
	t.Helper()
	m := v.Manifest()
	d := &target{cell: m.Cell, data: make([]byte, int64(m.Pieces())*m.Cell)}
	n, err := peer.New(peer.Config{InfoHash: v.InfoHash(), PeerID: [20]byte([]byte("-LS0001-heal.host...")), Pieces: m.Pieces(), PieceLen: m.Cell,
		Hash: func(i int) [20]byte { return v.Torrent().Hashes[i] }, Storage: d, Pass: func() (*peercert.Pass, error) { return a.pass(), nil }})
	if err != nil {
		t.Fatal(err)
	}
	n.SetSources(peer.Assignment{Parent: peer.Peer{Addr: netip.MustParseAddrPort(relay), ID: "annex"},
		Fallbacks: []peer.Peer{{Addr: netip.AddrPortFrom(a.s.srv.ip, a.s.srv.seedPort), ID: relays.ServerName, Server: true}}})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	select {
	case <-n.Done():
	case <-ctx.Done():
		t.Errorf("the host is not done: %+v", n.Stats())
	}
	s := n.Stats()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	return d, s
}

// TestRelayHealsItsDisk: a cell that rots on the relay never leaves it, and is
// right again a moment later.
func TestRelayHealsItsDisk(t *testing.T) {
	s := newSite(t)
	s.codec = library.CodecNone // with frames the damaged cell would not even be read
	s.importImage()
	r := newSecond(s, "annex")
	r.start()
	v := s.waitRelay("serves", serves(1))
	cp, err := r.lib().Get(s.image, "")
	if err != nil {
		t.Fatal(err)
	}
	defer cp.Close()
	const piece = 4
	m := cp.Manifest()
	f, err := os.OpenFile(filepath.Join(cp.Dir(), "disk.raw"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	junk := make([]byte, 4096)
	if _, err := rand.Read(junk); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(junk, m.CellOf(piece)*m.Cell+8192); err != nil {
		t.Fatal(err)
	}
	h := s.host("a1")
	s.createJob()
	a, _ := s.deploy(h)
	a.admitted(v.Addr, "annex")
	d, stats := leech(t, a, cp, v.Addr)
	if stats.HashFailures != 0 {
		t.Errorf("%d wrong cells left the relay", stats.HashFailures)
	}
	if stats.BySource["annex"] < int64(m.Pieces()-2)*m.Cell {
		t.Errorf("bytes by source: %v; want nearly all from the relay", stats.BySource)
	}
	src, err := s.lib().Get(s.image, "")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	want := make([]byte, m.Cell)
	for i := range m.Pieces() {
		if err := src.ReadPiece(i, want); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, d.at(i)) {
			t.Errorf("the host's piece %d differs", i)
		}
	}
	s.waitRelay("is whole again", func(v api.Relay) bool { return serves(1)(v) && v.Images[0].Received == int64(m.Pieces()+1)*m.Cell })
	if res, err := cp.Verify(t.Context(), nil); err != nil || !res.OK() {
		t.Errorf("the copy on the relay: %+v, %v", res, err)
	}
}
