package scan

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"labswarm/images/manifest"
	"pgregory.net/rapid"
)

func TestRunsAgreesWithABitLoop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bm := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 0xff, 1, 0x80, 0x7e, 0x55, 0xfe, 0x7f}), 0, 40).Draw(t, "bitmap")
		n := rapid.Int64Range(0, int64(len(bm))*8+9).Draw(t, "n")
		var got, want [][2]int64
		Runs(bm, n, func(s, c int64) { got = append(got, [2]int64{s, c}) })
		for i := int64(0); i < min(n, int64(len(bm))*8); i++ {
			if bm[i>>3]>>(i&7)&1 == 0 {
				continue
			}
			if k := len(want); k > 0 && want[k-1][0]+want[k-1][1] == i {
				want[k-1][1]++
			} else {
				want = append(want, [2]int64{i, 1})
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("Runs(%x, %d) (-want +got):\n%s", bm, n, d)
		}
	})
}

// However fragmented a filesystem is, the map stays bounded and holds everything that was added.
func TestBuilderIsBounded(t *testing.T) {
	const step, n = 64 << 10, 3 * maxList
	var b Builder
	for i := range int64(n) {
		b.Add(i*step, 4096)
	}
	list := b.Finish(1 << 50)
	if len(list) > maxList || len(list) == 0 {
		t.Fatalf("%d extents; want at most %d", len(list), maxList)
	}
	for i := range int64(n) {
		k := manifest.First(list, i*step)
		if k == len(list) || list[k].Off > i*step || list[k].End() < i*step+4096 {
			t.Fatalf("the extent at %d is missing", i*step)
		}
	}
	if manifest.Sum(list) > n*step {
		t.Errorf("%d bytes for a range of %d", manifest.Sum(list), int64(n*step))
	}
}
