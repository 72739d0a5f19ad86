package fsmap

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/fstest"
	"labswarm/images/manifest"
)

// usedOf is used for a disk in memory.
func usedOf(t testing.TB, d *fstest.Disk) manifest.UsedMap {
	t.Helper()
	um, err := Used(d, d.Size)
	if err != nil {
		t.Fatal(err)
	}
	return um
}

// partclone is the oracle of the used maps: what Debian's partclone would copy, from its domain log (ddrescue's
// format). program is the part of its name after the dot; -f 0 spares its sleeps for a progress display.
func partclone(t testing.TB, k *fixture.Kit, program, img string) []manifest.Extent {
	t.Helper()
	log := k.Path("domain.log")
	k.Run("partclone", "", "partclone."+program, "-q", "-f", "0", "-D", "-s", img, "-o", log, "-L", k.Path("partclone.log"))
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var out []manifest.Extent
	for _, m := range regexp.MustCompile(`(?m)^(0x[0-9A-F]+)\s+(0x[0-9A-F]+)\s+\+$`).FindAllStringSubmatch(string(text), -1) {
		var v [2]int64
		for i := range v {
			if v[i], err = strconv.ParseInt(m[i+1], 0, 64); err != nil {
				t.Fatal(err)
			}
		}
		out = append(out, manifest.Extent{Off: v[0], Len: v[1]})
	}
	if len(out) == 0 {
		t.Fatalf("partclone.%s lists nothing:\n%s", program, text)
	}
	return manifest.Merge(out)
}

// missing returns what is in want but not in got; both merged.
func missing(want, got []manifest.Extent) []manifest.Extent {
	var out []manifest.Extent
	for _, e := range want {
		for i := manifest.First(got, e.Off); e.Len > 0; i++ {
			if i == len(got) || got[i].Off >= e.End() {
				out = append(out, e)
				break
			}
			if n := got[i].Off - e.Off; n > 0 {
				out = append(out, manifest.Extent{Off: e.Off, Len: n})
			}
			end := min(got[i].End(), e.End())
			e = manifest.Extent{Off: end, Len: e.End() - end}
		}
	}
	return out
}

// agrees checks that the used map holds all that partclone copies and at most excess bytes more.
func agrees(t testing.TB, k *fixture.Kit, program, img string, um manifest.UsedMap, excess int64) {
	t.Helper()
	want := partclone(t, k, program, img)
	if m := missing(want, um.Extents); len(m) > 0 {
		t.Errorf("%d bytes in %d ranges that partclone.%s copies are not in the used map, the first %+v", manifest.Sum(m), len(m), program, m[0])
	}
	if m := missing(um.Extents, want); manifest.Sum(m) > excess {
		t.Errorf("the used map has %d bytes more than partclone.%s copies, at most %d are explained; the first ranges %+v",
			manifest.Sum(m), program, excess, m[:min(len(m), 8)])
	}
}

// The negative control: one sector less than partclone copies is noticed.
func TestMissing(t *testing.T) {
	want := []manifest.Extent{{Off: 0, Len: 4096}, {Off: 8192, Len: 4096}}
	for _, tt := range []struct{ got, missing []manifest.Extent }{
		{want, nil},
		{[]manifest.Extent{{Off: 0, Len: 1 << 20}}, nil},
		{nil, want},
		{[]manifest.Extent{{Off: 0, Len: 4096}, {Off: 8704, Len: 4096}}, []manifest.Extent{{Off: 8192, Len: 512}}},
		{[]manifest.Extent{{Off: 512, Len: 1024}, {Off: 2048, Len: 7168}}, []manifest.Extent{{Off: 0, Len: 512}, {Off: 1536, Len: 512}, {Off: 9216, Len: 3072}}},
	} {
		got := missing(want, tt.got)
		if len(got) != len(tt.missing) {
			t.Errorf("missing(%v) = %v; want %v", tt.got, got, tt.missing)
			continue
		}
		for i := range got {
			if got[i] != tt.missing[i] {
				t.Errorf("missing(%v) = %v; want %v", tt.got, got, tt.missing)
			}
		}
	}
}
