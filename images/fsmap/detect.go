package fsmap

import (
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
	"labswarm/images/fsmap/sig"
	"labswarm/images/fsmap/swap"
	"labswarm/images/fsmap/xfs"
	"labswarm/images/manifest"
)

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)

// head is how much of a partition the magics at its start lie in.
const head = sig.Head

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

// container recognises what holds other things: encryption, volume managers, RAID. It goes before the filesystems,
// because a member of a mirror looks like its filesystem and keeps the RAID's own record behind it.
func container(r io.ReaderAt, size int64, b []byte) (manifest.UsedMap, bool, error) {
	um := manifest.UsedMap{State: manifest.StateClean}
	kind, err := sig.Container(r, size, b)
	switch kind {
	case sig.BitLocker:
		um.FS = kind
		return um, false, BitLockerError{}
	case sig.LUKS:
		um.FS, um.UUID = kind, manifest.CleanText(b[168:208])
		um.Why = "it is encrypted: it goes into the image whole, and the same passphrase opens it on every PC"
	case sig.LVM:
		um.FS = kind
	case sig.ZFS:
		um.FS, um.Why = kind, "it is part of a ZFS pool and goes into the image whole"
	case sig.MDRAID:
		um.FS, um.Why = kind, "it is a member of a Linux RAID and goes into the image whole; without its other members the RAID starts degraded or not at all"
	}
	return um, um.FS != "", err
}
