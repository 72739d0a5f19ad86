// Package part reads GPT and MBR partition tables and moves a GPT to a disk of another size.
//
// It reads tables written by strangers: every number is checked, the EBR chain is bounded, nothing is written.
// Adapt is pure, so the writer, the read-back, a resumed job and the tests compute the same bytes. The library uses
// it at import, the agent before and after writing. GPT: UEFI 2.10 chapter 5.
package part

import (
	"errors"
	"fmt"
	"slices"

	"labswarm/images/manifest"
	"labswarm/internal/units"
)

// Partition types with a meaning for images, as lower-case text.
const (
	TypeESP      = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	TypeBIOSBoot = "21686148-6449-6e6f-744e-656564454649"
	TypeMSR      = "e3c9e316-0b5c-4db8-817d-f92df00215ae"
	TypeWinRE    = "de94bba4-06d1-4d40-a16a-bfd50179d6ac" // Windows recovery
)

// HeadSize is the stretch from LBA 0 in which both table kinds must lie, in bytes. The agent writes it last.
const HeadSize = 64 << 10

// shipHead is how much before the first partition belongs to the boot loader: MBR code, GPT, GRUB's core image.
const shipHead = 1 << 20

// Table is a partition table that passed every check.
type Table struct {
	Label    string  // gpt or mbr
	Sector   int     // logical sector in bytes
	Size     int64   // disk size in bytes
	GUID     string  // GPT disk GUID, or the MBR disk id as 8 hex digits
	Parts    []Entry // in the order of their numbers; an MBR extended partition is not one of them
	Warnings []string

	containers []Entry // extended partitions

	ebrs     []int64 // byte offsets of extended boot records
	end      int64   // end of the last partition or extended partition
	first    int64   // start of the first partition or extended partition
	boot     []byte  // sector 0
	header   []byte  // GPT header sector
	entries  []byte  // GPT entry array
	protects int     // index of the 0xEE entry in sector 0
}

// Entry is one partition.
type Entry struct {
	N           int
	Start, Size int64  // bytes
	Type        string // GUID, or the MBR type byte as two hex digits
	GUID        string // "" on MBR
	Attrs       uint64 // GPT attributes; on MBR the status byte
	Name        string
}

// End returns the first byte after the partition.
func (e Entry) End() int64 { return e.Start + e.Size }

var (
	// ErrNoTable means that sector 0 holds neither a GPT nor an MBR.
	ErrNoTable = errors.New("no partition table found")
	// ErrDamaged means that there is a table but it cannot be trusted.
	ErrDamaged = errors.New("partition table is damaged")
	// ErrHybrid means a GPT whose MBR lists real partitions too: two tables that firmware reads differently.
	ErrHybrid = errors.New("hybrid MBR: the GPT and the MBR both list partitions")
	// ErrUnsupported means a valid table of a form that images cannot carry.
	ErrUnsupported = errors.New("partition table has an unsupported form")
)

// TruncatedError means that a partition ends beyond the end of the disk or file.
type TruncatedError struct {
	N         int   // partition number
	End, Size int64 // bytes
}

func (e *TruncatedError) Error() string {
	return fmt.Sprintf("partition %d ends at %s (byte %d) but the disk has %s (%d bytes): the image is truncated",
		e.N, units.FormatBytes(e.End), e.End, units.FormatBytes(e.Size), e.Size)
}

// End returns the end of the last partition in bytes.
func (t *Table) End() int64 { return t.end }

// BootCode tells whether sector 0 holds code for BIOS firmware.
func (t *Table) BootCode() bool {
	return slices.ContainsFunc(t.boot[:min(440, len(t.boot))], func(b byte) bool { return b != 0 })
}

// MustShip returns the bytes outside any partition that a bootable disk needs: everything before the first
// partition up to 1 MiB, and each extended boot record. A backup GPT is not among them, it is computed.
func (t *Table) MustShip() []manifest.Extent {
	list := []manifest.Extent{{Off: 0, Len: min(t.first, shipHead, t.Size)}}
	for _, off := range t.ebrs {
		list = append(list, manifest.Extent{Off: off, Len: int64(t.Sector)})
	}
	return manifest.Merge(list)
}

// MinSize returns the smallest disk the table can be adapted to, in bytes: the end of the last partition rounded up
// to 1 MiB, plus 1 MiB for a backup GPT, but never more than the source disk, which plainly was large enough.
func (t *Table) MinSize() int64 {
	need := (t.end + units.MiB - 1) / units.MiB * units.MiB
	if t.Label == "gpt" {
		need += units.MiB
	}
	return min(need, t.Size)
}

// finish sorts, checks overlaps and the end of the disk, and fills the derived fields.
func (t *Table) finish(containers []Entry) error {
	if len(t.Parts) == 0 {
		return fmt.Errorf("read partition table: the %s table lists no partition: %w", t.Label, ErrNoTable)
	}
	byStart := slices.Clone(t.Parts)
	slices.SortFunc(byStart, func(a, b Entry) int { return int(min(max(a.Start-b.Start, -1), 1)) })
	for i := 1; i < len(byStart); i++ {
		if byStart[i].Start < byStart[i-1].End() {
			return fmt.Errorf("read partition table: partitions %d and %d overlap: %w", byStart[i-1].N, byStart[i].N, ErrDamaged)
		}
	}
	t.first, t.containers = byStart[0].Start, containers
	for _, e := range append(byStart, containers...) {
		if e.Start < int64(t.Sector) {
			return fmt.Errorf("read partition table: partition %d starts inside the table: %w", e.N, ErrDamaged)
		}
		if e.End() > t.Size {
			return fmt.Errorf("read partition table: %w", &TruncatedError{N: e.N, End: e.End(), Size: t.Size})
		}
		t.first = min(t.first, e.Start)
		t.end = max(t.end, e.End())
	}
	for _, off := range t.ebrs {
		for _, e := range t.Parts {
			if off >= e.Start && off < e.End() {
				return fmt.Errorf("read partition table: extended boot record at byte %d lies in partition %d: %w", off, e.N, ErrDamaged)
			}
		}
	}
	return nil
}
