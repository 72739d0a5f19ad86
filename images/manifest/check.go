package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	nameRE    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,47}$`)
	versionRE = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}\.[1-9][0-9]{0,5}$`)
	hexRE     = regexp.MustCompile(`^[0-9a-f]+$`)
	guidRE    = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// CheckName returns an error that states the rule when an image name is not allowed.
func CheckName(name string) error {
	if !nameRE.MatchString(name) {
		return fmt.Errorf("image name %q: use 1 to 48 of a-z, 0-9 and '-', starting with a letter or digit", name)
	}
	return nil
}

// CheckVersion returns an error when a version is not YYYY-MM-DD.N.
func CheckVersion(version string) error {
	if !versionRE.MatchString(version) {
		return fmt.Errorf("image version %q: want YYYY-MM-DD.N", version)
	}
	return nil
}

// CellSizes lists the allowed cell sizes in bytes.
func CellSizes() []int64 { return []int64{256 << 10, 1 << 20, 2 << 20, 4 << 20} }

// checkRanges checks every field on its own.
func (m *Manifest) checkRanges() error {
	if m.Format != Format {
		return fmt.Errorf("format %d; this release reads format %d only: update it", m.Format, Format)
	}
	if err := CheckName(m.Name); err != nil {
		return err
	}
	if err := CheckVersion(m.Version); err != nil {
		return err
	}
	if m.Base != "" {
		if err := CheckVersion(m.Base); err != nil {
			return fmt.Errorf("base: %w", err)
		}
	}
	if !slices.Contains(CellSizes(), m.Cell) {
		return fmt.Errorf("cell size %d is not allowed", m.Cell)
	}
	if err := m.Disk.check(); err != nil {
		return err
	}
	if err := m.checkParts(); err != nil {
		return err
	}
	if err := m.checkTables(); err != nil {
		return err
	}
	if !isHex(m.InfoHash, 40) {
		return errors.New("infohash is not 40 hex digits")
	}
	if !slices.Contains([]string{"bios", "uefi", "both", "unknown"}, m.Boot) {
		return fmt.Errorf("boot %q is unknown", m.Boot)
	}
	if m.Codec != "none" && m.Codec != "zstd" {
		return fmt.Errorf("codec %q is unknown", m.Codec)
	}
	if err := m.Personalise.check(m.Parts); err != nil {
		return err
	}
	return checkTexts(append([]string{m.OSHint}, m.Forced...)...)
}

func (d *Disk) check() error {
	if d.Sector != 512 && d.Sector != 4096 {
		return fmt.Errorf("disk sector %d; want 512 or 4096", d.Sector)
	}
	if d.Size <= 0 || d.Size >= MaxDisk || d.Size%int64(d.Sector) != 0 {
		return fmt.Errorf("disk size %d is not a positive multiple of the sector below 2^53", d.Size)
	}
	if d.MinSize <= 0 || d.MinSize > d.Size || d.MinSize%Unit != 0 {
		return fmt.Errorf("disk min_size %d is not within the disk of %d bytes", d.MinSize, d.Size)
	}
	switch {
	case d.Label == "gpt" && guidRE.MatchString(d.GUID):
	case d.Label == "mbr" && isHex(d.GUID, 8):
	default:
		return fmt.Errorf("disk label %q with id %q", d.Label, d.GUID)
	}
	return nil
}

func (m *Manifest) checkParts() error {
	if len(m.Parts) > MaxParts {
		return fmt.Errorf("%d partitions exceed the limit of %d", len(m.Parts), MaxParts)
	}
	sector := int64(m.Disk.Sector)
	seen := map[int]bool{}
	last := int64(0)
	for _, p := range m.Parts {
		last = max(last, p.Start+p.Size)
	}
	for _, p := range m.Parts {
		if p.N < 1 || p.N > MaxParts || seen[p.N] {
			return fmt.Errorf("partition number %d is out of range or repeated", p.N)
		}
		seen[p.N] = true
		if p.Start <= 0 || p.Size <= 0 || p.Start%sector != 0 || p.Size%sector != 0 ||
			p.Start >= MaxDisk || p.Size > m.Disk.Size || p.Start > m.Disk.Size-p.Size {
			return fmt.Errorf("partition %d: start %d, size %d do not lie in the disk", p.N, p.Start, p.Size)
		}
		if p.UsedBytes < 0 || p.UsedBytes > p.Size {
			return fmt.Errorf("partition %d: used_bytes %d", p.N, p.UsedBytes)
		}
		if !isHex(p.Attrs, 16) || (p.GUID != "" && !guidRE.MatchString(p.GUID)) ||
			(!guidRE.MatchString(p.Type) && !isHex(p.Type, 2)) {
			return fmt.Errorf("partition %d: malformed type, guid or attrs", p.N)
		}
		if p.Grow && p.Start+p.Size != last {
			return fmt.Errorf("partition %d is to grow but is not the last on the disk", p.N)
		}
		if !slices.Contains([]string{"reader", "header", "whole", "none"}, p.Map) {
			return fmt.Errorf("partition %d: map %q is unknown", p.N, p.Map)
		}
		if !slices.Contains([]string{"", "linux", "windows"}, p.OS) {
			return fmt.Errorf("partition %d: os %q is unknown", p.N, p.OS)
		}
		if err := checkTexts(p.Name, p.FS, p.FSUUID, p.FSLabel); err != nil {
			return fmt.Errorf("partition %d: %w", p.N, err)
		}
	}
	return nil
}

func (m *Manifest) checkTables() error {
	if (m.UsedBlob == nil) == (m.UsedList == nil) {
		return errors.New("want exactly one of used and used_blob")
	}
	if b := m.UsedBlob; b != nil && (b.Count <= 0 || b.Count > MaxExtents || b.Len > 20*b.Count) {
		return fmt.Errorf("used_blob has %d extents in %d bytes", b.Count, b.Len)
	}
	if len(m.UsedList) > InlineUsed {
		return fmt.Errorf("%d inline extents exceed the limit of %d", len(m.UsedList), InlineUsed)
	}
	grid := m.GridCells()
	for _, list := range [][]Run{m.Cells, m.Zero} {
		if err := checkRuns(list, grid); err != nil {
			return err
		}
	}
	n := countRuns(m.Cells)
	if n > MaxPieces {
		return fmt.Errorf("%d data cells exceed the limit of %d", n, MaxPieces)
	}
	size := int64(len(m.HashList))
	if m.HashesBlob != nil {
		if m.HashList != nil || m.HashesBlob.Count != 0 {
			return errors.New("want exactly one of sha256 and hashes_blob")
		}
		size = m.HashesBlob.Len
	} else if n > InlineCells {
		return fmt.Errorf("%d inline hashes exceed the limit of %d", n, InlineCells)
	}
	if size != 32*n {
		return fmt.Errorf("%d bytes of hashes for %d data cells", size, n)
	}
	for _, b := range []*Blob{m.UsedBlob, m.HashesBlob} {
		if b != nil && (!isHex(b.SHA256, 64) || b.Len <= 0) {
			return errors.New("malformed side file reference")
		}
	}
	return nil
}

func checkRuns(runs []Run, grid int64) error {
	end := int64(-1)
	for _, r := range runs {
		// A run that starts where the last one ended would be a second spelling of the same list.
		if r.First <= end || r.First < 0 || r.Count <= 0 || r.Count > grid || r.First > grid-r.Count {
			return fmt.Errorf("cell run [%d,%d] is out of order, not merged or outside the grid of %d", r.First, r.Count, grid)
		}
		end = r.First + r.Count
	}
	return nil
}

// Validate checks the parts of a loaded manifest against each other: partitions disjoint, used map inside the disk
// in canonical form, and data and zero cells together exactly the cells the used map touches.
func (m *Manifest) Validate() error {
	if m.used == nil {
		return errors.New("used map is not loaded")
	}
	if int64(len(m.hashes)) != 32*countRuns(m.Cells) {
		return errors.New("hashes are not loaded")
	}
	parts := slices.Clone(m.Parts)
	slices.SortFunc(parts, func(a, b Part) int { return int(min(max(a.Start-b.Start, -1), 1)) })
	for i := 1; i < len(parts); i++ {
		if parts[i].Start < parts[i-1].Start+parts[i-1].Size {
			return fmt.Errorf("partitions %d and %d overlap", parts[i-1].N, parts[i].N)
		}
	}
	if err := checkUsed(m.used, m.Disk.Size); err != nil {
		return err
	}
	return m.checkCover()
}

func checkUsed(list []Extent, size int64) error {
	end := int64(-1)
	for _, e := range list {
		if e.Off <= end || e.Off < 0 || e.Len <= 0 || e.Off%Unit != 0 || e.Len%Unit != 0 ||
			e.Len > size || e.Off > size-e.Len {
			return fmt.Errorf("used extent [%d,%d] is out of order, not merged or outside the disk of %d bytes", e.Off, e.Len, size)
		}
		end = e.End()
	}
	return nil
}

// checkCover compares by runs, so a hostile grid of 2^35 cells costs no more than its run count.
func (m *Manifest) checkCover() error {
	want := TouchedCells(m.used, m.Cell)
	var got []Run
	for i, j := 0, 0; i < len(m.Cells) || j < len(m.Zero); {
		var r Run
		if j == len(m.Zero) || (i < len(m.Cells) && m.Cells[i].First < m.Zero[j].First) {
			r = m.Cells[i]
			i++
		} else {
			r = m.Zero[j]
			j++
		}
		if n := len(got); n > 0 && r.First < got[n-1].First+got[n-1].Count {
			return fmt.Errorf("cell %d is listed as data and as zero", r.First)
		}
		got = appendRun(got, r.First, r.First+r.Count-1)
	}
	if !slices.Equal(got, want) {
		return errors.New("data and zero cells are not exactly the cells the used map touches")
	}
	return nil
}

func (b *Blob) check(data []byte, what string) error {
	if int64(len(data)) != b.Len {
		return fmt.Errorf("%s has %d bytes; the manifest says %d", what, len(data), b.Len)
	}
	sum := sha256.Sum256(data)
	if hex.EncodeToString(sum[:]) != b.SHA256 {
		return fmt.Errorf("%s does not match its digest in the manifest", what)
	}
	return nil
}

func isHex(s string, n int) bool { return len(s) == n && hexRE.MatchString(s) }

// checkTexts refuses what a terminal could misread: these strings come from foreign disks and reach the console.
func checkTexts(list ...string) error {
	for _, s := range list {
		if len(s) > 256 || strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || (r >= 0x7f && r < 0xa0) }) {
			return fmt.Errorf("text %.40q is too long or has control characters", s)
		}
	}
	return nil
}
