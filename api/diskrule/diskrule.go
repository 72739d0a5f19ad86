// Package diskrule is the decision which disk of a PC a job may write. It is pure: it sees what an agent reported,
// opens nothing, and refuses whenever there is a doubt. The server asks it when it makes a plan and an order; the
// agent holds the same rules against its own disks before it opens one.
package diskrule

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"labswarm/api"
	"labswarm/internal/units"
)

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

// Want is what a job asks of a disk.
type Want struct {
	Rules    []Rule // of the host and of the job: all must hold
	MinBytes int64  // of the image
	Sector   int    // logical sector size of the image, bytes
	Replace  []string
	// Own are the containers that the image itself brings: found again on the disk they are its own.
	Own []api.Mark
	// Resume: this job has begun to write this host before, so that nothing old is left on it to lose.
	Resume bool
	// Read: the disk is only read. Any sector size will do, and nothing on it is at risk.
	Read bool
}

// Pick names the one disk that may be written: of the disks that the rules allow the only one that fits. Anything
// else is a Fault that lists the disks, and nothing is written. The answer does not depend on the order of the disks.
//
// Foreign data is a veto and never a way to tell disks apart: of two disks that fit, one of them in a RAID, none is
// taken.
func Pick(disks []api.Disk, w Want) (*api.Disk, *api.Fault) {
	disks = slices.Clone(disks)
	slices.SortStableFunc(disks, func(a, b api.Disk) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Serial, b.Serial), cmp.Compare(a.WWN, b.WWN), cmp.Compare(a.Bytes, b.Bytes))
	})
	var free, named, large, fit []api.Disk
	for _, d := range disks {
		if Excluded(d) != "" || d.Note != "" {
			continue
		}
		free = append(free, d)
		if !matchAll(w.Rules, d) {
			continue
		}
		named = append(named, d)
		if d.Bytes < w.MinBytes {
			continue
		}
		large = append(large, d)
		if d.Sector == w.Sector || w.Read {
			fit = append(fit, d)
		}
	}
	fault := func(code, format string, args ...any) (*api.Disk, *api.Fault) {
		return nil, &api.Fault{Code: code, Text: "nothing was written: " + fmt.Sprintf(format, args...)}
	}
	switch {
	case len(free) == 0:
		return fault(api.CodeDiskNotFound, "no disk fits, none may be written (none at all: look for a controller in RAID or VMD mode); the PC has: %s", List(disks))
	case len(named) == 0:
		return fault(api.CodeDiskNotFound, "no disk fits %s; the PC has: %s", ruleText(w.Rules), List(disks))
	case len(large) == 0:
		return fault(api.CodeDiskTooSmall, "no disk fits: too small for the image, which needs at least %s (%d bytes); use a bigger disk, or shrink the last partition on the reference PC and make the image again; the PC has: %s",
			units.FormatBytes(w.MinBytes), w.MinBytes, List(named))
	case len(fit) == 0:
		return fault(api.CodeDiskSector, "no disk fits: the image has %d-byte sectors, its tables and filesystems mean something else on others; make the image on a disk with such sectors; the PC has: %s", w.Sector, List(large))
	case len(fit) > 1:
		return fault(api.CodeAmbiguous, "%d disks fit%s: name the right one with `labswarm host set NAME --disk RULE`; they are: %s", len(fit), among(w.Rules), List(fit))
	case fit[0].Serial == "" && fit[0].WWN == "" && len(free) > 1:
		return fault(api.CodeAmbiguous, "the disk that fits has neither serial nor WWN and is not the only one: %s", List(free))
	}
	if f := veto(fit[0], w); f != nil {
		return nil, f
	}
	return &fit[0], nil
}

// veto refuses a disk with somebody's data that the job does not give up by name.
func veto(d api.Disk, w Want) *api.Fault {
	if w.Resume || w.Read {
		return nil
	}
	bare := d
	bare.Foreign = nil // told in the sentence
	var kinds []string
	for _, m := range d.Foreign {
		if slices.ContainsFunc(w.Own, func(o api.Mark) bool { return o.Kind == m.Kind && o.Off == m.Off }) {
			continue
		}
		if m.Kind == api.MarkUnreadable {
			return &api.Fault{Code: api.CodeDiskRead, Text: fmt.Sprintf("nothing was written: the disk cannot be read, nobody knows what is on it: %s", List([]api.Disk{d}))}
		}
		if !slices.Contains(w.Replace, m.Kind) && !slices.Contains(kinds, m.Kind) {
			kinds = append(kinds, m.Kind)
		}
	}
	if len(kinds) == 0 {
		return nil
	}
	return &api.Fault{Code: api.CodeDiskForeign, Text: fmt.Sprintf("nothing was written: the disk holds %s, which may be a part of data on other disks or locked on purpose; if it can go, make the job with --replace-foreign %s; the disk is %s",
		Marks(d.Foreign), strings.Join(kinds, ","), List([]api.Disk{bare}))}
}

// Unexpected returns the marks that were not among those an order knew: data that came to the disk, or to its place,
// after the decision.
func Unexpected(found, known []api.Mark) []api.Mark {
	var out []api.Mark
	for _, m := range found {
		if !slices.ContainsFunc(known, func(k api.Mark) bool { return k.Kind == m.Kind && k.Off == m.Off }) {
			out = append(out, m)
		}
	}
	return out
}

// Marks lists what was found and where.
func Marks(list []api.Mark) string {
	out := make([]string, 0, len(list))
	for _, m := range list {
		out = append(out, m.Kind+" ("+m.Where+")")
	}
	return strings.Join(out, ", ")
}

// Named is a disk by what is written on it: model, and serial number or WWN.
func Named(model, serial, wwn string) string {
	id := "without serial number"
	switch {
	case serial != "":
		id = "serial " + serial
	case wwn != "":
		id = "WWN " + wwn
	}
	return cmp.Or(strings.TrimSpace(model), "disk") + ", " + id
}

// List shows disks to a person: model, serial, size, bus, and why not. Not more than eight.
func List(disks []api.Disk) string {
	if len(disks) == 0 {
		return "none"
	}
	var out []string
	for _, d := range disks[:min(len(disks), 8)] {
		text := fmt.Sprintf("%s: %s, %s = %d bytes, %d-byte sectors, %s", d.Name, Named(d.Model, d.Serial, d.WWN), units.FormatBytes(d.Bytes), d.Bytes, d.Sector, d.Bus)
		for _, no := range []string{cmp.Or(Excluded(d), d.Note), Marks(d.Foreign)} {
			if no != "" {
				text += " [" + no + "]"
			}
		}
		out = append(out, text)
	}
	if n := len(disks) - len(out); n > 0 {
		out = append(out, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(out, "; ")
}
