package xfs

import (
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/fstest"
	"labswarm/internal/testreq"
)

// FuzzUsed damages filesystems of version 4, where no checksum stands between the damage and the walk, and one of 5.
func FuzzUsed(f *testing.F) {
	k := fixture.New(f, testreq.Tool)
	var disks []*fstest.Disk
	for _, opts := range [][]string{{"-m", "crc=0,finobt=0", "-b", "size=512"}, {"-m", "crc=0,finobt=0", "-d", "agcount=1"}, {"-b", "size=1024"}} {
		img := k.Sparse("xfs.img", 24<<20)
		k.Run("xfsprogs", "", "mkfs.xfs", append(append([]string{"--unsupported", "-q"}, opts...), img)...)
		disks = append(disks, fstest.Load(f, img))
	}
	fstest.Fuzz(f, Used, disks...)
}
