// Package sig recognises what holds other things than a filesystem of its own: encryption, volume managers, RAID.
//
// The used-map readers ask it about one partition at import; the agent asks it about a whole disk before it is
// written, because such a disk may be a part of somebody's data. It only reads.
package sig

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"labswarm/images/fsmap/part"
	"labswarm/images/fsmap/scan"
)

// Kinds of containers, as they are called in manifests, orders and on the command line.
const (
	BitLocker = "bitlocker"
	LUKS      = "luks"
	LVM       = "lvm"
	ZFS       = "zfs"
	MDRAID    = "mdraid"  // Linux software RAID
	FWRAID    = "fwraid"  // RAID of the firmware: Intel RST, DDF
	WinPool   = "winpool" // Windows dynamic disks and Storage Spaces
	BtrfsPool = "btrfspool"
)

// Kinds lists all of them.
func Kinds() []string {
	return []string{BitLocker, LUKS, LVM, ZFS, MDRAID, FWRAID, WinPool, BtrfsPool}
}

// Head is how much of a partition's start Container looks at, in bytes.
const Head = 128 << 10

// maxMarks is how many marks of one disk are listed: more say nothing more.
const maxMarks = 8

// Mark is a container found on a disk.
type Mark struct {
	Kind string
	Off  int64 // where its partition begins, bytes; 0 for the whole disk
	Part int   // number of the partition, 0 = the whole disk
	At   int64 // where its signature stands, bytes from the start of the disk
}

// Partition types that belong to a pool of Windows: the two of dynamic disks, and Storage Spaces.
var poolTypes = map[string]bool{
	"5808c8aa-7e8f-42e0-85d2-e1e90434cfb3": true, "af9b60a0-1431-4f62-bc68-3311714a69ad": true,
	"e75caf8f-f680-4cee-afa3-b001e56efc2d": true, "42": true,
}

// Disk lists the containers on a whole disk of size bytes with logical sectors of the given size: the disk itself, and
// each of its partitions. parts are the partitions the kernel knows, for disks whose table only the kernel reads.
// It fails when the disk cannot be read. Of a table that neither of us understands nothing is left to lose.
func Disk(r io.ReaderAt, size int64, sector int, parts []part.Entry) ([]Mark, error) {
	out, err := whole(r, size, sector)
	if err != nil {
		return nil, err
	}
	t, err := part.Read(r, size, sector)
	var cut *part.TruncatedError
	switch {
	case err == nil:
		parts = t.Parts
	case errors.Is(err, part.ErrNoTable), errors.Is(err, part.ErrDamaged), errors.Is(err, part.ErrHybrid), errors.Is(err, part.ErrUnsupported), errors.As(err, &cut):
	default:
		return nil, err
	}
	for _, p := range parts {
		if len(out) >= maxMarks {
			break
		}
		if p.Start <= 0 || p.Size <= 0 || p.End() > size || p.Type == "05" || p.Type == "0f" || p.Type == "85" {
			continue
		}
		if poolTypes[p.Type] {
			out = append(out, Mark{WinPool, p.Start, p.N, p.Start})
			continue
		}
		kind, at, err := find(io.NewSectionReader(r, p.Start, p.Size), p.Size, nil)
		if err != nil {
			return nil, fmt.Errorf("partition %d: %w", p.N, err)
		}
		if kind != "" {
			out = append(out, Mark{kind, p.Start, p.N, p.Start + at})
		}
	}
	return out, nil
}

// whole looks at the disk itself.
func whole(r io.ReaderAt, size int64, sector int) ([]Mark, error) {
	kind, at, err := find(r, size, nil)
	if err != nil {
		return nil, err
	}
	if kind == "" {
		if kind, at, err = firmwareRAID(r, size, int64(sector)); err != nil {
			return nil, err
		}
	}
	if kind == "" {
		return nil, nil
	}
	return []Mark{{Kind: kind, At: at}}, nil
}

// firmwareRAID looks for Intel's record in the last but one sector and for the anchor of SNIA's DDF in the last.
func firmwareRAID(r io.ReaderAt, size, sector int64) (string, int64, error) {
	for _, m := range []struct {
		off   int64
		magic string
	}{{size - 2*sector, "Intel Raid ISM Cfg Sig."}, {size - sector, "\xde\x11\xde\x11"}} {
		if m.off < 0 {
			continue
		}
		b, err := scan.Read(r, m.off, len(m.magic))
		if err != nil {
			return "", 0, fmt.Errorf("look for a RAID at the end: %w", err)
		}
		if string(b) == m.magic {
			return FWRAID, m.off, nil
		}
	}
	return "", 0, nil
}

// Container says what kind of container a partition of size bytes is, "" for none. head is its start, Head bytes, what
// lies beyond its end zero.
func Container(r io.ReaderAt, size int64, head []byte) (string, error) {
	kind, _, err := find(r, size, head)
	if kind == BtrfsPool { // its reader says so itself, with the number of disks
		kind = ""
	}
	return kind, err
}

// find is Container, and where the signature stands. A nil head is read.
func find(r io.ReaderAt, size int64, b []byte) (string, int64, error) {
	if b == nil {
		b = make([]byte, Head)
		if err := scan.Fill(r, 0, b[:min(size, Head)]); err != nil {
			return "", 0, fmt.Errorf("read the start: %w", err)
		}
	}
	switch {
	case isBitLocker(b):
		return BitLocker, 0, nil
	case bytes.HasPrefix(b, []byte("LUKS\xba\xbe")):
		return LUKS, 0, nil
	case isZFS(b):
		return ZFS, 16 << 10, nil
	}
	if off := lvmAt(b); off >= 0 {
		return LVM, off, nil
	}
	off, err := mdAt(r, size, b)
	switch {
	case err != nil:
		return "", 0, err
	case off >= 0:
		return MDRAID, off, nil
	case isBtrfsPool(b):
		return BtrfsPool, 64 << 10, nil
	}
	return "", 0, nil
}

// isBitLocker knows the two forms: a whole volume has the signature in place of NTFS's, BitLocker To Go keeps a small
// FAT volume in front and has its GUID 4967d63b-2e29-4ad8-8399-f6a339e3d001 at byte 424.
func isBitLocker(b []byte) bool {
	return bytes.Equal(b[3:11], []byte("-FVE-FS-")) ||
		bytes.Equal(b[424:440], []byte("\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01"))
}

// lvmAt looks for the label of a physical volume, which is in one of the first four sectors of 512 bytes.
func lvmAt(b []byte) int64 {
	for off := int64(0); off < 2048; off += 512 {
		if bytes.Equal(b[off:off+8], []byte("LABELONE")) && bytes.Equal(b[off+24:off+32], []byte("LVM2 001")) {
			return off
		}
	}
	return -1
}

// isZFS looks for the name-value list in the first label, at 16 KiB: XDR encoding, the endianness, version 0, flag 1.
func isZFS(b []byte) bool {
	list := b[16<<10:]
	return list[0] == 1 && list[1] <= 1 && bytes.Equal(list[2:12], []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
}

// isBtrfsPool looks for a superblock that counts more than one device.
func isBtrfsPool(b []byte) bool {
	sb := b[64<<10:]
	return bytes.Equal(sb[0x40:0x48], []byte("_BHRfS_M")) && binary.LittleEndian.Uint64(sb[0x88:]) > 1
}

// mdAt looks for a superblock of Linux' RAID where its versions have it: 1.1 at the start, 1.2 at 4 KiB, 1.0 at the
// last 8 KiB, 0.90 in the last whole 64 KiB (drivers/md/md.c). -1: there is none.
func mdAt(r io.ReaderAt, size int64, b []byte) (int64, error) {
	magic := []byte{0xfc, 0x4e, 0x2b, 0xa9}
	for _, off := range []int64{0, 4096} {
		if bytes.Equal(b[off:off+4], magic) {
			return off, nil
		}
	}
	for _, off := range []int64{(size/512 - 16) &^ 7 * 512, size&^(64<<10-1) - 64<<10} {
		if off < 0 {
			continue
		}
		end, err := scan.Read(r, off, 4)
		if err != nil {
			return -1, fmt.Errorf("look for a RAID at the end of the partition: %w", err)
		}
		if bytes.Equal(end, magic) {
			return off, nil
		}
	}
	return -1, nil
}
