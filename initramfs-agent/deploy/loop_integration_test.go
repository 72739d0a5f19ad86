//go:build integration

package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/images/fsmap/part"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/disk/inventory"
	"labswarm/initramfs-agent/report"
	"labswarm/internal/testreq"
)

func noise(size int64) []byte {
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(uint64(size), 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func loops(names ...string) *disk.Set {
	sys := inventory.Real()
	sys.Only, sys.Loops = names, true
	return disk.NewSet(sys, true)
}

// proven checks the disk, the table and the result of a good deployment.
func proven(t *testing.T, s *agenttest.Server, l *agenttest.Loop, out Outcome, err error) api.Result {
	t.Helper()
	r, _ := deployed(t, s, l, out, err)
	s.Image.Check(t, l.Content(t))
	return r
}

// deployed checks the table and the result of a good deployment, after which filesystems may have grown.
func deployed(t *testing.T, s *agenttest.Server, l *agenttest.Loop, out Outcome, err error) (api.Result, *part.Table) {
	t.Helper()
	if err != nil || !out.Verified || !out.Committed {
		t.Fatalf("Run = %+v, %v; want a proven disk", out, err)
	}
	im := s.Image
	m := im.Bundle.Manifest
	content := l.Content(t)
	tab, terr := part.Read(bytes.NewReader(content), int64(len(content)), m.Disk.Sector)
	if terr != nil || len(tab.Warnings) > 0 || len(tab.Parts) != len(m.Parts) {
		t.Fatalf("partition table: %v, warnings %v", terr, tab)
	}
	for i, p := range m.Parts {
		if end := tab.Parts[i].End(); tab.Parts[i].Start != p.Start || (end > p.Start+p.Size) != p.Grow || p.Grow && (end%(1<<20) != 0 || end < int64(len(content))-2<<20) {
			t.Fatalf("partition %d ends at %d of %d, in the image at %d; to grow: %v", p.N, end, len(content), p.Start+p.Size, p.Grow)
		}
	}
	r := s.Last()
	if !r.OK || r.Readback != agenttest.ReadbackDigest(im) || r.Fence == 0 || r.CellsVerified != m.Pieces()+int(m.ZeroCount()) ||
		r.CellsWritten < m.Pieces()-r.CellsKept || r.Code != "" || r.AgentRSSBytes == 0 {
		t.Errorf("result %+v", r)
	}
	return r, tab
}

func TestDeployToLoops(t *testing.T) {
	for _, tt := range []struct {
		name  string
		o     agenttest.Options
		extra int64
		opts  []string
	}{
		{"same size", agenttest.Options{Cells: 32}, 0, nil},
		{"bigger", agenttest.Options{Cells: 32, Seed: 1}, 7 << 20, nil},
		{"bigger, grows", agenttest.Options{Cells: 32, Seed: 5, Grow: true}, 7 << 20, nil},
		{"bigger, grows, 4096-byte sectors", agenttest.Options{Cells: 32, Seed: 6, Sector: 4096, Grow: true}, 7 << 20, []string{"-b", "4096"}},
		{"4096-byte sectors", agenttest.Options{Cells: 32, Sector: 4096, Seed: 2}, 1 << 20, []string{"-b", "4096"}},
		{"1 MiB cells", agenttest.Options{Cell: 1 << 20, Cells: 20, Seed: 3}, 0, nil},
		{"with partition scan", agenttest.Options{Cells: 32, Seed: 4}, 3 << 20, []string{"-P"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			im := agenttest.New(t, tt.o)
			s := agenttest.NewServer(t, im)
			size := (int64(len(im.Raw)) + tt.extra + 4095) / 4096 * 4096
			l := agenttest.NewLoop(t, noise(size), tt.opts...)
			other := agenttest.NewLoop(t, noise(1<<20))
			before := other.Content(t)
			out, err := Run(t.Context(), config(t, s, loops(l.Name)))
			r := proven(t, s, l, out, err)
			if r.CellsKept != 0 || r.BytesFromSeed < im.Bundle.ShippedBytes() {
				t.Errorf("first deployment: %+v", r)
			}
			want := []api.State{api.StateEnrolled, api.StateChecking, api.StateWriting, api.StateVerifying, api.StateFinalising, api.StateDone, api.StateRebooting}
			if seen := s.Seen(); !inOrder(seen, want) || seen[len(seen)-1] != api.StateRebooting {
				t.Errorf("states reported: %v; want an ordered part of %v, REBOOTING last", seen, want)
			}
			gdisk(t, l)
			if !bytes.Equal(before, other.Content(t)) {
				t.Error("a disk without an order was changed")
			}
			// A second deployment finds everything in place.
			out, err = Run(t.Context(), config(t, s, loops(l.Name)))
			if r := proven(t, s, l, out, err); r.CellsWritten > 5 {
				t.Errorf("second deployment wrote %d cells", r.CellsWritten)
			}
		})
	}
}

// inOrder reports whether seen is a subsequence of want: quick states may pass
// between two reports.
func inOrder(seen, want []api.State) bool {
	i := 0
	for _, s := range seen {
		j := slices.Index(want[i:], s)
		if j < 0 {
			return false
		}
		i += j
	}
	return true
}

func gdisk(t *testing.T, l *agenttest.Loop) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), testreq.Tool(t, "sgdisk", "gdisk"), "-v", l.Dev).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("No problems found")) {
		t.Errorf("sgdisk -v: %v: %s", err, out)
	}
}

func TestLoopsThatAreRefused(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{})
	size := int64(len(im.Raw))
	for _, tt := range []struct {
		name string
		size int64
		opts []string
		prep func(t *testing.T, l *agenttest.Loop, s *agenttest.Server)
		code string
	}{
		{"too small", im.Bundle.Manifest.Disk.MinSize - 4096, nil, nil, api.CodeDiskTooSmall},
		{"4096-byte sectors for a 512-byte image", size / 4096 * 4096, []string{"-b", "4096"}, nil, api.CodeDiskSector},
		{"a member of a RAID", size, nil, func(t *testing.T, l *agenttest.Loop, _ *agenttest.Server) {
			superblock(t, l, 4096)
		}, api.CodeDiskForeign},
		{"another RAID than the one given up", size, nil, func(t *testing.T, l *agenttest.Loop, s *agenttest.Server) {
			superblock(t, l, 4096)
			s.Order = func(o *order.Order) { o.Replace = []api.Mark{{Kind: "mdraid", Off: 1 << 20}, {Kind: "lvm"}} }
		}, api.CodeDiskForeign},
		{"read-only", size, []string{"-r"}, nil, api.CodeDiskNotFound},
		{"mounted", 8 << 20, nil, mountIt, api.CodeDiskNotFound},
		{"mounted after the order", 8 << 20, nil, func(t *testing.T, l *agenttest.Loop, s *agenttest.Server) {
			s.Commence = func(int, *order.Commence) *api.Problem { mountIt(t, l, s); return nil }
		}, api.CodeDiskNotFound},
		{"stale fence", size, nil, func(_ *testing.T, _ *agenttest.Loop, s *agenttest.Server) {
			s.Commence = func(int, *order.Commence) *api.Problem {
				return &api.Problem{Status: 409, Code: api.CodeStaleFence, Detail: "used"}
			}
		}, ""},
		{"commence with an old fence", size, nil, func(_ *testing.T, _ *agenttest.Loop, s *agenttest.Server) {
			s.Commence = func(_ int, c *order.Commence) *api.Problem { c.Fence = 1; return nil }
		}, api.CodeBadOrder},
		{"commence for another plan", size, nil, func(_ *testing.T, _ *agenttest.Loop, s *agenttest.Server) {
			s.Commence = func(_ int, c *order.Commence) *api.Problem { c.PlanDigest = strings.Repeat("0", 64); return nil }
		}, api.CodeBadOrder},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := agenttest.NewServer(t, im)
			l := agenttest.NewLoop(t, noise(tt.size), tt.opts...)
			if tt.prep != nil {
				tt.prep(t, l, s)
			}
			before := l.Content(t)
			out, err := Run(t.Context(), config(t, s, loops(l.Name)))
			if out.Committed || out.Verified {
				t.Fatalf("Run = %+v, %v", out, err)
			}
			if tt.code == "" {
				if err != nil || out.Reason == "" {
					t.Errorf("Run = %+v, %v; want the local disk", out, err)
				}
			} else if code, text := report.Code(err); code != tt.code {
				t.Errorf("code %s (%s); want %s", code, text, tt.code)
			}
			if strings.HasPrefix(tt.name, "mounted after") {
				return // mounting itself has written
			}
			if !bytes.Equal(before, l.Content(t)) {
				t.Error("the disk was changed")
			}
		})
	}
}

// superblock makes the disk a member of a Linux RAID 1.2.
func superblock(t *testing.T, l *agenttest.Loop, off int64) {
	t.Helper()
	f, err := os.OpenFile(l.Dev, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("\xfc\x4e\x2b\xa9"), off)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestForeignDataGivenUp: what the order names is replaced, its signature does not
// come back, and the next job needs no such word.
func TestForeignDataGivenUp(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{Cells: 32})
	s := agenttest.NewServer(t, im)
	size := int64(len(im.Raw)) + 4<<20
	l := agenttest.NewLoop(t, noise(size))
	superblock(t, l, size&^(64<<10-1)-64<<10) // version 0.90, in the last whole 64 KiB
	s.Order = func(o *order.Order) { o.Replace = s.Evidence.Disks[0].Foreign }
	out, err := Run(t.Context(), config(t, s, loops(l.Name)))
	proven(t, s, l, out, err)
	if m := s.Evidence.Disks[0].Foreign; len(m) != 1 || m[0].Kind != "mdraid" {
		t.Fatalf("the agent reported %+v; want a RAID", m)
	}
	s.Order = nil
	out, err = Run(t.Context(), config(t, s, loops(l.Name)))
	proven(t, s, l, out, err)
}

// mountIt puts a file system on the loop and mounts it.
func mountIt(t *testing.T, l *agenttest.Loop, _ *agenttest.Server) {
	t.Helper()
	dir := t.TempDir()
	for _, args := range [][]string{{testreq.Tool(t, "blockdev", "util-linux"), "--setrw", l.Dev}, {testreq.Tool(t, "mkfs.ext4", "e2fsprogs"), "-q", "-F", l.Dev}, {testreq.Tool(t, "mount", "mount"), "-o", "ro", l.Dev, dir}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v: %s", args, err, out) // not Fatal: a handler of the server calls this too
			return
		}
	}
	t.Cleanup(func() { // the temporary folder goes after this
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
}

// TestInterruptedAndResumed ends the agent in mid-write, as a power cut would,
// and starts it again: the same bytes come out, and what was written is kept.
func TestInterruptedAndResumed(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{Cells: 120})
	s := agenttest.NewServer(t, im)
	l := agenttest.NewLoop(t, noise(int64(len(im.Raw))+2<<20))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	half := im.Bundle.Manifest.Pieces() / 2
	s.Progress = func(p api.Progress) api.ProgressReply {
		if p.State == api.StateWriting && p.CellsHave >= half/2 {
			cancel()
		}
		return s.Plan(p)
	}
	var stop atomic.Bool
	stop.Store(true)
	s.Read = func(piece int) {
		for piece > half && stop.Load() && ctx.Err() == nil { // no more than a half arrives
			time.Sleep(10 * time.Millisecond)
		}
	}
	out, err := Run(ctx, config(t, s, loops(l.Name)))
	if err == nil || !out.Committed || out.Verified {
		t.Fatalf("interrupted Run = %+v, %v", out, err)
	}
	if _, err := part.Read(bytes.NewReader(l.Content(t)), int64(len(l.Content(t))), 512); err == nil {
		t.Error("the interrupted disk has a partition table")
	}
	stop.Store(false)
	s.Progress = nil
	out, err = Run(t.Context(), config(t, s, loops(l.Name)))
	if r := proven(t, s, l, out, err); r.CellsKept < half/4 {
		t.Errorf("resumed with %d kept cells; want what was written before, %d or more", r.CellsKept, half/4)
	}
}

// TestCorruptionIsFoundByReadback changes a cell on the medium after it was
// written: the read-back finds it, it is fetched again, and the disk is right.
func TestCorruptionIsFoundByReadback(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{Cells: 32})
	m := im.Bundle.Manifest
	s := agenttest.NewServer(t, im)
	l := agenttest.NewLoop(t, noise(int64(len(im.Raw))))
	off := m.CellOf(3) * m.Cell
	want := im.Piece(3)
	var spoilt atomic.Bool
	s.Read = func(piece int) {
		if piece != m.Pieces()-1 || spoilt.Load() {
			return
		}
		f, err := os.OpenFile(l.Dev, os.O_RDWR, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		got := make([]byte, m.Cell)
		for range 1000 {
			if _, err := f.ReadAt(got, off); err != nil {
				t.Error(err)
				return
			}
			if bytes.Equal(got, want) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		used := m.Used()
		at := off
		for _, e := range used {
			if e.End() > off {
				at = max(off, e.Off)
				break
			}
		}
		if _, err := f.WriteAt([]byte{^want[at-off]}, at); err != nil {
			t.Error(err)
		}
		if err := f.Sync(); err != nil {
			t.Error(err)
		}
		spoilt.Store(true)
	}
	out, err := Run(t.Context(), config(t, s, loops(l.Name)))
	r := proven(t, s, l, out, err)
	if !spoilt.Load() || r.CellsWritten != m.Pieces()+1 {
		t.Errorf("spoilt %v, %d cells written; want %d and one again", spoilt.Load(), r.CellsWritten, m.Pieces())
	}
}

// TestDiskThatStopsTakingWrites: a write error in mid-deployment fails this host,
// with disk, offset and errno in the report, and is never called done.
func TestDiskThatStopsTakingWrites(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{Cells: 32})
	s := agenttest.NewServer(t, im)
	m := im.Bundle.Manifest // zero cells take room as well
	l := agenttest.NewFailingLoop(t, int64(len(im.Raw)), m.ZeroCount()*m.Cell+im.Bundle.ShippedBytes()/2)
	out, err := Run(t.Context(), config(t, s, loops(l.Name)))
	var we *disk.WriteError
	if !errors.As(err, &we) || we.Op != "write" || we.Off <= 0 || !errors.Is(err, unix.EIO) && !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("Run = %+v, %v; want a write error with its offset and errno", out, err)
	}
	r := s.Last()
	if r.OK || r.Code != api.CodeDiskWrite || out.Verified || !out.Committed {
		t.Errorf("result %+v, outcome %+v; want a failed disk", r, out)
	}
	for _, want := range []string{l.Name, fmt.Sprintf("sector %d", we.Off/512), we.Err.Error()} {
		if !strings.Contains(r.Error, want) {
			t.Errorf("the report says %q; want %q in it", r.Error, want)
		}
	}
	if r.CellsWritten == 0 || r.CellsWritten >= m.Pieces() {
		t.Errorf("%d of %d cells written; want it to fail in the middle", r.CellsWritten, m.Pieces())
	}
	if r.BytesFromSeed > im.Bundle.ShippedBytes()*3/2 {
		t.Errorf("%d bytes fetched of an image of %d: it went on asking", r.BytesFromSeed, im.Bundle.ShippedBytes())
	}
	for _, st := range s.Seen() {
		if st == api.StateDone || st == api.StateVerifying {
			t.Errorf("states reported: %v", s.Seen())
		}
	}
}

// TestServerLostAfterCommence: the agent finishes from its sources and reports
// when the server is back.
func TestServerLostAfterCommence(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{Cells: 64})
	s := agenttest.NewServer(t, im)
	l := agenttest.NewLoop(t, noise(int64(len(im.Raw))))
	var gone atomic.Bool
	s.Read = func(piece int) {
		if piece == 10 && gone.CompareAndSwap(false, true) {
			s.SetSilent(true)
			time.AfterFunc(3*time.Second, func() { s.SetSilent(false) })
		}
	}
	out, err := Run(t.Context(), config(t, s, loops(l.Name)))
	proven(t, s, l, out, err)
	if !gone.Load() {
		t.Error("the server was never away")
	}
}

// TestNotNowIsAskedAgain: a server that says not_now is asked again politely.
func TestNotNowIsAskedAgain(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{})
	s := agenttest.NewServer(t, im)
	l := agenttest.NewLoop(t, noise(int64(len(im.Raw))))
	s.Commence = func(n int, _ *order.Commence) *api.Problem {
		if n == 1 {
			return &api.Problem{Status: 409, Code: api.CodeNotNow, Detail: "paused"}
		}
		return nil
	}
	out, err := Run(t.Context(), config(t, s, loops(l.Name)))
	proven(t, s, l, out, err)
}
