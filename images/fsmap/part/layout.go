package part

import (
	"fmt"
	"slices"
	"strconv"

	"labswarm/images/manifest"
)

// Layout is an image's partition table as it stands on one disk.
type Layout struct {
	Primary []byte // from byte 0 on
	Backup  []byte // ends with the disk; empty for an MBR
	// Parts are the image's partitions with their places on this disk; Size of the grown one is that of its partition
	// now, which its filesystem does not know yet.
	Parts []manifest.Part
	Grown int // number of the partition that became bigger than in the image, 0 = none
}

// LayoutFor fits the table in cell0, the image's own cell 0, to a disk of size bytes. The agent, the read-back and
// restored files all take the bytes from here. It fails with SizeError when the disk is too small.
func LayoutFor(m *manifest.Manifest, cell0 []byte, size int64) (*Layout, error) {
	t, err := ReadHead(cell0, m.Disk.Size, m.Disk.Sector)
	if err != nil {
		return nil, err
	}
	l := &Layout{Parts: slices.Clone(m.Parts)}
	n, was := grows(m)
	if size <= m.Disk.Size { // free space that the source's owner left there stays free
		n = 0
	}
	if l.Primary, l.Backup, err = Adapt(t, size, n != 0); err != nil {
		return nil, err
	}
	if n == 0 {
		return l, nil
	}
	full := append(slices.Clone(l.Primary), make([]byte, max(0, HeadSize-len(l.Primary)))...)
	now, err := ReadHead(full, size, m.Disk.Sector)
	if err != nil {
		return nil, fmt.Errorf("check the fitted partition table: %w", err)
	}
	for _, p := range now.Parts {
		i := slices.IndexFunc(l.Parts, func(q manifest.Part) bool { return q.N == n && p.N == n })
		if i >= 0 && p.End() > was {
			l.Parts[i].Size, l.Grown = p.Size, n
		}
	}
	return l, nil
}

// Unfit turns the table in head, read from a disk of size bytes that carries the image, back into the image's own, as
// far as that can be told; the caller's hash decides. head must be at least HeadSize bytes.
func Unfit(m *manifest.Manifest, head []byte, size int64) error {
	n, end := grows(m)
	return Refit(head, size, m.Disk.Size, m.Disk.Sector, n, end)
}

// grows returns the partition that may grow and its end in the image; 0 when there is none.
func grows(m *manifest.Manifest) (n int, end int64) {
	for _, p := range m.Parts {
		if p.Grow {
			return p.N, p.Start + p.Size
		}
	}
	return 0, 0
}

// DeviceName is the kernel's name of partition n of a disk: sda3, vda1, nvme0n1p3, mmcblk0p2, loop0p1. The kernel puts
// a p after a disk whose name ends in a digit (block/partitions/core.c).
func DeviceName(disk string, n int) string {
	if disk != "" && disk[len(disk)-1] >= '0' && disk[len(disk)-1] <= '9' {
		disk += "p"
	}
	return disk + strconv.Itoa(n)
}
