// Package arch holds the tests that keep the house in shape: who may import
// whom, and rules that a linter does not know.
package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

const module = "labswarm/"

// rule says which of our packages a package may import: first matching rule
// wins, from the most special to the most general. A pattern ending in /...
// means the package and all below it.
type rule struct {
	pkg   string
	allow []string
}

// The table is docs/ARCHITECTURE.md's, in code.
var table = []rule{
	{"api", nil},
	{"api/cells", nil},
	{"api/client", []string{"api"}},
	{"api/filter", nil},
	{"api/order", []string{"api"}},
	{"api/diskrule", []string{"api", "internal/units"}}, // one rule on both sides of the wire
	{"internal/units", nil},
	{"internal/version", nil},
	{"internal/testreq", nil},
	{"internal/arch", nil},
	{"internal/testnet", nil},
	{"internal/testvm", []string{"internal/testnet"}},
	{"images/manifest", []string{"internal/units"}},
	{"images/fsmap/...", []string{"internal/units", "images/manifest", "images/fsmap/..."}},
	{"images/mask", []string{"internal/units", "images/manifest"}},
	{"images/library", []string{"images/...", "internal/units", "swarm/frame"}},
	{"images/...", []string{"images/...", "internal/units"}},
	{"swarm/frame", nil},
	{"swarm/window", nil},
	{"swarm/peercert", nil},
	{"swarm/sched", []string{"swarm/window"}},
	{"swarm/...", []string{"swarm/...", "images/manifest", "images/metainfo", "internal/units"}},
	{"tracker/plan", []string{"api", "tracker/registry"}},
	{"tracker/sim", []string{"tracker", "tracker/plan", "tracker/registry", "swarm/sched", "swarm/window", "api"}}, // proves; no part of a binary
	{"tracker/...", []string{"tracker", "tracker/plan", "tracker/registry", "tracker/announce", "api"}},
	{"server/inventory/ident", nil},
	{"server/inventory/...", []string{"api/...", "images/manifest", "server/inventory/...", "server/store"}},
	{"server/job/...", []string{"api/...", "images/manifest", "server/inventory/...", "internal/units"}},
	{"server/schedule", []string{"api"}}, // pure
	{"server/decide", []string{"api/...", "server/job", "server/inventory/..."}},
	{"server/store/...", []string{"api/...", "server/store/..."}},
	{"server/access", []string{"api", "server/store"}},
	{"server/httpapi", []string{"api/...", "server/access", "server/decide", "server/job", "server/inventory/...", "server/event", "server/config", "server/store", "internal/units", "internal/version"}}, // access stands before every admin route
	{"server/seeder", []string{"api/...", "swarm/...", "images/...", "internal/units"}},
	{"server/relay", []string{"api", "swarm/...", "images/...", "internal/units", "internal/version"}}, // runs on another machine: nothing of the server's
	{"server/netboot/...", []string{"api/...", "server/decide", "server/inventory/...", "server/netboot/..."}},
	{"server/daemon/...", []string{"api/...", "server/...", "tracker/...", "swarm/...", "images/...", "internal/units", "internal/version"}},
	{"server/...", []string{"api/...", "server/decide", "server/job", "server/inventory/...", "server/event", "server/config", "server/store", "internal/units", "internal/version"}},
	{"initramfs-agent/agenttest", []string{"initramfs-agent/...", "api/...", "swarm/...", "images/...", "internal/..."}}, // imported by tests only
	{"initramfs-agent/...", []string{"initramfs-agent/...", "api/...", "swarm/...", "images/manifest", "images/metainfo", "images/mask", "images/survey", "images/fsmap/part", "images/fsmap/sig", "images/fsmap/ntfs", "internal/units", "internal/version"}},
	{"tui/...", []string{"tui/...", "api", "api/client", "api/filter", "internal/units", "internal/version"}},
	{"cmd/labswarm/...", []string{"cmd/labswarm/...", "server/daemon", "server/config", "server/relay", "tracker/...", "swarm/...", "images/...", "tui/...", "api/...", "e2e/classroom", "internal/units", "internal/version"}},
	{"e2e/swarmsim", []string{"tracker/sim"}},
	{"e2e/swarmbench/stock", nil}, // the stock client beside ours
	{"e2e/swarmbench", []string{"swarm/...", "tracker/...", "images/...", "api/...", "internal/..."}},            // measures; no part of a binary
	{"e2e/imagebench", []string{"images/...", "initramfs-agent/bundle", "initramfs-agent/scan", "internal/..."}}, // measures the agent's own check; no part of a binary
	{"e2e/...", []string{"e2e/...", "api/...", "images/...", "internal/..."}},
	{"scripts/...", []string{"internal/units", "internal/version"}},
}

func match(pattern, pkg string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	return pattern == pkg
}

// forbidden returns the imports of pkg that the table does not allow, or "no
// rule" when the table does not know the package.
func forbidden(pkg string, imports []string) []string {
	for _, r := range table {
		if !match(r.pkg, pkg) {
			continue
		}
		var bad []string
		for _, imp := range imports {
			ours, ok := strings.CutPrefix(imp, module)
			if !ok {
				continue
			}
			allowed := false
			for _, a := range r.allow {
				allowed = allowed || match(a, ours)
			}
			if !allowed {
				bad = append(bad, ours)
			}
		}
		return bad
	}
	return []string{"no rule for this package: add it to the table and to docs/ARCHITECTURE.md"}
}

type listed struct {
	ImportPath string
	Imports    []string
}

func root(t *testing.T) string {
	t.Helper()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(filepath.Dir(wd))
}

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-tags", "e2e,integration", "-json=ImportPath,Imports", "./...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestImportTable(t *testing.T) {
	for _, p := range list(t) {
		pkg := strings.TrimPrefix(p.ImportPath, module)
		for _, bad := range forbidden(pkg, p.Imports) {
			t.Errorf("%s may not import %s (internal/arch, docs/ARCHITECTURE.md)", pkg, bad)
		}
	}
}

// TestTableHasTeeth is the negative control: imports that must never pass.
func TestTableHasTeeth(t *testing.T) {
	for _, tt := range [][2]string{
		{"initramfs-agent", "server/store"},
		{"initramfs-agent/disk", "tracker"},
		{"tui/screen/rooms", "server/daemon"},
		{"swarm/peer", "api"},
		{"tracker/plan", "swarm/peer"},
		{"api", "api/order"},
		{"server/netboot/dhcp", "server/httpapi"},
		{"server/relay", "server/store"},
	} {
		if len(forbidden(tt[0], []string{module + tt[1]})) == 0 {
			t.Errorf("the table lets %s import %s", tt[0], tt[1])
		}
	}
}

// codecs are number and address types that the wire codec shares with DHT code;
// they open no socket and speak no protocol.
var codecs = map[string]bool{
	"github.com/anacrolix/dht/v2/int160": true,
	"github.com/anacrolix/dht/v2/krpc":   true,
}

// TestNoDiscovery keeps DHT, PEX, LSD, UPnP and uTP out of both binaries: the
// tracker decides who sends to whom.
func TestNoDiscovery(t *testing.T) {
	for _, bin := range []string{"./cmd/labswarm", "./initramfs-agent"} {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", bin)
		cmd.Dir = root(t)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", bin, err)
		}
		for dep := range strings.FieldsSeq(string(out)) {
			for _, bad := range []string{"anacrolix/dht", "anacrolix/upnp", "anacrolix/utp", "go-libutp", "pion/", "gopkg.in/natefinch", "huin/goupnp"} {
				if strings.Contains(dep, bad) && !codecs[dep] {
					t.Errorf("%s contains %s", bin, dep)
				}
			}
		}
	}
}

// TestTwoTrustLevels checks the binaries as linked: no server code in the
// agent, no disk writer in the server's binary.
func TestTwoTrustLevels(t *testing.T) {
	for bin, banned := range map[string][]string{
		"./initramfs-agent": {"labswarm/server", "labswarm/tracker", "labswarm/tui", "go.etcd.io/bbolt"},
		"./cmd/labswarm":    {"labswarm/initramfs-agent", "labswarm/tracker/sim"},
	} {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", bin)
		cmd.Dir = root(t)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", bin, err)
		}
		for dep := range strings.FieldsSeq(string(out)) {
			for _, b := range banned {
				if dep == b || strings.HasPrefix(dep, b+"/") {
					t.Errorf("%s links %s", bin, dep)
				}
			}
		}
	}
}

// TestFileSizes reports Go files over 450 lines: the house number is 400.
func TestFileSizes(t *testing.T) {
	var long []string
	err := filepath.WalkDir(root(t), func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "build" || d.Name() == ".git" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if path.Ext(p) != ".go" {
			return nil
		}
		raw, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if n := bytes.Count(raw, []byte("\n")); n > 450 {
			long = append(long, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(long)
	for _, p := range long {
		t.Errorf("%s is longer than 450 lines: one idea a file", p)
	}
}
