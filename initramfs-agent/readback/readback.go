// Package readback reads a written disk back from the medium and compares every
// data and zero cell with the signed manifest. A Proof, without which no good
// result can be made, comes from here and from nowhere else.
//
// The caller flushes first; the reads go past the page cache.
package readback

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"labswarm/images/manifest"
	"labswarm/images/mask"
	"labswarm/initramfs-agent/bundle"
	"labswarm/initramfs-agent/disk"
)

// Proof says that a disk was read back and equals the image. Its zero value
// proves nothing.
type Proof struct {
	digest string
	cells  int
}

// Valid reports whether p was made by Run.
func (p Proof) Valid() bool { return p.digest != "" }

// Digest is the hex SHA-256 over the SHA-256 digests (32 bytes each) of the
// masked content of every data and zero cell as it was read, in the order of
// the cells on the disk.
func (p Proof) Digest() string { return p.digest }

// Cells is the number of cells read: data and zero cells.
func (p Proof) Cells() int { return p.cells }

// Disk is what is read back.
type Disk interface {
	ReadAt(buf []byte, off int64) error
}

// Run reads every data and zero cell. The first head bytes of cell 0, which
// are not on the disk yet, are taken from cell0. It returns a valid Proof, or
// the cells that differ; an error means that the disk could not be read.
func Run(ctx context.Context, d Disk, b *bundle.Bundle, head int64, cell0 []byte, note func(done, total int64)) (Proof, []int64, error) {
	m := b.Manifest
	cells := touched(m)
	sums := make([][32]byte, len(cells))
	zero := sha256.Sum256(make([]byte, m.Cell))
	var next, done atomic.Int64
	var mu sync.Mutex
	var bad []int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(runtime.NumCPU(), 8) {
		g.Go(func() error {
			buf, err := disk.Buffer(m.Cell)
			if err != nil {
				return err
			}
			defer disk.FreeBuffer(buf) //nolint:errcheck // only address space
			for {
				i := next.Add(1) - 1
				if i >= int64(len(cells)) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				cell := cells[i]
				if err := d.ReadAt(buf, cell*m.Cell); err != nil {
					return err
				}
				if cell == 0 {
					copy(buf[:min(head, int64(len(cell0)))], cell0)
				}
				b.Masker.Mask(buf, cell*m.Cell)
				if mask.IsZero(buf) { // as good as hashing it, and much cheaper
					sums[i] = zero
				} else {
					sums[i] = sha256.Sum256(buf)
				}
				if !right(m, cell, sums[i], zero) {
					mu.Lock()
					bad = append(bad, cell)
					mu.Unlock()
				}
				note(done.Add(m.Cell), int64(len(cells))*m.Cell)
			}
		})
	}
	if err := g.Wait(); err != nil {
		return Proof{}, nil, err
	}
	if len(bad) > 0 || len(cells) == 0 {
		slices.Sort(bad)
		return Proof{}, bad, nil
	}
	h := sha256.New()
	for _, s := range sums {
		h.Write(s[:])
	}
	return Proof{digest: hex.EncodeToString(h.Sum(nil)), cells: len(cells)}, nil, nil
}

func right(m *manifest.Manifest, cell int64, sum, zero [32]byte) bool {
	if piece, ok := m.PieceOf(cell); ok {
		return sum == m.PieceSHA256(piece)
	}
	return m.IsZero(cell) && sum == zero
}

// touched lists the cells with used bytes, which are the data and the zero
// cells (manifest.Validate has checked that).
func touched(m *manifest.Manifest) []int64 {
	var out []int64
	for _, r := range manifest.TouchedCells(m.Used(), m.Cell) {
		for c := r.First; c < r.First+r.Count; c++ {
			out = append(out, c)
		}
	}
	return out
}
