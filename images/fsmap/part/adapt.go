package part

import (
	"bytes"
	"fmt"
	"hash/crc32"

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
// was made for, primary equals the original bytes. grow lets the last GPT partition end at the end of the disk,
// rounded down to 1 MiB. It fails with SizeError when the disk is too small.
func Adapt(t *Table, size int64, grow bool) (primary, backup []byte, err error) {
	sector := int64(t.Sector)
	if size <= 0 || size%sector != 0 {
		return nil, nil, fmt.Errorf("adapt partition table: disk size %d is not a multiple of the %d-byte sector", size, sector)
	}
	if t.Label == "mbr" {
		if size < t.end {
			return nil, nil, fmt.Errorf("adapt partition table: %w", &SizeError{Need: t.end, Have: size})
		}
		if grow {
			return nil, nil, fmt.Errorf("adapt partition table: growing an MBR partition: %w", ErrUnsupported)
		}
		return bytes.Clone(t.boot), nil, nil
	}
	entSectors := (int64(len(t.entries)) + sector - 1) / sector
	if need := t.end + (entSectors+1)*sector; size < need {
		return nil, nil, fmt.Errorf("adapt partition table: %w", &SizeError{Need: need, Have: size})
	}
	last := size/sector - 1
	lastUsable := last - t.reserve(entSectors)
	// A tool may have kept more room at the end than the last partition left; the entries still fit.
	lastUsable = max(lastUsable, t.end/sector-1)
	entries := bytes.Clone(t.entries)
	if grow {
		t.growLast(entries, lastUsable)
	}
	header := bytes.Clone(t.header)
	le.PutUint64(header[32:], uint64(last))
	le.PutUint64(header[48:], uint64(lastUsable))
	le.PutUint32(header[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(header[16:], headerCRC(header))
	entAt := int64(le.Uint64(header[72:])) * sector

	primary = make([]byte, entAt+entSectors*sector)
	copy(primary, t.protectiveMBR(last))
	copy(primary[sector:], header)
	copy(primary[entAt:], entries)

	le.PutUint64(header[24:], uint64(last))
	le.PutUint64(header[32:], 1)
	le.PutUint64(header[72:], uint64(last-entSectors))
	le.PutUint32(header[16:], headerCRC(header))
	backup = make([]byte, (entSectors+1)*sector)
	copy(backup, entries)
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

func (t *Table) growLast(entries []byte, lastUsable int64) {
	for _, p := range t.Parts {
		if p.End() != t.end {
			continue
		}
		sector := int64(t.Sector)
		end := (lastUsable + 1) * sector / units.MiB * units.MiB / sector
		if end*sector > t.end {
			le.PutUint64(entries[(p.N-1)*entrySize+40:], uint64(end-1))
		}
	}
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
// forSize bytes. A scan uses it to compare cell 0 of a bigger disk with the image: the hash then decides.
// head must be at least HeadSize bytes.
func Refit(head []byte, size, forSize int64, sector int) error {
	t, err := ReadHead(head, size, sector)
	if err != nil {
		return err
	}
	primary, _, err := Adapt(t, forSize, false)
	if err != nil {
		return err
	}
	copy(head, primary)
	return nil
}
