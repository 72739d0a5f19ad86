package library

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labswarm/images/fixture"
	"labswarm/images/manifest"
	"labswarm/images/unpack"
	"labswarm/internal/testreq"
)

// Whatever a disk comes in, the manifest says the same of it.
func TestImportFormats(t *testing.T) {
	t.Parallel()
	k := fixture.New(t, testreq.Tool)
	disk, cz := k.ClonezillaGPT()
	mbr, czMBR := k.ClonezillaMBR()
	l, dir := newLibrary(t)
	rawGPT := mustImport(t, l, ImportOptions{Name: "gpt", File: disk})
	rawMBR := mustImport(t, l, ImportOptions{Name: "mbr", File: mbr})
	// Of the others images/unpack shows that they give the same bytes.
	files := map[string]string{"qcow2": k.Path("qcow2"), "vhd": k.Path("vhd"), "zstd": disk + ".zst"}
	k.Run("qemu-utils", "", "qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, files["qcow2"])
	k.Run("qemu-utils", "", "qemu-img", "convert", "-f", "raw", "-O", "vpc", disk, files["vhd"]) // longer than the disk
	k.Run("zstd", "", "zstd", "-q", disk)
	files["clonezilla"], files["clonezilla-mbr"] = cz, czMBR
	t.Run("all", func(t *testing.T) { // partclone sleeps for 2 s each time: side by side
		for name, file := range files {
			want := rawGPT
			if name == "clonezilla-mbr" {
				want = rawMBR
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				sameAs(t, l, name, file, want)
			})
		}
	})
	for _, name := range leftovers(t, dir) {
		if strings.HasPrefix(name, ".") {
			t.Errorf("left %s", name)
		}
	}
}

// sameAs imports file and compares the manifest with that of the raw disk.
func sameAs(t *testing.T, l *Library, name, file string, want *Version) {
	t.Helper()
	var phases string
	v := mustImport(t, l, ImportOptions{Name: name, File: file, Progress: func(p Progress) {
		if !strings.HasSuffix(phases, p.Phase) {
			phases += " " + p.Phase
		}
		if p.Done > p.Total {
			t.Errorf("progress %+v", p)
		}
	}})
	if phases != " unpack copy sync" {
		t.Errorf("phases%s", phases)
	}
	got, wanted := *v.Manifest(), *want.Manifest()
	got.Name, wanted.Name = "", ""
	if !sameContent(&got, &wanted) {
		t.Errorf("the manifest is not that of the raw disk:\n%s", cmp.Diff(wanted, got, cmp.AllowUnexported(manifest.Manifest{})))
	}
	if !cmp.Equal(got.HashList, wanted.HashList) {
		t.Error("other hashes")
	}
}

// What is wrong with the disk inside is said as for a raw disk, and nothing is left.
func TestImportFormatsRefuses(t *testing.T) {
	t.Parallel()
	k := fixture.New(t, testreq.Tool)
	l, dir := newLibrary(t)
	zst := func(file string) string {
		k.Run("zstd", "", "zstd", "-q", "-f", file)
		return file + ".zst"
	}
	disk := golden(t, k)
	same := func() string { return k.Slice(disk, 0, diskSize) }
	dirty := same()
	write(t, dirty, rootAt+1024+96, []byte{0x46}) // needs_recovery
	for name, c := range map[string]struct {
		file string
		is   func(error) bool
		text string
	}{
		"dirty":      {zst(dirty), as[*GuardError], "--force=dirty"},
		"twice":      {zst(zst(same())), as[*NotDiskError], "holds a file of format zstd"},
		"filesystem": {zst(k.Ext(16*MiB, "", "-t", "ext4")), as[*NotDiskError], "single ext4 filesystem"},
		"too long":   {zst(k.Sparse("zero", 3*MiB)), as[*unpack.TooBigError], "--max-size"},
	} {
		_, err := l.Import(t.Context(), ImportOptions{Name: "lab", File: c.file, MaxSize: map[bool]int64{true: 2 * MiB}[name == "too long"]})
		if err == nil || !c.is(err) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v; want an error with %q", name, err, c.text)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := l.Import(ctx, ImportOptions{Name: "lab", File: zst(disk), Progress: func(p Progress) {
		if p.Phase == "copy" {
			cancel()
		}
	}})
	cancel()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	file := zst(same())
	_, err = l.Import(t.Context(), ImportOptions{Name: "lab", File: file, Progress: func(p Progress) {
		if p.Phase == "sync" {
			write(t, file, 100, []byte("x"))
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "was written to") {
		t.Errorf("changed while it was read: %v", err)
	}
	if left := leftovers(t, dir); left != nil {
		t.Errorf("left %q", left)
	}
}

func TestPreview(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := golden(t, k)
	k.Run("zstd", "", "zstd", "-q", disk)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	l, dir := newLibrary(t)
	v := mustImport(t, l, ImportOptions{Name: "lab", File: disk})
	m := v.Manifest()
	before := leftovers(t, dir)
	for _, file := range []string{disk, disk + ".zst"} {
		p, err := l.Preview(t.Context(), ImportOptions{Name: "lab", File: file})
		if err != nil {
			t.Fatal(err)
		}
		if !p.Exact || p.Cells != int64(m.Pieces()) || p.ShipBytes != m.ShippedBytes() || p.WireBytes != v.WireBytes() || p.UsedBytes != manifest.Sum(m.Used()) ||
			p.DiskSize != m.Disk.Size || p.MinSize != m.Disk.MinSize || p.Boot != m.Boot || p.Seconds <= 0 {
			t.Errorf("%s: Preview = %+v; the image has %d cells, %d bytes on the wire", file, p, m.Pieces(), v.WireBytes())
		}
		if d := cmp.Diff(m.Parts, p.Parts); d != "" {
			t.Errorf("%s: partitions (-want +got):\n%s", file, d)
		}
	}
	if d := cmp.Diff(before, leftovers(t, dir)); d != "" {
		t.Errorf("a preview changed the library (-before +after):\n%s", d)
	}
	if ents, err := os.ReadDir(tmp); err != nil || len(ents) > 0 {
		t.Errorf("a preview left %v, %v", ents, err)
	}
	// A library that is not there is not made.
	none, err := Open(filepath.Join(tmp, "none"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := none.Preview(t.Context(), ImportOptions{Name: "lab", File: disk}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(tmp, "none")); err == nil {
		t.Error("a preview made the library's folder")
	}
}

func TestSpread(t *testing.T) {
	runs := []manifest.Run{{First: 10, Count: 90}, {First: 200, Count: 10}, {First: 1000, Count: 900}}
	got := spread(runs, 1000, 10)
	want := []manifest.Run{{First: 10, Count: 1}, {First: 1000, Count: 1}, {First: 1100, Count: 1}, {First: 1200, Count: 1}, {First: 1300, Count: 1},
		{First: 1400, Count: 1}, {First: 1500, Count: 1}, {First: 1600, Count: 1}, {First: 1700, Count: 1}, {First: 1800, Count: 1}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("spread (-want +got):\n%s", d)
	}
	if got := spread(runs, 1000, 1000); !cmp.Equal(got, runs) {
		t.Errorf("spread of all = %v", got)
	}
}

// A bare filesystem becomes the only partition of a disk, and the same one each time.
func TestWrap(t *testing.T) {
	t.Parallel()
	k := fixture.New(t, testreq.Tool)
	l, dir := newLibrary(t)
	for fs, file := range map[string]string{
		"ext4": k.Ext(5*MiB+4096, k.Tree(3, 5, 50<<10), "-t", "ext4"), "fat16": k.FAT(16*MiB, 16, k.Tree(4, 5, 50<<10)), "swap": k.Swap(2 * MiB),
	} {
		v := mustImport(t, l, ImportOptions{Name: fs, File: file, Wrap: true})
		m := v.Manifest()
		if len(m.Parts) != 1 || m.Parts[0].FS != fs || m.Parts[0].Start != MiB || m.Disk.Label != "gpt" {
			t.Errorf("%s: %+v", fs, m)
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(v.Dir(), "disk.raw"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range m.Used() {
			if off := e.Off - MiB; off >= 0 && off < int64(len(want)) && string(got[e.Off:min(e.End(), MiB+int64(len(want)))]) != string(want[off:min(off+e.Len, int64(len(want)))]) {
				t.Errorf("%s: used bytes at %d differ", fs, off)
			}
		}
		k.Run("gdisk", "", "sgdisk", "-v", filepath.Join(v.Dir(), "disk.raw"))
		if _, err := l.Import(t.Context(), ImportOptions{Name: fs, File: file, Wrap: true}); !errors.Is(err, ErrUnchanged) {
			t.Errorf("%s again: %v; want ErrUnchanged", fs, err)
		}
	}
	for file, want := range map[string]string{golden(t, k): "none that is known", k.Sparse("zero", 2*MiB): "none that is known"} {
		if _, err := l.Import(t.Context(), ImportOptions{Name: "lab", File: file, Wrap: true}); !as[*NotDiskError](err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", file, err, want)
		}
	}
	for _, name := range leftovers(t, dir) {
		if strings.HasPrefix(name, ".") {
			t.Errorf("left %s", name)
		}
	}
}
