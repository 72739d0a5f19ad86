package netboot

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"labswarm/server/decide"
	"labswarm/server/netboot/bootfile"
)

// TestMain also runs the steps that the integration test starts as child
// processes inside network namespaces.
func TestMain(m *testing.M) {
	if runStep() {
		return
	}
	goleak.VerifyTestMain(m)
}

// table is a Decider that answers from a map and notes events.
type table struct {
	mu     sync.Mutex
	by     map[string]Answer
	events func(kind, mac string)
}

func (d *table) DecideBoot(_ context.Context, r Request) Answer {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, known := d.by[r.MAC]
	if !known && (r.Proto == decide.ProtoProxy || r.Proto == decide.Proto4011) {
		a.Decision.Action = decide.Ignore
	}
	return a
}

func (d *table) Sighting(s Sighting)         { d.note(string(s.Kind), s.MAC) }
func (d *table) InitramfsFetched(mac string) { d.note("fetched", mac) }
func (d *table) note(kind, mac string) {
	if d.events != nil {
		d.events(kind, mac)
	}
}

// writeBootFiles fills dir with files of known content, the kernel larger than
// many TFTP blocks.
func writeBootFiles(dir string) error {
	for _, n := range []string{"shimx64.efi", "grubx64.efi", "undionly.kpxe", "vmlinuz", "initrd.img"} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(strings.Repeat(n+"\n", 100_000)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func loadFiles(dir string) (*bootfile.Files, error) {
	pins, err := bootfile.PinsJSON([][]byte{make([]byte, 32)}, [][]byte{make([]byte, 32)})
	if err != nil {
		return nil, err
	}
	return bootfile.Load(dir, pins)
}

func testFiles(t *testing.T) *bootfile.Files {
	t.Helper()
	dir := t.TempDir()
	if err := writeBootFiles(dir); err != nil {
		t.Fatal(err)
	}
	f, err := loadFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestConfigFaultsAreAllNamed(t *testing.T) {
	f := testFiles(t)
	_, err := New(Config{Mode: "both", ProxyStyle: "x", ExtraKernelArgs: "a;b", Router: netip.MustParseAddr("::1"), ServerIP: netip.MustParseAddr("::1")}, f, &table{})
	for _, w := range []string{"--lab-if", `mode "both"`, `proxy style "x"`, "kernel arguments", "server address ::1", "address ::1 is not IPv4", "key id"} {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("New = %v; want it to say %q", err, w)
		}
	}
	if _, err := New(Config{Interface: "lo", Mode: ModeDHCP, KeyID: "00"}, f, &table{}); err == nil || !strings.Contains(err.Error(), "address pool") {
		t.Errorf("mode dhcp without a pool = %v", err)
	}
	if _, err := New(Config{Interface: "lo", Mode: ModeProxy, KeyID: "00"}, nil, nil); err == nil {
		t.Error("New without files and decider succeeded")
	}
}

func TestListenFaults(t *testing.T) {
	f := testFiles(t)
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"missing interface": {Config{Interface: "nosuchif0", Mode: ModeOff, KeyID: "00"}, "interfaces here"},
		"wrong address":     {Config{Interface: "lo", Mode: ModeOff, KeyID: "00", ServerIP: netip.MustParseAddr("192.0.2.9")}, "does not have it"},
		"pool elsewhere": {Config{Interface: "lo", Mode: ModeDHCP, KeyID: "00", PoolStart: netip.MustParseAddr("10.1.1.1"),
			PoolEnd: netip.MustParseAddr("10.1.1.9")}, "is not in 127.0.0.0/8"},
	} {
		s, err := New(c.cfg, f, &table{})
		if err != nil {
			t.Fatalf("%s: New: %v", name, err)
		}
		if err := s.Listen(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Listen = %v; want %q", name, err, c.want)
		}
	}
	s, err := New(Config{Interface: "lo", Mode: ModeOff, KeyID: "00"}, f, &table{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("Run without Listen succeeded")
	}
}

func TestLastAddr(t *testing.T) {
	for in, want := range map[string]string{"10.77.0.1/24": "10.77.0.255", "10.77.0.1/30": "10.77.0.3", "10.0.0.1/8": "10.255.255.255", "10.0.0.1/32": "10.0.0.1"} {
		if got := lastAddr(netip.MustParsePrefix(in)); got.String() != want {
			t.Errorf("lastAddr(%s) = %s; want %s", in, got, want)
		}
	}
}

// TestRunAndStop: a server on loopback in mode off serves and ends cleanly
// (goleak looks for what is left).
func TestRunAndStop(t *testing.T) {
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Interface: "lo", Mode: ModeOff, KeyID: "00", TFTPPort: port, HTTPPort: port, Log: slog.New(slog.DiscardHandler)}, testFiles(t), &table{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close after Run = %v", err)
	}
}

// TestOneDesk: DecideBoot is called in one place, and every protocol's handler
// asks there: a route that answers by itself would be a way round the decision.
func TestOneDesk(t *testing.T) {
	asks := map[string]bool{"dhcp": false, "tftp": false, "httpboot": false}
	err := filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			switch sel.Sel.Name {
			case "DecideBoot":
				if path != filepath.Join("desk", "desk.go") {
					t.Errorf("%s calls DecideBoot: only the desk may", path)
				}
			case "Decide":
				t.Errorf("%s calls Decide: the protocols only render", path)
			case "Ask", "AllowFile":
				asks[filepath.Dir(path)] = true
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg, ok := range asks {
		if !ok {
			t.Errorf("%s never asks the desk", pkg)
		}
	}
}
