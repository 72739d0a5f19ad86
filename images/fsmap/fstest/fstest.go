// Package fstest holds what the tests and fuzz targets of the used-map readers share: a filesystem in memory that can
// be damaged, and the invariants of a used map. Only tests import it.
package fstest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"

	"labswarm/images/fsmap/scan"
	"labswarm/images/manifest"
)

const block = 4096

// Disk is a sparse filesystem image in memory.
type Disk struct {
	Size   int64 // bytes
	blocks map[int64][]byte
	order  []int64 // blocks worth damaging, ascending
}

// Load reads an image file. Blocks of one repeated byte are no targets of Damage.
func Load(t testing.TB, path string) *Disk {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	d := &Disk{blocks: map[int64][]byte{}}
	zero := make([]byte, block)
	for i := int64(0); ; i++ {
		b := make([]byte, block)
		n, err := f.ReadAt(b, i*block)
		d.Size += int64(n)
		if n > 0 && !bytes.Equal(b, zero) {
			d.blocks[i] = b
			if bytes.Count(b, b[:1]) < n {
				d.order = append(d.order, i)
			}
		}
		if errors.Is(err, io.EOF) {
			return d
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// ReadAt implements io.ReaderAt.
func (d *Disk) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read %d bytes at %d", len(b), off)
	}
	if off >= d.Size {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), d.Size-off))
	for done := 0; done < n; {
		at := off + int64(done)
		k := min(block-int(at%block), n-done)
		if src := d.blocks[at/block]; src != nil {
			copy(b[done:done+k], src[at%block:])
		} else {
			clear(b[done : done+k])
		}
		done += k
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// Damage returns a copy with edits applied: five bytes each, the number of a block that holds something (2), the byte
// in it (2) and what is XORed onto it (1).
func (d *Disk) Damage(edits []byte) *Disk {
	out := &Disk{Size: d.Size, blocks: make(map[int64][]byte, len(d.blocks)), order: d.order}
	for i, b := range d.blocks {
		out.blocks[i] = b
	}
	for ; len(edits) >= 5 && len(d.order) > 0; edits = edits[5:] {
		i := d.order[(int(edits[0])<<8|int(edits[1]))%len(d.order)]
		b := slices.Clone(out.blocks[i])
		b[(int(edits[2])<<8|int(edits[3]))%block] ^= edits[4]
		out.blocks[i] = b
	}
	return out
}

// With returns a copy with bytes changed at off.
func (d *Disk) With(off int64, with ...byte) *Disk {
	out := d.Damage(nil)
	for i, x := range with {
		at := off + int64(i)
		b := slices.Clone(out.blocks[at/block])
		if b == nil {
			b = make([]byte, block)
		}
		b[at%block] = x
		out.blocks[at/block] = b
	}
	return out
}

// Flip returns a copy with one bit changed: bit n counted over all blocks that hold something.
func (d *Disk) Flip(n int64) *Disk {
	n %= d.Bits()
	i, off := n/(block*8), n/8%block
	return d.Damage([]byte{byte(i >> 8), byte(i), byte(off >> 8), byte(off), 1 << (n % 8)})
}

// Bits is how many bits Flip can change.
func (d *Disk) Bits() int64 { return int64(len(d.order)) * block * 8 }

// Cut returns a copy that ends at size.
func (d *Disk) Cut(size int64) *Disk {
	return &Disk{Size: min(size, d.Size), blocks: d.blocks, order: d.order}
}

// Used is the form of all readers.
type Used func(r io.ReaderAt, size int64) (manifest.UsedMap, error)

// Check reads the used map of a disk and fails the test when it breaks the rules of a used map, or fails in a way that
// does not name the tables. It returns the map and whether the caller would trust it.
func Check(t testing.TB, used Used, d *Disk) (manifest.UsedMap, bool) {
	t.Helper()
	um, err := used(d, d.Size)
	if err != nil {
		var span *scan.SpanError
		if !errors.As(err, &span) && !errors.Is(err, scan.ErrCorrupt) && !errors.Is(err, scan.ErrUnsupported) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: the error names no cause a caller knows: %v", um.FS, err)
		}
		return um, false
	}
	if um.State != manifest.StateClean {
		if um.Why == "" || um.State == "" {
			t.Errorf("%s: state %q without a reason", um.FS, um.State)
		}
		return um, false
	}
	end := int64(-1)
	for _, e := range um.Extents {
		if e.Off <= end || e.Len <= 0 || e.End() > d.Size || e.Off%manifest.Unit != 0 || e.Len%manifest.Unit != 0 {
			t.Fatalf("%s: extent %+v after byte %d of %d", um.FS, e, end, d.Size)
		}
		end = e.End()
	}
	if len(um.Extents) == 0 || um.Size > d.Size {
		t.Fatalf("%s: accepted with %d extents and %d bytes", um.FS, len(um.Extents), um.Size)
	}
	return um, true
}

// Covers tells whether list holds all bytes of want; both merged.
func Covers(list, want []manifest.Extent) bool {
	for _, e := range want {
		i := manifest.First(list, e.Off)
		if i == len(list) || list[i].Off > e.Off || list[i].End() < e.End() {
			return false
		}
	}
	return true
}

// Fuzz runs a fuzz target over damaged copies of disks: which one, where it is cut (0 = not), and the edits.
func Fuzz(f *testing.F, used Used, disks ...*Disk) {
	for i, d := range disks {
		if um, ok := Check(f, used, d); !ok {
			f.Fatalf("disk %d is no good seed: %+v", i, um)
		}
		f.Add(byte(i), uint32(0), []byte{})
		f.Add(byte(i), uint32(d.Size/2), []byte{})
		f.Add(byte(i), uint32(0), []byte{0, 0, 0, 40, 1, 0, 1, 0, 4, 255})
	}
	f.Fuzz(func(t *testing.T, which byte, cut uint32, edits []byte) {
		d := disks[int(which)%len(disks)].Damage(edits)
		if cut != 0 {
			d = d.Cut(int64(cut))
		}
		Check(t, used, d)
	})
}
