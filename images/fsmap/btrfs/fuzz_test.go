package btrfs

import (
	"hash/crc32"
	"io"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/fstest"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

// FuzzUsed damages filesystems with tree blocks of 4 KiB. Checksums are made right again, or nearly every damage would
// end there.
func FuzzUsed(f *testing.F) {
	k := fixture.New(f, testreq.Tool)
	tree := k.Tree(5, 200, 20000)
	var disks []*fstest.Disk
	for _, opts := range [][]string{{"-M", "-m", "single"}, {"-m", "dup"}, {"-m", "single", "--rootdir", tree}} {
		img := k.Sparse("btrfs.img", 128<<20)
		k.Run("btrfs-progs", "", "mkfs.btrfs", append(append([]string{"-q", "-n", "4096"}, opts...), img)...)
		disks = append(disks, fstest.Load(f, img))
	}
	fstest.Fuzz(f, func(r io.ReaderAt, size int64) (manifest.UsedMap, error) { return Used(summed{r}, size) }, disks...)
}

// summed reads superblocks and tree blocks, which are the only reads of 4096 bytes, with the right checksum.
type summed struct{ io.ReaderAt }

func (s summed) ReadAt(b []byte, off int64) (int, error) {
	n, err := s.ReaderAt.ReadAt(b, off)
	if n == 4096 {
		le.PutUint32(b, crc32.Checksum(b[32:], castagnoli))
	}
	return n, err
}
