//go:build integration

package fsmap

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

// mountedFS is how to make, mount and check a filesystem on a loop device.
type mountedFS struct {
	kernel    string // its name in /proc/filesystems
	pkg       string
	mkfs      []string
	mount     []string
	readOnly  []string
	partclone string // "" = there is another oracle
	check     [][]string
}

var (
	extFS = mountedFS{
		"ext4", "e2fsprogs", []string{"mke2fs", "-q", "-F", "-t", "ext4"}, []string{"mount"}, []string{"mount", "-o", "ro"}, "extfs",
		[][]string{{"e2fsck", "-fn"}},
	}
	xfsFS = mountedFS{
		"xfs", "xfsprogs", []string{"mkfs.xfs", "--unsupported", "-q"}, []string{"mount"}, []string{"mount", "-o", "ro"}, "xfs",
		[][]string{{"xfs_repair", "-n"}},
	}
	btrfsFS = mountedFS{
		"btrfs", "btrfs-progs", []string{"mkfs.btrfs", "-q"}, []string{"mount"}, []string{"mount", "-o", "ro"}, "",
		[][]string{{"btrfs", "check", "--check-data-csum"}},
	}
	ntfsFS = mountedFS{
		"fuseblk", "ntfs-3g", []string{"mkntfs", "-q", "-f"}, []string{"ntfs-3g"}, []string{"ntfs-3g", "-o", "ro"}, "ntfs",
		[][]string{{"ntfsfix", "-n"}},
	}
	exfatFS = mountedFS{
		"fuseblk", "exfat-fuse", []string{"mkfs.exfat"}, []string{"mount.exfat-fuse"}, []string{"mount.exfat-fuse", "-o", "ro"}, "exfat",
		[][]string{{"fsck.exfat", "-n"}},
	}
)

// Filesystems that were mounted, filled, emptied and filled again: the used map holds what partclone takes, and what
// it holds is enough, on a disk full of garbage, for a clean check and for every file.
func TestChurned(t *testing.T) {
	testreq.Root(t)
	sweep(t)
	for _, v := range []struct {
		name    string
		fs      mountedFS
		sector  int
		size    int64
		share   float64 // how full
		maxFile int
		opts    []string
		more    int64 // bytes that partclone leaves out
	}{
		{"ext4-fragmented", extFS, 512, 48 * MiB, 0.6, 30 << 10, nil, 0},
		{"ext4-4Kn-nearly-full", extFS, 4096, 48 * MiB, 0.98, 60 << 10, nil, 0},
		{"ext4-1k-meta-bg", extFS, 512, 48 * MiB, 0.7, 9 << 10, []string{"-b", "1024", "-O", "meta_bg,^resize_inode"}, 0},
		{"xfs-fragmented-1k", xfsFS, 512, 64 * MiB, 0.5, 4 << 10, []string{"-b", "size=1024", "-l", "size=5m"}, 1 * MiB},
		{"xfs-4Kn-nearly-full", xfsFS, 4096, 64 * MiB, 0.97, 90 << 10, []string{"-m", "rmapbt=1"}, 1 * MiB},
		{"btrfs-fragmented", btrfsFS, 512, 160 * MiB, 0.3, 30 << 10, nil, 0},
		{"btrfs-4Kn-mixed-nearly-full", btrfsFS, 4096, 64 * MiB, 0.8, 60 << 10, []string{"-M"}, 0},
		{"ntfs-512-fragmented", ntfsFS, 512, 24 * MiB, 0.6, 9 << 10, []string{"-c", "512"}, 64 << 10},
		{"ntfs-4Kn-nearly-full", ntfsFS, 4096, 40 * MiB, 0.97, 90 << 10, nil, 64 << 10},
		{"ntfs-64k", ntfsFS, 512, 96 * MiB, 0.5, 200 << 10, []string{"-c", "65536"}, 128 << 10},
		{"exfat-fragmented", exfatFS, 512, 48 * MiB, 0.5, 20 << 10, []string{"-c", "4096"}, 4096},
		{"exfat-4Kn-nearly-full", exfatFS, 4096, 48 * MiB, 0.97, 200 << 10, nil, 64 << 10},
	} {
		t.Run(v.name, func(t *testing.T) {
			testreq.Root(t)
			testreq.Filesystem(t, v.fs.kernel)
			t.Parallel()
			ownMounts(t)
			k := fixture.New(t, testreq.Tool)
			dir := workDir(t)
			img, mnt := filepath.Join(dir, "fs.img"), filepath.Join(dir, "mnt")
			if err := os.WriteFile(img, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(img, v.size); err != nil {
				t.Fatal(err)
			}
			dev, detach := attach(t, img, v.sector)
			k.Run(v.fs.pkg, "", v.fs.mkfs[0], append(append(v.fs.mkfs[1:len(v.fs.mkfs):len(v.fs.mkfs)], v.opts...), dev)...)
			unmount := mount(t, dev, mnt, v.fs.mount...)
			churn(t, mnt, 77, v.share, v.maxFile)
			// A mounted filesystem must never pass for a clean one, where it can be seen.
			if um := used(t, dev); v.fs.kernel == "ext4" || v.fs.kernel == "xfs" {
				if um.State != manifest.StateDirty || um.Kind != "whole" {
					t.Errorf("while it is mounted: state %s, kind %s", um.State, um.Kind)
				}
			}
			want := treeSum(t, mnt)
			unmount()
			um := used(t, dev)
			if um.Kind != "reader" || um.State != manifest.StateClean {
				t.Fatalf("kind %s, state %s, why %q", um.Kind, um.State, um.Why)
			}
			t.Logf("%d files, %d extents, %d of %d bytes used", len(want), len(um.Extents), manifest.Sum(um.Extents), v.size)
			if v.fs.partclone != "" {
				agrees(t, k, v.fs.partclone, dev, um, v.more)
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
func sameAfterRestore(t *testing.T, k *fixture.Kit, fs mountedFS, img, mnt string, sector int, want map[string]string) {
	t.Helper()
	dev, _ := attach(t, img, sector)
	for _, c := range fs.check {
		k.Run(fs.pkg, "", c[0], append(c[1:len(c):len(c)], dev)...)
	}
	unmount := mount(t, dev, mnt, fs.readOnly...)
	got := treeSum(t, mnt)
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
	if fs.kernel == "btrfs" { // the check reads one copy of each tree block, scrub all
		unmount := mount(t, dev, mnt, fs.mount...)
		out := k.Run(fs.pkg, "", "btrfs", "scrub", "start", "-B", mnt)
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
	sweep(t)
	ownMounts(t)
	k := fixture.New(t, testreq.Tool)
	dir := workDir(t)
	img, mnt := filepath.Join(dir, "fs.img"), filepath.Join(dir, "mnt")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, 16*MiB); err != nil {
		t.Fatal(err)
	}
	dev, detach := attach(t, img, 512)
	k.Run("ntfs-3g", "", "mkntfs", "-q", "-f", "-c", "512", "-z", "1", dev)
	unmount := mount(t, dev, mnt, "ntfs-3g")
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
	want := treeSum(t, mnt)
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
	sameAfterRestore(t, k, ntfsFS, copied, mnt, 512, want)
}
