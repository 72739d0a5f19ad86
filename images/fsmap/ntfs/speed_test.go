package ntfs

import (
	"os"
	"runtime"
	"testing"
	"time"

	"labswarm/images/fixture"
	"labswarm/internal/testreq"
)

// scattered is a volume whose bitmap marks every other cluster: the most runs that a map can have.
type scattered struct {
	*os.File
	off, end int64 // bytes of $Bitmap
}

func (s scattered) ReadAt(b []byte, off int64) (int, error) {
	n, err := s.File.ReadAt(b, off)
	for i := range n {
		if at := off + int64(i); at >= s.off && at < s.end && b[i] == 0 {
			b[i] = 0x55
		}
	}
	return n, err
}

// The map of a 256 GiB volume takes no memory to speak of, also when it is the most fragmented one there can be.
func TestBigVolume(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	img := k.Sparse("big.img", 256<<30)
	k.Run("ntfs-3g", "", "mkntfs", "-q", "-F", "-f", "-c", "4096", img)
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 512)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	v, err := parseBoot(f, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.openMFT(); err != nil {
		t.Fatal(err)
	}
	rec, err := v.readRecord(recBitmap)
	if err != nil {
		t.Fatal(err)
	}
	var bm stream
	if err := v.open(&bm, rec, attrData, ""); err != nil {
		t.Fatal(err)
	}
	start := bm.runs[0].lcn * v.cluster
	for name, s := range map[string]scattered{"fresh": {File: f}, "every other cluster": {f, start, start + bm.size}} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		began := time.Now()
		um, err := Used(s, 256<<30)
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		if err != nil || len(um.Extents) < 3 {
			t.Fatalf("%s: Used = %d extents, %v", name, len(um.Extents), err)
		}
		mib := (after.TotalAlloc - before.TotalAlloc) >> 20
		t.Logf("%s: %d extents in %v, %d MiB allocated", name, len(um.Extents), took, mib)
		if mib > 64 {
			t.Errorf("%s: %d MiB allocated; want at most 64", name, mib)
		}
	}
}
