package library

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"labswarm/images/manifest"
	"labswarm/images/mask"
	"labswarm/internal/units"
	"labswarm/swarm/frame"
)

// DiffPart is what has to change in one partition. Sizes are bytes.
type DiffPart struct {
	N     int    `json:"n"` // 0 = outside of all partitions
	Name  string `json:"name"`
	FS    string `json:"fs"`
	Fetch int    `json:"fetch_cells"`
	Bytes int64  `json:"fetch_bytes"`
	Zero  int    `json:"zero_cells"` // to be zeroed; costs no network
}

// Diff is what a PC that holds one version needs for another.
type Diff struct {
	From  string     `json:"from"` // name/version
	To    string     `json:"to"`
	Cell  int64      `json:"cell"`
	Cells int        `json:"cells"`       // data cells of To
	Fetch int        `json:"fetch_cells"` // of them to fetch
	Bytes int64      `json:"fetch_bytes"`
	Wire  int64      `json:"wire_bytes"` // the same as they travel
	Zero  int        `json:"zero_cells"` // to be zeroed
	Parts []DiffPart `json:"parts"`      // cells that reach into two partitions count in the first
}

// Compare tells what a PC that was just given version a has to fetch for version b. Cells whose hashes differ are read
// from a's disk.raw and masked by b's used map, as the PC does it: a cell where a merely used more is not fetched.
func Compare(ctx context.Context, a, b *Version, progress func(Progress)) (Diff, error) {
	d := Diff{From: a.man.Name + "/" + a.man.Version, To: b.man.Name + "/" + b.man.Version, Cell: b.man.Cell, Cells: b.man.Pieces()}
	if a.man.Cell != b.man.Cell {
		return d, fmt.Errorf("compare %s with %s: their cells have %s and %s, so no cell of one is a cell of the other: everything is fetched",
			d.From, d.To, units.FormatBytes(a.man.Cell), units.FormatBytes(b.man.Cell))
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	d.Parts = append(d.Parts, DiffPart{Name: "outside of partitions"})
	for _, p := range b.man.Parts {
		d.Parts = append(d.Parts, DiffPart{N: p.N, Name: p.Name, FS: p.FS})
	}
	rep := newReporter("compare", b.man.ShippedBytes(), progress)
	var mu sync.Mutex
	err := eachCell(ctx, b.man.Cells, b.man.Cell, func(_ context.Context, buf []byte, cell, ord int64) error {
		defer rep.add(b.man.Cell)
		want := b.man.PieceSHA256(int(ord))
		if p, ok := a.man.PieceOf(cell); ok && (a.man.PieceSHA256(p) == want || a.holds(b, cell, buf) && sha256.Sum256(buf) == want) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		part := &d.Parts[b.partOf(cell)]
		d.Fetch, part.Fetch = d.Fetch+1, part.Fetch+1
		d.Bytes, part.Bytes = d.Bytes+b.man.Cell, part.Bytes+b.man.Cell
		if f := b.frames.len(int(ord)); f > 0 && frame.Worth(f, int(b.man.Cell)) {
			d.Wire += int64(f)
		} else {
			d.Wire += b.man.Cell
		}
		return nil
	})
	if err != nil {
		return d, fmt.Errorf("compare %s with %s: %w", d.From, d.To, err)
	}
	buf := make([]byte, b.man.Cell)
	for cell := range b.man.ZeroCells() {
		if _, ok := a.man.PieceOf(cell); ok && !(a.holds(b, cell, buf) && mask.IsZero(buf)) {
			d.Zero++
			d.Parts[b.partOf(cell)].Zero++
		}
	}
	return d, nil
}

// NewCells counts the data cells of m that base, an earlier version of the image, does not hold with the same content at
// the same place.
func NewCells(m, base *manifest.Manifest) (n int) {
	for i := range m.Pieces() {
		if p, ok := base.PieceOf(m.CellOf(i)); !ok || m.Cell != base.Cell || base.PieceSHA256(p) != m.PieceSHA256(i) {
			n++
		}
	}
	return n
}

// holds reads a cell of a masked by the used map of b. What cannot be read counts as other content.
func (v *Version) holds(b *Version, cell int64, buf []byte) bool {
	if cell >= v.man.GridCells() || v.readCell(cell, buf) != nil {
		return false
	}
	b.masker.Mask(buf, cell*b.man.Cell)
	return true
}

// partOf returns the index in Diff.Parts of the partition that holds the first used byte of a cell.
func (v *Version) partOf(cell int64) int {
	used := v.man.Used()
	first := max(used[manifest.First(used, cell*v.man.Cell)].Off, cell*v.man.Cell)
	for i, p := range v.man.Parts {
		if p.Start <= first && first < p.Start+p.Size {
			return i + 1
		}
	}
	return 0
}
