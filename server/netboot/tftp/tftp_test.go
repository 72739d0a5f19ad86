package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	pin "github.com/pin/tftp/v3"
	"go.uber.org/goleak"

	"labswarm/server/decide"
	"labswarm/server/netboot/bootfile"
	"labswarm/server/netboot/bootreq"
	"labswarm/server/netboot/desk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// decider answers Agent for armed MACs.
type decider struct {
	mu      sync.Mutex
	armed   map[string]bool
	fetched []string
}

func (d *decider) DecideBoot(_ context.Context, r bootreq.Request) bootreq.Answer {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.armed[r.MAC] {
		return bootreq.Answer{Decision: decide.Decision{Action: decide.Agent}, Host: "h"}
	}
	return bootreq.Answer{}
}
func (d *decider) Sighting(bootreq.Sighting) {}
func (d *decider) InitramfsFetched(mac string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fetched = append(d.fetched, mac)
}

const mac = "52:54:00:77:00:01"

var big = bytes.Repeat([]byte("0123456789abcdef"), 20_000) // 320 000 bytes

// testConfig is a server's configuration on a free loopback port.
func testConfig(t testing.TB, dec *decider) Config {
	t.Helper()
	dir := t.TempDir()
	for _, n := range []string{"shimx64.efi", "grubx64.efi", "undionly.kpxe", "vmlinuz", "initrd.img"} {
		if err := os.WriteFile(filepath.Join(dir, n), big, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "snponly.efi"), []byte("small"), 0o644); err != nil {
		t.Fatal(err)
	}
	pins, err := bootfile.PinsJSON([][]byte{make([]byte, 32)}, [][]byte{make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	files, err := bootfile.Load(dir, pins)
	if err != nil {
		t.Fatal(err)
	}
	lo := netip.MustParseAddr("127.0.0.1")
	scripts, err := bootfile.NewScripts(bootfile.Site{IP: lo, KeyID: "00"})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	return Config{IP: lo, Port: freePort(t), Files: files, Scripts: scripts, Log: log,
		Desk: desk.New(desk.Config{Decider: dec, Files: files, Log: log})}
}

// serve runs a server on a loopback port; ip is where it listens.
func serve(t *testing.T, change func(*Config)) (addr string, dec *decider) {
	t.Helper()
	dec = &decider{armed: map[string]bool{}}
	cfg := testConfig(t, dec)
	if change != nil {
		change(&cfg)
	}
	s, err := Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s.Addr().String(), dec
}

func freePort(t testing.TB) int {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// get fetches with the library's client; blksize 0 = no options at all.
func get(t *testing.T, addr, name string, blksize int) ([]byte, error) {
	t.Helper()
	c, err := pin.NewClient(addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetTimeout(2 * time.Second)
	if blksize > 0 {
		c.SetBlockSize(blksize)
		c.RequestTSize(true)
	}
	wt, err := c.Receive(name, "octet")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = wt.WriteTo(&b)
	return b.Bytes(), err
}

func TestGet(t *testing.T) {
	addr, dec := serve(t, nil)
	for _, name := range []string{"shimx64.efi", "/grubx64.efi", "//grubx64.efi", `\shimx64.efi`} {
		got, err := get(t, addr, name, 1468)
		if err != nil || !bytes.Equal(got, big) {
			t.Errorf("get %q: %d bytes, %v", name, len(got), err)
		}
	}
	cfg, err := get(t, addr, "grub/grub.cfg", 1024)
	if err != nil || !strings.HasPrefix(string(cfg), "# /grub/grub.cfg") {
		t.Errorf("grub.cfg = %q, %v", cfg, err)
	}
	host, err := get(t, addr, "/host/"+mac+".cfg", 1024)
	if err != nil || !strings.Contains(string(host), "decision = local") {
		t.Errorf("host.cfg of an unarmed host = %q, %v", host, err)
	}
	if _, err := get(t, addr, "vmlinuz", 1024); err == nil {
		t.Error("an unarmed host got the kernel")
	}
	dec.mu.Lock()
	dec.armed[mac] = true
	dec.mu.Unlock()
	if _, err := get(t, addr, "vmlinuz", 1024); err == nil {
		t.Error("an address that has not asked for its script got the kernel")
	}
	host, err = get(t, addr, "/host/"+mac+".cfg", 1024)
	if err != nil || !strings.Contains(string(host), "linux  (tftp,127.0.0.1)/vmlinuz ") {
		t.Errorf("host.cfg of an armed host = %q, %v", host, err)
	}
	if got, err := get(t, addr, "vmlinuz", 1024); err != nil || !bytes.Equal(got, big) {
		t.Errorf("kernel: %d bytes, %v", len(got), err)
	}
	if got, err := get(t, addr, "initrd.img", 1024); err != nil || !bytes.HasSuffix(got, big) {
		t.Errorf("initrd: %d bytes, %v", len(got), err)
	}
	deadline := time.Now().Add(5 * time.Second) // the event follows the last ACK
	for {
		dec.mu.Lock()
		got := fmt.Sprint(dec.fetched)
		dec.mu.Unlock()
		if got == "["+mac+"]" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("fetched = %s; want one fetch of %s", got, mac)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// rrq sends one raw read request and returns the answers that come within wait.
func rrq(t *testing.T, addr, name string, wait time.Duration, opts ...string) [][]byte {
	t.Helper()
	return rrqFrom(t, net.IPv4(127, 0, 0, 1), addr, name, wait, opts...)
}

// untilFirst makes rrq return with the first answer.
const untilFirst = 5 * time.Second

func rrqFrom(t *testing.T, ip net.IP, addr, name string, wait time.Duration, opts ...string) [][]byte {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: ip})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pkt := []byte("\x00\x01" + name + "\x00octet\x00")
	for _, o := range opts {
		pkt = append(pkt, o+"\x00"...)
	}
	to, err := net.ResolveUDPAddr("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteTo(pkt, to); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for {
		buf := make([]byte, 2048)
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return out
		}
		out = append(out, buf[:n])
		if op := binary.BigEndian.Uint16(buf); op == 5 || wait == untilFirst {
			return out
		}
	}
}

func TestUnknownNamesGetErrorOneAtOnce(t *testing.T) {
	addr, _ := serve(t, nil)
	for _, name := range []string{"revocations_sku.efi", "/grub/x86_64-efi/command.lst", "../../../etc/passwd", "", "host/xx.cfg", strings.Repeat("a", 300)} {
		got := rrq(t, addr, name, 2*time.Second, "blksize", "1468")
		if len(got) != 1 || binary.BigEndian.Uint16(got[0]) != 5 || binary.BigEndian.Uint16(got[0][2:]) != 1 {
			t.Errorf("%q: answers %q; want one ERROR 1", name, got)
		}
	}
}

// TestOptionProof: a request without options, or with none the server knows,
// gets no file of several blocks. It holds the library to what acknowledged
// reads out of it.
func TestOptionProof(t *testing.T) {
	addr, _ := serve(t, nil)
	for name, opts := range map[string][]string{"none": nil, "only unknown ones": {"windowsize", "4", "rollover", "0"}} {
		got := rrq(t, addr, "shimx64.efi", 2*time.Second, opts...)
		if len(got) != 1 || binary.BigEndian.Uint16(got[0]) != 5 {
			t.Errorf("options %s: %d answers, first %.20q; want one ERROR", name, len(got), got)
		}
	}
	if got, err := get(t, addr, "snponly.efi", 0); err != nil || string(got) != "small" {
		t.Errorf("one-block file without options = %q, %v", got, err)
	}
	for _, blk := range []int{512, 1024} { // 512 is the plain size, but acknowledged
		if got, err := get(t, addr, "shimx64.efi", blk); err != nil || !bytes.Equal(got, big) {
			t.Errorf("blksize %d: %d bytes, %v", blk, len(got), err)
		}
	}
}

// TestReflection: a forged request draws at most four times its own bytes
// (with IP and UDP headers) from the server.
func TestReflection(t *testing.T) {
	const timeout = 500 * time.Millisecond
	addr, _ := serve(t, func(c *Config) { c.Timeout = timeout })
	for name, opts := range map[string][]string{"no options": nil, "blksize": {"blksize", "1468"}, "tsize": {"tsize", "0"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent := 28 + 2 + len("shimx64.efi") + 1 + len("octet") + 1
			for _, o := range opts {
				sent += len(o) + 1
			}
			got := 0
			answers := rrq(t, addr, "shimx64.efi", timeout*(retries+3), opts...)
			for _, p := range answers {
				got += 28 + len(p)
			}
			if got > 4*sent {
				t.Errorf("%d bytes drew %d bytes in %d packets: x%.1f", sent, got, len(answers), float64(got)/float64(sent))
			}
			t.Logf("%d bytes drew %d bytes in %d packets: x%.1f", sent, got, len(answers), float64(got)/float64(sent))
		})
	}
}

func TestOffLinkIsRefused(t *testing.T) {
	addr, _ := serve(t, func(c *Config) {
		c.Desk = desk.New(desk.Config{Decider: &decider{}, Files: c.Files, Log: c.Log, OnLink: netip.MustParsePrefix("10.77.0.0/24")})
	})
	got := rrq(t, addr, "shimx64.efi", 2*time.Second, "blksize", "1468")
	if len(got) != 1 || binary.BigEndian.Uint16(got[0]) != 5 {
		t.Errorf("off-link request: answers %q; want one ERROR", got)
	}
}

// TestFlood: requests from a thousand silent addresses do not keep out a PC that
// is booting, and do not pile up goroutines.
func TestFlood(t *testing.T) {
	pc := netip.MustParseAddr("127.0.1.1")
	addr, _ := serve(t, func(c *Config) {
		c.Timeout = 500 * time.Millisecond
		c.Desk = desk.New(desk.Config{Decider: &decider{}, Files: c.Files, Log: c.Log, OnLink: netip.MustParsePrefix("127.0.0.0/8"), NeedDiscover: true,
			Lookups: []func(netip.Addr) (string, bool){func(a netip.Addr) (string, bool) { return mac, a == pc }}})
		c.Desk.Discovered(mac)
	})
	to, err := net.ResolveUDPAddr("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 2+byte(i>>8), byte(i))})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.WriteTo([]byte("\x00\x01shimx64.efi\x00octet\x00blksize\x001428\x00"), to)
		if err := errors.Join(err, c.Close()); err != nil {
			t.Fatal(err)
		}
	}
	var got [][]byte
	for i := 0; i < 3 && len(got) == 0; i++ { // firmware repeats a request that got lost
		got = rrqFrom(t, pc.AsSlice(), addr, "shimx64.efi", untilFirst, "blksize", "1428")
	}
	if len(got) == 0 || binary.BigEndian.Uint16(got[0]) != 6 {
		t.Errorf("the booting PC got %.30q; want an OACK", got)
	}
	if n := runtime.NumGoroutine(); n > 150 {
		t.Errorf("%d goroutines after a flood of 1000 requests", n)
	}
}

func TestWriteIsRefused(t *testing.T) {
	addr, _ := serve(t, nil)
	c, err := pin.NewClient(addr)
	if err != nil {
		t.Fatal(err)
	}
	if rf, err := c.Send("shimx64.efi", "octet"); err == nil {
		if _, err = rf.ReadFrom(strings.NewReader("x")); err == nil {
			t.Error("a write was accepted")
		}
	}
}

// transfer stands in for the library's sender: it takes what the handler sends.
type transfer struct {
	bytes.Buffer
	size int64
}

func (x *transfer) SetSize(n int64) { x.size = n }
func (x *transfer) RemoteAddr() net.UDPAddr {
	return net.UDPAddr{IP: net.IPv4(10, 77, 0, 9), Port: 2000}
}

// FuzzName: for any name the handler serves a file of the map or nothing, and
// never a kernel or initramfs to an address without a session.
func FuzzName(f *testing.F) {
	for _, n := range []string{"shimx64.efi", "//grubx64.efi", "../../../etc/passwd", "host/" + mac + ".cfg", "vmlinuz", "/./initrd.img", `\\snponly.efi`, "grub/grub.cfg"} {
		f.Add(n)
	}
	dec := &decider{armed: map[string]bool{}}
	s := &Server{cfg: testConfig(f, dec), limits: newLimits(2, 64), ctx: context.Background()}
	f.Fuzz(func(t *testing.T, name string) {
		x := &transfer{}
		err := s.handle(name, x)
		clean := bootfile.CleanPath(name)
		if bootfile.NeedsSession(clean) && err == nil {
			t.Fatalf("%q was served without a session", name)
		}
		if err != nil {
			return
		}
		if int64(x.Len()) != x.size {
			t.Fatalf("%q: %d bytes sent, %d announced", name, x.Len(), x.size)
		}
		if !s.exists(clean) || len(s.limits.hosts) != 0 {
			t.Fatalf("%q: served a name that does not exist, or the slot was kept", name)
		}
	})
}
