// Package inventory reads from sysfs what whole disks a machine has: identity,
// size, sector size, bus, and what is using them.
//
// It opens no device and decides nothing: which of the disks may be written is
// the rule in disk/target. Called by identity (for the server's records) and by
// disk (to look again through an open descriptor).
package inventory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"labswarm/api"
	"labswarm/images/fsmap/part"
)

// System says where to look. The zero value is of no use; Real is the running
// machine.
type System struct {
	Sys  string // where sysfs is mounted
	Proc string // where procfs is mounted
	Dev  string // where the device nodes are
	// Only restricts the search to these kernel names. It is how a process
	// beside a running system is kept from even looking at that system's disks.
	Only []string
	// Loops permits loop devices named in Only. It is refused in process 1.
	Loops bool
}

// Real is the running machine with all its disks.
func Real() System { return System{Sys: "/sys", Proc: "/proc", Dev: "/dev"} }

// BusLoop is the bus of a permitted loop device.
const BusLoop = "loop"

// Disks returns every whole disk, in the order of their kernel names.
func (s System) Disks() ([]api.Disk, error) {
	dir := filepath.Join(s.Sys, "block")
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list disks in %s: %w", dir, err)
	}
	use, err := s.mounted()
	if err != nil {
		return nil, err
	}
	var out []api.Disk
	for _, e := range list {
		name := e.Name()
		if s.skip(name) {
			continue
		}
		d, err := s.describe(name, use)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just been pulled out
		}
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// skip leaves out what is no disk of this machine at all.
func (s System) skip(name string) bool {
	if len(s.Only) > 0 && !slices.Contains(s.Only, name) {
		return true
	}
	for _, p := range []string{"ram", "zram", "dm-", "md", "sr", "fd", "nbd", "mtdblock"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	if strings.HasPrefix(name, "loop") {
		return !s.Loops || len(s.Only) == 0
	}
	// The boot and replay-protected areas of an eMMC are not its disk; a hidden
	// NVMe path (nvme0c0n1) is the same disk seen through one controller.
	if strings.HasPrefix(name, "mmcblk") && (strings.Contains(name, "boot") || strings.Contains(name, "rpmb")) {
		return true
	}
	return s.read(name, "hidden") == "1"
}

// Describe returns one disk by its kernel name.
func (s System) Describe(name string) (api.Disk, error) {
	use, err := s.mounted()
	if err != nil {
		return api.Disk{}, err
	}
	return s.describe(name, use)
}

// ByNumber returns the disk with a device number, for a descriptor that is
// already open: a path may have come to mean another disk.
func (s System) ByNumber(major, minor uint32) (api.Disk, error) {
	link := filepath.Join(s.Sys, "dev", "block", fmt.Sprintf("%d:%d", major, minor))
	p, err := filepath.EvalSymlinks(link)
	if err != nil {
		return api.Disk{}, fmt.Errorf("find disk %d:%d: %w", major, minor, err)
	}
	return s.Describe(filepath.Base(p))
}

// Partitions returns the partitions of a disk that the kernel knows. Type is not
// set. A damaged or unusual table is one that perhaps only the kernel reads.
func (s System) Partitions(name string) []part.Entry {
	list, err := os.ReadDir(filepath.Join(s.Sys, "block", name))
	if err != nil {
		return nil
	}
	var out []part.Entry
	for _, e := range list {
		n, err1 := strconv.Atoi(s.read(name, e.Name()+"/partition"))
		start, err2 := strconv.ParseInt(s.read(name, e.Name()+"/start"), 10, 64)
		size, err3 := strconv.ParseInt(s.read(name, e.Name()+"/size"), 10, 64)
		if err1 == nil && err2 == nil && err3 == nil {
			out = append(out, part.Entry{N: n, Start: start * 512, Size: size * 512})
		}
	}
	slices.SortFunc(out, func(a, b part.Entry) int { return a.N - b.N })
	return out
}

// Path returns the device node of a disk.
func (s System) Path(d api.Disk) string { return filepath.Join(s.Dev, d.Name) }

func (s System) describe(name string, use map[string]string) (api.Disk, error) {
	d := api.Disk{Name: name, Removable: s.read(name, "removable") == "1", ReadOnly: s.read(name, "ro") == "1"}
	units, err := strconv.ParseInt(s.read(name, "size"), 10, 64)
	if err != nil {
		return d, fmt.Errorf("read size of disk %s: %w", name, fs.ErrNotExist)
	}
	d.Bytes = units * 512 // sysfs counts in 512 bytes, whatever the sector
	if d.Sector, err = strconv.Atoi(s.read(name, "queue/logical_block_size")); err != nil {
		return d, fmt.Errorf("read sector size of disk %s: %w", name, err)
	}
	d.Bus = s.bus(name)
	d.Model = s.first(name, "device/model", "device/name")
	d.Serial = s.serial(name, d.Bus)
	d.WWN = s.wwn(name)
	d.InUse = s.inUse(name, use)
	if d.Bus == BusLoop {
		d.Model = "loop device"
	}
	return d, nil
}

// bus tells how the disk is connected, from the path of its device.
func (s System) bus(name string) string {
	if strings.HasPrefix(name, "loop") {
		return BusLoop
	}
	p, err := filepath.EvalSymlinks(filepath.Join(s.Sys, "block", name))
	if err != nil {
		return "unknown"
	}
	switch {
	case strings.Contains(p, "/usb"):
		return "usb"
	case strings.Contains(p, "/fw"):
		return "firewire"
	case strings.Contains(p, "/ata"):
		return "sata"
	case strings.HasPrefix(name, "nvme"):
		return "nvme"
	case strings.HasPrefix(name, "mmcblk"):
		return "mmc"
	case strings.HasPrefix(name, "vd"):
		return "virtio"
	case strings.HasPrefix(name, "sd"):
		return "scsi"
	}
	return "unknown"
}

// serial returns what the disk says its number is. virtio has it beside the
// disk, NVMe and MMC below device, SCSI and SATA in the VPD page 0x80.
func (s System) serial(name, bus string) string {
	if bus == BusLoop {
		// A loop device has no number; the file behind it is what identifies it.
		return filepath.Base(strings.TrimSuffix(s.read(name, "loop/backing_file"), " (deleted)"))
	}
	if v := s.first(name, "serial", "device/serial", "device/cid"); v != "" {
		return v
	}
	return vpd80(s.raw(name, "device/vpd_pg80"))
}

// wwn returns the world-wide name, without the "naa." or "eui." that sysfs
// puts before it. "t10." names are made of model and serial, not worldwide.
func (s System) wwn(name string) string {
	v := strings.ToLower(s.first(name, "wwid", "device/wwid"))
	for _, p := range []string{"naa.", "eui.", "uuid."} {
		if rest, ok := strings.CutPrefix(v, p); ok && strings.Trim(rest, "0") != "" {
			return rest
		}
	}
	return ""
}

// vpd80 reads the unit serial number page: SPC-4, 7.8.18.
func vpd80(page []byte) string {
	if len(page) < 4 || page[1] != 0x80 {
		return ""
	}
	n := int(page[2])<<8 | int(page[3])
	return clean(string(page[4:min(4+n, len(page))]))
}

func (s System) first(name string, files ...string) string {
	for _, f := range files {
		if v := s.read(name, f); v != "" {
			return v
		}
	}
	return ""
}

func (s System) read(name, file string) string { return clean(string(s.raw(name, file))) }

// raw returns a sysfs attribute, nil when the disk has none of that name.
func (s System) raw(name, file string) []byte {
	b, err := os.ReadFile(filepath.Join(s.Sys, "block", name, file))
	if err != nil {
		return nil
	}
	return b
}

// clean trims blanks and drops what is not printable ASCII: these strings come
// from firmware and reach screens.
func clean(v string) string {
	v = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return -1
		}
		return r
	}, strings.Trim(v, " \t\r\n\x00"))
	return strings.TrimSpace(v[:min(len(v), 128)])
}
