// Package survey finds out what a disk holds that an image must carry: its partition table, the used map of every
// partition, and what speaks against making an image of it. It only reads.
//
// Import looks at a file or device, a terminal at its own disk before it is captured, and the server at what it has
// received: the same answer from the same code. Called by images/library and by the agent.
package survey

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"labswarm/images/fsmap"
	"labswarm/images/fsmap/fat"
	"labswarm/images/fsmap/part"
	"labswarm/images/manifest"
)

// Names of the guards that may be overridden, one by one.
const (
	Dirty      = "dirty"      // a filesystem was not unmounted cleanly
	Hibernated = "hibernated" // a sleeping system will go on with a filesystem
	Loader     = "loader"     // the disk starts by UEFI only, and has no loader at the path that every PC tries
	Smart      = "smart"      // the disk says of itself that it fails; only a terminal can ask
)

// Guards are the names that --force takes when a disk is captured.
func Guards() []string { return []string{Dirty, Hibernated, Loader, Smart} }

// Options say what is overridden and what is asked for.
type Options struct {
	Force      []string // guards to override
	NeedLoader bool     // a UEFI disk without the removable path's loader is a finding, not a warning
}

// Finding is one reason not to make an image of a disk.
type Finding struct {
	Part  int    // partition number, 0 = the disk as a whole
	FS    string // its filesystem
	Guard string // the name that overrides it; "" when nothing does
	Text  string
}

// String is the finding in one line for people.
func (f Finding) String() string {
	where := "the disk"
	if f.Part > 0 {
		where = fmt.Sprintf("partition %d (%s)", f.Part, f.FS)
	}
	return where + ": " + f.Text
}

// Disk is what is known of a disk before its cells are read. All offsets are bytes of the disk.
type Disk struct {
	Table    *part.Table
	Parts    []manifest.Part
	Used     []manifest.Extent // merged, what an image of the disk carries
	Boot     string            // bios, uefi, both, unknown
	Warnings []string
	Forced   []string // guards that were needed, each with what it overrode
}

// Read reads the partition table and the used maps of a disk of size bytes and applies the guards. sector is the
// device's logical sector in bytes, 0 for a file. All findings come at once, and no Disk then. Errors are those of
// part.Read, manifest.ErrTooManyExtents, and read errors of r.
func Read(r io.ReaderAt, size int64, sector int, o Options) (*Disk, []Finding, error) {
	t, err := part.Read(r, size, sector)
	if err != nil {
		return nil, nil, err
	}
	d := &Disk{Table: t, Used: t.MustShip(), Warnings: slices.Clone(t.Warnings)}
	var findings []Finding
	for _, e := range t.Parts {
		found, err := d.addPart(r, e, o.Force)
		if err != nil {
			return nil, nil, fmt.Errorf("partition %d: %w", e.N, err)
		}
		findings = append(findings, found...)
	}
	findings = append(findings, d.bootMode(r, o)...)
	if len(findings) > 0 {
		return nil, findings, nil
	}
	d.Used = manifest.RoundOut(d.Used, manifest.Unit, size)
	if len(d.Used) > manifest.MaxExtents {
		return nil, nil, manifest.ErrTooManyExtents
	}
	part.MarkGrow(t, d.Parts)
	return d, nil, nil
}

// Force notes a guard that is overridden. The reason stays with the image for ever, cut to what a manifest takes.
func (d *Disk) Force(f Finding) { d.Forced = append(d.Forced, fmt.Sprintf("%s: %.180s", f.Guard, f)) }

// addPart reads one partition's used map. Findings stop the image unless forced.
func (d *Disk) addPart(r io.ReaderAt, e part.Entry, force []string) ([]Finding, error) {
	um, err := partMap(r, e)
	var tooBig *fsmap.TooBigError
	var locked fsmap.BitLockerError
	var spans *fsmap.SpanError
	switch {
	case errors.As(err, &tooBig), errors.As(err, &locked), errors.As(err, &spans):
		return []Finding{{Part: e.N, FS: um.FS, Text: err.Error()}}, nil
	case err != nil:
		return nil, err
	case um.State != manifest.StateClean:
		guard := Dirty
		if um.State == manifest.StateHibernated {
			guard = Hibernated
		}
		f := Finding{Part: e.N, FS: um.FS, Guard: guard, Text: um.Why}
		if !slices.Contains(force, guard) {
			return []Finding{f}, nil
		}
		d.Force(f)
	}
	if um.Why != "" {
		d.Warnings = append(d.Warnings, fmt.Sprintf("partition %d (%s): %s", e.N, um.FS, um.Why))
	}
	d.Parts = append(d.Parts, manifest.Part{
		N: e.N, Start: e.Start, Size: e.Size, Type: e.Type, GUID: e.GUID, Attrs: fmt.Sprintf("%016x", e.Attrs), Name: e.Name,
		FS: um.FS, FSUUID: um.UUID, FSLabel: um.Label, Map: um.Kind, Clean: um.State == manifest.StateClean,
		UsedBytes: manifest.Sum(um.Extents), OS: osOf(um.FS),
	})
	for _, x := range um.Extents {
		d.Used = append(d.Used, manifest.Extent{Off: e.Start + x.Off, Len: x.Len})
	}
	return nil, nil
}

func partMap(r io.ReaderAt, e part.Entry) (manifest.UsedMap, error) {
	switch e.Type {
	case part.TypeMSR: // reserved by Windows, never holds anything
		return manifest.UsedMap{FS: "none", Kind: "none", State: manifest.StateClean}, nil
	case part.TypeBIOSBoot: // GRUB's core image, no filesystem
		return manifest.UsedMap{FS: "none", Kind: "whole", State: manifest.StateClean, Extents: []manifest.Extent{{Off: 0, Len: e.Size}}}, nil
	}
	return fsmap.Used(io.NewSectionReader(r, e.Start, e.Size), e.Size)
}

func osOf(fs string) string {
	switch fs {
	case "ext2", "ext3", "ext4", "xfs", "btrfs":
		return "linux"
	case "ntfs":
		return "windows"
	}
	return ""
}

// loader is the path UEFI starts from a disk it has no boot entry for (UEFI 2.10, 3.5.1.1).
const loader = "EFI/BOOT/BOOTX64.EFI"

// bootMode tells which firmware can start the disk, as far as a look from outside can tell.
func (d *Disk) bootMode(r io.ReaderAt, o Options) []Finding {
	bios := d.Table.BootCode() && d.Table.Label == "mbr"
	uefi, esp := false, 0
	for _, e := range d.Table.Parts {
		switch e.Type {
		case part.TypeESP, "ef":
			esp = e.N
			// An unreadable ESP is one we know nothing of, no reason to refuse the image.
			if ok, err := fat.Has(io.NewSectionReader(r, e.Start, e.Size), loader); err == nil && ok {
				uefi = true
			}
		case part.TypeBIOSBoot:
			bios = bios || d.Table.BootCode()
		}
		if d.Table.Label == "gpt" && e.Attrs&4 != 0 { // legacy BIOS bootable (UEFI 2.10, table 5.8)
			bios = bios || d.Table.BootCode()
		}
	}
	switch {
	case bios && uefi:
		d.Boot = "both"
	case uefi:
		d.Boot = "uefi"
	case bios:
		d.Boot = "bios"
	default:
		d.Boot = "unknown"
	}
	if esp == 0 || uefi {
		return nil
	}
	f := Finding{Part: esp, FS: "EFI", Guard: Loader,
		Text: "the EFI partition has no \\EFI\\BOOT\\BOOTX64.EFI: PCs without a boot entry for this system will not start it by UEFI"}
	switch {
	case !o.NeedLoader || bios:
		d.Warnings = append(d.Warnings, f.Text)
	case slices.Contains(o.Force, Loader):
		d.Force(f)
	default:
		return []Finding{f}
	}
	return nil
}
