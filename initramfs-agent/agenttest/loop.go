package agenttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"labswarm/internal/testreq"
)

// Loop is a loop device with its backing file.
type Loop struct {
	Dev  string // /dev/loopN
	Name string // loopN
	File string // backing file
}

// NewLoop attaches a file with the given content as a loop device of this
// test; opts are more options of losetup. It is detached when the test ends.
func NewLoop(t testing.TB, content []byte, opts ...string) *Loop {
	t.Helper()
	testreq.Root(t)
	file := filepath.Join(t.TempDir(), "seat.img")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return attach(t, file, opts)
}

// NewSparseLoop is an empty disk of the given size in bytes.
func NewSparseLoop(t testing.TB, size int64, opts ...string) *Loop {
	t.Helper()
	testreq.Root(t)
	file := filepath.Join(t.TempDir(), "seat.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	return attach(t, file, opts)
}

// NewFailingLoop is an empty disk of the given size that takes no more than the
// first room bytes written to it, wherever: then writes fail with an error of the
// kernel's. Both in bytes.
func NewFailingLoop(t testing.TB, size, room int64) *Loop {
	t.Helper()
	testreq.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", room)); err != nil {
		t.Fatalf("mount a tmpfs of %d bytes: %v", room, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(dir, "seat.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	return attach(t, file, nil)
}

// attach makes a loop device of a file.
func attach(t testing.TB, file string, opts []string) *Loop {
	t.Helper()
	losetup := testreq.Tool(t, "losetup", "mount")
	l := &Loop{File: file}
	args := append([]string{"--find", "--show"}, append(opts, l.File)...)
	out, err := exec.CommandContext(t.Context(), losetup, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup %v: %v: %s", args, err, out)
	}
	l.Dev = strings.TrimSpace(string(out))
	l.Name = filepath.Base(l.Dev)
	t.Cleanup(func() {
		// The test's context has ended by now. The read-only flag that the agent
		// sets would outlive the detaching and meet the device's next user.
		if out, err := exec.Command("blockdev", "--setrw", l.Dev).CombinedOutput(); err != nil { //nolint:noctx // see above
			t.Errorf("make %s writable: %v: %s", l.Dev, err, out)
		}
		if out, err := exec.Command(losetup, "--detach", l.Dev).CombinedOutput(); err != nil { //nolint:noctx // see above
			t.Errorf("detach %s: %v: %s", l.Dev, err, out)
		}
	})
	return l
}

// Content returns what the backing file holds.
func (l *Loop) Content(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(l.File)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
