//go:build integration

package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"labswarm/api"
	"labswarm/images/fixture"
	"labswarm/internal/testreq"
	"labswarm/server/decide"
)

// TestCaptureOnAFullDisk: too little room is said before the first cell, with both numbers; room that goes meanwhile
// ends the capture with the same words. Nothing is published, nothing stays, the terminal boots its disk.
func TestCaptureOnAFullDisk(t *testing.T) {
	testreq.Root(t)
	k := fixture.New(t, testreq.Tool)
	file, _ := reference(t, k)
	s := quietSite(t)
	s.end()
	images := filepath.Join(s.dir, "images")
	if err := unix.Mount("labswarm-test", images, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		s.end()
		if err := unix.Unmount(images, 0); err != nil {
			t.Error(err)
		}
	})
	s.start()
	x := newTerminal(t, s, "a4", file)
	refused := func(what string, addr netip.AddrPort) {
		t.Helper()
		if out, err := x.run(t.Context(), addr); err == nil || out.Committed {
			t.Errorf("%s: run = %+v, %v", what, out, err)
		}
		sl := s.wantState("a4", api.StateFailed)
		if sl.Code != api.CodeNoSpace || !strings.Contains(sl.Error, "must stay free") || !strings.Contains(sl.Error, "no room in") {
			t.Errorf("%s: %s %s", what, sl.Code, sl.Error)
		}
		s.boot(x.host, decide.Local)
		s.restart() // waits for the tidying, and forgets that this boot was answered local
		if left := s.pending(); left != nil {
			t.Errorf("%s: left %v", what, left)
		}
	}
	s.capture("lab", x)
	refused("too small", s.agents())

	if err := unix.Mount("", images, "", unix.MS_REMOUNT, "size=200m"); err != nil {
		t.Fatal(err)
	}
	s.capture("lab", x)
	g := newGate(t, s.agents())
	g.at(3*mib, func() {
		if err := os.WriteFile(filepath.Join(images, ".other"), make([]byte, 190*mib), 0o600); err != nil {
			t.Error(err)
		}
	})
	refused("filled meanwhile", g.addr)
	if err := os.Remove(filepath.Join(images, ".other")); err != nil {
		t.Fatal(err)
	}
	x.untouched()

	s.capture("lab", x)
	if out, err := x.run(t.Context(), s.agents()); err != nil || out.Reason != "" {
		t.Fatalf("with room: %+v, %v", out, err)
	}
	s.equal(file, "lab")
}
