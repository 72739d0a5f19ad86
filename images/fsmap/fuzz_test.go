package fsmap

import (
	"bytes"
	"testing"
)

// FuzzUsed covers detection, swap and the fall-back to the whole partition. It needs no tools for its seeds.
func FuzzUsed(f *testing.F) {
	at := func(off int, magic string) []byte { return append(make([]byte, off), magic...) }
	for _, seed := range [][]byte{
		at(3, "NTFS    "), at(3, "EXFAT   "), at(3, "-FVE-FS-"), at(0, "XFSB"), at(0, "LUKS\xba\xbe"), at(512, "LABELONE"),
		at(4086, "SWAPSPACE2"), at(8182, "S1SUSPEND\x00"), at(65600, "_BHRfS_M"), at(1080, "\x53\xef"),
		append(at(54, "FAT16"), append(make([]byte, 451), 0x55, 0xAA)...),
	} {
		f.Add(seed, uint32(1<<20))
		f.Add(seed, uint32(len(seed)))
	}
	f.Fuzz(func(t *testing.T, b []byte, n uint32) {
		size := int64(n%(2<<20))/512*512 + 512
		disk := make([]byte, size)
		copy(disk, b)
		um, err := Used(bytes.NewReader(disk), size)
		if err != nil {
			return
		}
		end := int64(-1)
		for _, e := range um.Extents {
			if e.Off <= end || e.Len <= 0 || e.End() > size {
				t.Fatalf("%s: extent %+v after byte %d of %d", um.FS, e, end, size)
			}
			end = e.End()
		}
		if len(um.Extents) == 0 || um.FS == "" || um.Kind == "" {
			t.Fatalf("accepted as %+v", um)
		}
	})
}
