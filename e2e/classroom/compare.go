package classroom

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-cmp/cmp"
)

// Comparison says how much CompareDisk compared.
type Comparison struct {
	Partitions int
	Bytes      int64 // used bytes of the image, all found equal on the disk
	Files      int   // paths of filesystems that hold the PC's own identity, all as they must be
}

// DifferError is the first difference between an image and a disk.
type DifferError struct {
	Disk   string
	Where  string // which partition, in words
	OffByt int64  // offset on the disk, in bytes
	Detail string
}

// Error names disk, partition and offset.
func (e *DifferError) Error() string {
	return fmt.Sprintf("disk %s differs from the image in %s at byte %d: %s", e.Disk, e.Where, e.OffByt, e.Detail)
}

// CompareDisk checks that every used byte of every partition of the raw image is
// the same on the raw disk, without any of labswarm's own readers:
//
//   - the partition tables are read by sfdisk and must list the same partitions
//     (the second GPT lies elsewhere on a bigger disk, so its bytes are not compared,
//     and the last one may have grown to a multiple of 1 MiB);
//   - the boot code in LBA 0 and, on MBR disks, the gap before the first partition,
//     where GRUB's core lies, must be equal;
//   - which blocks of ext2/3/4 are used is what dumpe2fs says; an allocated block
//     must be equal even when it holds zeros, so a disk that held other data before
//     is checked too; e2fsck must then find nothing to do on the disk;
//   - FAT: by the allocation table, read by the 60 lines in usedfat.go;
//   - XFS and NTFS: what xfs_db, ntfsinfo and ntfscat say is free is left out;
//   - swap: its header; every other partition: each byte.
//
// host is the PC's name. A Linux root, which the agent has personalised, is compared
// file by file instead, and so is the EFI partition beside an NTFS one (identity.go);
// with host "" nothing may be personalised and all is compared by bytes.
//
// It must see the disk before its own system boots, which writes to it. It reads
// both files and changes neither.
func CompareDisk(ctx context.Context, image, disk, host string) (*Comparison, error) {
	want, err := readTable(ctx, image)
	if err != nil {
		return nil, err
	}
	got, err := readTable(ctx, disk)
	if err != nil {
		return nil, &DifferError{Disk: disk, Where: "the partition table", Detail: err.Error()}
	}
	places := slices.Clone(got.Partitions)
	got.shrink(want)
	if d := cmp.Diff(want, got); d != "" {
		return nil, &DifferError{Disk: disk, Where: "the partition table", Detail: "(-image +disk)\n" + d}
	}
	a, err := os.Open(image)
	if err != nil {
		return nil, fmt.Errorf("compare disk: %w", err)
	}
	b, err := os.Open(disk)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("compare disk: %w", err), a.Close())
	}
	defer func() { _, _ = a.Close(), b.Close() }() // both only read
	c := &Comparison{Partitions: len(want.Partitions)}
	same := func(where string, r span) error { return c.same(a, b, disk, where, r) }

	head := span{0, 440} // the disk's id follows; the table was compared above
	if err := same("the boot code", head); err != nil {
		return nil, err
	}
	if want.Label == "dos" && len(want.Partitions) > 0 {
		if err := same("the gap before the first partition", span{512, want.firstStart() * want.Sector}); err != nil {
			return nil, err
		}
	}
	hasNTFS, err := want.has(ctx, image, "ntfs")
	if err != nil {
		return nil, err
	}
	for i, p := range want.Partitions {
		spans, kind, err := usedSpans(ctx, a, image, p.span(want.Sector))
		if err != nil {
			return nil, fmt.Errorf("find used bytes of partition %d: %w", i+1, err)
		}
		where := fmt.Sprintf("partition %d (%s)", i+1, kind)
		if host != "" {
			o := ownPart{image, disk, host, kind, p.span(want.Sector), places[i].span(want.Sector), isESP(p) && hasNTFS}
			if n, err := o.compare(ctx, same, where); err != nil || n > 0 {
				if err != nil {
					return nil, err
				}
				c.Files += n
				continue
			}
		}
		for _, s := range spans {
			if err := same(where, s); err != nil {
				return nil, err
			}
		}
		if strings.HasPrefix(kind, "ext") {
			if err := fsckExt(ctx, disk, where, p.span(want.Sector)); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// same compares one span of both files.
func (c *Comparison) same(a, b io.ReaderAt, disk, where string, s span) error {
	const step = 1 << 20
	x, y := make([]byte, step), make([]byte, step)
	for off := s.from; off < s.to; off += step {
		n := min(step, s.to-off)
		nx, errX := a.ReadAt(x[:n], off)
		ny, errY := b.ReadAt(y[:n], off)
		if int64(nx) < n {
			return fmt.Errorf("read image at %d: %w", off, errX)
		}
		if int64(ny) < n {
			return &DifferError{disk, where, off, fmt.Sprintf("cannot be read: %v", errY)}
		}
		if bytes.Equal(x[:n], y[:n]) {
			c.Bytes += n
			continue
		}
		for i := range n {
			if x[i] != y[i] {
				return &DifferError{disk, where, off + i, fmt.Sprintf("image has %#02x, disk has %#02x", x[i], y[i])}
			}
		}
	}
	return nil
}

// span is a byte range [from, to) of a disk.
type span struct{ from, to int64 }

// table is what sfdisk -J says, without what may differ on a bigger disk.
type table struct {
	Label      string      `json:"label"`
	ID         string      `json:"id"`
	Sector     int64       `json:"sectorsize"`
	Partitions []partition `json:"partitions"`
}

type partition struct {
	Start    int64  `json:"start"` // in sectors
	Size     int64  `json:"size"`
	Type     string `json:"type"`
	UUID     string `json:"uuid"`
	Name     string `json:"name"`
	Attrs    string `json:"attrs"`
	Bootable bool   `json:"bootable"`
}

func (p partition) span(sector int64) span {
	return span{p.Start * sector, (p.Start + p.Size) * sector}
}

func (t *table) firstStart() int64 {
	first := t.Partitions[0].Start
	for _, p := range t.Partitions {
		first = min(first, p.Start)
	}
	return first
}

// shrink takes back what the last partition may have grown by on a bigger disk.
func (t *table) shrink(image *table) {
	if len(t.Partitions) == 0 || len(t.Partitions) != len(image.Partitions) {
		return
	}
	last := 0
	for i, p := range t.Partitions {
		if p.Start > t.Partitions[last].Start {
			last = i
		}
	}
	p, was := &t.Partitions[last], image.Partitions[last]
	if p.Size > was.Size && p.span(t.Sector).to%(1<<20) == 0 {
		p.Size = was.Size
	}
}

func readTable(ctx context.Context, file string) (*table, error) {
	out, err := exec.CommandContext(ctx, "sfdisk", "-J", file).Output()
	if err != nil {
		return nil, fmt.Errorf("read partition table of %s: sfdisk: %w%s", file, err, stderrOf(err))
	}
	var doc struct {
		Table table `json:"partitiontable"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		return nil, fmt.Errorf("read partition table of %s: sfdisk's answer: %w", file, err)
	}
	if doc.Table.Sector == 0 {
		doc.Table.Sector = 512
	}
	return &doc.Table, nil
}

func stderrOf(err error) string {
	var ee *exec.ExitError
	if errors.As(err, &ee) && len(ee.Stderr) > 0 {
		return ": " + strings.TrimSpace(string(ee.Stderr))
	}
	return ""
}

// kindAt asks blkid what lies at p.
func kindAt(ctx context.Context, image string, p span) (string, error) {
	out, err := exec.CommandContext(ctx, "blkid", "-p", "-O", strconv.FormatInt(p.from, 10),
		"-S", strconv.FormatInt(p.to-p.from, 10), "-o", "value", "-s", "TYPE", image).Output()
	var ee *exec.ExitError
	if err != nil && !(errors.As(err, &ee) && ee.ExitCode() == 2) { // 2 = nothing known there
		return "", fmt.Errorf("blkid: %w%s", err, stderrOf(err))
	}
	return strings.TrimSpace(string(out)), nil
}

// has tells whether any partition of the image holds a filesystem of a kind.
func (t *table) has(ctx context.Context, image, kind string) (bool, error) {
	for _, p := range t.Partitions {
		if k, err := kindAt(ctx, image, p.span(t.Sector)); err != nil || k == kind {
			return k == kind, err
		}
	}
	return false, nil
}

// usedSpans lists the used bytes of the partition at p, and the kind of its content.
func usedSpans(ctx context.Context, img io.ReaderAt, image string, p span) ([]span, string, error) {
	kind, err := kindAt(ctx, image, p)
	if err != nil {
		return nil, "", err
	}
	switch kind {
	case "ext2", "ext3", "ext4":
		s, err := usedExt(ctx, image, p)
		return s, kind, err
	case "vfat":
		s, err := usedFAT(img, p)
		return s, kind, err
	case "xfs":
		s, err := usedXFS(ctx, img, p)
		return s, kind, err
	case "ntfs":
		s, err := usedNTFS(ctx, img, p)
		return s, kind, err
	case "swap":
		return []span{{p.from, p.from + 4096}}, kind, nil
	case "":
		kind = "no known filesystem"
	}
	return []span{p}, kind, nil
}

// usedExt asks dumpe2fs for the free blocks; the rest is used.
func usedExt(ctx context.Context, image string, p span) ([]span, error) {
	out, err := exec.CommandContext(ctx, "dumpe2fs", fmt.Sprintf("%s?offset=%d", image, p.from)).Output()
	if err != nil {
		return nil, fmt.Errorf("dumpe2fs: %w%s", err, stderrOf(err))
	}
	var block, count int64
	var free []span // in blocks
	for line := range strings.SplitSeq(string(out), "\n") {
		key, val, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		val = strings.TrimSpace(val)
		switch {
		case key == "Block size":
			block, err = strconv.ParseInt(val, 10, 64)
		case key == "Block count":
			count, err = strconv.ParseInt(val, 10, 64)
		case key == "  Free blocks": // of one group; the superblock's total has no indent
			free, err = appendRanges(free, val)
		}
		if err != nil {
			return nil, fmt.Errorf("dumpe2fs line %q: %w", line, err)
		}
	}
	if block == 0 || count == 0 || len(free) == 0 {
		return nil, errors.New("dumpe2fs named no block size, block count or free blocks")
	}
	return complement(free, count, block, p.from), nil
}

// appendRanges reads "8867-16383, 16400".
func appendRanges(to []span, list string) ([]span, error) {
	for r := range strings.SplitSeq(list, ",") {
		if r = strings.TrimSpace(r); r == "" {
			continue
		}
		lo, hi, isRange := strings.Cut(r, "-")
		if !isRange {
			hi = lo
		}
		from, err1 := strconv.ParseInt(lo, 10, 64)
		last, err2 := strconv.ParseInt(hi, 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		to = append(to, span{from, last + 1})
	}
	return to, nil
}

// fsckExt checks the deployed filesystem as a whole, reading only.
func fsckExt(ctx context.Context, disk, where string, p span) error {
	out, err := exec.CommandContext(ctx, "e2fsck", "-f", "-n", fmt.Sprintf("%s?offset=%d", disk, p.from)).CombinedOutput()
	if err != nil {
		return &DifferError{disk, where, p.from, "e2fsck finds errors: " + strings.TrimSpace(string(out))}
	}
	return nil
}
