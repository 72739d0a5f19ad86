package dhcp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"go.uber.org/goleak"

	"labswarm/server/decide"
	"labswarm/server/netboot/bootfile"
	"labswarm/server/netboot/bootreq"
	"labswarm/server/netboot/desk"
	"labswarm/server/netboot/portowner"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bomb answers Agent, but panics on one MAC as a broken store might.
type bomb struct {
	mu    sync.Mutex
	asked []bootreq.Request
	seen  []bootreq.Sighting
}

func (b *bomb) DecideBoot(_ context.Context, r bootreq.Request) bootreq.Answer {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, r)
	if strings.HasSuffix(r.MAC, ":66") {
		panic("store on fire")
	}
	return bootreq.Answer{Decision: decide.Decision{Action: decide.Agent}, Host: "h"}
}

func (b *bomb) Sighting(s bootreq.Sighting) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = append(b.seen, s)
}
func (b *bomb) InitramfsFetched(string) {}

func freePort(t *testing.T) int {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

func loopConfig(t *testing.T, d bootreq.Decider) ServerConfig {
	t.Helper()
	dir := t.TempDir()
	for _, n := range []string{"shimx64.efi", "grubx64.efi", "undionly.kpxe", "vmlinuz", "initrd.img"} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pins, err := bootfile.PinsJSON([][]byte{make([]byte, 32)}, [][]byte{make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	files, err := bootfile.Load(dir, pins)
	if err != nil {
		t.Fatal(err)
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	site := testSite(t, true, "")
	site.Server = netip.MustParseAddr("127.0.0.1")
	log := slog.New(slog.DiscardHandler)
	return ServerConfig{Site: site, Interface: lo, Desk: desk.New(desk.Config{Decider: d, Files: files, Log: log}), Log: log,
		Port: freePort(t), ProxyPort: freePort(t)}
}

// TestLoop drives the real sockets: rubbish, a panicking decision and sightings
// do not stop the loop, and port 4011 answers to the sender's own port.
func TestLoop(t *testing.T) {
	d := &bomb{}
	cfg := loopConfig(t, d)
	s, err := Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var busy *portowner.BusyError
	if _, err := Listen(t.Context(), cfg); !errors.As(err, &busy) || len(busy.Owners) == 0 || busy.Owners[0].PID != os.Getpid() {
		t.Errorf("second Listen = %v; want a BusyError that names this process", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	conn, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: cfg.ProxyPort})
	if err != nil {
		t.Fatal(err)
	}
	to67, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: cfg.Port})
	if err != nil {
		t.Fatal(err)
	}
	asMAC := func(pkt []byte, last byte) []byte {
		copy(pkt[12:16], []byte{127, 0, 0, 1}) // ciaddr
		pkt[33] = last
		return pkt
	}
	bad := ovmfPXE(request, 7)
	for _, pkt := range [][]byte{nil, {1}, bad[:100], make([]byte, 1400), make([]byte, 4000), asMAC(ovmfPXE(request, 7), 0x66)} {
		if _, err := conn.Write(pkt); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := to67.Write(debianOS(discover)); err != nil {
		t.Fatal(err)
	}
	if _, err := to67.Write(ovmfPXE(discover, 11)); err != nil { // ARM
		t.Fatal(err)
	}
	got := answerFor(t, conn, asMAC(ovmfPXE(request, 7), 0x07))
	if got.BootFileName != "shimx64.efi" || got.MessageType() != dhcpv4.MessageTypeAck {
		t.Errorf("port 4011 answered %s", got.Summary())
	}
	d.wait(t, 2)
	d.mu.Lock()
	kinds := map[bootreq.SightingKind]string{}
	for _, x := range d.seen {
		kinds[x.Kind] = x.Hostname
	}
	d.mu.Unlock()
	if name, ok := kinds[bootreq.SightOS]; !ok || name != "lab-07" {
		t.Errorf("sightings = %v; want the installed system lab-07", kinds)
	}
	if _, ok := kinds[bootreq.SightUnsupported]; !ok {
		t.Errorf("sightings = %v; want the unsupported architecture", kinds)
	}
	cancel()
	if err := errors.Join(<-done, conn.Close(), to67.Close(), s.Close()); err != nil {
		t.Errorf("end: %v", err)
	}
}

// answerFor reads answers until the one for the last MAC byte of pkt comes: the
// panicking PC is answered too (local, by port 4011's chain).
func answerFor(t *testing.T, conn *net.UDPConn, pkt []byte) *dhcpv4.DHCPv4 {
	t.Helper()
	if _, err := conn.Write(pkt); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		m := parse(t, buf[:n])
		if m.ClientHWAddr[5] == pkt[33] {
			return m
		}
	}
}

func (b *bomb) wait(t *testing.T, n int) {
	t.Helper()
	for range 1000 {
		b.mu.Lock()
		have := len(b.seen)
		b.mu.Unlock()
		if have >= n {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("fewer than %d sightings came", n)
}
