package part

import (
	"fmt"
	"io"
)

const maxLogical = 64 // longest EBR chain followed

type mbrEntry struct {
	status, kind byte
	start, count uint32 // sectors
}

// parseMBR returns the four entries, or nil when the sector is no MBR. A FAT or NTFS boot sector carries 55AA too,
// but has text where the status bytes stand.
func parseMBR(b []byte) []mbrEntry {
	if b[510] != 0x55 || b[511] != 0xAA {
		return nil
	}
	out := make([]mbrEntry, 4)
	for i := range out {
		e := b[446+16*i:]
		if e[0]&0x7f != 0 {
			return nil
		}
		out[i] = mbrEntry{e[0], e[4], le.Uint32(e[8:]), le.Uint32(e[12:])}
	}
	return out
}

func isExtended(kind string) bool { return kind == "05" || kind == "0f" || kind == "85" }

func mbrTable(boot []byte, list []mbrEntry, size int64, sector int) (*Table, error) {
	t := &Table{
		Label: "mbr", Sector: sector, Size: size, boot: boot, protects: -1,
		GUID: fmt.Sprintf("%08x", le.Uint32(boot[440:])),
	}
	for i, e := range list {
		if e.kind == 0 {
			continue
		}
		if e.start == 0 || e.count == 0 {
			return nil, fmt.Errorf("read partition table: MBR partition %d has start %d and %d sectors: %w", i+1, e.start, e.count, ErrDamaged)
		}
		t.Parts = append(t.Parts, t.mbrPart(i+1, e, 0))
	}
	if len(t.Parts) == 0 {
		return nil, fmt.Errorf("read partition table: the MBR lists no partition: %w", ErrNoTable)
	}
	return t, nil
}

func (t *Table) mbrPart(n int, e mbrEntry, base int64) Entry {
	s := int64(t.Sector)
	return Entry{
		N: n, Start: (base + int64(e.start)) * s, Size: int64(e.count) * s,
		Type: fmt.Sprintf("%02x", e.kind), Attrs: uint64(e.status),
	}
}

func splitExtended(list []Entry) (parts, extended []Entry) {
	for _, e := range list {
		if isExtended(e.Type) {
			extended = append(extended, e)
		} else {
			parts = append(parts, e)
		}
	}
	return parts, extended
}

// readLogical follows the chain of extended boot records and adds the logical partitions as 5, 6, ...
// In each record entry 0 counts from the record itself, entry 1 (the next record) from the extended partition.
func (t *Table) readLogical(r io.ReaderAt) ([]Entry, error) {
	var extended []Entry
	t.Parts, extended = splitExtended(t.Parts)
	if len(extended) > 1 {
		return nil, fmt.Errorf("read partition table: two extended partitions: %w", ErrUnsupported)
	}
	for _, ext := range extended {
		if ext.End() > t.Size {
			return nil, fmt.Errorf("read partition table: %w", &TruncatedError{N: ext.N, End: ext.End(), Size: t.Size})
		}
		for _, p := range t.Parts {
			if p.Start < ext.End() && ext.Start < p.End() {
				return nil, fmt.Errorf("read partition table: partitions %d and %d overlap: %w", p.N, ext.N, ErrDamaged)
			}
		}
		if err := t.walkChain(r, ext); err != nil {
			return nil, err
		}
	}
	return extended, nil
}

func (t *Table) walkChain(r io.ReaderAt, ext Entry) error {
	sector := int64(t.Sector)
	at, prev := ext.Start, int64(-1)
	for n := 5; ; {
		// Going up only makes a loop impossible.
		if at <= prev || at < ext.Start || at+sector > ext.End() || len(t.ebrs) == maxLogical {
			return fmt.Errorf("read partition table: the chain of extended boot records breaks at byte %d: %w", at, ErrDamaged)
		}
		b, err := readAt(r, at, 512)
		if err != nil {
			return fmt.Errorf("read partition table: extended boot record at byte %d: %w", at, err)
		}
		list := parseMBR(b)
		if list == nil {
			return fmt.Errorf("read partition table: no extended boot record at byte %d: %w", at, ErrDamaged)
		}
		t.ebrs = append(t.ebrs, at)
		if e := list[0]; e.kind != 0 && e.count != 0 {
			p := t.mbrPart(n, e, at/sector)
			if p.Start <= at || p.End() > ext.End() {
				return fmt.Errorf("read partition table: partition %d lies outside the extended one: %w", n, ErrDamaged)
			}
			t.Parts = append(t.Parts, p)
			n++
		}
		if next := list[1]; next.kind == 0 || next.start == 0 {
			return nil
		}
		prev, at = at, ext.Start+int64(list[1].start)*sector
	}
}
