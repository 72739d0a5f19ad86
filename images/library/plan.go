package library

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

// plan is what is known of a disk before its cells are read.
type plan struct {
	table *part.Table // nil: not read from a disk
	disk  manifest.Disk
	parts []manifest.Part
	used  []manifest.Extent
	boot  string
	warn  []string
	force []string // guards that were needed, each with what it overrode
}

// makePlan reads the partition table and the used maps, and applies the guards.
func makePlan(s *source, force []string) (*plan, error) {
	t, err := part.Read(s, s.size, s.sector)
	if errors.Is(err, part.ErrNoTable) {
		return nil, s.noTable(err)
	}
	if err != nil {
		return nil, fmt.Errorf("disk image %q: %w", s.path, err)
	}
	p := &plan{table: t, used: t.MustShip(), warn: slices.Clone(t.Warnings)}
	if s.size%int64(t.Sector) != 0 {
		return nil, &NotDiskError{s.path, fmt.Sprintf("its size is not a multiple of its %d-byte sectors", t.Sector)}
	}
	var findings []Finding
	for _, e := range t.Parts {
		found, err := p.addPart(s, e, force)
		if err != nil {
			return nil, fmt.Errorf("disk image %q: partition %d: %w", s.path, e.N, err)
		}
		findings = append(findings, found...)
	}
	if len(findings) > 0 {
		return nil, &GuardError{File: s.path, Findings: findings}
	}
	p.used = manifest.RoundOut(p.used, manifest.Unit, s.size)
	if len(p.used) > manifest.MaxExtents {
		return nil, fmt.Errorf("disk image %q: %w", s.path, manifest.ErrTooManyExtents)
	}
	part.MarkGrow(t, p.parts)
	p.boot = p.bootMode(s)
	p.disk = manifest.Disk{Size: t.Size, Sector: t.Sector, Label: t.Label, GUID: t.GUID, MinSize: t.MinSize()}
	return p, nil
}

// addPart reads one partition's used map. Findings stop the import unless forced.
func (p *plan) addPart(s *source, e part.Entry, force []string) ([]Finding, error) {
	um, err := partMap(s, e)
	var tooBig *fsmap.TooBigError
	var locked fsmap.BitLockerError
	var spans *fsmap.SpanError
	switch {
	case errors.As(err, &tooBig), errors.As(err, &locked), errors.As(err, &spans):
		return []Finding{{Part: e.N, FS: um.FS, Text: err.Error()}}, nil
	case err != nil:
		return nil, err
	case um.State != manifest.StateClean:
		guard := ForceDirty
		if um.State == manifest.StateHibernated {
			guard = ForceHibernated
		}
		if !slices.Contains(force, guard) {
			return []Finding{{Part: e.N, FS: um.FS, Guard: guard, Text: um.Why}}, nil
		}
		// The reason stays with the image for ever, cut to what a manifest takes.
		p.force = append(p.force, fmt.Sprintf("%s: partition %d (%s): %.160s", guard, e.N, um.FS, um.Why))
	}
	if um.Why != "" {
		p.warn = append(p.warn, fmt.Sprintf("partition %d (%s): %s", e.N, um.FS, um.Why))
	}
	p.parts = append(p.parts, manifest.Part{
		N: e.N, Start: e.Start, Size: e.Size, Type: e.Type, GUID: e.GUID, Attrs: fmt.Sprintf("%016x", e.Attrs), Name: e.Name,
		FS: um.FS, FSUUID: um.UUID, FSLabel: um.Label, Map: um.Kind, Clean: um.State == manifest.StateClean,
		UsedBytes: manifest.Sum(um.Extents), OS: osOf(um.FS),
	})
	for _, x := range um.Extents {
		p.used = append(p.used, manifest.Extent{Off: e.Start + x.Off, Len: x.Len})
	}
	return nil, nil
}

func partMap(s *source, e part.Entry) (manifest.UsedMap, error) {
	switch e.Type {
	case part.TypeMSR: // reserved by Windows, never holds anything
		return manifest.UsedMap{FS: "none", Kind: "none", State: manifest.StateClean}, nil
	case part.TypeBIOSBoot: // GRUB's core image, no filesystem
		return manifest.UsedMap{FS: "none", Kind: "whole", State: manifest.StateClean, Extents: []manifest.Extent{{Off: 0, Len: e.Size}}}, nil
	}
	return fsmap.Used(io.NewSectionReader(s, e.Start, e.Size), e.Size)
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
func (p *plan) bootMode(s *source) string {
	bios := p.table.BootCode() && p.table.Label == "mbr"
	uefi, esp := false, false
	for _, e := range p.table.Parts {
		switch e.Type {
		case part.TypeESP, "ef":
			esp = true
			// An unreadable ESP is one we know nothing of, no reason to refuse the image.
			if ok, err := fat.Has(io.NewSectionReader(s, e.Start, e.Size), loader); err == nil && ok {
				uefi = true
			}
		case part.TypeBIOSBoot:
			bios = bios || p.table.BootCode()
		}
		if p.table.Label == "gpt" && e.Attrs&4 != 0 { // legacy BIOS bootable (UEFI 2.10, table 5.8)
			bios = bios || p.table.BootCode()
		}
	}
	if esp && !uefi {
		p.warn = append(p.warn, "the EFI partition has no \\EFI\\BOOT\\BOOTX64.EFI: PCs without a boot entry for this system will not start it by UEFI")
	}
	switch {
	case bios && uefi:
		return "both"
	case uefi:
		return "uefi"
	case bios:
		return "bios"
	}
	return "unknown"
}
