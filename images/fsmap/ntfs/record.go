package ntfs

import (
	"fmt"
	"unicode/utf16"

	"labswarm/images/fsmap/scan"
	"labswarm/images/manifest"
)

// Attribute types.
const (
	attrList       = 0x20
	attrVolumeName = 0x60
	attrVolumeInfo = 0x70
	attrData       = 0x80
	attrIndexRoot  = 0x90
	attrIndexAlloc = 0xA0
	attrEnd        = 0xffffffff
)

// fixup is the distance of the bytes that a record's update sequence protects; it does not depend on the sector size.
const fixup = 512

// record is an MFT record with its fixups undone.
type record struct {
	n int64
	b []byte
}

// attr is one attribute of a record, its header checked.
type attr struct {
	typ      uint32
	name     string
	resident bool
	flags    uint16 // compressed 0x00ff, encrypted 0x4000, sparse 0x8000
	value    []byte // of a resident one
	raw      []byte // of one that is not: the whole attribute
}

// readRecord reads MFT record n. Record 0 is at the place that the boot sector names, the others where record 0 says.
func (v *volume) readRecord(n int64) (*record, error) {
	b := make([]byte, v.record)
	var err error
	switch {
	case len(v.mft.runs) > 0:
		err = v.mft.readAt(v, b, n*v.record)
	case n == recMFT:
		err = scan.Fill(v.r, v.mftStart*v.cluster, b)
	default:
		err = fmt.Errorf("before the $MFT is open: %w", scan.ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("read NTFS MFT record %d: %w", n, err)
	}
	if err := undoFixups(b, "FILE"); err != nil {
		return nil, fmt.Errorf("NTFS MFT record %d: %w", n, err)
	}
	if le.Uint16(b[22:])&1 == 0 {
		return nil, fmt.Errorf("NTFS MFT record %d is not in use: %w", n, scan.ErrCorrupt)
	}
	return &record{n, b}, nil
}

// undoFixups checks the magic and the update sequence of a record or index block and puts the original bytes back.
func undoFixups(b []byte, magic string) error {
	if string(b[:4]) != magic {
		return fmt.Errorf("magic %q, want %q: %w", b[:4], magic, scan.ErrCorrupt)
	}
	off, count := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	if count != len(b)/fixup+1 || off < 8 || off+2*count > fixup-2 {
		return fmt.Errorf("update sequence of %d at byte %d: %w", count, off, scan.ErrCorrupt)
	}
	for i := 1; i < count; i++ {
		end := b[i*fixup-2 : i*fixup]
		if end[0] != b[off] || end[1] != b[off+1] {
			return fmt.Errorf("torn write before byte %d: %w", i*fixup, scan.ErrCorrupt)
		}
		copy(end, b[off+2*i:off+2*i+2])
	}
	return nil
}

// attrs calls f for each attribute until it returns false.
func (r *record) attrs(f func(attr) bool) error {
	bad := func(off int, what string) error {
		return fmt.Errorf("NTFS MFT record %d: attribute at byte %d: %s: %w", r.n, off, what, scan.ErrCorrupt)
	}
	end := min(int64(le.Uint32(r.b[24:])), int64(len(r.b)))
	for off := int(le.Uint16(r.b[20:])); ; {
		if int64(off)+4 > end {
			return bad(off, "no end mark")
		}
		typ := le.Uint32(r.b[off:])
		if typ == attrEnd {
			return nil
		}
		if int64(off)+24 > end {
			return bad(off, "cut off")
		}
		n := int64(le.Uint32(r.b[off+4:]))
		if n < 24 || n%8 != 0 || int64(off)+n > end {
			return bad(off, "length")
		}
		a, ok := parseAttr(typ, r.b[off:int64(off)+n])
		if !ok {
			return bad(off, "header")
		}
		if !f(a) {
			return nil
		}
		off += int(n)
	}
}

func parseAttr(typ uint32, b []byte) (attr, bool) {
	a := attr{typ: typ, resident: b[8] == 0, flags: le.Uint16(b[12:]), raw: b}
	name, ok := text16(b, int(le.Uint16(b[10:])), int(b[9]))
	if !ok {
		return a, false
	}
	a.name = name
	if a.resident {
		n, off := int64(le.Uint32(b[16:])), int64(le.Uint16(b[20:]))
		if off+n > int64(len(b)) {
			return a, false
		}
		a.value = b[off : off+n]
		return a, true
	}
	return a, len(b) >= 64
}

// find returns the first attribute of a type and name that starts at cluster vcn of its content, or false.
func (r *record) find(typ uint32, name string, vcn int64) (found attr, ok bool, err error) {
	err = r.attrs(func(a attr) bool {
		if a.typ == typ && a.name == name && (a.resident && vcn == 0 || !a.resident && int64(le.Uint64(a.raw[16:])) == vcn) {
			found, ok = a, true
		}
		return !ok
	})
	return found, ok, err
}

// text16 decodes n UTF-16 units at byte off.
func text16(b []byte, off, n int) (string, bool) {
	if n == 0 {
		return "", true
	}
	if off < 0 || off+2*n > len(b) {
		return "", false
	}
	u := make([]uint16, n)
	for i := range u {
		u[i] = le.Uint16(b[off+2*i:])
	}
	return string(utf16.Decode(u)), true
}

// label reads the volume's name from record 3; "" when it has none.
func label(r *record) (string, error) {
	a, ok, err := r.find(attrVolumeName, "", 0)
	if err != nil || !ok || !a.resident {
		return "", err
	}
	s, _ := text16(a.value, 0, min(len(a.value)/2, 128))
	return manifest.CleanText([]byte(s)), nil
}
