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
	"labswarm/api/diskrule"
	"labswarm/api/order"
	"labswarm/internal/units"
)

// IDOf returns the identity of a disk as an order carries it.
func IDOf(d api.Disk) order.DiskID {
	return order.DiskID{WWN: d.WWN, Serial: d.Serial, Model: d.Model, Bytes: d.Bytes, Sector: d.Sector, Bus: d.Bus}
}

// Annotate returns the disks with Note set to the reason why each is no
// candidate.
func Annotate(disks []api.Disk) []api.Disk {
	out := make([]api.Disk, len(disks))
	for i, d := range disks {
		d.Note = diskrule.Excluded(d)
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
		if diskrule.Excluded(d) == "" {
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

// Foreign refuses a disk that holds data which may belong to something bigger,
// unless the order names it. It is asked again about what stands behind the open
// descriptor.
func Foreign(d api.Disk, known []api.Mark) error {
	extra := diskrule.Unexpected(d.Foreign, known)
	if len(extra) == 0 {
		return nil
	}
	return &api.Fault{Code: api.CodeDiskForeign,
		Text: fmt.Sprintf("nothing was written: %s holds %s, which the order does not give up", Describe(d), diskrule.Marks(extra))}
}

// Describe is a disk as a person sees it.
func Describe(d api.Disk) string { return diskrule.List([]api.Disk{d}) }

func text(d order.DiskID) string {
	return fmt.Sprintf("%s, %s, %d-byte sectors, %s", diskrule.Named(d.Model, d.Serial, d.WWN), units.FormatBytes(d.Bytes), d.Sector, d.Bus)
}

func fault(code string, disks []api.Disk, format string, args ...any) error {
	return &api.Fault{Code: code, Text: fmt.Sprintf(format, args...) + ". Disks seen: " + diskrule.List(disks)}
}
