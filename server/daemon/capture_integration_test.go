//go:build integration

package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"labswarm/api"
	"labswarm/images/fixture"
	"labswarm/internal/testreq"
	"labswarm/server/decide"
)

// TestCapture: a terminal's disk becomes an image that equals its import, while the network is cut, the agent dies and
// the server is started again; the disk stays as it was, and boots.
func TestCapture(t *testing.T) {
	testreq.Root(t)
	k := fixture.New(t, testreq.Tool)
	file, _ := reference(t, k)
	s := quietSite(t)
	x := newTerminal(t, s, "a1", file)
	job := s.capture("lab", x)
	if job.Kind != api.KindCapture || job.Version != "" || len(job.Slots) != 1 || job.Slots[0].State != api.StateArmed {
		t.Fatalf("ordered: %+v", job)
	}
	g := newGate(t, s.agents())

	// The PC falls silent after some cells, and is switched on again. (What hung comes back at the end, and is told
	// that its time is over.)
	dead := newGate(t, s.agents())
	frozen, thaw := make(chan struct{}), make(chan struct{})
	dead.at(4*mib, func() { close(frozen); <-thaw })
	zombie := make(chan error, 1)
	x.boot()
	go func() {
		out, err := x.agent(t.Context(), dead.addr)
		if err == nil && out.Reason == "" {
			err = errors.New("it finished")
		}
		zombie <- err
	}()
	<-frozen
	here := s.received(job.ID)
	if here == 0 {
		t.Fatal("nothing had come when the terminal fell silent")
	}
	s.silent("a1")

	// The network is cut, then the server goes and comes back; each time the rest is sent, and no more.
	cuts := 0
	goesOn := func(when string) { // less came than before: had it begun anew, less would be here
		cuts++
		if now := s.received(job.ID); now <= here {
			t.Errorf("%s: %d cells are here, %d were before", when, now, here)
		} else {
			here = now
		}
		g.cut()
	}
	g.at(2*mib, func() {
		goesOn("the second boot")
		g.at(2*mib, func() {
			s.wantState("a1", api.StateCapturing)
			goesOn("after the cut")
			s.restart()
			g.at(mib, func() { goesOn("after the server's restart") })
		})
	})
	out, err := x.run(t.Context(), g.addr)
	close(thaw)
	if err != nil || out.Committed || out.PowerOff || out.Reason != "" {
		t.Fatalf("run = %+v, %v", out, err)
	}
	if err := <-zombie; err != nil {
		t.Errorf("the agent that hung: %v", err)
	}
	v := s.equal(file, "lab")
	x.untouched()
	if cuts != 3 {
		t.Errorf("%d cuts; the image of %d bytes is too small for this test", cuts, v.FrameBytes())
	}
	sl := s.slot("a1")
	if !sl.State.Good() || sl.PONR || !sl.Verified || sl.Attempt != 2 {
		t.Errorf("slot at the end: %+v", sl)
	}
	s.boot(x.host, decide.Local)
	s.wantState("a1", api.StateConfirmed)
	j, err := s.cli.Job(t.Context(), job.ID)
	if err != nil || j.Result != "ok" || j.Version != v.Version() || j.Cells != v.Manifest().Pieces() || j.BytesShipped != v.Manifest().ShippedBytes() {
		t.Errorf("job at the end: %+v, %v", j, err)
	}
	if left := s.pending(); left != nil {
		t.Errorf("left in the image folder: %v", left)
	}

	// Once more: nothing has changed, so that there is no second version.
	s.restart() // forgets that this boot was answered local
	again := s.capture("lab", x)
	if _, err := x.run(t.Context(), s.agents()); err != nil {
		t.Fatal(err)
	}
	if j, err := s.cli.Job(t.Context(), again.ID); err != nil || !j.Slots[0].State.Good() || j.Version != v.Version() {
		t.Errorf("second capture: %+v, %v", j, err)
	}
	x.untouched()

	// On that version as base: only hashes travel.
	if _, err := s.cli.Capture(t.Context(), "lab", api.CaptureCreate{Host: "a1", Base: "2020-01-01.1"}); err == nil {
		t.Error("a base that is not there was taken")
	}
	s.restart()
	on, err := s.cli.Capture(t.Context(), "lab", api.CaptureCreate{Host: "a1", Base: "latest"})
	if err != nil {
		t.Fatal(err)
	}
	thin := newGate(t, s.agents())
	if _, err := x.run(t.Context(), thin.addr); err != nil {
		t.Fatal(err)
	}
	if j, err := s.cli.Job(t.Context(), on.ID); err != nil || !j.Slots[0].State.Good() || j.Version != v.Version() {
		t.Errorf("capture on a base: %+v, %v", j, err)
	}
	if n := thin.sent.Load(); n > v.FrameBytes()/10 {
		t.Errorf("%d bytes were sent of an image whose cells are all here; they have %d", n, v.FrameBytes())
	}
	x.untouched()
}

// TestCaptureGuards: everything that speaks against an image is said at once; each is overridden by its own name, and
// the image remembers it. Nothing of a refused disk is published.
func TestCaptureGuards(t *testing.T) {
	testreq.Root(t)
	k := fixture.New(t, testreq.Tool)
	file, ntfs := reference(t, k)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sleeping := k.Path("hiberfil")
	if err := os.WriteFile(sleeping, append([]byte("hibr"), make([]byte, 8<<10)...), 0o600); err != nil {
		t.Fatal(err)
	}
	k.Run("ntfs-3g", "", "ntfscp", "-q", ntfs, sleeping, "hiberfil.sys")
	win, err := os.ReadFile(ntfs)
	if err != nil {
		t.Fatal(err)
	}
	copy(raw[winOff:], win)
	raw[extOff+1024+96] |= 4 // needs_recovery
	bad := k.Path("bad.img")
	if err := os.WriteFile(bad, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	s := quietSite(t)
	x := newTerminal(t, s, "a2", bad)
	for _, force := range [][]string{nil, {"dirty"}} {
		s.capture("lab", x, force...)
		out, err := x.run(t.Context(), s.agents())
		if err == nil || out.Committed {
			t.Fatalf("force %v: run = %+v, %v", force, out, err)
		}
		sl := s.wantState("a2", api.StateFailed)
		if sl.Code != api.CodeGuard || strings.Contains(sl.Error, "--force=dirty") == slices.Contains(force, "dirty") ||
			strings.Contains(sl.Error, "--force=hibernated") == slices.Contains(force, "hibernated") {
			t.Errorf("force %v: refused with %s: %s", force, sl.Code, sl.Error)
		}
		s.boot(x.host, decide.Local)
		s.restart() // forgets that this boot was answered local
	}
	x.untouched()
	if _, err := os.Stat(filepath.Join(s.dir, "images", "lab")); err == nil || s.pending() != nil {
		t.Errorf("a refused capture left something: %v, %v", err, s.pending())
	}
	s.capture("lab", x, "dirty", "hibernated")
	if out, err := x.run(t.Context(), s.agents()); err != nil {
		t.Fatalf("forced run = %+v, %v", out, err)
	}
	x.untouched()
	v, err := s.lib().Get("lab", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	m := v.Manifest()
	if len(m.Forced) != 2 || !strings.HasPrefix(m.Forced[0], "hibernated: partition 2 (ntfs)") || !strings.HasPrefix(m.Forced[1], "dirty: partition 3 (ext4)") {
		t.Errorf("forced: %q", m.Forced)
	}
	for _, f := range []string{"bitlocker", "everything", "dirty,hibernated"} {
		if _, err := s.cli.Capture(t.Context(), "lab", api.CaptureCreate{Host: "a2", Force: []string{f}}); err == nil {
			t.Errorf("guard %q can be forced", f)
		}
	}
}

// TestCaptureOfADiskInUse: somebody writes a file to the disk while it is read, below the terminal. The second look at
// it sees that; nothing is published.
func TestCaptureOfADiskInUse(t *testing.T) {
	testreq.Root(t)
	k := fixture.New(t, testreq.Tool)
	file, _ := reference(t, k)
	s := quietSite(t)
	x := newTerminal(t, s, "a5", file)
	root := k.Slice(file, extOff, extLen)
	k.Run("e2fsprogs", "", "debugfs", "-w", "-R", "write "+random(t, k, 9, mib)+" new", root)
	changed, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(t, s.agents())
	g.at(3*mib, func() {
		f, err := os.OpenFile(x.loop.File, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt(changed, extOff)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Error(err)
		}
	})
	s.capture("lab", x)
	if out, err := x.run(t.Context(), g.addr); err == nil || out.Committed {
		t.Errorf("run = %+v, %v", out, err)
	}
	if sl := s.wantState("a5", api.StateFailed); sl.Code != api.CodeCapture || !strings.Contains(sl.Error, "changed while it was read") {
		t.Errorf("refused with %s: %s", sl.Code, sl.Error)
	}
	s.end()
	if _, err := os.Stat(filepath.Join(s.dir, "images", "lab")); err == nil || s.pending() != nil {
		t.Errorf("something is left: %v, %v", err, s.pending())
	}
}

// TestCaptureCancelled: the host boots its disk, and nothing is left; a full disk ends the capture with a sentence.
func TestCaptureCancelled(t *testing.T) {
	testreq.Root(t)
	k := fixture.New(t, testreq.Tool)
	file, _ := reference(t, k)
	s := quietSite(t)
	x := newTerminal(t, s, "a3", file)
	g := newGate(t, s.agents())
	job := s.capture("lab", x)
	g.at(5*mib, func() {
		if _, err := s.cli.CancelJob(t.Context(), job.ID); err != nil {
			t.Error(err)
		}
	})
	out, err := x.run(t.Context(), g.addr)
	if err != nil || out.Reason == "" {
		t.Errorf("cancelled run = %+v, %v; want the local disk", out, err)
	}
	s.wantState("a3", api.StateCancelled)
	s.boot(x.host, decide.Local)
	x.untouched()
	s.end() // waits for the tidying
	if _, err := os.Stat(filepath.Join(s.dir, "images", "lab")); err == nil || s.pending() != nil {
		t.Errorf("a cancelled capture left something: %v, %v", err, s.pending())
	}
}
