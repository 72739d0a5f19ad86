package library

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"labswarm/images/manifest"
)

// Run lists and extent lists must behave like sets.
func TestSetArithmetic(t *testing.T) {
	set := func(runs []manifest.Run) map[int64]bool {
		m := map[int64]bool{}
		for _, r := range runs {
			for c := r.First; c < r.First+r.Count; c++ {
				m[c] = true
			}
		}
		return m
	}
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Bool(), 1, 60).Draw(t, "all")
		var a, b []manifest.Run
		want := map[int64]bool{}
		for i, in := range all {
			if !in {
				continue
			}
			a = manifest.AppendCell(a, int64(i))
			if rapid.Bool().Draw(t, "both") {
				b = manifest.AppendCell(b, int64(i))
			} else {
				want[int64(i)] = true
			}
		}
		if d := cmp.Diff(want, set(subtract(a, b))); d != "" {
			t.Fatalf("subtract(%v, %v) (-want +got):\n%s", a, b, d)
		}
		extents := func(runs []manifest.Run) (out []manifest.Extent) {
			for _, r := range runs {
				out = append(out, manifest.Extent{Off: r.First, Len: r.Count})
			}
			return out
		}
		if got := intersect(extents(a), extents(b)); manifest.Sum(got) != int64(len(set(b))) {
			t.Fatalf("intersect(%v, %v) = %v", a, b, got)
		}
	})
}
