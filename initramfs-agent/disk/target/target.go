// Package target is the rule that says which disk may be written: the one the
// order names, if it can be told apart from every other disk beyond doubt, and
// none otherwise.
//
// It is pure: it sees descriptions of disks and opens nothing. The agent
// applies it before it asks for a commence, and package disk applies it again
// through the open descriptor. (control.md, section 6)
package target

import (
	"fmt"
	"strings"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/internal/units"
)

// IDOf returns the identity of a disk as an order carries it.
func IDOf(d api.Disk) order.DiskID {
	return order.DiskID{WWN: d.WWN, Serial: d.Serial, Model: d.Model, Bytes: d.Bytes, Sector: d.Sector, Bus: d.Bus}
}

// Excluded says why a disk may never be a target; "" means that it is a
// candidate. Kernel names say what kind of device it is and nothing else.
func Excluded(d api.Disk) string {
	for _, k := range []struct{ prefix, why string }{
		{"loop", "loop device"}, {"ram", "RAM disk"}, {"zram", "RAM disk"}, {"dm-", "device mapper"},
		{"md", "RAID device"}, {"sr", "optical drive"}, {"fd", "floppy disk"}, {"nbd", "network disk"},
	} {
		if strings.HasPrefix(d.Name, k.prefix) && (k.prefix != "loop" || d.Bus != "loop") {
			return k.why
		}
	}
	switch {
	case d.Bytes <= 0:
		return "no medium"
	case d.Removable:
		return "removable"
	case d.Bus == "usb" || d.Bus == "firewire":
		return "connected by " + d.Bus
	case d.ReadOnly:
		return "read-only"
	case d.InUse != "":
		return "in use: " + d.InUse
	case d.Sector < 512 || d.Sector&(d.Sector-1) != 0:
		return fmt.Sprintf("sector size %d", d.Sector)
	}
	return ""
}

// Annotate returns the disks with Note set to the reason why each is no
// candidate.
func Annotate(disks []api.Disk) []api.Disk {
	out := make([]api.Disk, len(disks))
	for i, d := range disks {
		d.Note = Excluded(d)
		out[i] = d
	}
	return out
}

// Choose returns the one disk an order names. It refuses, with an *api.Fault
// that lists the disks, when none fits, when more than one does, and when the
// disk has neither serial nor WWN and is not the only candidate.
func Choose(want order.DiskID, disks []api.Disk) (api.Disk, error) {
	var candidates, fits []api.Disk
	for _, d := range disks {
		if Excluded(d) == "" {
			candidates = append(candidates, d)
		}
	}
	if len(candidates) == 0 {
		return api.Disk{}, fault(api.CodeDiskNotFound, disks,
			"no disk that may be written is visible; a controller in RAID or VMD mode or a missing driver hides disks")
	}
	for _, d := range candidates {
		if same(want, d) {
			fits = append(fits, d)
		}
	}
	named := want.WWN != "" || want.Serial != ""
	switch {
	case len(fits) == 0:
		return api.Disk{}, fault(api.CodeDiskNotFound, disks, "the disk the order names is not here: %s", text(want))
	case len(fits) > 1:
		return api.Disk{}, fault(api.CodeAmbiguous, disks, "%d disks fit the order's %s; none is written", len(fits), text(want))
	case !named && len(candidates) > 1:
		return api.Disk{}, fault(api.CodeAmbiguous, disks,
			"the order's disk has neither serial number nor WWN and there are %d disks; none is written", len(candidates))
	}
	return fits[0], nil
}

// same compares by WWN, or by serial when the order has no WWN, or by model
// when it has neither; and always by size, sector and bus.
func same(want order.DiskID, d api.Disk) bool {
	if want.Bytes <= 0 || want.Bytes != d.Bytes || want.Sector != d.Sector || want.Bus != d.Bus {
		return false
	}
	switch {
	case want.WWN != "":
		return strings.EqualFold(want.WWN, d.WWN)
	case want.Serial != "":
		return strings.EqualFold(want.Serial, d.Serial)
	}
	return want.Model == d.Model && d.WWN == "" && d.Serial == ""
}

// Describe is a disk as a person sees it.
func Describe(d api.Disk) string {
	s := d.Name + ": " + text(IDOf(d))
	if why := Excluded(d); why != "" {
		s += " [" + why + "]"
	}
	return s
}

func text(d order.DiskID) string {
	id := "without serial number"
	switch {
	case d.Serial != "":
		id = "serial " + d.Serial
	case d.WWN != "":
		id = "WWN " + d.WWN
	}
	model := d.Model
	if model == "" {
		model = "disk"
	}
	return fmt.Sprintf("%s, %s, %s, %d-byte sectors, %s", model, id, units.FormatBytes(d.Bytes), d.Sector, d.Bus)
}

func fault(code string, disks []api.Disk, format string, args ...any) error {
	list := make([]string, 0, len(disks))
	for _, d := range disks {
		list = append(list, Describe(d))
	}
	if len(list) == 0 {
		list = append(list, "none")
	}
	return &api.Fault{Code: code, Text: fmt.Sprintf(format, args...) + ". Disks seen: " + strings.Join(list, "; ")}
}
