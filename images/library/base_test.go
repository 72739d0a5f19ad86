package library

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"labswarm/images/fixture"
	"labswarm/internal/testreq"
)

// plainFrames replaces the frame store of a version by one whose frames the encoder would never make: raw blocks
// (RFC 8878, 3.1.1.2), right all the same.
func plainFrames(t *testing.T, v *Version) [][]byte {
	t.Helper()
	w, err := newFrameWriter(t.TempDir(), v.man.Cell)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	buf := make([]byte, v.man.Cell)
	for i := range v.man.Pieces() {
		if err := v.ReadPiece(i, buf); err != nil {
			t.Fatal(err)
		}
		f := rawFrame(buf)
		out = append(out, f)
		if err := w.keep(t.Context(), int64(i), f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.finish(v.Digest()); err != nil {
		t.Fatal(err)
	}
	if err := installFrames(filepath.Dir(w.f.Name()), v.Dir()); err != nil {
		t.Fatal(err)
	}
	return out
}

func rawFrame(cell []byte) []byte {
	const block = 64 << 10
	// Magic; single segment, 4-byte content size; content size.
	f := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, byte(len(cell)), byte(len(cell) >> 8), byte(len(cell) >> 16), byte(len(cell) >> 24)}
	for off := 0; off < len(cell); off += block {
		last := 0
		if off+block >= len(cell) {
			last = 1
		}
		h := block<<3 | last
		f = append(append(f, byte(h), byte(h>>8), byte(h>>16)), cell[off:min(off+block, len(cell))]...)
	}
	return f
}

// TestBase: a new version is made on the newest: same cell size, its name on record, its compressed cells copied where
// the content is the same, made anew where it is not. What has rotted in the base does not spread.
func TestBase(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := golden(t, k)
	l, _ := newLibrary(t)
	one := mustImport(t, l, ImportOptions{Name: "lab", File: disk, Cell: 256 << 10})
	if one.Manifest().Base != "" {
		t.Errorf("the first version has base %q", one.Manifest().Base)
	}
	plain := plainFrames(t, one)
	write(t, disk, MiB+1000, []byte("new core image")) // a cell of the boot partition
	// Piece 6 of the base rots in both forms.
	rot := one.Manifest().CellOf(6) * one.Manifest().Cell
	raw := filepath.Join(one.Dir(), rawFile)
	write(t, raw, rot, []byte{^at(t, raw, rot)})
	zst := filepath.Join(one.Dir(), framesFile)
	off := int64(6*len(plain[0]) + 100)
	write(t, zst, off, []byte{^at(t, zst, off)})
	two := mustImport(t, l, ImportOptions{Name: "lab", File: disk})
	m := two.Manifest()
	if m.Base != one.Version() || m.Cell != one.Manifest().Cell {
		t.Errorf("base %q, cell %d; want %q and %d", m.Base, m.Cell, one.Version(), one.Manifest().Cell)
	}
	if r := verified(t, two); !r.OK() || !r.FramesOK() {
		t.Errorf("Verify = %+v", r)
	}
	checkRaw(t, disk, two)
	same, fresh := 0, 0
	for i := range m.Pieces() {
		f, err := two.frames.read(i, nil)
		if err != nil {
			t.Fatal(err)
		}
		p, ok := one.Manifest().PieceOf(m.CellOf(i))
		if !ok || one.Manifest().PieceSHA256(p) != m.PieceSHA256(i) || p == 6 {
			fresh++
			continue
		}
		if same++; !bytes.Equal(f, plain[p]) {
			t.Errorf("compressed cell %d was made again though its content is the base's", m.CellOf(i))
		}
	}
	if same < m.Pieces()-4 || fresh != 2 {
		t.Errorf("%d compressed cells of the base, %d new ones; want all but 2", same, fresh)
	}
	list, err := l.List()
	if err != nil || len(list) != 2 || list[1].Base != one.Version() || list[0].Base != "" {
		t.Errorf("List = %+v, %v", list, err)
	}
	// A damaged base is no reason to refuse: the newest that opens is taken.
	if err := os.WriteFile(filepath.Join(two.Dir(), sigFile), make([]byte, 72), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, disk, MiB+2000, []byte("newer core image"))
	if three := mustImport(t, l, ImportOptions{Name: "lab", File: disk}); three.Manifest().Base != one.Version() {
		t.Errorf("base %q; want %q, the newest that can be read", three.Manifest().Base, one.Version())
	}
}

func TestDefaultKeep(t *testing.T) {
	const gib = 1 << 30
	for total, want := range map[int64]int64{0: 0, 50 * gib: 5 * gib, 100 * gib: 10 * gib, 150 * gib: 10 * gib, 400 * gib: 20 * gib} {
		if got := defaultKeep(total); got != want {
			t.Errorf("defaultKeep(%d) = %d; want %d", total, got, want)
		}
	}
}
