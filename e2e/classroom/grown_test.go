package classroom

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestGrownPartition: only the last partition may have grown, in its place and to a multiple of 1 MiB; whatever else
// differs stays a difference.
func TestGrownPartition(t *testing.T) {
	image := table{Sector: 512, Partitions: []partition{{Start: 4096, Size: 2048}, {Start: 2048, Size: 2048}}}
	for _, tc := range []struct {
		name  string
		parts []partition
		equal bool
	}{
		{"equal", []partition{{Start: 4096, Size: 2048}, {Start: 2048, Size: 2048}}, true},
		{"last one grown", []partition{{Start: 4096, Size: 4096}, {Start: 2048, Size: 2048}}, true},
		{"grown to an odd end", []partition{{Start: 4096, Size: 4095}, {Start: 2048, Size: 2048}}, false},
		{"shrunk", []partition{{Start: 4096, Size: 1024}, {Start: 2048, Size: 2048}}, false},
		{"moved", []partition{{Start: 6144, Size: 2048}, {Start: 2048, Size: 2048}}, false},
		{"another one grown", []partition{{Start: 4096, Size: 2048}, {Start: 2048, Size: 4096}}, false},
		{"one missing", []partition{{Start: 4096, Size: 2048}}, false},
		{"none", nil, false},
	} {
		got := table{Sector: 512, Partitions: tc.parts}
		got.shrink(&image)
		if d := cmp.Diff(image, got); (d == "") != tc.equal {
			t.Errorf("%s: equal %v; want %v: %s", tc.name, d == "", tc.equal, d)
		}
	}
}
