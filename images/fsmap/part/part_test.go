package part

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/go-cmp/cmp"

	"labswarm/images/fixture"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

const MiB = fixture.MiB

const gptScript = `label: gpt
label-id: 6B1F8A52-0C6E-4F0E-9A53-000000000000
start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, name=bios, uuid=6B1F8A52-0C6E-4F0E-9A53-0000000000A1
start=4096, size=8192, type=U, name="ésp", uuid=6B1F8A52-0C6E-4F0E-9A53-0000000000A2
start=32768, type=L, name=root, attrs="LegacyBIOSBootable", uuid=6B1F8A52-0C6E-4F0E-9A53-0000000000A4
`

const mbrScript = `label: dos
label-id: 0xdeadbeef
start=2048, size=8192, type=c, bootable
start=12288, size=4096, type=83
start=20480, size=80000, type=5
start=22528, size=4096, type=83
start=30720, size=8192, type=82
start=43008, size=2048, type=83
`

func load(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read(t testing.TB, b []byte) *Table {
	t.Helper()
	tab, err := Read(bytes.NewReader(b), int64(len(b)), 0)
	if err != nil {
		t.Fatalf("Read = %v", err)
	}
	return tab
}

func TestReadGPT(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	path := k.Disk(64*MiB, gptScript, nil)
	tab := read(t, load(t, path))
	if tab.Label != "gpt" || tab.Sector != 512 || tab.GUID != "6b1f8a52-0c6e-4f0e-9a53-000000000000" || len(tab.Warnings) > 0 {
		t.Errorf("table = %+v", tab)
	}
	want := []Entry{
		{1, MiB, MiB, TypeBIOSBoot, "6b1f8a52-0c6e-4f0e-9a53-0000000000a1", 0, "bios"},
		{2, 2 * MiB, 4 * MiB, TypeESP, "6b1f8a52-0c6e-4f0e-9a53-0000000000a2", 0, "ésp"},
		{3, 16 * MiB, tab.End() - 16*MiB, "0fc63daf-8483-4772-8e79-3d69d8477de4", "6b1f8a52-0c6e-4f0e-9a53-0000000000a4", 4, "root"},
	}
	if d := cmp.Diff(want, tab.Parts); d != "" {
		t.Errorf("partitions (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]manifest.Extent{{Off: 0, Len: MiB}}, tab.MustShip()); d != "" {
		t.Errorf("MustShip (-want +got):\n%s", d)
	}
	// An independent reader must agree.
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	other, err := gpt.Read(f, 512, 512)
	if err != nil {
		t.Fatalf("go-diskfs: %v", err)
	}
	for i, p := range other.Partitions[:3] {
		got := tab.Parts[i]
		if int64(p.Start)*512 != got.Start || int64(p.Size) != got.Size || !strings.EqualFold(p.GUID, got.GUID) ||
			!strings.EqualFold(string(p.Type), got.Type) || p.Name != got.Name || p.Attributes != got.Attrs {
			t.Errorf("go-diskfs sees partition %d as %+v; we as %+v", i+1, p, got)
		}
	}
}

func TestReadMBR(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	b := load(t, k.Disk(64*MiB, mbrScript, nil))
	tab := read(t, b)
	want := []Entry{
		{N: 1, Start: MiB, Size: 4 * MiB, Type: "0c", Attrs: 0x80},
		{N: 2, Start: 6 * MiB, Size: 2 * MiB, Type: "83"},
		{N: 5, Start: 11 * MiB, Size: 2 * MiB, Type: "83"},
		{N: 6, Start: 15 * MiB, Size: 4 * MiB, Type: "82"},
		{N: 7, Start: 21 * MiB, Size: MiB, Type: "83"},
	}
	if d := cmp.Diff(want, tab.Parts); d != "" {
		t.Errorf("partitions (-want +got):\n%s", d)
	}
	if tab.Label != "mbr" || tab.GUID != "deadbeef" || tab.End() != (20480+80000)*512 {
		t.Errorf("table = %+v", tab)
	}
	ship := tab.MustShip()
	if len(ship) != 4 || ship[0] != (manifest.Extent{Off: 0, Len: MiB}) || ship[1] != (manifest.Extent{Off: 10 * MiB, Len: 512}) {
		t.Errorf("MustShip = %v; want the head and three extended boot records", ship)
	}
	// The head alone gives the same table bytes.
	head, err := ReadHead(b[:MiB], int64(len(b)), 512)
	if err != nil {
		t.Fatalf("ReadHead = %v", err)
	}
	primary, backup, err := Adapt(head, 128*MiB, false)
	if err != nil || len(backup) != 0 || !bytes.Equal(primary, b[:512]) {
		t.Errorf("Adapt of an MBR = %d, %d bytes, %v; want sector 0 as it is", len(primary), len(backup), err)
	}
	var small *SizeError
	if _, _, err := Adapt(tab, 40*MiB, false); !errors.As(err, &small) {
		t.Errorf("Adapt to a disk without room for the extended partition = %v; want SizeError", err)
	}
}

// place writes adapted tables to a copy of the disk with another size.
func place(t testing.TB, k *fixture.Kit, b, primary, backup []byte, size int64) string {
	t.Helper()
	path := k.Sparse("adapted.img", size)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	body := b[:min(int64(len(b)), size)]
	for _, w := range []struct {
		b   []byte
		off int64
	}{{body, 0}, {backup, size - int64(len(backup))}, {primary, 0}} {
		if _, err := f.WriteAt(w.b, w.off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAdapt(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := k.Disk(64*MiB, gptScript, nil)
	b := load(t, disk)
	tab := read(t, b)
	primary, backup, err := Adapt(tab, int64(len(b)), false)
	if err != nil {
		t.Fatalf("Adapt to the same size = %v", err)
	}
	if !bytes.Equal(primary, b[:len(primary)]) || !bytes.Equal(backup, b[len(b)-len(backup):]) {
		t.Error("Adapt to the same size changes bytes")
	}
	for _, c := range []struct {
		size int64
		grow bool
	}{{65 * MiB, false}, {200 * MiB, false}, {200*MiB + 512, true}, {1 << 40, true}, {3 << 40, false}, {tab.End() + 33*512, false}} {
		primary, backup, err := Adapt(tab, c.size, c.grow)
		if err != nil {
			t.Fatalf("Adapt to %d = %v", c.size, err)
		}
		path := place(t, k, b[:tab.End()], primary, backup, c.size)
		// sgdisk exits 0 in spite of problems; its text is what counts.
		if out := k.Run("gdisk", "", "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
			t.Errorf("size %d grow %v: sgdisk -v:\n%s", c.size, c.grow, out)
		}
		head := primary
		got, err := ReadHead(append(bytes.Clone(head), make([]byte, HeadSize)...), c.size, 512)
		if err != nil || len(got.Warnings) > 0 {
			t.Fatalf("ReadHead of the adapted table = %v, %v", got, err)
		}
		last, was := got.Parts[2], tab.Parts[2]
		if !c.grow && last != was {
			t.Errorf("size %d: partition 3 became %+v", c.size, last)
		}
		if c.grow && (last.End()%MiB != 0 || last.End() <= was.End() || last.End() > c.size-MiB/2) {
			t.Errorf("size %d: partition 3 grew to byte %d", c.size, last.End())
		}
		if c.grow || c.size > 2<<40 { // above 2 TiB the protective MBR's length saturates and cannot be undone
			continue
		}
		// And back: a scan of a bigger disk compares cell 0 with the image.
		full := append(bytes.Clone(head), make([]byte, HeadSize-len(head))...)
		if err := Refit(full, c.size, int64(len(b)), 512, 0, 0); err != nil {
			t.Fatalf("Refit = %v", err)
		}
		if !bytes.Equal(full[:len(primary)], b[:len(primary)]) {
			t.Errorf("size %d: Refit to the source's size does not give the source's bytes", c.size)
		}
	}
	var small *SizeError
	if _, _, err := Adapt(tab, tab.End()+32*512, false); !errors.As(err, &small) || small.Need != tab.End()+33*512 {
		t.Errorf("Adapt to a disk one sector too small = %v; want SizeError", err)
	}
	if _, _, err := Adapt(tab, 100*MiB+7, false); err == nil {
		t.Error("Adapt to a size that is no multiple of the sector = nil error")
	}
}

// The tables that disks with 4096-byte sectors carry, written by go-diskfs since sfdisk here knows 512 only.
func Test4096(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	path := k.Sparse("4kn.img", 64*MiB)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	src := &gpt.Table{
		LogicalSectorSize: 4096, PhysicalSectorSize: 4096, ProtectiveMBR: true, GUID: "6B1F8A52-0C6E-4F0E-9A53-000000000000",
		Partitions: []*gpt.Partition{{Index: 1, Start: 256, End: 1023, Size: 768 * 4096, Type: gpt.LinuxFilesystem, Name: "root", GUID: "6B1F8A52-0C6E-4F0E-9A53-0000000000A1"}},
	}
	if err := src.Write(f, 64*MiB); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b := load(t, path)
	tab := read(t, b)
	if tab.Sector != 4096 || len(tab.Parts) != 1 || tab.Parts[0].Start != MiB || tab.Parts[0].Size != 3*MiB {
		t.Fatalf("table = %+v", tab)
	}
	if _, err := Read(bytes.NewReader(b), int64(len(b)), 512); !errors.Is(err, ErrDamaged) {
		t.Errorf("Read of a 4096 table with 512-byte sectors = %v; want ErrDamaged", err)
	}
	primary, backup, err := Adapt(tab, 100*MiB, false)
	if err != nil {
		t.Fatal(err)
	}
	g, err := os.Open(place(t, k, b[:4*MiB], primary, backup, 100*MiB))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	other, err := gpt.Read(g, 4096, 4096)
	if err != nil {
		t.Fatalf("go-diskfs on the adapted table: %v", err)
	}
	if err := other.Verify(g, 100*MiB); err != nil {
		t.Errorf("go-diskfs verify: %v", err)
	}
}

func TestRefuses(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	g := load(t, k.Disk(64*MiB, gptScript, nil))
	m := load(t, k.Disk(64*MiB, mbrScript, nil))
	set := func(b []byte, off int, v ...byte) []byte {
		c := bytes.Clone(b)
		copy(c[off:], v)
		return c
	}
	ebr := 20480 * 512
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"zeros":               {make([]byte, MiB), ErrNoTable},
		"text":                {bytes.Repeat([]byte("hello "), MiB/6), ErrNoTable},
		"one sector":          {set(make([]byte, 512), 510, 0x55, 0xAA), ErrNoTable},
		"empty MBR":           {set(make([]byte, MiB), 510, 0x55, 0xAA), ErrNoTable},
		"FAT":                 {load(t, k.FAT(32*MiB, 16, "")), ErrNoTable},
		"NTFS text in status": {set(set(make([]byte, MiB), 446, 'N', 'T'), 510, 0x55, 0xAA), ErrNoTable},
		"hybrid":              {set(g, 446+16, 0, 0, 2, 0, 0x0c, 0, 0, 0, 0, 0x10, 0, 0, 0, 0x10, 0, 0), ErrHybrid},
		"header checksum":     {set(g, 512+56, 1), ErrDamaged},
		"entry checksum":      {set(g, 1024+32, 1), ErrDamaged},
		"no header":           {set(g, 512, make([]byte, 512)...), ErrDamaged},
		"logical loop":        {set(m, ebr+446+16+8, 0, 0, 0, 0), nil},
		"no boot record":      {set(m, ebr+510, 0), ErrDamaged},
		"two extended":        {set(m, 446+16+4, 5), ErrUnsupported},
		"overlap":             {set(m, 446+16+8, 0, 9), ErrDamaged},
		"starts at 0":         {set(m, 446+8, 0, 0, 0, 0), ErrDamaged},
		"GPT overlap":         {fixSums(set(g, 1024+128+40, 0xff, 0xff)), ErrDamaged},
		"GPT in its table":    {fixSums(set(g, 1024+32, 3, 0)), ErrDamaged},
		"chain back":          {set(m, 40960*512+446+16+4, 5, 0, 0, 0, 0, 0x20, 0, 0, 1, 0, 0, 0), ErrDamaged},
		"chain to itself":     {set(m, 40960*512+446+16+4, 5, 0, 0, 0, 0, 0x50, 0, 0, 1, 0, 0, 0), ErrDamaged},
	} {
		_, err := Read(bytes.NewReader(c.b), int64(len(c.b)), 0)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: Read = %v; want %v", name, err, c.want)
		}
	}
	loop := set(m, ebr+446+16+8, 1)
	if _, err := Read(bytes.NewReader(loop), int64(len(loop)), 0); !errors.Is(err, ErrDamaged) {
		t.Errorf("chain to a sector without boot record: Read = %v; want ErrDamaged", err)
	}
	for name, b := range map[string][]byte{"gpt": g[:32*MiB], "mbr": m[:7*MiB], "mbr logical": m[:30*MiB]} {
		var cut *TruncatedError
		if _, err := Read(bytes.NewReader(b), int64(len(b)), 0); !errors.As(err, &cut) || cut.Size != int64(len(b)) {
			t.Errorf("%s: Read of a cut disk = %v; want TruncatedError", name, err)
		}
	}
}

func TestBackupWarnings(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	script := strings.Replace(gptScript, "start=32768,", "start=32768, size=2048,", 1)
	b := load(t, k.Disk(64*MiB, script, nil))
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"cut":     {b[:40*MiB], "beyond the end"},
		"bigger":  {append(bytes.Clone(b), make([]byte, MiB)...), "not at the end"},
		"damaged": {append(bytes.Clone(b[:len(b)-512]), make([]byte, 512)...), "missing or damaged"},
	} {
		tab := read(t, c.b)
		if !slices.ContainsFunc(tab.Warnings, func(s string) bool { return strings.Contains(s, c.want) }) {
			t.Errorf("%s: warnings = %q; want one with %q", name, tab.Warnings, c.want)
		}
		// Whatever state the backup was in, the adapted disk has a right one.
		primary, backup, err := Adapt(tab, 80*MiB, false)
		if err != nil {
			t.Fatal(err)
		}
		path := place(t, k, c.b[:17*MiB], primary, backup, 80*MiB)
		if out := k.Run("gdisk", "", "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
			t.Errorf("%s: sgdisk -v:\n%s", name, out)
		}
	}
}

func TestMinSize(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	full := read(t, load(t, k.Disk(64*MiB, gptScript, nil)))
	if got := full.MinSize(); got != 64*MiB {
		t.Errorf("MinSize of a full disk = %d; want its own size", got)
	}
	script := strings.Replace(gptScript, "start=32768,", "start=32768, size=2049,", 1)
	if got := read(t, load(t, k.Disk(64*MiB, script, nil))).MinSize(); got != 19*MiB {
		t.Errorf("MinSize = %d; want the end rounded up and 1 MiB", got)
	}
}
