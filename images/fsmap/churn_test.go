//go:build integration

package fsmap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/fixture/mounted"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

// Filesystems that were mounted, filled, emptied and filled again: the used map holds what partclone takes, and what
// it holds is enough, on a disk full of garbage, for a clean check and for every file.
func TestChurned(t *testing.T) {
	testreq.Root(t)
	mounted.Sweep(t)
	for _, v := range []struct {
		name    string
		fs      mounted.FS
		sector  int
		size    int64
		share   float64 // how full
		maxFile int
		opts    []string
		more    int64 // bytes that partclone leaves out
	}{
		{"ext4-fragmented", mounted.Ext, 512, 48 * MiB, 0.6, 30 << 10, nil, 0},
		{"ext4-4Kn-nearly-full", mounted.Ext, 4096, 48 * MiB, 0.98, 60 << 10, nil, 0},
		{"ext4-1k-meta-bg", mounted.Ext, 512, 48 * MiB, 0.7, 9 << 10, []string{"-b", "1024", "-O", "meta_bg,^resize_inode"}, 0},
		{"xfs-fragmented-1k", mounted.XFS, 512, 64 * MiB, 0.5, 4 << 10, []string{"-b", "size=1024", "-l", "size=5m"}, 1 * MiB},
		{"xfs-4Kn-nearly-full", mounted.XFS, 4096, 64 * MiB, 0.97, 90 << 10, []string{"-m", "rmapbt=1"}, 1 * MiB},
		{"btrfs-fragmented", mounted.Btrfs, 512, 160 * MiB, 0.3, 30 << 10, nil, 0},
		{"btrfs-4Kn-mixed-nearly-full", mounted.Btrfs, 4096, 64 * MiB, 0.8, 60 << 10, []string{"-M"}, 0},
		{"ntfs-512-fragmented", mounted.NTFS, 512, 24 * MiB, 0.6, 9 << 10, []string{"-c", "512"}, 64 << 10},
		{"ntfs-4Kn-nearly-full", mounted.NTFS, 4096, 40 * MiB, 0.97, 90 << 10, nil, 64 << 10},
		{"ntfs-64k", mounted.NTFS, 512, 96 * MiB, 0.5, 200 << 10, []string{"-c", "65536"}, 128 << 10},
		{"exfat-fragmented", mounted.ExFAT, 512, 48 * MiB, 0.5, 20 << 10, []string{"-c", "4096"}, 4096},
		{"exfat-4Kn-nearly-full", mounted.ExFAT, 4096, 48 * MiB, 0.97, 200 << 10, nil, 64 << 10},
	} {
		t.Run(v.name, func(t *testing.T) {
			testreq.Root(t)
			testreq.Filesystem(t, v.fs.Kernel)
			t.Parallel()
			mounted.OwnMounts(t)
			k := fixture.New(t, testreq.Tool)
			dir := mounted.WorkDir(t)
			img, mnt := filepath.Join(dir, "fs.img"), filepath.Join(dir, "mnt")
			if err := os.WriteFile(img, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(img, v.size); err != nil {
				t.Fatal(err)
			}
			dev, detach := mounted.Attach(t, img, v.sector)
			k.Run(v.fs.Package, "", v.fs.Mkfs[0], append(append(v.fs.Mkfs[1:len(v.fs.Mkfs):len(v.fs.Mkfs)], v.opts...), dev)...)
			unmount := mounted.Mount(t, dev, mnt, v.fs.RW...)
			mounted.Churn(t, mnt, 77, v.share, v.maxFile)
			// A mounted filesystem must never pass for a clean one, where it can be seen.
			if um := used(t, dev); v.fs.Kernel == "ext4" || v.fs.Kernel == "xfs" {
				if um.State != manifest.StateDirty || um.Kind != "whole" {
					t.Errorf("while it is mounted: state %s, kind %s", um.State, um.Kind)
				}
			}
			want := mounted.Tree(t, mnt)
			unmount()
			um := used(t, dev)
			if um.Kind != "reader" || um.State != manifest.StateClean {
				t.Fatalf("kind %s, state %s, why %q", um.Kind, um.State, um.Why)
			}
			t.Logf("%d files, %d extents, %d of %d bytes used", len(want), len(um.Extents), manifest.Sum(um.Extents), v.size)
			if v.fs.Partclone != "" {
				agrees(t, k, v.fs.Partclone, dev, um, v.more)
			} else if m := missing(btrfsExtents(t, k, dev), um.Extents); m != nil {
				t.Errorf("%d bytes of the extent tree are missing, the first %+v", manifest.Sum(m), m[0])
			}
			copied := filepath.Join(dir, "copy.img")
			onGarbage(t, dev, copied, v.size, um.Extents)
			detach() // Btrfs takes two devices with one UUID for one
			sameAfterRestore(t, k, v.fs, copied, mnt, v.sector, want)
		})
	}
}

// sameAfterRestore checks a restored filesystem and compares its files.
func sameAfterRestore(t *testing.T, k *fixture.Kit, fs mounted.FS, img, mnt string, sector int, want map[string]string) {
	t.Helper()
	dev, _ := mounted.Attach(t, img, sector)
	k.Run(fs.Package, "", fs.Check[0], append(fs.Check[1:len(fs.Check):len(fs.Check)], dev)...)
	unmount := mounted.Mount(t, dev, mnt, fs.RO...)
	got := mounted.Tree(t, mnt)
	unmount()
	if !maps.Equal(got, want) {
		wrong := 0
		for path, sum := range want {
			if got[path] != sum {
				wrong++
				if wrong < 5 {
					t.Errorf("%s differs after restoring", path)
				}
			}
		}
		t.Errorf("%d of %d files differ, %d files are there", wrong, len(want), len(got))
	}
	if fs.Kernel == "btrfs" { // the check reads one copy of each tree block, scrub all
		unmount := mounted.Mount(t, dev, mnt, fs.RW...)
		out := k.Run(fs.Package, "", "btrfs", "scrub", "start", "-B", mnt)
		unmount()
		if !strings.Contains(out, "no errors found") {
			t.Errorf("btrfs scrub:\n%s", out)
		}
	}
}

// The $MFT itself in so many pieces that its run list needs an attribute list: small files in the holes between others.
func TestNTFSFragmentedMFT(t *testing.T) {
	testreq.Root(t)
	testreq.Filesystem(t, "fuseblk")
	mounted.Sweep(t)
	mounted.OwnMounts(t)
	k := fixture.New(t, testreq.Tool)
	dir := mounted.WorkDir(t)
	img, mnt := filepath.Join(dir, "fs.img"), filepath.Join(dir, "mnt")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, 16*MiB); err != nil {
		t.Fatal(err)
	}
	dev, detach := mounted.Attach(t, img, 512)
	k.Run("ntfs-3g", "", "mkntfs", "-q", "-f", "-c", "512", "-z", "1", dev)
	unmount := mounted.Mount(t, dev, mnt, "ntfs-3g")
	n := 0
	for ; ; n++ { // fill it with files of two clusters, beyond what fits into a record
		if err := os.WriteFile(filepath.Join(mnt, fmt.Sprint("f", n)), fixture.Random(uint64(n), 1024), 0o600); err != nil {
			break
		}
	}
	for i := 0; i < n; i += 2 {
		if err := os.Remove(filepath.Join(mnt, fmt.Sprint("f", i))); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n { // each needs a record and nothing else
		if err := os.WriteFile(filepath.Join(mnt, fmt.Sprint("empty", i)), nil, 0o600); err != nil {
			t.Logf("after %d empty files: %v", i, err)
			break
		}
	}
	want := mounted.Tree(t, mnt)
	unmount()
	info := k.Run("ntfs-3g", "", "ntfsinfo", "-f", "-v", "-i", "0", dev)
	if !strings.Contains(info, "ATTRIBUTE_LIST") {
		t.Fatalf("the $MFT has no attribute list: the test shows nothing\n%s", info)
	}
	um := used(t, dev)
	if um.Kind != "reader" {
		t.Fatalf("kind %s, why %q", um.Kind, um.Why)
	}
	agrees(t, k, "ntfs", dev, um, 4096)
	copied := filepath.Join(dir, "copy.img")
	onGarbage(t, dev, copied, 16*MiB, um.Extents)
	detach()
	sameAfterRestore(t, k, mounted.NTFS, copied, mnt, 512, want)
}

// onGarbage writes the extents of a device onto a file full of 0xA5.
func onGarbage(t *testing.T, dev, file string, size int64, list []manifest.Extent) {
	t.Helper()
	in, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	garbage := bytes.Repeat([]byte{0xA5}, MiB)
	for off := int64(0); off < size && err == nil; off += MiB {
		_, err = out.WriteAt(garbage[:min(MiB, size-off)], off)
	}
	for _, e := range list {
		if err == nil {
			_, err = io.Copy(io.NewOffsetWriter(out, e.Off), io.NewSectionReader(in, e.Off, e.Len))
		}
	}
	if err := errors.Join(err, in.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
}
