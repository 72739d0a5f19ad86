package fsmap

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labswarm/images/fixture"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

// A member of a RAID looks like its filesystem and keeps the RAID's record at its end: it must go whole, as must
// everything whose kind is in doubt.
func TestContainersGoWhole(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	const size = 16*MiB + 36*1024
	ext4 := k.Ext(16*MiB, k.Tree(3, 10, 1000), "-t", "ext4")
	data, err := os.ReadFile(ext4)
	if err != nil {
		t.Fatal(err)
	}
	data = append(data, make([]byte, size-len(data))...)
	md := "\xfc\x4e\x2b\xa9\x01\x00\x00\x00"
	for name, c := range map[string]struct {
		fs    string
		magic string
		off   int64
		why   string
	}{
		"md 1.0 at the end":  {"mdraid", md, size - 8192, "RAID"},
		"md 0.90 at the end": {"mdraid", md, 16*MiB - 64<<10, "RAID"},
		"md 1.1":             {"mdraid", md, 0, "RAID"},
		"md 1.2":             {"mdraid", md, 4096, "RAID"},
		"LUKS":               {"luks", "LUKS\xba\xbe\x00\x02", 0, "encrypted"},
		"LVM in sector 1":    {"lvm", "LABELONE" + strings.Repeat("\x00", 16) + "LVM2 001", 512, ""},
		"LVM in sector 3":    {"lvm", "LABELONE" + strings.Repeat("\x00", 16) + "LVM2 001", 1536, ""},
		"ZFS":                {"zfs", "\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", 16 << 10, "ZFS"},
		"ext4 and XFS":       {"unknown", "XFSB", 0, "xfs and ext4"},
		"ext4 and Btrfs":     {"unknown", "_BHRfS_M", 65600, "ext4 and btrfs"},
	} {
		disk := bytes.Clone(data)
		copy(disk[c.off:], c.magic)
		um, err := Used(bytes.NewReader(disk), size)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if um.FS != c.fs || um.Kind != "whole" || um.State != manifest.StateClean || !strings.Contains(um.Why, c.why) ||
			!cmp.Equal(um.Extents, []manifest.Extent{{Off: 0, Len: size}}) {
			t.Errorf("%s: FS %s, kind %s, state %s, why %q, %v; want the whole partition", name, um.FS, um.Kind, um.State, um.Why, um.Extents)
		}
	}
	dirty := bytes.Clone(data)
	dirty[1024+58] = 0 // not unmounted; ext4's state
	copy(dirty, "XFSB")
	if um, err := Used(bytes.NewReader(dirty), size); err != nil || um.State != manifest.StateDirty || um.Kind != "whole" {
		t.Errorf("dirty ext4 and XFS: state %s, kind %s, %v", um.State, um.Kind, err)
	}
	// The negative control: without a record at its end it is an ext4 filesystem.
	if um, err := Used(bytes.NewReader(data), size); err != nil || um.FS != "ext4" || um.Kind != "reader" {
		t.Errorf("plain ext4: FS %s, kind %s, %v", um.FS, um.Kind, err)
	}
}

// Both forms of BitLocker are refused: on a whole volume, and "To Go" behind a small FAT volume.
func TestBitLocker(t *testing.T) {
	toGo := "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01"
	for off, magic := range map[int64]string{3: "-FVE-FS-", 424: toGo} {
		disk := make([]byte, 8192)
		copy(disk[off:], magic)
		var locked BitLockerError
		if _, err := Used(bytes.NewReader(disk), 8192); !errors.As(err, &locked) {
			t.Errorf("%q: Used = %v; want BitLockerError", magic, err)
		}
	}
}

// Of a swap area the header page travels, with its UUID and label, on machines with big pages too.
func TestSwap(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	for _, page := range []int64{4096, 65536} {
		img := k.Sparse("swap.img", 4*MiB)
		k.Run("util-linux", "", "mkswap", "-q", "-p", fmt.Sprint(page), "-L", "lab swap", "-U", "6b1f8a52-0c6e-4f0e-9a53-333333333333", img)
		um := used(t, img)
		if um.FS != "swap" || um.Kind != "header" || um.State != manifest.StateClean || um.Label != "lab swap" || um.Size != 4*MiB ||
			um.UUID != "6b1f8a52-0c6e-4f0e-9a53-333333333333" || !cmp.Equal(um.Extents, []manifest.Extent{{Off: 0, Len: page}}) {
			t.Errorf("pages of %d: %+v", page, um)
		}
	}
}
