package manifest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const cell = 1 << 20

func sample() *Manifest {
	return &Manifest{
		Format: 1, Name: "lab-1", Version: "2026-11-20.1", Created: time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC),
		Disk: Disk{Size: 100 * cell, Sector: 512, Label: "gpt", GUID: "6b1f8a52-0c6e-4f0e-9a53-000000000000", MinSize: 90 * cell},
		Cell: cell,
		Parts: []Part{
			{N: 1, Start: cell, Size: 10 * cell, Type: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", Attrs: "0000000000000000", FS: "fat32", Map: "reader", Clean: true},
			{N: 2, Start: 11 * cell, Size: 70 * cell, Type: "83", Attrs: "0000000000000000", FS: "ext4", Map: "reader", Clean: true, OS: "linux"},
		},
		UsedList: []Extent{{0, cell}, {2 * cell, 3 * cell}, {20*cell + 512, 1024}},
		Cells:    []Run{{0, 1}, {2, 2}}, Zero: []Run{{4, 1}, {20, 1}},
		HashList: bytes.Repeat([]byte{1, 2, 3, 4}, 24), InfoHash: strings.Repeat("0123456789", 4), Boot: "both", Codec: "none", Forced: []string{},
	}
}

func encode(t testing.TB, m *Manifest) []byte {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLoadAndAccessors(t *testing.T) {
	m, err := Load(encode(t, sample()), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m.Pieces() != 3 || m.GridCells() != 100 || m.ZeroCount() != 2 || m.ShippedBytes() != 3*cell {
		t.Errorf("%d pieces, %d cells, %d zero, %d bytes", m.Pieces(), m.GridCells(), m.ZeroCount(), m.ShippedBytes())
	}
	for piece, want := range map[int]int64{-1: -1, 0: 0, 1: 2, 2: 3, 3: -1} {
		if got := m.CellOf(piece); got != want {
			t.Errorf("CellOf(%d) = %d; want %d", piece, got, want)
		}
	}
	for c, want := range map[int64]int{0: 0, 1: -1, 2: 1, 3: 2, 4: -1, 99: -1, 1 << 40: -1, -1: -1} {
		got, ok := m.PieceOf(c)
		if ok != (want >= 0) || (ok && got != want) {
			t.Errorf("PieceOf(%d) = %d, %v; want %d", c, got, ok, want)
		}
	}
	if d := cmp.Diff([]int64{4, 20}, slices.Collect(m.ZeroCells())); d != "" {
		t.Errorf("ZeroCells (-want +got):\n%s", d)
	}
	if !m.IsZero(20) || m.IsZero(3) || m.IsZero(50) {
		t.Error("IsZero is wrong")
	}
	if got := m.PieceSHA256(2); got[0] != 1 || m.PieceSHA256(3) != [32]byte{} || m.PieceSHA256(-1) != [32]byte{} {
		t.Errorf("PieceSHA256(2) = %x", got)
	}
	if d := cmp.Diff(sample().UsedList, m.Used()); d != "" {
		t.Errorf("Used (-want +got):\n%s", d)
	}
}

func TestBlobs(t *testing.T) {
	src := sample()
	used, err := EncodeUsed(src.UsedList)
	if err != nil {
		t.Fatal(err)
	}
	hashes := src.HashList
	ref := func(b []byte, n int64) *Blob {
		s := sha256.Sum256(b)
		return &Blob{hex.EncodeToString(s[:]), int64(len(b)), n}
	}
	src.UsedList, src.UsedBlob, src.HashList, src.HashesBlob = nil, ref(used, 3), nil, ref(hashes, 0)
	text := encode(t, src)
	m, err := Load(text, used, hashes)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Used()) != 3 || m.PieceSHA256(1) == [32]byte{} {
		t.Error("side files are not attached")
	}
	bad := bytes.Clone(used)
	bad[0] ^= 1
	for name, c := range map[string][2][]byte{
		"no used.bin": {nil, hashes}, "no hashes.bin": {used, nil}, "changed used.bin": {bad, hashes}, "short hashes.bin": {used, hashes[1:]},
	} {
		if _, err := Load(text, c[0], c[1]); err == nil {
			t.Errorf("%s: Load = nil error", name)
		}
	}
	// Without side files Parse still works, and the accessors that need them say nothing.
	if p, err := Parse(text); err != nil || p.Used() != nil || p.Pieces() != 3 || p.PieceSHA256(0) != [32]byte{} {
		t.Errorf("Parse alone = %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(encode(t, sample()))
	edit := func(old, repl string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the sample has no %q", old)
		}
		return strings.Replace(good, old, repl, 1)
	}
	for name, in := range map[string]string{
		"empty":            "",
		"not an object":    "[]",
		"cut":              good[:len(good)-2],
		"trailing":         good + "{}",
		"huge":             good + strings.Repeat(" ", MaxJSON),
		"bad UTF-8":        edit(`"lab-1"`, "\"lab-\xff\""),
		"format":           edit(`"format":1`, `"format":2`),
		"unknown field":    edit(`"format":1`, `"format":1,"protect":true`),
		"unknown nested":   edit(`"sector":512`, `"sector":512,"x":1`),
		"repeated field":   edit(`"format":1`, `"format":1,"format":1`),
		"other case":       edit(`"format":1`, `"Format":1`),
		"null":             edit(`"zero":[[4,1],[20,1]]`, `"zero":null`),
		"null in list":     edit(`[4,1]`, `null`),
		"fraction":         edit(`"cell":1048576`, `"cell":1048576.0`),
		"exponent":         edit(`"cell":1048576`, `"cell":1e6`),
		"text for number":  edit(`"cell":1048576`, `"cell":"1048576"`),
		"cell size":        edit(`"cell":1048576`, `"cell":4096`),
		"name":             edit(`"lab-1"`, `"Lab"`),
		"path as name":     edit(`"lab-1"`, `"../x"`),
		"version":          edit(`"2026-11-20.1"`, `"2026-11-20.0"`),
		"sector":           edit(`"sector":512`, `"sector":1024`),
		"odd disk":         edit(`"size":104857600`, `"size":104857601`),
		"negative disk":    edit(`"size":104857600`, `"size":-512`),
		"beyond 2^53":      edit(`"size":104857600`, `"size":9007199254740992`),
		"label":            edit(`"label":"gpt"`, `"label":"apm"`),
		"guid":             edit(`9a53-000000000000`, `9a53-00000000000Z`),
		"min_size":         edit(`"min_size":94371840`, `"min_size":104858112`),
		"part outside":     edit(`"start":11534336`, `"start":104857600`),
		"part overflow":    edit(`"start":11534336`, `"start":9223372036854775296`),
		"part twice":       edit(`"n":2`, `"n":1`),
		"part zero":        edit(`"n":2`, `"n":0`),
		"map":              edit(`"map":"reader"`, `"map":"guess"`),
		"triple":           edit(`[4,1]`, `[4,1,1]`),
		"single":           edit(`[4,1]`, `[4]`),
		"runs unmerged":    edit(`[2,2]`, `[2,1],[3,1]`),
		"runs unordered":   edit(`[[0,1],[2,2]]`, `[[2,2],[0,1]]`),
		"run outside":      edit(`[20,1]`, `[20,81]`),
		"run overflow":     edit(`[20,1]`, `[20,9223372036854775807]`),
		"hash count":       edit(`[2,2]`, `[2,3]`),
		"infohash":         edit(`0123456789"`, `012345678Z"`),
		"boot":             edit(`"both"`, `"maybe"`),
		"codec":            edit(`"none"`, `"lz4"`),
		"personalise":      edit(`"personalise":{}`, `"personalise":{"hostname":true}`),
		"two used maps":    edit(`"used":`, `"used_blob":{"sha256":"`+strings.Repeat("a", 64)+`","len":3,"count":1},"used":`),
		"control in text":  edit(`"os_hint":""`, `"os_hint":"\u001b[2J"`),
		"deep nesting":     edit(`[4,1]`, strings.Repeat("[", 20000)+strings.Repeat("]", 20000)),
		"object for array": edit(`"forced":[]`, `"forced":{}`),
	} {
		if m, err := Parse([]byte(in)); err == nil {
			t.Errorf("%s: Parse = %+v; want an error", name, m)
		}
	}
}

func TestValidateRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Manifest){
		"overlap":        func(m *Manifest) { m.Parts[1].Start = 10 * cell },
		"extent outside": func(m *Manifest) { m.UsedList[2] = Extent{100*cell - 512, 1024}; m.Zero[1].First = 99 },
		"extent order":   func(m *Manifest) { m.UsedList[0], m.UsedList[1] = m.UsedList[1], m.UsedList[0] },
		"extent unmerged": func(m *Manifest) {
			m.UsedList[1] = Extent{cell, 4 * cell}
			m.Cells[0].Count = 1
			m.Zero = []Run{{1, 1}, {4, 1}, {20, 1}}
		},
		"extent odd":       func(m *Manifest) { m.UsedList[2].Len = 1000 },
		"cell not listed":  func(m *Manifest) { m.Zero = m.Zero[:1] },
		"cell not used":    func(m *Manifest) { m.Zero = append(m.Zero, Run{30, 1}) },
		"cell in both":     func(m *Manifest) { m.Zero[0] = Run{3, 2} },
		"free cell listed": func(m *Manifest) { m.Cells[1].First = 1; m.Zero[0] = Run{3, 2} },
	} {
		m := sample()
		spoil(m)
		if _, err := Load(encode(t, m), nil, nil); err == nil {
			t.Errorf("%s: Load = nil error", name)
		}
	}
}

func TestSignature(t *testing.T) {
	key, other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)), ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	pub, stranger := key.Public().(ed25519.PublicKey), other.Public().(ed25519.PublicKey)
	text := encode(t, sample())
	sig := Sign(key, text)
	id := sha256.Sum256(pub)
	if len(sig) != 72 || !bytes.Equal(sig[:8], id[:8]) {
		t.Fatalf("signature %x does not start with the key id", sig)
	}
	if !ed25519.Verify(pub, append([]byte("labswarm manifest v1\x00"), text...), sig[8:]) {
		t.Error("the signed bytes are not those of the specification")
	}
	if err := VerifySig([]ed25519.PublicKey{stranger, pub}, text, sig); err != nil {
		t.Errorf("VerifySig = %v", err)
	}
	var unknown *UnknownKeyError
	if err := VerifySig([]ed25519.PublicKey{stranger}, text, sig); !errors.As(err, &unknown) || unknown.KeyID != hex.EncodeToString(id[:8]) {
		t.Errorf("VerifySig with another key = %v; want UnknownKeyError", err)
	}
	for i := range sig {
		bad := bytes.Clone(sig)
		bad[i] ^= 1
		if VerifySig([]ed25519.PublicKey{pub}, text, bad) == nil {
			t.Errorf("signature with byte %d changed is accepted", i)
		}
	}
	changed := bytes.Clone(text)
	changed[20] ^= 1
	if err := VerifySig([]ed25519.PublicKey{pub}, changed, sig); !errors.Is(err, ErrBadSignature) {
		t.Errorf("VerifySig of a changed manifest = %v; want ErrBadSignature", err)
	}
	if VerifySig([]ed25519.PublicKey{nil, pub[:5]}, text, sig) == nil || VerifySig(nil, text, nil) == nil || Sign(nil, text) != nil {
		t.Error("malformed keys are accepted")
	}
}

func drawUsed(t *rapid.T) []Extent {
	var list []Extent
	for range rapid.IntRange(0, 50).Draw(t, "n") {
		list = append(list, Extent{rapid.Int64Range(0, 1<<20).Draw(t, "off") * Unit, rapid.Int64Range(1, 1<<14).Draw(t, "len") * Unit})
	}
	return Merge(list)
}

func TestUsedRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawUsed(t)
		b, err := EncodeUsed(list)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeUsed(bytes.NewReader(b), int64(len(list)), 1<<40)
		if err != nil || !slices.Equal(got, list) {
			t.Fatalf("DecodeUsed(EncodeUsed(%v)) = %v, %v", list, got, err)
		}
	})
}

func TestDecodeUsedRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		b     []byte
		count int64
	}{
		"short":            {[]byte{1}, 1},
		"cut number":       {[]byte{1, 0x80}, 1},
		"trailing":         {[]byte{1, 1, 9}, 1},
		"long form":        {[]byte{0x81, 0, 1}, 1},
		"gap 0":            {[]byte{0, 1, 0, 1}, 2},
		"length 0":         {[]byte{0, 0}, 1},
		"beyond the disk":  {[]byte{0, 100}, 1},
		"overflow":         {append(bytes.Repeat([]byte{0xff}, 9), 1, 1), 1},
		"too many":         {nil, MaxExtents + 1},
		"negative":         {nil, -1},
		"more than counts": {[]byte{0, 1}, 2},
	} {
		if got, err := DecodeUsed(bytes.NewReader(c.b), c.count, 100*Unit-Unit); err == nil {
			t.Errorf("%s: DecodeUsed = %v; want an error", name, got)
		}
	}
}

// Any used map gives a manifest that loads, and the cells it touches are what a byte loop says.
func TestTouchedCells(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const c = 4096
		list := drawUsed(t)
		want := map[int64]bool{}
		for _, e := range list {
			for k := e.Off / c; k <= (e.End()-1)/c; k++ {
				want[k] = true
			}
		}
		got := map[int64]bool{}
		end := int64(-1)
		for _, r := range TouchedCells(list, c) {
			if r.First <= end {
				t.Fatalf("runs of %v are not merged", list)
			}
			end = r.First + r.Count
			for k := r.First; k < end; k++ {
				got[k] = true
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("TouchedCells (-want +got):\n%s", d)
		}
	})
}

func TestCleanText(t *testing.T) {
	for in, want := range map[string]string{"lab  ": "lab", "a\x00b": "a", "\x1b[2J": "?[2J", "\xff": "?", "Über": "Über"} {
		if got := CleanText([]byte(in)); got != want {
			t.Errorf("CleanText(%q) = %q; want %q", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(encode(f, sample()))
	f.Add([]byte(`{"format":1,"used":[[0,512]]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		for i := range min(m.Pieces(), 1000) {
			if p, ok := m.PieceOf(m.CellOf(i)); !ok || p != i {
				t.Fatalf("piece %d is in cell %d, which is piece %d", i, m.CellOf(i), p)
			}
		}
		text, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(text)
		if err != nil {
			t.Fatalf("an accepted manifest does not parse after encoding: %v", err)
		}
		if m.Validate() == nil {
			if err := again.Validate(); err != nil {
				t.Fatalf("Validate changed its mind: %v", err)
			}
			for _, e := range m.Used() {
				if e.Off < 0 || e.Len <= 0 || e.End() > m.Disk.Size {
					t.Fatalf("extent %v outside the disk", e)
				}
			}
		}
	})
}

func FuzzDecodeUsed(f *testing.F) {
	b, err := EncodeUsed(sample().UsedList)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, int64(3), int64(100*cell))
	f.Add([]byte{0, 1, 1, 0x80, 1}, int64(2), int64(1<<50))
	f.Fuzz(func(t *testing.T, b []byte, count, size int64) {
		size &= MaxDisk - 1
		list, err := DecodeUsed(bytes.NewReader(b), count, size)
		if err != nil {
			return
		}
		if err := checkUsed(list, size); err != nil {
			t.Fatal(err)
		}
		again, err := EncodeUsed(list)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x decodes to what encodes as %x (%v)", b, again, err)
		}
	})
}

// TestDefaultCell: at the borders, and what they are for.
func TestDefaultCell(t *testing.T) {
	const kib, mib, gib = int64(1) << 10, int64(1) << 20, int64(1) << 30
	one := func(n int64) []Extent { return []Extent{{Off: 0, Len: n}} }
	scattered := func(n int) (out []Extent) { // one block in each cell of 256 KiB
		for i := range int64(n) {
			out = append(out, Extent{Off: i * 256 * kib, Len: 4096})
		}
		return out
	}
	for name, c := range map[string]struct {
		used []Extent
		want int64
	}{
		"nothing": {nil, 256 * kib}, "300 MiB": {one(300 * mib), 256 * kib}, "4 GiB": {one(4 * gib), 256 * kib}, "above 4 GiB": {one(4*gib + 512), mib},
		"40 GiB": {one(40 * gib), mib}, "128 GiB": {one(128 * gib), mib}, "above 128 GiB": {one(128*gib + 512), 2 * mib},
		"256 GiB": {one(256 * gib), 2 * mib}, "above 256 GiB": {one(256*gib + 512), 4 * mib}, "any disk": {one(MaxDisk - 512), 4 * mib},
		"scattered": {scattered(4 * InlineCells), 256 * kib}, "too scattered": {scattered(4*InlineCells + 1), mib},
	} {
		if got := DefaultCell(c.used); got != c.want {
			t.Errorf("%s: %d; want %d", name, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.Int64Range(0, 4<<40).Draw(t, "used")
		b := rapid.Int64Range(a, 4<<40).Draw(t, "more")
		cell := DefaultCell(one(a))
		if !slices.Contains(CellSizes(), cell) || DefaultCell(one(b)) < cell {
			t.Fatalf("cells of %d for %d bytes, of %d for %d", cell, a, DefaultCell(one(b)), b)
		}
		if a/cell > MaxPieces {
			t.Fatalf("%d bytes in cells of %d exceed the limit of a manifest", a, cell)
		}
		if a > 4*gib && a/cell < 4096 {
			t.Fatalf("%d bytes in cells of %d are only %d cells", a, cell, a/cell)
		}
	})
}
