package mask

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"labswarm/images/manifest"
)

const size = 4000 // bytes of the pretended disk

func drawUsed(t *rapid.T) []manifest.Extent {
	var list []manifest.Extent
	for range rapid.IntRange(0, 8).Draw(t, "extents") {
		off := rapid.Int64Range(0, size-1).Draw(t, "off")
		list = append(list, manifest.Extent{Off: off, Len: rapid.Int64Range(1, min(600, size-off)).Draw(t, "len")})
	}
	return manifest.Merge(list)
}

func TestMaskAgreesWithAByteLoop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawUsed(t)
		off := rapid.Int64Range(0, size).Draw(t, "bufOff")
		n := rapid.Int64Range(0, 1500).Draw(t, "bufLen")
		buf := bytes.Repeat([]byte{0xA5}, int(n))
		want := bytes.Clone(buf)
		touched := false
		for i := range want {
			in := false
			for _, e := range list {
				in = in || (off+int64(i) >= e.Off && off+int64(i) < e.End())
			}
			touched = touched || in
			if !in {
				want[i] = 0
			}
		}
		m := FromUsed(list)
		if got := m.Touches(off, n); got != touched {
			t.Fatalf("Touches(%d, %d) of %v = %v; want %v", off, n, list, got, touched)
		}
		m.Mask(buf, off)
		if !bytes.Equal(buf, want) {
			t.Fatalf("Mask at %d of %v:\n%x\nwant\n%x", off, list, buf, want)
		}
		again := bytes.Clone(buf)
		m.Mask(again, off)
		if !bytes.Equal(again, buf) {
			t.Fatal("Mask is not idempotent")
		}
		var sum, bits int64
		m.Each(off, n, func(_, k int64) { sum += k })
		for _, b := range want {
			bits += int64(b / 0xA5)
		}
		if sum != bits {
			t.Fatalf("Each covers %d bytes; want %d", sum, bits)
		}
	})
}

func TestIsZero(t *testing.T) {
	for _, n := range []int{0, 1, 511, 64 << 10, 64<<10 + 1, 1 << 20} {
		b := make([]byte, n)
		if !IsZero(b) {
			t.Errorf("IsZero of %d zeros = false", n)
		}
		for _, at := range []int{0, n / 2, n - 1} {
			if at < 0 || n == 0 {
				continue
			}
			b[at] = 1
			if IsZero(b) {
				t.Errorf("IsZero with byte %d of %d set = true", at, n)
			}
			b[at] = 0
		}
	}
}

// small makes a loaded manifest of four cells: data, zero, free, data with an overhang.
func small(t testing.TB, disk []byte) *manifest.Manifest {
	t.Helper()
	const cell = 256 << 10
	used := []manifest.Extent{{Off: 0, Len: 4096}, {Off: 8192, Len: 4096}, {Off: cell + 512, Len: 1024}, {Off: 3 * cell, Len: 2048}}
	masker := FromUsed(used)
	var hashes []byte
	for _, c := range []int64{0, 3} {
		buf := make([]byte, cell)
		copy(buf, disk[c*cell:])
		masker.Mask(buf, c*cell)
		sum := sha256.Sum256(buf)
		hashes = append(hashes, sum[:]...)
	}
	m := &manifest.Manifest{
		Format: 1, Name: "lab", Version: "2026-11-20.1", Cell: cell, Parts: []manifest.Part{}, UsedList: used,
		Disk:  manifest.Disk{Size: 3*cell + 4096, Sector: 512, Label: "mbr", GUID: "deadbeef", MinSize: 3 * cell},
		Cells: []manifest.Run{{First: 0, Count: 1}, {First: 3, Count: 1}}, Zero: []manifest.Run{{First: 1, Count: 1}},
		HashList: hashes, InfoHash: "0123456789012345678901234567890123456789", Boot: "bios", Codec: "none", Forced: []string{},
	}
	text, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := manifest.Load(text, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// Changing an unused byte never changes the answer for a cell; changing a used one always does, for its cell alone.
func TestCheckCell(t *testing.T) {
	const cell = 256 << 10
	disk := make([]byte, 4*cell)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(disk)
	clear(disk[cell : 2*cell])
	man := small(t, disk)
	m := New(man)
	check := func(t interface{ Fatalf(string, ...any) }, disk []byte, c int64) State {
		s, err := m.CheckCell(bytes.Clone(disk[c*cell:(c+1)*cell]), c)
		if err != nil {
			t.Fatalf("CheckCell(%d) = %v", c, err)
		}
		return s
	}
	want := []State{Match, Match, Free, Match}
	for c, w := range want {
		if got := check(t, disk, int64(c)); got != w {
			t.Errorf("cell %d: %v; want %v", c, got, w)
		}
	}
	used := FromUsed(man.Used())
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.OneOf(rapid.Int64Range(0, 4*cell-1), rapid.Int64Range(0, 16384), rapid.Int64Range(cell, cell+2048)).Draw(t, "off")
		spoilt := bytes.Clone(disk)
		spoilt[off] ^= 0x10
		for c, w := range want {
			if used.Touches(off, 1) && off/cell == int64(c) {
				w = Differs
			}
			if got := check(t, spoilt, int64(c)); got != w {
				t.Fatalf("byte %d changed, cell %d: %v; want %v", off, c, got, w)
			}
		}
	})
	for _, bad := range []struct {
		n    int
		cell int64
	}{{100, 0}, {cell, 4}, {cell, -1}} {
		if s, err := m.CheckCell(make([]byte, bad.n), bad.cell); err == nil || s != Differs {
			t.Errorf("CheckCell of %d bytes at cell %d = %v, %v; want an error", bad.n, bad.cell, s, err)
		}
	}
}

func BenchmarkMask(b *testing.B) {
	const cell = 1 << 20
	var list []manifest.Extent
	for off := int64(0); off < 64<<20; off += 40960 {
		list = append(list, manifest.Extent{Off: off, Len: 32768})
	}
	m, buf := FromUsed(list), make([]byte, cell)
	b.SetBytes(cell)
	for i := range b.N {
		m.Mask(buf, int64(i%64)*cell)
	}
}

func BenchmarkIsZero(b *testing.B) {
	buf := make([]byte, 1<<20)
	b.SetBytes(1 << 20)
	for range b.N {
		if !IsZero(buf) {
			b.Fatal("not zero")
		}
	}
}

func BenchmarkCheckCell(b *testing.B) {
	const cell = 256 << 10
	man := small(b, make([]byte, 4*cell))
	m, buf := New(man), make([]byte, cell)
	b.SetBytes(cell)
	for range b.N {
		if s, err := m.CheckCell(buf, 0); err != nil || s != Match {
			b.Fatal(s, err)
		}
	}
}
