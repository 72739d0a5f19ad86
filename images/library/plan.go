package library

import (
	"errors"
	"fmt"

	"labswarm/images/fsmap/part"
	"labswarm/images/manifest"
	"labswarm/images/survey"
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
	d, findings, err := survey.Read(s, s.size, s.sector, survey.Options{Force: force})
	switch {
	case errors.Is(err, part.ErrNoTable):
		return nil, s.noTable(err)
	case err != nil:
		return nil, fmt.Errorf("disk image %q: %w", s.path, err)
	case len(findings) > 0:
		return nil, &GuardError{File: s.path, Findings: findings}
	case s.size%int64(d.Table.Sector) != 0:
		return nil, &NotDiskError{s.path, fmt.Sprintf("its size is not a multiple of its %d-byte sectors", d.Table.Sector)}
	}
	return diskPlan(d), nil
}

// diskPlan takes over what was read from a disk.
func diskPlan(d *survey.Disk) *plan {
	return &plan{table: d.Table, parts: d.Parts, used: d.Used, boot: d.Boot, warn: d.Warnings, force: d.Forced,
		disk: manifest.Disk{Size: d.Table.Size, Sector: d.Table.Sector, Label: d.Table.Label, GUID: d.Table.GUID, MinSize: d.Table.MinSize()}}
}
