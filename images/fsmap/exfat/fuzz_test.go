package exfat

import (
	"bytes"
	"io"
	"math/bits"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/fstest"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

// FuzzUsed damages volumes with small and with big clusters. The checksum of the boot region is made right again, or
// nearly every damage would end there.
func FuzzUsed(f *testing.F) {
	k := fixture.New(f, testreq.Tool)
	var disks []*fstest.Disk
	for _, cluster := range []string{"512", "64K"} {
		img := k.Sparse("exfat.img", 16<<20)
		k.Run("exfatprogs", "", "mkfs.exfat", "-c", cluster, img)
		disks = append(disks, fstest.Load(f, img))
	}
	fstest.Fuzz(f, func(r io.ReaderAt, size int64) (manifest.UsedMap, error) { return Used(summed{r}, size) }, disks...)
}

// summed reads with the right checksum in the boot region of 12 sectors.
type summed struct{ io.ReaderAt }

func (s summed) ReadAt(b []byte, off int64) (int, error) {
	n, err := s.ReaderAt.ReadAt(b, off)
	if off != 0 || n%12 != 0 || n < 12*512 {
		return n, err
	}
	sector, sum := n/12, uint32(0)
	for i, x := range b[:11*sector] {
		if i != 106 && i != 107 && i != 112 {
			sum = bits.RotateLeft32(sum, -1) + uint32(x)
		}
	}
	copy(b[11*sector:n], bytes.Repeat(le.AppendUint32(nil, sum), sector/4))
	return n, err
}
