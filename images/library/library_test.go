package library

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"labswarm/images/fixture"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(repairEnv); dir != "" {
		repairForever(dir)
	}
	goleak.VerifyTestMain(m)
}

const MiB = fixture.MiB

const diskScript = `label: gpt
start=2048,   size=2048,   type=21686148-6449-6E6F-744E-656564454649, name=bios
start=4096,   size=65536,  type=U, name=esp
start=69632,  size=65536,  type=S, name=swap
start=135168, size=131072, type=L, name=root
`

const (
	espAt, swapAt, rootAt = 2 * MiB, 34 * MiB, 66 * MiB
	rootSize              = 64 * MiB
	diskSize              = 131*MiB + 512*7 // the last cell hangs over the end
)

// golden makes a small disk with everything an image can hold.
func golden(t testing.TB, k *fixture.Kit) string {
	t.Helper()
	tree := k.Tree(3, 40, 300<<10)
	esp := k.FAT(32*MiB, 16, "")
	loader := k.Path("BOOTX64.EFI")
	if err := os.WriteFile(loader, fixture.Random(9, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	k.Run("mtools", "", "mmd", "-i", esp, "::EFI", "::EFI/BOOT")
	k.Run("mtools", "", "mcopy", "-i", esp, loader, "::EFI/BOOT/BOOTX64.EFI")
	root := k.Ext(rootSize, tree, "-t", "ext4", "-b", "1024", "-L", "root")
	k.ChurnExt(root, 40)
	disk := k.Disk(diskSize, diskScript, map[int64]string{espAt: esp, swapAt: k.Swap(32 * MiB), rootAt: root})
	// GRUB's places: code in sector 0 and the core image in its own partition.
	write(t, disk, 0, fixture.Random(1, 440))
	write(t, disk, MiB, fixture.Random(2, 300<<10))
	return disk
}

func write(t testing.TB, path string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func newLibrary(t testing.TB) (*Library, string) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(fixture.Random(5, 32))
	dir := filepath.Join(t.TempDir(), "images")
	l, err := Open(dir, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l, dir
}

func mustImport(t testing.TB, l *Library, o ImportOptions) *Version {
	t.Helper()
	v, err := l.Import(t.Context(), o)
	if err != nil {
		t.Fatalf("Import = %v", err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

// leftovers returns what stands in the library besides the lock and complete versions.
func leftovers(t testing.TB, dir string) []string {
	t.Helper()
	ents, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range ents {
		if e.Name() != ".lock" {
			out = append(out, e.Name())
		}
	}
	return out
}

func TestImport(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := golden(t, k)
	l, dir := newLibrary(t)
	var phases []string
	v := mustImport(t, l, ImportOptions{Name: "lab", File: disk, OSHint: "Debian 12", Progress: func(p Progress) {
		if !slices.Contains(phases, p.Phase) {
			phases = append(phases, p.Phase)
		}
		if p.Done > p.Total {
			t.Errorf("progress %d of %d", p.Done, p.Total)
		}
	}})
	if d := cmp.Diff([]string{"copy", "sync"}, phases); d != "" {
		t.Errorf("phases (-want +got):\n%s", d)
	}
	m := v.Manifest()
	if m.Name != "lab" || m.Boot != "both" || m.OSHint != "Debian 12" || m.Codec != CodecZstd || m.Cell != MiB/4 ||
		m.Disk.Size != diskSize || m.Disk.Sector != 512 || m.Disk.Label != "gpt" || m.Disk.MinSize != 131*MiB {
		t.Errorf("manifest = %+v", m)
	}
	var got []string
	for _, p := range m.Parts {
		got = append(got, fmt.Sprintf("%d %s %s %s %v %q", p.N, p.Name, p.FS, p.Map, p.Clean, p.OS))
	}
	want := []string{`1 bios none whole true ""`, `2 esp fat16 reader true ""`, `3 swap swap header true ""`, `4 root ext4 reader true "linux"`}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("partitions (-want +got):\n%s", d)
	}
	if m.ZeroCount() == 0 || m.Pieces() == 0 || int64(m.Pieces())+m.ZeroCount() > m.GridCells() {
		t.Errorf("%d data and %d zero cells of %d", m.Pieces(), m.ZeroCount(), m.GridCells())
	}
	checkRaw(t, disk, v)
	res, err := v.Verify(t.Context(), nil)
	if err != nil || !res.OK() || res.DataCells != m.Pieces() {
		t.Errorf("Verify = %+v, %v", res, err)
	}
	if d := cmp.Diff([]string{"lab"}, leftovers(t, dir)); d != "" {
		t.Errorf("library holds (-want +got):\n%s", d)
	}
}

// checkRaw compares disk.raw with the source byte by byte: used bytes equal, unused bytes zero.
func checkRaw(t *testing.T, disk string, v *Version) {
	t.Helper()
	src, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(v.Dir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, len(src))
	unused := int64(0)
	for _, e := range v.Manifest().Used() {
		copy(want[e.Off:e.End()], src[e.Off:e.End()])
	}
	for i := range src {
		if src[i] != want[i] {
			unused++
		}
	}
	if unused == 0 {
		t.Error("the fixture holds no deleted content, so masking is not tested")
	}
	if string(raw) != string(want) {
		t.Error("disk.raw is not the masked source")
	}
	size, data, err := fileBlocks(filepath.Join(v.Dir(), "disk.raw"))
	if err != nil || size != diskSize || data > v.Manifest().ShippedBytes() {
		t.Errorf("disk.raw has %d bytes, %d on disk, %v; want %d and at most %d", size, data, err, diskSize, v.Manifest().ShippedBytes())
	}
	buf := make([]byte, v.Manifest().Cell)
	for i := range v.Manifest().Pieces() {
		if err := v.ReadPiece(i, buf); err != nil {
			t.Fatalf("ReadPiece(%d) = %v", i, err)
		}
		off := v.Manifest().CellOf(i) * v.Manifest().Cell
		padded := make([]byte, v.Manifest().Cell)
		copy(padded, want[off:])
		if string(buf) != string(padded) {
			t.Fatalf("piece %d differs from the masked source", i)
		}
	}
}

func TestVersionsAndUnchanged(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := golden(t, k)
	l, dir := newLibrary(t)
	first := mustImport(t, l, ImportOptions{Name: "lab", File: disk, Cell: 256 << 10})
	_, err := l.Import(t.Context(), ImportOptions{Name: "lab", File: disk})
	var unchanged *UnchangedError
	if !errors.Is(err, ErrUnchanged) || !errors.As(err, &unchanged) || unchanged.Version != first.Version() {
		t.Fatalf("second import = %v; want UnchangedError", err)
	}
	// Content nobody uses makes no new version either.
	write(t, disk, 33*MiB, []byte("deleted file"))
	if _, err = l.Import(t.Context(), ImportOptions{Name: "lab", File: disk}); !errors.Is(err, ErrUnchanged) {
		t.Fatalf("import with other unused bytes = %v; want ErrUnchanged", err)
	}
	forced := mustImport(t, l, ImportOptions{Name: "lab", File: disk, Force: []string{ForceUnchanged}})
	write(t, disk, MiB+1000, []byte("new core image"))
	third := mustImport(t, l, ImportOptions{Name: "lab", File: disk})
	if third.Manifest().Cell != 256<<10 {
		t.Errorf("cell of the third version = %d; want the first one's", third.Manifest().Cell)
	}
	if _, err := l.Import(t.Context(), ImportOptions{Name: "lab", File: disk, Cell: MiB}); err == nil {
		t.Error("import with another cell size = nil error")
	}
	list, err := l.List()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range list {
		got = append(got, fmt.Sprintf("%s/%s %v %s", i.Name, i.Version, i.Latest, i.Err))
	}
	want := []string{"lab/" + first.Version() + " false ", "lab/" + forced.Version() + " false ", "lab/" + third.Version() + " true "}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("List (-want +got):\n%s", d)
	}
	for _, ask := range []string{"", "latest", third.Version()} {
		v, err := l.Get("lab", ask)
		if err != nil || v.Version() != third.Version() {
			t.Fatalf("Get(%q) = %v", ask, err)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, v := range []string{first.Version(), forced.Version(), third.Version()} {
		if err := l.Remove("lab", v); err != nil {
			t.Errorf("Remove = %v", err)
		}
	}
	if left := leftovers(t, dir); !slices.Equal(left, []string{newestPrefix + "lab"}) {
		t.Errorf("after removing everything there is %q", left)
	}
	if _, err := l.Get("lab", ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of a removed image = %v; want ErrNotFound", err)
	}
}

func TestSweep(t *testing.T) {
	l, dir := newLibrary(t)
	live, err := l.newTemp() // an import in another process
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{".tmp-dead/sub", ".trash-1", "lab"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, l.key, nil); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{filepath.Base(live.dir), "lab"}, leftovers(t, dir)); d != "" {
		t.Errorf("after the sweep (-want +got):\n%s", d)
	}
	if err := live.discard(); err != nil {
		t.Error(err)
	}
}

func TestDamage(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := golden(t, k)
	l, dir := newLibrary(t)
	v := mustImport(t, l, ImportOptions{Name: "lab", File: disk, Cell: MiB})
	m := v.Manifest()
	raw := filepath.Join(v.Dir(), "disk.raw")
	// One used byte of a data cell, one of a zero cell, one unused byte.
	piece := m.Pieces() / 2
	cell := m.CellOf(piece)
	inCell := m.Used()[manifest.First(m.Used(), cell*MiB)]
	off := max(inCell.Off, cell*MiB)
	write(t, raw, off, []byte{^at(t, raw, off)})
	var zero int64 = -1
	for c := range m.ZeroCells() {
		zero = c
		break
	}
	e := m.Used()[manifest.First(m.Used(), zero*MiB)]
	write(t, raw, max(e.Off, zero*MiB), []byte{1})
	write(t, raw, 33*MiB, []byte("unused"))
	res, err := v.Verify(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var bad []int64
	for _, b := range res.Bad {
		bad = append(bad, b.Cell)
	}
	want := []int64{cell, zero}
	slices.Sort(want)
	if d := cmp.Diff(want, bad); d != "" {
		t.Errorf("bad cells (-want +got):\n%s", d)
	}
	fresh, err := l.Get("lab", "")
	if err != nil {
		t.Fatal(err)
	}
	var badCell *BadCellError
	if err := fresh.ReadPiece(piece, make([]byte, MiB)); !errors.As(err, &badCell) || badCell.Cell != cell {
		t.Errorf("ReadPiece of a damaged cell = %v; want BadCellError", err)
	}
	if err := fresh.Close(); err != nil {
		t.Error(err)
	}
	for _, f := range []string{"manifest.json", "manifest.sig", "image.torrent"} {
		path := filepath.Join(v.Dir(), f)
		old := at(t, path, 40)
		write(t, path, 40, []byte{old ^ 1})
		if _, err := l.Get("lab", ""); err == nil {
			t.Errorf("Get with a flipped bit in %s = nil error", f)
		}
		list, err := l.List()
		if err != nil || len(list) != 1 || list[0].Err == "" {
			t.Errorf("List with a flipped bit in %s = %+v, %v; want the version with an error", f, list, err)
		}
		write(t, path, 40, []byte{old})
	}
	stranger, err := Open(dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Get("lab", ""); !as[*manifest.UnknownKeyError](err) {
		t.Errorf("Get without the key = %v; want UnknownKeyError", err)
	}
}

func at(t testing.TB, path string, off int64) byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b[off]
}

func TestNextVersion(t *testing.T) {
	day := time.Date(2026, 11, 20, 23, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		have []string
		want string
	}{
		{nil, "2026-11-20.1"}, {[]string{"2026-11-19.4"}, "2026-11-20.1"}, {[]string{"2026-11-20.1", "2026-11-20.2"}, "2026-11-20.3"},
		{[]string{"2026-11-20.9", "2026-11-20.10"}, "2026-11-20.11"}, {[]string{"2031-01-01.2"}, "2031-01-01.3"},
	} {
		if got := nextVersion(c.have, day); got != c.want {
			t.Errorf("nextVersion(%v) = %s; want %s", c.have, got, c.want)
		}
	}
	list := []string{"2026-11-20.10", "2026-11-20.9", "2026-11-19.11"}
	slices.SortFunc(list, compareVersions)
	if d := cmp.Diff([]string{"2026-11-19.11", "2026-11-20.9", "2026-11-20.10"}, list); d != "" {
		t.Errorf("order (-want +got):\n%s", d)
	}
}
