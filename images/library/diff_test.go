package library

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labswarm/images/fixture"
	"labswarm/images/mask"
	"labswarm/internal/testreq"
)

// fetched is what the agent's own rule says: it checks the cells of a disk that holds a against the manifest of b.
func fetched(t *testing.T, a, b *Version) (fetch, zero int) {
	t.Helper()
	disk, err := os.ReadFile(filepath.Join(a.Dir(), rawFile))
	if err != nil {
		t.Fatal(err)
	}
	m := b.Manifest()
	for c := range m.GridCells() {
		buf := make([]byte, m.Cell)
		copy(buf, disk[min(int64(len(disk)), c*m.Cell):])
		st, err := mask.New(m).CheckCell(buf, c)
		switch {
		case err != nil:
			t.Fatal(err)
		case st != mask.Differs:
		case m.IsZero(c):
			zero++
		default:
			fetch++
		}
	}
	return fetch, zero
}

func TestCompare(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := golden(t, k)
	l, _ := newLibrary(t)
	one := mustImport(t, l, ImportOptions{Name: "lab", File: disk, Cell: MiB})
	write(t, disk, MiB+1000, []byte("new core image"))
	write(t, disk, swapAt, fixture.Random(77, 4096)) // no swap any more: the whole partition counts
	root := k.Ext(rootSize, k.Tree(3, 20, 200<<10), "-t", "ext4", "-b", "1024", "-L", "root")
	k.Put(disk, rootAt, root)
	two := mustImport(t, l, ImportOptions{Name: "lab", File: disk})
	for _, c := range []struct {
		name     string
		from, to *Version
	}{{"forth", one, two}, {"back", two, one}} {
		d, err := Compare(t.Context(), c.from, c.to, nil)
		if err != nil {
			t.Fatal(err)
		}
		fetch, zero := fetched(t, c.from, c.to)
		if d.Fetch != fetch || d.Zero != zero || d.Bytes != int64(fetch)*MiB || d.Wire <= 0 || d.Wire > d.Bytes {
			t.Errorf("%s: %+v; the agent would fetch %d cells and zero %d", c.name, d, fetch, zero)
		}
		sum := DiffPart{}
		for _, p := range d.Parts {
			sum.Fetch, sum.Bytes, sum.Zero = sum.Fetch+p.Fetch, sum.Bytes+p.Bytes, sum.Zero+p.Zero
		}
		if diff := cmp.Diff(DiffPart{Fetch: d.Fetch, Bytes: d.Bytes, Zero: d.Zero}, sum); diff != "" {
			t.Errorf("%s: the partitions do not add up:\n%s", c.name, diff)
		}
		if n := NewCells(c.to.man, c.from.man); n < d.Fetch || n > d.Fetch+3 {
			t.Errorf("%s: %d new cells, %d to fetch", c.name, n, d.Fetch)
		}
		if d.Parts[1].Fetch != 1 || d.Parts[2].Fetch != 0 || d.Parts[4].Fetch == 0 {
			t.Errorf("%s: by partition %+v; want one cell of the first, none of the second, some of the fourth", c.name, d.Parts)
		}
	}
	if d, err := Compare(t.Context(), one, one, nil); err != nil || d.Fetch+d.Zero != 0 {
		t.Errorf("a version and itself: %+v, %v", d, err)
	}
	other := mustImport(t, l, ImportOptions{Name: "fine", File: disk, Cell: 256 << 10})
	if _, err := Compare(t.Context(), one, other, nil); err == nil {
		t.Error("versions with other cells = nil error")
	}
	if n, all := NewCells(other.man, one.man), other.man.Pieces(); n != all {
		t.Errorf("%d of %d cells new beside a version with other cells; want all", n, all)
	}
	if n := NewCells(one.man, one.man); n != 0 {
		t.Errorf("%d cells new beside itself", n)
	}
}
