package main

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"labswarm/internal/testreq"
)

// writers are the packages without which no disk can be opened for writing and
// no order obeyed.
var writers = []string{"disk", "disk/target", "writer", "deploy", "finalise", "personalise", "volume", "readback", "relay", "capture"}

// TestEnrolOnlyHoldsNoWriter looks at the program as it is linked: the agent of
// the enrol profile has no method of disk.Writable and nothing of what obeys an
// order. The agent itself is the negative control.
func TestEnrolOnlyHoldsNoWriter(t *testing.T) {
	gotool := testreq.Tool(t, "go", "golang")
	for tags, want := range map[string]bool{"enrolonly": false, "": true} {
		bin := filepath.Join(t.TempDir(), "agent")
		cmd := exec.CommandContext(t.Context(), gotool, "build", "-tags", tags, "-o", bin, ".") // with its symbols
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build -tags %q: %v\n%s", tags, err, out)
		}
		names := symbols(t, bin)
		if got := holds(names, "labswarm/initramfs-agent/disk.(*Writable)"); got != want {
			t.Errorf("build with tags %q holds methods of disk.Writable: %v; want %v", tags, got, want)
		}
		for _, w := range writers {
			if got := holds(names, "labswarm/initramfs-agent/"+w+"."); got != want {
				t.Errorf("build with tags %q holds package %s: %v; want %v", tags, w, got, want)
			}
		}
		out, err := exec.CommandContext(t.Context(), gotool, "list", "-deps", "-tags", tags, ".").Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range writers {
			if got := strings.Contains(string(out), "labswarm/initramfs-agent/"+w+"\n"); got != want {
				t.Errorf("build with tags %q imports %s: %v; want %v", tags, w, got, want)
			}
		}
	}
}

func symbols(t *testing.T, bin string) []string {
	t.Helper()
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	syms, err := f.Symbols()
	if err != nil || len(syms) < 1000 {
		t.Fatalf("%d symbols, %v: the test sees nothing", len(syms), err)
	}
	var names []string
	for _, s := range syms {
		names = append(names, s.Name)
	}
	return names
}

func holds(names []string, prefix string) bool {
	for _, n := range names {
		if strings.HasPrefix(n, prefix) {
			return true
		}
	}
	return false
}
