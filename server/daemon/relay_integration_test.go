//go:build integration

package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"labswarm/api"
	"labswarm/internal/testreq"
)

// TestRelayDiskFull: a relay without room says so, serves nothing half, and goes
// on by itself when there is room.
func TestRelayDiskFull(t *testing.T) {
	testreq.Root(t)
	s := newSite(t)
	r := newSecond(s, "annex")
	dir := r.cfg.StateDir
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil { // the image has 3 MiB
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.end()
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	r.start()
	v := s.waitRelay("says that there is no room", func(v api.Relay) bool {
		return len(v.Images) == 1 && strings.Contains(v.Images[0].State, "no room")
	})
	if v.Images[0].Serving || v.Images[0].Sent > 0 {
		t.Errorf("a relay without room: %+v", v.Images[0])
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	s.waitRelay("serves", serves(1))
}

// TestRelayDiskFillsUp: the room is gone in mid-fetch, taken by somebody else.
// The relay says so; when there is room again it fetches only what it lacks.
func TestRelayDiskFillsUp(t *testing.T) {
	testreq.Root(t)
	s := newSite(t)
	s.rate = 300 << 10 // ten seconds for the image
	s.restart()
	r := newSecond(s, "annex")
	dir := r.cfg.StateDir
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.end()
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	r.start()
	s.waitRelay("has begun", func(v api.Relay) bool { return len(v.Images) == 1 && v.Images[0].Have > 1 })
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 32<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	s.waitRelay("says that there is no room", func(v api.Relay) bool { return strings.Contains(v.Images[0].State, "no room") })
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	v := s.waitRelay("serves", serves(1))
	// A cell that could not be written, and what was under way behind it, came twice.
	if most := int64(v.Images[0].Pieces+6) * (256 << 10); v.Images[0].Received > most {
		t.Errorf("fetched %d bytes for %d cells; want at most %d", v.Images[0].Received, v.Images[0].Pieces, most)
	}
}
