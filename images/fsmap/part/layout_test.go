package part

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"labswarm/images/fixture"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

func TestDeviceName(t *testing.T) {
	for _, tc := range []struct {
		disk string
		n    int
		want string
	}{
		{"sda", 3, "sda3"}, {"sdab", 12, "sdab12"}, {"vda", 1, "vda1"}, {"nvme0n1", 3, "nvme0n1p3"}, {"nvme10n12", 15, "nvme10n12p15"},
		{"mmcblk0", 2, "mmcblk0p2"}, {"loop7", 1, "loop7p1"}, {"/dev/nvme0n1", 1, "/dev/nvme0n1p1"}, {"/dev/sdb", 1, "/dev/sdb1"},
	} {
		if got := DeviceName(tc.disk, tc.n); got != tc.want {
			t.Errorf("DeviceName(%q, %d) = %q; want %q", tc.disk, tc.n, got, tc.want)
		}
	}
}

// drawGPT writes a GPT with random partitions by go-diskfs and returns its disk's bytes.
func drawGPT(rt *rapid.T, dir string, sector int64) []byte {
	size := rapid.Int64Range(3, 6).Draw(rt, "MiB")*MiB + rapid.Int64Range(0, 200).Draw(rt, "odd")*sector
	tab := &gpt.Table{LogicalSectorSize: int(sector), PhysicalSectorSize: int(sector), ProtectiveMBR: true, GUID: "6B1F8A52-0C6E-4F0E-9A53-000000000000"}
	at, limit := MiB/sector, size/sector-34
	for i := range rapid.IntRange(1, 6).Draw(rt, "partitions") {
		n := rapid.Int64Range(1, max(1, (limit-at)/2)).Draw(rt, "sectors")
		if at+n > limit {
			break
		}
		tab.Partitions = append(tab.Partitions, &gpt.Partition{Index: i + 1, Start: uint64(at), End: uint64(at + n - 1), Size: uint64(n * sector),
			Type: gpt.LinuxFilesystem, Name: "p", GUID: "6B1F8A52-0C6E-4F0E-9A53-0000000000A" + string(rune('1'+i))})
		at += n + rapid.Int64Range(0, 100).Draw(rt, "gap")
	}
	path := filepath.Join(dir, "src.img")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		rt.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		rt.Fatal(err)
	}
	if err := tab.Write(f, size); err != nil {
		rt.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		rt.Fatal(err)
	}
	return b
}

// image is a manifest of the table's disk whose last partition grows.
func image(tab *Table, grow bool) *manifest.Manifest {
	m := &manifest.Manifest{Disk: manifest.Disk{Size: tab.Size, Sector: tab.Sector, Label: tab.Label}}
	for _, p := range tab.Parts {
		m.Parts = append(m.Parts, manifest.Part{N: p.N, Start: p.Start, Size: p.Size, Grow: grow && p.End() == tab.End()})
	}
	return m
}

// TestAdaptAnyTable: whatever the table, the disk's size and its sectors, the fitted table is one that go-diskfs and
// sgdisk have nothing to say against, keeps every partition in its place, and can be turned back.
func TestAdaptAnyTable(t *testing.T) {
	dir := t.TempDir()
	sgdisk := testreq.Tool(t, "sgdisk", "gdisk")
	k := fixture.New(t, testreq.Tool)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		sector := rapid.SampledFrom([]int64{512, 4096}).Draw(rt, "sector")
		b := drawGPT(rt, dir, sector)
		tab, err := Read(bytes.NewReader(b), int64(len(b)), int(sector))
		if err != nil {
			rt.Fatalf("Read = %v", err)
		}
		size := rapid.Int64Range(tab.MinSize()/sector, 16*MiB/sector).Draw(rt, "target sectors") * sector
		grow := rapid.Bool().Draw(rt, "grow")
		m := image(tab, grow)
		l, err := LayoutFor(m, b[:MiB], size)
		if err != nil {
			rt.Fatalf("LayoutFor %d = %v", size, err)
		}
		path := place(t, k, nil, l.Primary, l.Backup, size)
		oracle(rt, path, size, sector, l)
		if n++; sector == 512 && n%8 == 0 { // sgdisk takes every file for one of 512-byte sectors
			if out := k.Run("gdisk", "", sgdisk, "-v", path); !strings.Contains(out, "No problems found") {
				rt.Fatalf("sgdisk -v:\n%s", out)
			}
		}
		checkParts(rt, m, l, size, grow)
		head := append(bytes.Clone(l.Primary), make([]byte, HeadSize)...)
		if err := Unfit(m, head, size); err != nil {
			rt.Fatalf("Unfit = %v", err)
		}
		if !bytes.Equal(head[:len(l.Primary)], b[:len(l.Primary)]) {
			rt.Fatal("Unfit does not give back the image's table")
		}
	})
}

// oracle compares with what go-diskfs reads.
func oracle(rt *rapid.T, path string, size, sector int64, l *Layout) {
	f, err := os.Open(path)
	if err != nil {
		rt.Fatal(err)
	}
	defer f.Close()
	other, err := gpt.Read(f, int(sector), int(sector))
	if err != nil {
		rt.Fatalf("go-diskfs: %v", err)
	}
	if err := other.Verify(f, uint64(size)); err != nil {
		rt.Fatalf("go-diskfs verify: %v", err)
	}
	for i, p := range l.Parts {
		if q := other.Partitions[i]; int64(q.Start)*sector != p.Start || int64(q.End+1)*sector != p.Start+p.Size {
			rt.Fatalf("partition %d: go-diskfs sees sectors %d to %d, the layout says byte %d, length %d", p.N, q.Start, q.End, p.Start, p.Size)
		}
	}
}

func checkParts(rt *rapid.T, m *manifest.Manifest, l *Layout, size int64, grow bool) {
	for i, p := range l.Parts {
		was := m.Parts[i]
		switch {
		case p.Start != was.Start || p.Size < was.Size:
			rt.Fatalf("partition %d moved or shrank: %+v", p.N, p)
		case p.Size == was.Size:
		case size <= m.Disk.Size:
			rt.Fatalf("partition %d grew on a disk that is no bigger", p.N)
		case !was.Grow || l.Grown != p.N || (p.Start+p.Size)%MiB != 0 || p.Start+p.Size > size-33*512:
			rt.Fatalf("partition %d became %+v on a disk of %d bytes; grown is %d", p.N, p, size, l.Grown)
		}
	}
	if last := m.Parts[len(m.Parts)-1]; grow && size > m.Disk.Size && last.Start+last.Size < (size-MiB)/MiB*MiB && l.Grown != last.N {
		rt.Fatalf("nothing grew on a disk of %d bytes", size)
	}
}

// TestAdaptMBR: the same for MBRs, where sector 0 is all there is.
func TestAdaptMBR(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	plain := load(t, k.Disk(64*MiB, "label: dos\nlabel-id: 0xdeadbeef\nsize=8192,type=c\nstart=12288,type=83,size=40000\n", nil))
	for name, tc := range map[string]struct {
		b      []byte
		sector int
		size   int64
		end    int64 // of the last partition, 0 = as it was
	}{
		"bigger":             {plain, 512, 100*MiB + 512, 100 * MiB},
		"same":               {plain, 512, 64 * MiB, 0},
		"4096-byte sectors":  {mbr4k(), 4096, 100 * MiB, 100 * MiB},
		"over 2 TiB":         {plain, 512, 5 << 40, 2<<40 - MiB},
		"logical stays":      {load(t, k.Disk(64*MiB, mbrScript, nil)), 512, 200 * MiB, 0},
		"smaller than 1 MiB": {plain, 512, (12288 + 40000) * 512, 0},
	} {
		b := tc.b
		tab, err := Read(bytes.NewReader(b), int64(len(b)), tc.sector)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		m := image(tab, true)
		l, err := LayoutFor(m, b[:MiB], tc.size)
		if err != nil || len(l.Backup) != 0 {
			t.Fatalf("%s: LayoutFor = %v", name, err)
		}
		want := append([]manifest.Part{}, m.Parts...)
		if last := &want[len(want)-1]; tc.end != 0 {
			last.Size = tc.end - last.Start
			if l.Grown != last.N {
				t.Errorf("%s: partition %d grew; want %d", name, l.Grown, last.N)
			}
		}
		if d := cmp.Diff(want, l.Parts); d != "" {
			t.Errorf("%s: partitions (-want +got):\n%s", name, d)
		}
		head := append(bytes.Clone(l.Primary), make([]byte, HeadSize)...)
		if tc.sector == 512 && tc.size < 1<<30 { // sfdisk as the oracle
			path := place(t, k, b[:min(int64(len(b)), tc.size)], l.Primary, nil, tc.size)
			if out := k.Run("fdisk", "", "sfdisk", "--verify", path); !strings.Contains(out, "No errors detected") {
				t.Errorf("%s: sfdisk --verify:\n%s", name, out)
			}
		}
		if err := Unfit(m, head, tc.size); err != nil || !bytes.Equal(head[:512], b[:512]) {
			t.Errorf("%s: Unfit = %v; want the image's own sector 0", name, err)
		}
	}
}

// mbr4k is a disk of 4096-byte sectors with one primary partition from 1 to 17 MiB.
func mbr4k() []byte {
	b := make([]byte, 64*MiB)
	e := b[446:]
	e[4] = 0x83
	binary.LittleEndian.PutUint32(e[8:], MiB/4096)
	binary.LittleEndian.PutUint32(e[12:], 16*MiB/4096)
	b[510], b[511] = 0x55, 0xaa
	return b
}
