//go:build integration

package library

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"slices"
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
	// Room that somebody else takes in part: the reserve stays free, though the image would just fit.
	l.KeepFree(60 * MiB)
	_, err = l.Import(t.Context(), ImportOptions{Name: "lab", File: disk, Progress: func(p Progress) {
		if p.Done == 0 {
			if err := os.WriteFile(dir+"/.other", make([]byte, 150*MiB), 0o600); err != nil {
				t.Error(err)
			}
		}
	}})
	if !errors.As(err, &full) || full.Reserve != 60*MiB || full.Free >= full.Reserve || full.Free < 20*MiB {
		t.Errorf("Import into the reserve = %v, %+v; want NoSpaceError while 20 MiB and more are free", err, full)
	}
	if left := leftovers(t, dir); !slices.Equal(left, []string{".other"}) {
		t.Errorf("left %q", left)
	}
	l.KeepFree(0)
	mustImport(t, l, ImportOptions{Name: "lab", File: disk})
}

// A file system that is full, or fills up, while a terminal is captured: said, nothing is published, and once there is room
// the same capture goes on where it was.
func TestNoSpaceToCapture(t *testing.T) {
	testreq.Root(t)
	k := fixture.New(t, testreq.Tool)
	x := newTerminal(t, goldenCopy(t, k))
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
	o := CaptureOptions{ID: 7, Name: "lab"}
	var full *NoSpaceError
	if _, err := l.Capture(t.Context(), o, x.draft(), nil); !errors.As(err, &full) || full.Need == 0 {
		t.Fatalf("Capture into a full disk = %v; want NoSpaceError", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	c := mustCapture(t, l, o, x.draft())
	x.send(c, c.Cells()/3)
	// Somebody else takes all the rest, to the last page.
	other, err := os.Create(dir + "/.other")
	if err != nil {
		t.Fatal(err)
	}
	for page := make([]byte, 4096); err == nil; {
		_, err = other.Write(page)
	}
	if err := other.Close(); err != nil || !fills(t, dir) {
		t.Fatalf("the disk is not full: %v", err)
	}
	var put error
	for ord := c.Next(); ord < c.Cells() && put == nil; ord++ {
		sum, b := x.cell(ord, c.CellSize())
		put = c.Put(ord, sum, b)
	}
	if !errors.As(put, &full) {
		t.Errorf("Put on a full disk = %v; want NoSpaceError", put)
	}
	at := c.Next()
	if _, err := c.Publish(t.Context(), nil); err == nil {
		t.Error("half a capture was published")
	}
	closed(t, c)
	if list, err := l.List(); err != nil || len(list) != 0 {
		t.Errorf("List = %+v, %v; want nothing", list, err)
	}
	if err := os.Remove(dir + "/.other"); err != nil {
		t.Fatal(err)
	}
	c = mustCapture(t, l, o, x.draft())
	defer closed(t, c)
	if c.Next() != at || at < c.Cells()/3 {
		t.Errorf("it goes on at cell %d of %d; it was at %d", c.Next(), c.Cells(), at)
	}
	x.send(c, c.Cells())
	v, err := c.Publish(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer close1(t, v)
	if res := verified(t, v); !res.OK() || !res.FramesOK() {
		t.Errorf("Verify = %+v", res)
	}
}

// fills tells whether nothing is free in dir.
func fills(t *testing.T, dir string) bool {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Bavail == 0
}

// On a file system that can, a new version shares its base's blocks.
func TestClone(t *testing.T) {
	testreq.Root(t)
	for fs, mkfs := range map[string][]string{"xfs": {"xfsprogs", "mkfs.xfs", "-q"}, "btrfs": {"btrfs-progs", "mkfs.btrfs", "-q"}} {
		t.Run(fs, func(t *testing.T) {
			testreq.Filesystem(t, fs)
			k := fixture.New(t, testreq.Tool)
			vol := k.Sparse("vol", 512*MiB)
			k.Run(mkfs[0], "", mkfs[1], append(mkfs[2:], vol)...)
			dir := t.TempDir()
			k.Run("mount", "", "mount", "-o", "loop", vol, dir)
			t.Cleanup(func() { k.Run("mount", "", "umount", dir) })
			l, err := Open(dir+"/images", ed25519.NewKeyFromSeed(fixture.Random(5, 32)), nil)
			if err != nil {
				t.Fatal(err)
			}
			clones(t, l, k.Path("disk"))
		})
	}
}

// clones makes two versions of a disk and looks what the second takes.
func clones(t *testing.T, l *Library, file string) {
	t.Helper()
	disk := fixture.MBR(3, 12, 2, 2)
	version := func(l *Library) *Version {
		t.Helper()
		if err := os.WriteFile(file, disk, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := l.Import(t.Context(), ImportOptions{Name: "lab", File: file, Codec: CodecNone})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { close1(t, v) })
		return v
	}
	free := func() int64 {
		t.Helper()
		unix.Sync()
		n, _, err := l.space()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	one := version(l)
	// Rot in the base, which the clone takes over at first.
	write(t, filepath.Join(one.Dir(), rawFile), 5*MiB, []byte("rotten"))
	copy(disk[3*MiB+100:], "a changed cell")
	clear(disk[8*MiB : 9*MiB])   // one that becomes zero
	clear(disk[446+32 : 446+48]) // the third partition: nobody uses its cells any more
	disk = disk[:len(disk)-512]  // and the disk is smaller
	before := free()
	two := version(l)
	took, ship := before-free(), two.Manifest().ShippedBytes()
	if two.Manifest().Base != one.Version() || took > ship/2 {
		t.Errorf("the new version takes %d bytes of %d: nothing is shared", took, ship)
	}
	t.Logf("%d bytes shipped, the new version takes %d", ship, took)
	if r := verified(t, two); !r.OK() {
		t.Errorf("Verify = %+v", r)
	}
	other, _ := newLibrary(t)
	fresh := version(other)
	got, err := os.ReadFile(filepath.Join(two.Dir(), rawFile))
	want, err2 := os.ReadFile(filepath.Join(fresh.Dir(), rawFile))
	if err != nil || err2 != nil || !bytes.Equal(got, want) || !sameContent(two.man, fresh.man) {
		t.Errorf("disk.raw on its base is not what it is without one: %v, %v", err, err2)
	}
	if _, n, err := fileBlocks(filepath.Join(two.Dir(), rawFile)); err != nil || n > ship+MiB {
		t.Errorf("disk.raw has %d bytes on disk, %v: what is no data should be a hole", n, err)
	}
	if r := verified(t, one); len(r.Bad) != 1 {
		t.Errorf("the base: %+v; want its one rotten cell, as before", r)
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

// TestExportFullDisk: the disk that an export goes to fills up, in every format: said, and nothing is left on it. The same
// for an import of it.
func TestExportFullDisk(t *testing.T) {
	testreq.Root(t)
	l, v := small(t, ImportOptions{})
	dir := t.TempDir()
	if err := unix.Mount("labswarm-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	if _, err := l.Export(t.Context(), v, dir+"/image.tar", nil); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "no room") {
		t.Errorf("Export to a full disk = %v", err)
	}
	if left := leftovers(t, dir); left != nil {
		t.Errorf("left %q", left)
	}
	path, fingerprint := exportTo(t, l, v)
	other, err := Open(dir, ed25519.NewKeyFromSeed(fixture.Random(6, 32)), nil)
	if err != nil {
		t.Fatal(err)
	}
	other.KeepFree(0)
	var full *NoSpaceError
	if _, err := other.ImportExport(t.Context(), ImportOptions{Name: "lab", File: path}, fingerprint); !errors.As(err, &full) {
		t.Errorf("import into a full disk = %v; want NoSpaceError", err)
	}
	if left := leftovers(t, dir); left != nil {
		t.Errorf("left %q", left)
	}
}
