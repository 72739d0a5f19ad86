package ntfs

import (
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/fstest"
	"labswarm/internal/testreq"
)

// FuzzUsed damages real volumes: small clusters, and big ones with the boot sector's negative exponents.
func FuzzUsed(f *testing.F) {
	k := fixture.New(f, testreq.Tool)
	var disks []*fstest.Disk
	for _, opts := range [][]string{{"-c", "512"}, {"-c", "65536"}, {"-s", "4096"}} {
		img := k.Sparse("ntfs.img", 24<<20)
		k.Run("ntfs-3g", "", "mkntfs", append(append([]string{"-q", "-F", "-f"}, opts...), img)...)
		disks = append(disks, fstest.Load(f, img))
	}
	fstest.Fuzz(f, Used, disks...)
}
