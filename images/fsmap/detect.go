package fsmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"labswarm/images/fsmap/btrfs"
	"labswarm/images/fsmap/exfat"
	"labswarm/images/fsmap/ext"
	"labswarm/images/fsmap/fat"
	"labswarm/images/fsmap/ntfs"
	"labswarm/images/fsmap/scan"
	"labswarm/images/fsmap/swap"
	"labswarm/images/fsmap/xfs"
	"labswarm/images/manifest"
)

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)

// head is how much of a partition the magics at its start lie in.
const head = 128 << 10

// kind is a filesystem whose magic was found, and how to read its used map.
type kind struct {
	name string
	used func(r io.ReaderAt, size int64) (manifest.UsedMap, error)
}

// read finds out what the partition holds and reads its used map. The magics of two filesystems at once, left by a
// careless format, mean that nobody knows: whole.
func read(r io.ReaderAt, size int64) (manifest.UsedMap, error) {
	b := make([]byte, head) // a short partition leaves the rest zero
	if err := scan.Fill(r, 0, b[:min(size, head)]); err != nil {
		return manifest.UsedMap{FS: "unknown"}, fmt.Errorf("read the start of the partition: %w", err)
	}
	if isBitLockerVolume(b) {
		return manifest.UsedMap{FS: "bitlocker"}, BitLockerError{}
	}
	if um, ok, err := container(r, size, b); ok || err != nil {
		return um, err
	}
	found := kinds(r, b)
	switch len(found) {
	case 0:
		return manifest.UsedMap{FS: "unknown"}, nil
	case 1:
		return found[0].used(r, size)
	}
	out := manifest.UsedMap{FS: "unknown"}
	var names []string
	for _, k := range found {
		names = append(names, k.name)
		// One of them is real, and it must not pass for clean.
		um, err := k.used(r, size)
		if um.State == manifest.StateDirty || um.State == manifest.StateHibernated {
			out.State, out.Why = um.State, k.name+": "+um.Why
		} else if err != nil && !errors.Is(err, scan.ErrUnsupported) && !errors.Is(err, scan.ErrCorrupt) {
			return out, err
		}
	}
	return out, fmt.Errorf("signatures of %s at once: %w", strings.Join(names, " and "), scan.ErrUnsupported)
}

// kinds returns every filesystem whose magic is there. NTFS and exFAT carry FAT's 55AA too, but not its type string.
func kinds(r io.ReaderAt, b []byte) []kind {
	var out []kind
	add := func(ok bool, name string, used func(io.ReaderAt, int64) (manifest.UsedMap, error)) {
		if ok {
			out = append(out, kind{name, used})
		}
	}
	page, _ := swap.Detect(r)
	add(ntfs.Is(b), "ntfs", ntfs.Used)
	add(exfat.Is(b), "exfat", exfat.Used)
	add(xfs.Is(b), "xfs", xfs.Used)
	add(le.Uint16(b[1024+56:]) == ext.Magic, "ext4", ext.Used)
	add(page != 0, "swap", swap.Used)
	add(btrfs.Is(b), "btrfs", btrfs.Used)
	add(fat.Is(b), "fat", fat.Used)
	return out
}

// isBitLockerVolume knows the two forms: a whole volume has the signature in place of NTFS's, BitLocker To Go
// keeps a small FAT volume in front and has its GUID 4967d63b-2e29-4ad8-8399-f6a339e3d001 at byte 424.
func isBitLockerVolume(b []byte) bool {
	return bytes.Equal(b[3:11], []byte("-FVE-FS-")) ||
		bytes.Equal(b[424:440], []byte("\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01"))
}

// container recognises what holds other things: encryption, volume managers, RAID. It goes before the filesystems,
// because a member of a mirror looks like its filesystem and keeps the RAID's own record behind it.
func container(r io.ReaderAt, size int64, b []byte) (manifest.UsedMap, bool, error) {
	um := manifest.UsedMap{State: manifest.StateClean}
	switch {
	case bytes.HasPrefix(b, []byte("LUKS\xba\xbe")):
		um.FS, um.UUID = "luks", manifest.CleanText(b[168:208])
		um.Why = "it is encrypted: it goes into the image whole, and the same passphrase opens it on every PC"
		return um, true, nil
	case isLVM(b):
		um.FS = "lvm"
		return um, true, nil
	case isZFS(b):
		um.FS, um.Why = "zfs", "it is part of a ZFS pool and goes into the image whole"
		return um, true, nil
	}
	raid, err := isMD(r, size, b)
	if raid {
		um.FS, um.Why = "mdraid", "it is a member of a Linux RAID and goes into the image whole; without its other members the RAID starts degraded or not at all"
	}
	return um, raid, err
}

// isLVM looks for the label of a physical volume, which is in one of the first four sectors of 512 bytes.
func isLVM(b []byte) bool {
	for off := 0; off < 2048; off += 512 {
		if bytes.Equal(b[off:off+8], []byte("LABELONE")) && bytes.Equal(b[off+24:off+32], []byte("LVM2 001")) {
			return true
		}
	}
	return false
}

// isZFS looks for the name-value list in the first label, at 16 KiB: XDR encoding, the endianness, version 0, flag 1.
func isZFS(b []byte) bool {
	list := b[16<<10:]
	return list[0] == 1 && list[1] <= 1 && bytes.Equal(list[2:12], []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
}

// isMD looks for a superblock of Linux' RAID where its versions have it: 1.1 at the start, 1.2 at 4 KiB, 1.0 at the
// last 8 KiB, 0.90 in the last whole 64 KiB (drivers/md/md.c).
func isMD(r io.ReaderAt, size int64, b []byte) (bool, error) {
	magic := []byte{0xfc, 0x4e, 0x2b, 0xa9}
	if bytes.Equal(b[:4], magic) || bytes.Equal(b[4096:4100], magic) {
		return true, nil
	}
	for _, off := range []int64{(size/512 - 16) &^ 7 * 512, size&^(64<<10-1) - 64<<10} {
		if off < 0 {
			continue
		}
		end, err := scan.Read(r, off, 4)
		if err != nil {
			return false, fmt.Errorf("look for a RAID at the end of the partition: %w", err)
		}
		if bytes.Equal(end, magic) {
			return true, nil
		}
	}
	return false, nil
}
