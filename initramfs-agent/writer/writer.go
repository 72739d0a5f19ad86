// Package writer keeps the order in which a disk is written, so that a power
// cut at any moment leaves a disk that is either complete or visibly without a
// partition table (images.md, section 6):
//
//	Begin    head and backup table cleared, flush; zero cells
//	(swarm)  data cells through relay.Storage
//	Verify   flush; every cell read back
//	Finish   backup table, flush, head with the table, flush, both read back
//
// It speaks to a Disk, not to a device; package disk is the real one.
package writer

import (
	"context"
	"errors"
	"fmt"

	"labswarm/api"
	"labswarm/images/fsmap/part"
	"labswarm/images/manifest"
	"labswarm/initramfs-agent/bundle"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/readback"
	"labswarm/initramfs-agent/relay"
	"labswarm/initramfs-agent/scan"
)

// Disk is the target. *disk.Writable is one.
type Disk interface {
	Size() int64
	ReadAt(buf []byte, off int64) error
	Invalidate(head int64) error
	WriteCell(buf []byte, off int64) error
	Zero(off, n int64) error
	WriteTable(head, backup []byte) error
	Flush() error
}

// Plan is what will be done to one disk, known before anything is.
type Plan struct {
	Counts api.PlanCounts
	b      *bundle.Bundle
	head   int64
	have   []bool
	cell0  []byte
	dirty  []int64 // zero cells to clear
	stale  []int64 // pages with the signature of replaced foreign data, bytes
}

// NewPlan turns what a scan found on a disk of diskBytes into a plan. Cells
// that Begin will damage count as not there. The signatures of foreign, data that
// the order gives up, are cleared: in free space they would outlive the
// deployment, and the new system would start somebody's RAID from them.
func NewPlan(b *bundle.Bundle, diskBytes int64, found *scan.Result, foreign ...api.Mark) *Plan {
	m := b.Manifest
	p := &Plan{b: b, head: headLen(m), have: append([]bool(nil), found.Have...), cell0: found.Cell0, dirty: found.ZeroDirty}
	if p.cell0 == nil {
		p.have[0] = false
	}
	// The last MiB of the disk is cleared to take the old backup table away.
	for cell := max(diskBytes-disk.Tail, 0) / m.Cell; cell*m.Cell < diskBytes; cell++ {
		if piece, ok := m.PieceOf(cell); ok && cell > 0 {
			p.have[piece] = false
		}
	}
	for _, f := range foreign {
		p.clearStale(f.At/disk.Align*disk.Align, diskBytes)
	}
	for _, ok := range p.have {
		if ok {
			p.Counts.CellsKeep++
		} else {
			p.Counts.CellsWrite++
		}
	}
	p.Counts.CellsZero = len(p.dirty)
	p.Counts.BytesWrite = int64(p.Counts.CellsWrite+p.Counts.CellsZero) * m.Cell
	return p
}

// clearStale plans to zero the page at off, unless the image writes it itself or
// Invalidate does.
func (p *Plan) clearStale(off, diskBytes int64) {
	m := p.b.Manifest
	for _, e := range m.Used() {
		if off >= e.Off && off+disk.Align <= e.End() {
			return
		}
	}
	if off < p.head || off+disk.Align > diskBytes-disk.Tail {
		return
	}
	p.stale = append(p.stale, off)
	if piece, ok := m.PieceOf(off / m.Cell); ok {
		p.have[piece] = false
	}
}

// headLen is how much of the disk's start is written last: 64 KiB, or up to
// the first partition. At least one page, so that the table's header is in it.
func headLen(m *manifest.Manifest) int64 {
	n := int64(part.HeadSize)
	for _, p := range m.Parts {
		n = min(n, p.Start)
	}
	return max(n/disk.Align*disk.Align, disk.Align)
}

// Session is a disk that is being written.
type Session struct {
	b       *bundle.Bundle
	d       Disk
	head    int64
	Storage *relay.Storage // for the swarm
}

// Begin invalidates the disk and clears the zero cells. From its first line on
// the old content of the disk is gone. note is told the bytes cleared.
func Begin(ctx context.Context, d Disk, p *Plan, note func(done, total int64)) (*Session, error) {
	m := p.b.Manifest
	if err := d.Invalidate(p.head); err != nil {
		return nil, err
	}
	for _, off := range p.stale {
		if err := d.Zero(off, disk.Align); err != nil {
			return nil, err
		}
	}
	var runs []manifest.Run
	for _, c := range p.dirty {
		runs = manifest.AppendCell(runs, c)
	}
	var done int64
	for _, r := range runs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := d.Zero(r.First*m.Cell, r.Count*m.Cell); err != nil {
			return nil, err
		}
		done += r.Count * m.Cell
		note(done, int64(len(p.dirty))*m.Cell)
	}
	return &Session{b: p.b, d: d, head: p.head, Storage: relay.New(p.b, d, p.head, p.have, p.cell0)}, nil
}

// Verify flushes and reads everything back. Without a valid Proof it returns
// the pieces to fetch again; zero cells that differ are cleared here and now.
func (s *Session) Verify(ctx context.Context, note func(done, total int64)) (readback.Proof, []int, error) {
	if err := s.d.Flush(); err != nil {
		return readback.Proof{}, nil, err
	}
	cell0 := s.Storage.Cell0()
	if cell0 == nil {
		return readback.Proof{}, nil, errors.New("verify: cell 0 is not here")
	}
	proof, bad, err := readback.Run(ctx, s.d, s.b, s.head, cell0, note)
	if err != nil || proof.Valid() {
		return proof, nil, err
	}
	m := s.b.Manifest
	pieces := []int{}
	for _, cell := range bad {
		if piece, ok := m.PieceOf(cell); ok {
			pieces = append(pieces, piece)
			continue
		}
		if err := s.d.Zero(cell*m.Cell, m.Cell); err != nil {
			return readback.Proof{}, nil, err
		}
	}
	return readback.Proof{}, pieces, nil
}

// Layout is the partition table as Finish will write it to this disk, and where that puts each partition. It is known
// once cell 0 is here, that is after Verify.
func (s *Session) Layout() (*part.Layout, error) {
	cell0 := s.Storage.Cell0()
	if cell0 == nil {
		return nil, errors.New("fit the partition table: cell 0 is not here")
	}
	l, err := part.LayoutFor(s.b.Manifest, cell0, s.d.Size())
	if err != nil {
		return nil, &api.Fault{Code: api.CodeBadImage, Text: "fit the image's partition table to this disk", Err: err}
	}
	return l, nil
}

// Finish writes the partition table, fitted to the disk, and makes it the last
// write of all. It demands the proof that the rest of the disk is right.
func (s *Session) Finish(proof readback.Proof) error {
	if !proof.Valid() {
		return errors.New("write the partition table: the disk has not been read back")
	}
	l, err := s.Layout()
	if err != nil {
		return err
	}
	cell0 := s.Storage.Cell0()
	n := max(s.head, (int64(len(l.Primary))+disk.Align-1)/disk.Align*disk.Align)
	if n > int64(len(cell0)) {
		return fmt.Errorf("write the partition table: it has %d bytes", len(l.Primary))
	}
	head := append([]byte(nil), cell0[:n]...)
	copy(head, l.Primary)
	return s.d.WriteTable(head, l.Backup)
}
