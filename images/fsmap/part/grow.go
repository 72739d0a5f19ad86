package part

import (
	"slices"

	"labswarm/images/manifest"
)

// MarkGrow marks the one partition that takes the room a bigger disk has more, if there is one: the last on the disk,
// when it holds a Linux system or Windows data. Firmware, recovery, swap and encrypted partitions are left as they
// are, and so is a logical partition, whose size stands in records that are compared with the image.
// parts are those of t with what their filesystems are. Called when an image is made.
func MarkGrow(t *Table, parts []manifest.Part) {
	for i, p := range parts {
		if p.Start+p.Size == t.end && growable(t.Label, p) {
			parts[i].Grow = true
			return
		}
	}
}

func growable(label string, p manifest.Part) bool {
	if !slices.Contains([]string{"ext2", "ext3", "ext4", "xfs", "btrfs", "ntfs"}, p.FS) {
		return false
	}
	if label == "mbr" {
		return p.N <= 4 && p.Type != "27" && p.Type != "ef" // 27: hidden recovery partition of Windows
	}
	return !slices.Contains([]string{TypeESP, TypeMSR, TypeBIOSBoot, TypeWinRE}, p.Type)
}
