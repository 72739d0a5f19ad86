package ntfs

import (
	"fmt"
	"sort"

	"labswarm/images/fsmap/scan"
)

// Limits of one stream, in bytes of its attribute list (Windows' own limit) and in runs.
const (
	maxList = 256 << 10
	maxRuns = 1 << 19
)

// run is a range of clusters of a stream.
type run struct {
	vcn, lcn, n int64 // place in the stream, on the volume (-1 = a hole), number
}

// stream is the content of an attribute: data when it is resident, else runs. Sizes are bytes.
type stream struct {
	data        []byte
	runs        []run
	size, valid int64 // valid: initialised, the rest reads as zeros
}

// open appends the content of the attribute of a base record to s, following the record's attribute list. It refuses
// compressed and encrypted streams.
func (v *volume) open(s *stream, base *record, typ uint32, name string) error {
	list, ok, err := base.find(attrList, "", 0)
	if err != nil {
		return err
	}
	first, found, err := base.find(typ, name, 0)
	if err != nil {
		return err
	}
	// The $MFT's list may itself lie where only the $MFT's first part leads to, so that part comes first.
	if found {
		if err := s.add(v, first); err != nil {
			return fmt.Errorf("MFT record %d: %w", base.n, err)
		}
	}
	if ok {
		if err := v.follow(s, base, list, typ, name); err != nil {
			return err
		}
	} else if !found {
		return fmt.Errorf("MFT record %d has no attribute 0x%x %q: %w", base.n, typ, name, scan.ErrCorrupt)
	}
	if s.data == nil && s.size > s.clusters()*v.cluster {
		return fmt.Errorf("MFT record %d: the run list covers %d clusters of %d bytes: %w", base.n, s.clusters(), s.size, scan.ErrCorrupt)
	}
	return nil
}

// follow adds the parts of an attribute that an attribute list names.
func (v *volume) follow(s *stream, base *record, list attr, typ uint32, name string) error {
	b, err := v.listBytes(list)
	if err != nil {
		return fmt.Errorf("attribute list of MFT record %d: %w", base.n, err)
	}
	for off := 0; off+26 <= len(b); {
		e := b[off:]
		n := int(le.Uint16(e[4:]))
		if n < 26 || n > len(e) {
			return fmt.Errorf("attribute list of MFT record %d: entry at byte %d of length %d: %w", base.n, off, n, scan.ErrCorrupt)
		}
		e, off = e[:n], off+n
		other, ok := text16(e, int(e[7]), int(e[6]))
		if !ok {
			return fmt.Errorf("attribute list of MFT record %d: name before byte %d: %w", base.n, off, scan.ErrCorrupt)
		}
		vcn := int64(le.Uint64(e[8:]))
		if le.Uint32(e) != typ || other != name || s.data != nil || vcn < s.clusters() {
			continue // another attribute, or a part that is there already
		}
		if err := v.addPart(s, base, int64(le.Uint64(e[16:])&(1<<48-1)), typ, name, vcn); err != nil {
			return err
		}
	}
	if s.data == nil && len(s.runs) == 0 {
		return fmt.Errorf("attribute list of MFT record %d has no attribute 0x%x %q: %w", base.n, typ, name, scan.ErrCorrupt)
	}
	return nil
}

// addPart adds the part of an attribute that starts at cluster vcn of its content, from MFT record n.
func (v *volume) addPart(s *stream, base *record, n int64, typ uint32, name string, vcn int64) error {
	rec := base
	if n != base.n {
		var err error
		if rec, err = v.readRecord(n); err != nil {
			return err
		}
		if owner := int64(le.Uint64(rec.b[32:]) & (1<<48 - 1)); owner != base.n {
			return fmt.Errorf("MFT record %d belongs to %d, not to %d: %w", n, owner, base.n, scan.ErrCorrupt)
		}
	}
	a, ok, err := rec.find(typ, name, vcn)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("MFT record %d lacks the part of attribute 0x%x at cluster %d: %w", n, typ, vcn, scan.ErrCorrupt)
	}
	if err := s.add(v, a); err != nil {
		return fmt.Errorf("MFT record %d: %w", n, err)
	}
	return nil
}

func (v *volume) listBytes(list attr) ([]byte, error) {
	if list.resident {
		return list.value, nil
	}
	var s stream
	if err := s.add(v, list); err != nil {
		return nil, err
	}
	if s.size > maxList || s.size > s.clusters()*v.cluster {
		return nil, fmt.Errorf("%d bytes: %w", s.size, scan.ErrCorrupt)
	}
	b := make([]byte, s.size)
	return b, s.readAt(v, b, 0)
}

// add appends one attribute, which must go on where the stream ends.
func (s *stream) add(v *volume, a attr) error {
	if a.flags != 0 && a.flags != 0x8000 { // sparse files have a plain run list with holes
		return fmt.Errorf("compressed or encrypted attribute 0x%x: %w", a.typ, scan.ErrUnsupported)
	}
	if a.resident {
		if s.data != nil || len(s.runs) > 0 {
			return fmt.Errorf("attribute 0x%x is resident and in several parts: %w", a.typ, scan.ErrCorrupt)
		}
		s.data = append([]byte{}, a.value...)
		s.size, s.valid = int64(len(s.data)), int64(len(s.data))
		return nil
	}
	lowest, highest := int64(le.Uint64(a.raw[16:])), int64(le.Uint64(a.raw[24:]))
	if s.data != nil || lowest != s.clusters() {
		return fmt.Errorf("attribute 0x%x goes on at cluster %d, not at %d: %w", a.typ, lowest, s.clusters(), scan.ErrCorrupt)
	}
	if lowest == 0 {
		s.size, s.valid = int64(le.Uint64(a.raw[48:])), int64(le.Uint64(a.raw[56:]))
		if s.size < 0 || s.valid < 0 {
			return fmt.Errorf("attribute 0x%x: size %d, valid %d: %w", a.typ, s.size, s.valid, scan.ErrCorrupt)
		}
	}
	if err := s.addRuns(v, a); err != nil {
		return err
	}
	if s.clusters() != highest+1 || (lowest > 0 && highest < lowest) {
		return fmt.Errorf("attribute 0x%x: its runs end at cluster %d, not at %d: %w", a.typ, s.clusters(), highest+1, scan.ErrCorrupt)
	}
	return nil
}

// addRuns decodes a run list: a byte with the widths of length and signed distance to the last place, then both.
func (s *stream) addRuns(v *volume, a attr) error {
	off := int(le.Uint16(a.raw[32:]))
	if off < 64 || off >= len(a.raw) {
		return fmt.Errorf("attribute 0x%x: run list at byte %d: %w", a.typ, off, scan.ErrCorrupt)
	}
	lcn := int64(0)
	for p := a.raw[off:]; ; {
		if len(p) == 0 {
			return fmt.Errorf("attribute 0x%x: the run list has no end: %w", a.typ, scan.ErrCorrupt)
		}
		nn, no := int(p[0]&15), int(p[0]>>4)
		if p[0] == 0 {
			return nil
		}
		if nn == 0 || nn > 8 || no > 8 || len(p) < 1+nn+no || len(s.runs) >= maxRuns {
			return fmt.Errorf("attribute 0x%x: run %d: %w", a.typ, len(s.runs), scan.ErrCorrupt)
		}
		n, d := signed(p[1:1+nn]), signed(p[1+nn:1+nn+no])
		p = p[1+nn+no:]
		x := run{vcn: s.clusters(), lcn: -1, n: n}
		if no > 0 {
			lcn += d
			x.lcn = lcn
		}
		if n <= 0 || n > v.clusters || (no > 0 && (lcn < 0 || lcn > v.clusters-n)) {
			return fmt.Errorf("attribute 0x%x: %d clusters at %d of %d: %w", a.typ, n, lcn, v.clusters, scan.ErrCorrupt)
		}
		s.runs = append(s.runs, x)
	}
}

// signed reads a little-endian number of up to 8 bytes in two's complement.
func signed(b []byte) int64 {
	n := int64(0)
	for i, x := range b {
		n |= int64(x) << (8 * i)
	}
	if k := len(b); k > 0 && k < 8 && b[k-1]&0x80 != 0 {
		n -= 1 << (8 * k)
	}
	return n
}

// clusters is how far the runs reach.
func (s *stream) clusters() int64 {
	if len(s.runs) == 0 {
		return 0
	}
	last := s.runs[len(s.runs)-1]
	return last.vcn + last.n
}

// readAt fills b from byte off of the stream. Holes are refused: no system file has any.
func (s *stream) readAt(v *volume, b []byte, off int64) error {
	if s.data != nil {
		if off < 0 || off+int64(len(b)) > int64(len(s.data)) {
			return fmt.Errorf("%d bytes at %d of %d: %w", len(b), off, len(s.data), scan.ErrCorrupt)
		}
		copy(b, s.data[off:])
		return nil
	}
	for len(b) > 0 {
		vcn := off / v.cluster
		i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].vcn+s.runs[i].n > vcn })
		if off < 0 || i == len(s.runs) || s.runs[i].lcn < 0 {
			return fmt.Errorf("byte %d is outside the runs or in a hole: %w", off, scan.ErrCorrupt)
		}
		x := s.runs[i]
		skip := off - x.vcn*v.cluster
		n := min(int64(len(b)), x.n*v.cluster-skip)
		if err := scan.Fill(v.r, x.lcn*v.cluster+skip, b[:n]); err != nil {
			return err
		}
		b, off = b[n:], off+n
	}
	return nil
}
