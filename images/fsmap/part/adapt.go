package part

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"slices"

	"labswarm/internal/units"
)

// SizeError means that a table does not fit a disk.
type SizeError struct{ Need, Have int64 } // bytes

func (e *SizeError) Error() string {
	return fmt.Sprintf("the disk has %s (%d bytes) but the image needs %s (%d bytes): shrink the last partition on the reference machine and make the image again",
		units.FormatBytes(e.Have), e.Have, units.FormatBytes(e.Need), e.Need)
}

// Adapt computes the table for a disk of size bytes. primary belongs at byte 0, backup so that it ends with the disk
// (at size-len(backup)); backup is empty for an MBR. Only what depends on the size changes: with the size the table
// was made for, primary equals the original bytes. grow lets the partition that ends last end at the end of the disk,
// rounded down to 1 MiB; where that is not possible (a logical partition; a disk no bigger) it stays as it is.
// It fails with SizeError when the disk is too small.
func Adapt(t *Table, size int64, grow bool) (primary, backup []byte, err error) {
	sector := int64(t.Sector)
	if size <= 0 || size%sector != 0 {
		return nil, nil, fmt.Errorf("adapt partition table: disk size %d is not a multiple of the %d-byte sector", size, sector)
	}
	t = t.clone()
	if t.Label == "mbr" {
		if size < t.end {
			return nil, nil, fmt.Errorf("adapt partition table: %w", &SizeError{Need: t.end, Have: size})
		}
		if grow {
			t.growLast(size)
		}
		return t.boot, nil, nil
	}
	entSectors := (int64(len(t.entries)) + sector - 1) / sector
	if need := t.end + (entSectors+1)*sector; size < need {
		return nil, nil, fmt.Errorf("adapt partition table: %w", &SizeError{Need: need, Have: size})
	}
	last := size/sector - 1
	lastUsable := last - t.reserve(entSectors)
	// A tool may have kept more room at the end than the last partition left; the entries still fit.
	lastUsable = max(lastUsable, t.end/sector-1)
	if grow {
		t.growLast((lastUsable + 1) * sector)
	}
	header := t.header
	le.PutUint64(header[32:], uint64(last))
	le.PutUint64(header[48:], uint64(lastUsable))
	le.PutUint32(header[88:], crc32.ChecksumIEEE(t.entries))
	le.PutUint32(header[16:], headerCRC(header))
	entAt := int64(le.Uint64(header[72:])) * sector

	primary = make([]byte, entAt+entSectors*sector)
	copy(primary, t.protectiveMBR(last))
	copy(primary[sector:], header)
	copy(primary[entAt:], t.entries)

	le.PutUint64(header[24:], uint64(last))
	le.PutUint64(header[32:], 1)
	le.PutUint64(header[72:], uint64(last-entSectors))
	le.PutUint32(header[16:], headerCRC(header))
	backup = make([]byte, (entSectors+1)*sector)
	copy(backup, t.entries)
	copy(backup[entSectors*sector:], header)
	return primary, backup, nil
}

// reserve returns the sectors kept free between the last usable one and the backup header. Keeping the source's
// number makes Adapt to a bigger disk and back give the original bytes.
func (t *Table) reserve(entSectors int64) int64 {
	alt, usable := le.Uint64(t.header[32:]), le.Uint64(t.header[48:])
	if alt > usable && alt-usable <= 1<<20 && int64(alt-usable) > entSectors {
		return int64(alt - usable)
	}
	return entSectors + 1
}

// clone copies what Adapt changes.
func (t *Table) clone() *Table {
	c := *t
	c.Parts, c.boot, c.header, c.entries = slices.Clone(t.Parts), bytes.Clone(t.boot), bytes.Clone(t.header), bytes.Clone(t.entries)
	return &c
}

// growLast moves the end of the last partition to limit (bytes), rounded down to 1 MiB. It never moves it back. An
// extended partition is left alone: its chain of boot records lies in cells that are compared with the image.
func (t *Table) growLast(limit int64) {
	limit = limit / units.MiB * units.MiB
	if t.Label == "mbr" { // starts and lengths have 32 bits: 2 TiB with 512-byte sectors
		limit = min(limit, 1<<32*int64(t.Sector)/units.MiB*units.MiB-units.MiB)
	}
	for i, p := range t.Parts {
		if p.End() == t.end && limit > t.end && !isExtended(p.Type) && (t.Label == "gpt" || p.N <= 4) {
			t.setEnd(i, limit)
			return
		}
	}
}

// setEnd gives the i-th partition another end (bytes), in Parts and in the table's own bytes.
func (t *Table) setEnd(i int, end int64) {
	p := &t.Parts[i]
	sector := int64(t.Sector)
	if t.Label == "gpt" {
		le.PutUint64(t.entries[(p.N-1)*entrySize+40:], uint64(end/sector-1))
	} else {
		e := t.boot[446+16*(p.N-1):]
		// Nothing reads cylinder, head and sector any more, but tools complain when they contradict the length. A
		// maker that counted in another way is left its own.
		if was, now := chs(p.End()/sector-1), chs(end/sector-1); bytes.Equal(e[5:8], was[:]) {
			copy(e[5:8], now[:])
		}
		le.PutUint32(e[12:], uint32((end-p.Start)/sector))
	}
	p.Size = end - p.Start
	t.end = 0
	for _, q := range append(slices.Clone(t.Parts), t.containers...) {
		t.end = max(t.end, q.End())
	}
}

// chs is a sector's address as cylinder, head and sector of the usual 255 heads and 63 sectors, as an MBR has it.
func chs(lba int64) [3]byte {
	c, h, s := lba/(255*63), lba/63%255, lba%63+1
	if c > 1023 {
		return [3]byte{0xfe, 0xff, 0xff}
	}
	return [3]byte{byte(h), byte(s | c>>8<<6), byte(c)}
}

// protectiveMBR is sector 0 with the length of its 0xEE entry fitted to the disk. Windows always writes 0xFFFFFFFF
// there, which stays; so does everything else, boot code included.
func (t *Table) protectiveMBR(last int64) []byte {
	b := bytes.Clone(t.boot)
	e := b[446+16*t.protects:]
	if le.Uint32(e[12:]) != 0xFFFFFFFF {
		le.PutUint32(e[12:], uint32(min(last, 0xFFFFFFFF)))
	}
	return b
}

// Refit rewrites the table in head, which was read from a disk of size bytes, as it would stand on a disk of
// forSize bytes on which partition n ends at byte end (n 0: no partition has grown). A scan uses it to compare cell 0
// of a bigger disk with the image: the hash then decides. head must be at least HeadSize bytes.
func Refit(head []byte, size, forSize int64, sector, n int, end int64) error {
	t, err := ReadHead(head, size, sector)
	if err != nil {
		return err
	}
	for i, p := range t.Parts {
		if p.N == n && end > p.Start && end < p.End() {
			t.setEnd(i, end)
			break
		}
	}
	primary, _, err := Adapt(t, forSize, false)
	if err != nil {
		return err
	}
	copy(head, primary)
	return nil
}
