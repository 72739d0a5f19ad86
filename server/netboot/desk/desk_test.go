package desk

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"labswarm/server/decide"
	"labswarm/server/netboot/bootfile"
	"labswarm/server/netboot/bootreq"
)

// table answers from a map by MAC and notes what it was asked and told.
type table struct {
	mu      sync.Mutex
	by      map[string]bootreq.Answer
	asked   []bootreq.Request
	fetched []string
	panics  bool
}

func (d *table) DecideBoot(_ context.Context, r bootreq.Request) bootreq.Answer {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.panics {
		panic("store on fire")
	}
	d.asked = append(d.asked, r)
	return d.by[r.MAC]
}

func (d *table) Sighting(bootreq.Sighting) {
	if d.panics {
		panic("store on fire")
	}
}

func (d *table) InitramfsFetched(mac string) { d.fetched = append(d.fetched, mac) }

func (d *table) set(mac string, a decide.Action) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.by[mac] = bootreq.Answer{Decision: decide.Decision{Action: a}}
}

func files(t testing.TB) *bootfile.Files {
	t.Helper()
	dir := t.TempDir()
	for _, n := range []string{"shimx64.efi", "grubx64.efi", "undionly.kpxe", "vmlinuz", "initrd.img", "snponly.efi"} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pins, err := bootfile.PinsJSON([][]byte{make([]byte, 32)}, [][]byte{make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	f, err := bootfile.Load(dir, pins)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const (
	macA = "52:54:00:00:00:0a"
	macB = "52:54:00:00:00:0b"
)

var (
	ipA = netip.MustParseAddr("10.77.0.10")
	ipB = netip.MustParseAddr("10.77.0.11")
)

func newDesk(t testing.TB, change func(*Config)) (*Desk, *table, *bytes.Buffer) {
	t.Helper()
	d := &table{by: map[string]bootreq.Answer{}}
	var log bytes.Buffer
	cfg := Config{Decider: d, Files: files(t), Log: slog.New(slog.NewTextHandler(&log, nil))}
	if change != nil {
		change(&cfg)
	}
	return New(cfg), d, &log
}

// TestEnrolOpensOnlyItsOwnFiles: an unknown PC in learn mode never gets the
// agent that writes.
func TestEnrolOpensOnlyItsOwnFiles(t *testing.T) {
	d, dec, _ := newDesk(t, nil)
	ctx := t.Context()
	dec.set(macA, decide.Enrol)
	r := bootreq.Request{Proto: decide.ProtoHTTPIPXE, MAC: macA, IP: ipA}
	d.Asked(r, d.Ask(ctx, r))
	for file, want := range map[string]bool{"vmlinuz": true, "initrd-enrol.img": true, "initrd.img": false, "initrd-virtual.img": false} {
		if _, ok := d.AllowFile(ctx, decide.ProtoHTTPFile, ipA, file); ok != want {
			t.Errorf("%s after Enrol: %v; want %v", file, ok, want)
		}
	}
	dec.set(macA, decide.Local) // learn mode ends
	if _, ok := d.AllowFile(ctx, decide.ProtoHTTPFile, ipA, "initrd-enrol.img"); ok {
		t.Error("the enrol initramfs after the end of learn mode")
	}
}

func TestFilesNeedAnAgentAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, dec, _ := newDesk(t, nil)
		ctx := t.Context()
		ask := func(ip netip.Addr, mac string) {
			r := bootreq.Request{Proto: decide.ProtoHTTPIPXE, MAC: mac, IP: ip, UUID: "u"}
			d.Asked(r, d.Ask(ctx, r))
		}
		allowed := func(ip netip.Addr) bool {
			_, ok := d.AllowFile(ctx, decide.ProtoHTTPFile, ip, "vmlinuz")
			return ok
		}
		if allowed(ipA) {
			t.Error("a file for an address that never asked for a script")
		}
		d.Learn(ipA, macA, "", 0)
		if allowed(ipA) {
			t.Error("a file for an address known from DHCP only")
		}
		ask(ipA, macA) // Local
		if allowed(ipA) {
			t.Error("a file after the answer Local")
		}
		dec.set(macA, decide.Agent)
		ask(ipA, macA)
		if mac, ok := d.AllowFile(ctx, decide.ProtoHTTPFile, ipA, "initrd.img"); !ok || mac != macA {
			t.Errorf("AllowFile after Agent = %q, %v", mac, ok)
		}
		if last := dec.asked[len(dec.asked)-1]; last.MAC != macA || last.UUID != "u" || last.File != "initrd.img" || last.Proto != decide.ProtoHTTPFile {
			t.Errorf("the file request was asked as %+v", last)
		}
		if allowed(ipB) {
			t.Error("a file for another address")
		}
		dec.set(macA, decide.Local) // Agent may turn into Local at any time
		if allowed(ipA) {
			t.Error("a file after the decision has turned to Local")
		}
		dec.set(macA, decide.Agent)
		if allowed(ipA) {
			t.Error("the session outlived the refusal")
		}
		ask(ipA, macA)
		time.Sleep(sessionFresh + time.Second)
		if allowed(ipA) {
			t.Error("a file long after the script")
		}
	})
}

func TestBadAnswersAreCleaned(t *testing.T) {
	d, dec, log := newDesk(t, nil)
	dec.by[macA] = bootreq.Answer{KernelArgs: "a;b", Kernel: "vmlinuz", Initrd: "initrd-nope.img", NBP: "../x"}
	a := d.Ask(t.Context(), bootreq.Request{MAC: macA})
	if a.KernelArgs != "" || a.Kernel != "vmlinuz" || a.Initrd != "" || a.NBP != "" {
		t.Errorf("Ask = %+v", a)
	}
	if !strings.Contains(log.String(), "initrd-nope.img") {
		t.Errorf("the log does not name the missing file: %s", log)
	}
	dec.by[macA] = bootreq.Answer{NBP: "snponly.efi"}
	if a := d.Ask(t.Context(), bootreq.Request{MAC: macA}); a.NBP != "snponly.efi" {
		t.Errorf("a good boot file was dropped: %+v", a)
	}
}

func TestPanickingDeciderMeansLocal(t *testing.T) {
	d, dec, _ := newDesk(t, nil)
	dec.panics = true
	if a := d.Ask(t.Context(), bootreq.Request{MAC: macA}); a.Decision.Action != decide.Local {
		t.Errorf("Ask = %+v; want local", a)
	}
	d.Sighting(bootreq.Sighting{})
}

func TestAskHasADeadline(t *testing.T) {
	d, _, _ := newDesk(t, func(c *Config) { c.Decider = deadline{t} })
	d.Ask(context.Background(), bootreq.Request{})
}

type deadline struct{ t *testing.T }

func (d deadline) DecideBoot(ctx context.Context, _ bootreq.Request) bootreq.Answer {
	if _, ok := ctx.Deadline(); !ok {
		d.t.Error("DecideBoot was called without a deadline")
	}
	return bootreq.Answer{}
}
func (deadline) Sighting(bootreq.Sighting) {}
func (deadline) InitramfsFetched(string)   {}

func TestOneLogLinePerChange(t *testing.T) {
	d, dec, log := newDesk(t, nil)
	for range 5 {
		d.Ask(t.Context(), bootreq.Request{MAC: macA})
	}
	dec.set(macA, decide.Agent)
	for range 5 {
		d.Ask(t.Context(), bootreq.Request{MAC: macA})
	}
	if n := strings.Count(log.String(), "boot decision"); n != 2 {
		t.Errorf("%d log lines for two decisions:\n%s", n, log)
	}
}

func TestOnLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, _ := newDesk(t, func(c *Config) {
			c.OnLink, c.NeedDiscover = netip.MustParsePrefix("10.77.0.0/24"), true
			c.Lookups = []func(netip.Addr) (string, bool){func(a netip.Addr) (string, bool) { return macA, a == ipA }}
		})
		if d.OnLink(netip.MustParseAddr("192.0.2.1")) {
			t.Error("an address outside the lab may have TFTP")
		}
		if !d.OnLink(ipA) {
			t.Error("just after the start a PC whose DISCOVER we did not see is refused")
		}
		time.Sleep(discoverFresh + time.Second)
		if d.OnLink(ipA) {
			t.Error("a MAC that is not booting may have TFTP")
		}
		if !d.OnLink(ipB) {
			t.Error("an address without a neighbour entry is refused")
		}
		d.Discovered(macA)
		if !d.OnLink(ipA) {
			t.Error("a booting MAC is refused")
		}
		time.Sleep(discoverFresh + time.Second)
		if d.OnLink(ipA) {
			t.Error("a DISCOVER counts for ever")
		}
	})
	off, _, _ := newDesk(t, nil)
	if !off.OnLink(netip.MustParseAddr("192.0.2.1")) {
		t.Error("without a lab subnet nobody may be refused")
	}
}

func TestMACOf(t *testing.T) {
	d, dec, _ := newDesk(t, func(c *Config) {
		c.Lookups = []func(netip.Addr) (string, bool){
			func(netip.Addr) (string, bool) { return "", false },
			func(a netip.Addr) (string, bool) { return macB, a == ipB },
		}
	})
	if m, ok := d.MACOf(ipB); !ok || m != macB {
		t.Errorf("MACOf = %q, %v; want the neighbour's", m, ok)
	}
	d.Learn(ipA, macA, "", 7)
	if m, ok := d.MACOf(ipA); !ok || m != macA {
		t.Errorf("MACOf = %q, %v; want the ciaddr's", m, ok)
	}
	d.Fetched("")
	d.Fetched(macA)
	if len(dec.fetched) != 1 {
		t.Errorf("fetched = %v; want one", dec.fetched)
	}
}

func TestTablesAreBounded(t *testing.T) {
	d, _, _ := newDesk(t, nil)
	for i := range 3 * tableSize {
		m := fmt.Sprintf("02:00:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255)
		d.Discovered(m)
		d.Learn(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), m, "", 0)
	}
	if a, b := len(d.discovered.entries), len(d.sessions.entries); a != tableSize || b != tableSize {
		t.Errorf("tables hold %d and %d entries; want %d", a, b, tableSize)
	}
	if d.discovered.order.Len() != tableSize {
		t.Errorf("order list holds %d", d.discovered.order.Len())
	}
}
