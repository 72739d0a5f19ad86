//go:build integration

package deploy

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"labswarm/images/fixture/mounted"
	"labswarm/images/fsmap/part"
	"labswarm/images/manifest"
	"labswarm/initramfs-agent/agenttest"
)

// compare looks at every partition of the deployed disk: the boot code, the filesystem's own checker, every file.
func (b *built) compare(t *testing.T, disk string, m *manifest.Manifest, tab *part.Table) error {
	t.Helper()
	if err := b.sameBytes(disk, 0, 440); err != nil {
		return err
	}
	for i, s := range b.parts {
		err := b.compareSection(t, disk, s, manifest.Extent{Off: b.start[i], Len: s.mib << 20}, manifest.Extent{Off: tab.Parts[i].Start, Len: tab.Parts[i].Size}, m.Parts[i].Grow)
		if err != nil {
			return fmt.Errorf("partition %d (%s): %w", i+1, s.kind, err)
		}
	}
	return nil
}

func (b *built) compareSection(t *testing.T, disk string, s section, was, is manifest.Extent, grow bool) error {
	t.Helper()
	fs, ok := filesystems[s.kind]
	switch {
	case s.kind == "none":
		return nil
	case s.kind == "swap":
		return b.sameBytes(disk, was.Off, 4096)
	case s.kind == "raw":
		return b.sameBytes(disk, was.Off, was.Len)
	case !ok:
		return b.compareFAT(disk, was)
	}
	want, before, err := b.look(t, fs, b.file, was)
	if err != nil {
		return fmt.Errorf("the source: %w", err)
	}
	if s.kind == "ntfs" {
		is.Len = was.Len // until Windows has extended the volume it ends where it did; ntfsfix wants it to end with the partition
	}
	got, after, err := b.look(t, fs, disk, is)
	if err != nil {
		return err
	}
	grows := grow && (s.kind != "ext4" || agenttest.MayGrowExt(t)) && s.kind != "ntfs" // Windows grows its own
	if (after > before) != grows || after < before {
		return fmt.Errorf("the filesystem has %d bytes of %d, before %d of %d; to grow: %v", after, is.Len, before, was.Len, grows)
	}
	for path, about := range want {
		if got[path] != about {
			return fmt.Errorf("%s is %q; was %q", path, got[path], about)
		}
	}
	if len(want) < 20 || !maps.Equal(want, got) {
		return fmt.Errorf("%d files; were %d", len(got), len(want))
	}
	return nil
}

// look checks a filesystem, lists its files, and returns its size in bytes. It only reads.
func (b *built) look(t *testing.T, fs mounted.FS, disk string, at manifest.Extent) (files map[string]string, size int64, err error) {
	t.Helper()
	dev, detach := mounted.Attach(t, disk, b.sector, "--read-only", "--offset", strconv.FormatInt(at.Off, 10), "--sizelimit", strconv.FormatInt(at.Len, 10))
	defer detach() // Btrfs takes two devices with one UUID for one
	if out, err := b.k.Try(fs.Package, "", fs.Check[0], append(slices.Clone(fs.Check[1:]), dev)...); err != nil {
		return nil, 0, fmt.Errorf("%s: %w\n%s", fs.Check[0], err, out)
	}
	dir := filepath.Join(b.dir, "mnt")
	unmount := mounted.Mount(t, dev, dir, fs.RO...)
	defer unmount()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil, 0, err
	}
	files, err = mounted.ReadTree(dir)
	return files, int64(st.Blocks) * st.Bsize, err
}

func (b *built) compareFAT(disk string, at manifest.Extent) error {
	img := b.k.Slice(disk, at.Off, at.Len)
	if out, err := b.k.Try("dosfstools", "", "fsck.vfat", "-n", img); err != nil {
		return fmt.Errorf("fsck.vfat: %w\n%s", err, out)
	}
	want := b.k.FATFiles(b.k.Slice(b.file, at.Off, at.Len))
	got, err := b.k.TryFATFiles(img)
	if err != nil {
		return err
	}
	if len(want) < 10 || !maps.Equal(want, got) {
		return fmt.Errorf("%d files; were %d, not all are equal", len(got), len(want))
	}
	return nil
}

// sameBytes compares a range of the deployed disk with the source.
func (b *built) sameBytes(disk string, off, n int64) error {
	var got [2][]byte
	for i, file := range []string{b.file, disk} {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		got[i] = make([]byte, n)
		_, err = f.ReadAt(got[i], off)
		if e := f.Close(); err != nil || e != nil {
			return fmt.Errorf("%w %w", err, e)
		}
	}
	if !bytes.Equal(got[0], got[1]) {
		return fmt.Errorf("%d bytes at %d differ", n, off)
	}
	return nil
}

// inFile finds used bytes of the last partition that a file holds: the last ones that are not zero. Tables of ext4
// stand before the files of their group.
func (b *built) inFile(t *testing.T, used []manifest.Extent) manifest.Extent {
	t.Helper()
	raw, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	last := b.start[len(b.start)-1]
	for _, e := range slices.Backward(used) {
		if e.Off > last && e.End() < b.size-1<<20 && e.Len <= 64<<10 && bytes.Trim(raw[e.Off:e.End()], "\x00") != nil {
			return e
		}
	}
	t.Fatal("no used extent suits")
	return manifest.Extent{}
}
