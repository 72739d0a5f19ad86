//go:build integration

package library

import (
	"crypto/ed25519"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"labswarm/images/fixture"
	"labswarm/internal/testreq"
)

// A full file system: refused before anything is read, or stopped in the middle, and never leaves anything.
func TestNoSpace(t *testing.T) {
	testreq.Root(t)
	k := fixture.New(t, testreq.Tool)
	disk := golden(t, k)
	dir := t.TempDir()
	if err := unix.Mount("labswarm-test", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	l, err := Open(dir, ed25519.NewKeyFromSeed(fixture.Random(5, 32)), nil)
	if err != nil {
		t.Fatal(err)
	}
	var full *NoSpaceError
	_, err = l.Import(t.Context(), ImportOptions{Name: "lab", File: disk})
	if !errors.As(err, &full) || full.Need == 0 || full.Need <= full.Free-full.Reserve {
		t.Errorf("Import = %v; want NoSpaceError with both numbers", err)
	}
	if left := leftovers(t, dir); left != nil {
		t.Errorf("left %q", left)
	}
	// Room at the start that somebody else takes in the meantime.
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=200m"); err != nil {
		t.Fatal(err)
	}
	_, err = l.Import(t.Context(), ImportOptions{Name: "lab", File: disk, Progress: func(p Progress) {
		if p.Done == 0 {
			if err := os.WriteFile(dir+"/.other", make([]byte, 199*MiB), 0o600); err != nil {
				t.Error(err)
			}
		}
	}})
	if !errors.As(err, &full) {
		t.Errorf("Import into a disk that fills up = %v; want NoSpaceError", err)
	}
	if err := os.Remove(dir + "/.other"); err != nil {
		t.Error(err)
	}
	if left := leftovers(t, dir); left != nil {
		t.Errorf("left %q", left)
	}
}

// A block device is read as well, but not while something on it is mounted.
func TestBlockDevice(t *testing.T) {
	testreq.Root(t)
	k := fixture.New(t, testreq.Tool)
	disk := golden(t, k)
	write(t, disk, 100<<20, []byte("a file must stay a file"))
	loop := strings.TrimSpace(k.Run("mount", "", "losetup", "-P", "--show", "-f", disk))
	t.Cleanup(func() { k.Run("mount", "", "losetup", "-d", loop) })
	l, _ := newLibrary(t)
	fromFile := mustImport(t, l, ImportOptions{Name: "file", File: disk})
	fromLoop := mustImport(t, l, ImportOptions{Name: "loop", File: loop})
	if string(fromFile.Manifest().HashList) != string(fromLoop.Manifest().HashList) {
		t.Error("the device and its file give different images")
	}
	hold, err := unix.Open(loop, unix.O_RDONLY|unix.O_EXCL, 0) // what a mount does
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Close(hold); err != nil {
			t.Error(err)
		}
	}()
	if _, err := l.Import(t.Context(), ImportOptions{Name: "loop", File: loop}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Import of a device in use = %v", err)
	}
}
