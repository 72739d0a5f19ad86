package fsmap

import (
	"math/rand/v2"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/ext"
	"labswarm/images/fsmap/fat"
	"labswarm/images/fsmap/fstest"
	"labswarm/images/fsmap/ntfs"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

// flipBits changes single bits, half of them in the first blocks, and expects an error or a map that is not smaller.
func flipBits(t *testing.T, d *fstest.Disk, read fstest.Used, want manifest.UsedMap) {
	t.Helper()
	r := rand.New(rand.NewPCG(7, 7))
	noticed := 0
	for i := range 4000 {
		n := r.Int64N(d.Bits())
		if i%2 == 0 {
			n = r.Int64N(min(d.Bits(), 8*32<<10))
		}
		um, ok := fstest.Check(t, read, d.Flip(n))
		if !ok {
			noticed++
		} else if !fstest.Covers(um.Extents, want.Extents) {
			t.Fatalf("bit %d changed: %d used bytes are no longer in the map", n, manifest.Sum(missing(want.Extents, um.Extents)))
		}
	}
	if noticed == 0 {
		t.Error("no flipped bit was noticed: the test flips nothing that counts")
	}
}

// Filesystems whose tables have a second source: checksums, counts, a copy. One wrong bit does not make the map smaller.
func TestFlippedBits(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	tree := k.Tree(7, 20, 20<<10)
	for name, c := range map[string]struct {
		img  string
		read fstest.Used
	}{
		"ext4":         {k.Ext(24*MiB, tree, "-t", "ext4", "-b", "1024"), ext.Used},
		"ext4-meta-bg": {k.Ext(24*MiB, tree, "-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"), ext.Used},
		"fat32":        {k.FAT(36*MiB, 32, tree, "-s", "1"), fat.Used},
	} {
		t.Run(name, func(t *testing.T) {
			d := fstest.Load(t, c.img)
			want, ok := fstest.Check(t, c.read, d)
			if !ok {
				t.Fatalf("Used = %+v", want)
			}
			flipBits(t, d, c.read, want)
		})
	}
}

// NTFS has no second source for $Bitmap itself; the boot sector has one.
func TestNTFSFlippedBootSector(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	d := fstest.Load(t, mkNTFS(t, k, 16*MiB, 3, 50<<10, "-c", "512"))
	want, ok := fstest.Check(t, ntfs.Used, d)
	if !ok {
		t.Fatalf("Used = %+v", want)
	}
	b := make([]byte, 512)
	if _, err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	for bit := range 512 * 8 {
		flipped := d.With(int64(bit/8), b[bit/8]^1<<(bit%8))
		if um, ok := fstest.Check(t, ntfs.Used, flipped); ok && !fstest.Covers(um.Extents, want.Extents) {
			t.Fatalf("bit %d of byte %d changed: %d used bytes are no longer in the map", bit%8, bit/8, manifest.Sum(missing(want.Extents, um.Extents)))
		}
	}
}
