// Package scan finds out what of an image a disk already holds, by the masked
// hash of each cell: delta deployment and resuming after a power cut are this
// same look at the disk, no journal exists. It only reads.
//
// Called by package deploy in the state CHECKING.
package scan

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"labswarm/images/fsmap/part"
	"labswarm/images/manifest"
	"labswarm/images/mask"
	"labswarm/initramfs-agent/bundle"
	"labswarm/initramfs-agent/disk"
)

const sample = 64 // spread cells looked at first; when none is right, the rest is not read

// Disk is what a scan reads: disk.Reader, or memory in tests.
type Disk interface {
	Size() int64
	ReadAt(buf []byte, off int64) error
}

// Result is what the disk holds.
type Result struct {
	Have      []bool  // per piece: right on the disk
	Kept      int     // true ones in Have
	ZeroDirty []int64 // zero cells that hold something
	Cell0     []byte  // the image's own cell 0 when the disk holds it, from disk.Buffer; nil otherwise
	Skipped   bool    // nothing of the image is there, the disk was not read to its end
}

type scanner struct {
	b    *bundle.Bundle
	d    Disk
	note func(done, total int64)
	have []bool // one writer per element
	done atomic.Int64
	all  int64
	next atomic.Int64

	mu    sync.Mutex
	dirty map[int64]bool // zero cells
	cell0 []byte
}

// Run scans with one worker per core, ascending, and tells note the bytes read
// so far. It fails with *disk.ReadError when the disk does not answer, or with
// ctx's error.
func Run(ctx context.Context, d Disk, b *bundle.Bundle, note func(done, total int64)) (*Result, error) {
	m := b.Manifest
	s := &scanner{b: b, d: d, note: note, have: make([]bool, m.Pieces()), dirty: map[int64]bool{},
		all: (int64(m.Pieces()) + m.ZeroCount()) * m.Cell}
	picks := spread(m, sample)
	if err := s.check(ctx, picks); err != nil {
		return nil, err
	}
	none := true
	for _, c := range picks {
		if p, ok := m.PieceOf(c); ok && s.have[p] {
			none = false
		}
	}
	r := &Result{Have: s.have, Skipped: none && len(picks) < m.Pieces()}
	if r.Skipped {
		for c := range m.ZeroCells() {
			r.ZeroDirty = append(r.ZeroDirty, c)
		}
		return r, nil
	}
	if err := s.check(ctx, rest(m, picks)); err != nil {
		return nil, err
	}
	for c := range m.ZeroCells() {
		if s.dirty[c] {
			r.ZeroDirty = append(r.ZeroDirty, c)
		}
	}
	for _, ok := range s.have {
		if ok {
			r.Kept++
		}
	}
	r.Cell0 = s.cell0
	return r, nil
}

// spread picks n data cells evenly, the first one left out: a partition table
// proves nothing about what follows.
func spread(m *manifest.Manifest, n int) []int64 {
	pieces := m.Pieces()
	var out []int64
	last := 0
	for i := range n {
		p := 1 + int(int64(i)*int64(pieces-1)/int64(n))
		if p > last && p < pieces {
			out, last = append(out, m.CellOf(p)), p
		}
	}
	return out
}

// rest lists the data and zero cells that are not in picks, ascending.
func rest(m *manifest.Manifest, picks []int64) []int64 {
	seen := make(map[int64]bool, len(picks))
	for _, c := range picks {
		seen[c] = true
	}
	var out []int64
	for _, r := range manifest.TouchedCells(m.Used(), m.Cell) {
		for c := r.First; c < r.First+r.Count; c++ {
			if !seen[c] {
				out = append(out, c)
			}
		}
	}
	return out
}

// check reads and judges cells, in parallel, in about their order.
func (s *scanner) check(ctx context.Context, cells []int64) error {
	s.next.Store(0)
	g, ctx := errgroup.WithContext(ctx)
	for range min(runtime.NumCPU(), 8) {
		g.Go(func() (err error) {
			buf, err := disk.Buffer(s.b.Manifest.Cell)
			if err != nil {
				return err
			}
			defer disk.FreeBuffer(buf) //nolint:errcheck // only address space
			for {
				i := s.next.Add(1) - 1
				if i >= int64(len(cells)) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := s.one(cells[i], buf); err != nil {
					return err
				}
				s.note(s.done.Add(int64(len(buf))), s.all)
			}
		})
	}
	return g.Wait()
}

func (s *scanner) one(cell int64, buf []byte) error {
	m := s.b.Manifest
	if err := s.d.ReadAt(buf, cell*m.Cell); err != nil {
		return err
	}
	piece, isData := m.PieceOf(cell)
	if isData && mask.IsZero(buf) {
		return nil // a data cell is never all zero: nothing to hash on an empty disk
	}
	if cell == 0 {
		return s.first(buf)
	}
	state, err := s.b.Masker.CheckCell(buf, cell)
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	switch {
	case isData && state == mask.Match:
		s.have[piece] = true
	case !isData && state != mask.Match:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.dirty[cell] = true
	}
	return nil
}

// first judges cell 0. On a bigger disk its table was adapted when it was
// written; fitted back to the image's size it must be the image's again. The
// content is kept: the head of the disk is cleared before anything is written.
func (s *scanner) first(buf []byte) error {
	m := s.b.Manifest
	keep, err := disk.Buffer(m.Cell)
	if err != nil {
		return err
	}
	copy(keep, buf)
	state, err := s.b.Masker.CheckCell(keep, 0)
	if err == nil && state != mask.Match {
		copy(keep, buf)
		if part.Unfit(m, keep, s.d.Size()) == nil {
			state, err = s.b.Masker.CheckCell(keep, 0)
		}
	}
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	if state != mask.Match {
		return disk.FreeBuffer(keep)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cell0, s.have[0] = keep, true
	return nil
}
