// Package testreq says what a test needs from its machine. A test that lacks
// it skips with one line that starts "SKIP: needs", which `make test` collects
// and prints at its end; with LABSWARM_NO_SKIP=1 (CI) the same is a failure.
package testreq

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Root skips the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root (run as root, or `make test-unit` for the tests that need none)")
	}
}

// Tool returns the path of a program, or skips naming its Debian package.
func Tool(t testing.TB, name, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "the program "+name+" (apt-get install "+debianPackage+")")
	}
	return path
}

// File skips the test unless path exists, for example /dev/net/tun.
func File(t testing.TB, path, cure string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		missing(t, path+" ("+cure+")")
	}
}

// Filesystem skips the test unless the kernel can mount a filesystem, whose module is
// loaded if there is one.
func Filesystem(t testing.TB, name string) {
	t.Helper()
	// The outcome shows in /proc/filesystems.
	_ = exec.CommandContext(t.Context(), "modprobe", "-q", name).Run()
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == name {
			return
		}
	}
	missing(t, "a kernel that mounts "+name+" (install its module package)")
}

func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("LABSWARM_NO_SKIP") == "1" {
		t.Fatalf("needs %s, and LABSWARM_NO_SKIP=1 forbids skipping", what)
	}
	t.Skipf("SKIP: needs %s", what)
}
