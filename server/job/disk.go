package job

import (
	"fmt"
	"strings"

	"labswarm/api"
	"labswarm/internal/units"
)

// PickDisk names the one disk that may be written: the only one that fits, or
// the one the admin chose by serial or WWN. It fails closed: none, too small,
// another sector size, or more than one that fits is a Fault with a list, and
// nothing is written. sector 0 takes any: a disk that is only read. The agent applies the same rule again to its own disks.
func PickDisk(disks []api.Disk, selector string, minBytes int64, sector int) (*api.Disk, *api.Fault) {
	var cand []api.Disk
	for _, d := range disks {
		if candidate(d) && (selector == "" || named(d, selector)) {
			cand = append(cand, d)
		}
	}
	if len(cand) == 0 {
		if selector != "" {
			return nil, &api.Fault{Code: api.CodeDiskNotFound, Text: fmt.Sprintf("no usable disk has the serial or WWN %q that was chosen for this host; it shows: %s", selector, list(disks))}
		}
		return nil, &api.Fault{Code: api.CodeDiskNotFound, Text: "no usable disk; it shows: " + list(disks) + " (no disk at all: look for a controller in RAID or VMD mode)"}
	}
	var fit []api.Disk
	code, why := "", ""
	for _, d := range cand {
		switch {
		case d.Bytes < minBytes:
			code, why = api.CodeDiskTooSmall, fmt.Sprintf("too small for the image, which needs at least %s (%d bytes): use a bigger disk, or an image with a smaller last partition", units.FormatBytes(minBytes), minBytes)
		case sector != 0 && d.Sector != sector:
			code, why = api.CodeDiskSector, fmt.Sprintf("of another sector size than the image, which has %d-byte sectors: capture it on such a disk", sector)
		default:
			fit = append(fit, d)
		}
	}
	switch {
	case len(fit) == 0:
		return nil, &api.Fault{Code: code, Text: "nothing was written, no disk fits; " + why + "; the PC has: " + list(cand)}
	case len(fit) > 1:
		return nil, &api.Fault{Code: api.CodeAmbiguous, Text: fmt.Sprintf("nothing was written, %d disks fit: name the right one with `labswarm host add ... --disk SERIAL`; they are: %s", len(fit), list(fit))}
	case fit[0].Serial == "" && fit[0].WWN == "" && len(cand) > 1:
		return nil, &api.Fault{Code: api.CodeAmbiguous, Text: "the disk that fits has neither serial nor WWN and is not the only one: " + list(cand)}
	}
	return &fit[0], nil
}

// candidate applies control.md section 6: whole, fixed, free, local disks.
func candidate(d api.Disk) bool {
	return d.Bytes > 0 && !d.Removable && !d.ReadOnly && d.InUse == "" && d.Note == "" && d.Bus != "usb"
}

func named(d api.Disk, selector string) bool {
	selector = strings.TrimSpace(selector)
	return strings.EqualFold(strings.TrimSpace(d.Serial), selector) || strings.EqualFold(strings.TrimSpace(d.WWN), selector)
}

// list shows disks to a person: serial, model, size, bus, and why not.
func list(disks []api.Disk) string {
	if len(disks) == 0 {
		return "none"
	}
	var out []string
	for _, d := range disks[:min(len(disks), 8)] {
		id := d.Serial
		if id == "" {
			id = d.WWN
		}
		if id == "" {
			id = "without serial"
		}
		text := fmt.Sprintf("%s %s (%s, %s = %d bytes, %d-byte sectors)", d.Name, id, strings.TrimSpace(d.Model+" "+d.Bus), units.FormatBytes(d.Bytes), d.Bytes, d.Sector)
		for _, no := range []string{d.Note, d.InUse} {
			if no != "" {
				text += " [" + no + "]"
			}
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}
