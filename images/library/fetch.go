package library

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Fetch gets pieces that are damaged in both forms from somebody else who holds the version, and writes those that come
// right with Version.Repair. That nobody has a piece is no error: the result says so.
type Fetch func(ctx context.Context, v *Version, pieces []int) Fetched

// Fetched is what a Fetch did.
type Fetched struct {
	Cells int      // cells that came and were written
	From  []string // who sent them, each once
	Note  string   // why others did not come, for people; "" = all came
}

// And joins what two fetches did.
func (f Fetched) And(g Fetched) Fetched {
	f.Cells += g.Cells
	for _, s := range g.From {
		if !slices.Contains(f.From, s) {
			f.From = append(f.From, s)
		}
	}
	f.Note = g.Note
	return f
}

// Text is the outcome in words, "" when nothing was asked for.
func (f Fetched) Text() string {
	var words []string
	if f.Cells > 0 {
		words = append(words, fmt.Sprintf("%d cells were fetched back from %s", f.Cells, strings.Join(f.From, ", ")))
	}
	if f.Note != "" {
		words = append(words, f.Note)
	}
	return strings.Join(words, "; ")
}

// Damaged reads the given cells of the grid again, past the page cache, and returns those that are not right.
func (v *Version) Damaged(cells []int64) ([]*BadCellError, error) {
	buf := make([]byte, v.man.Cell)
	forget := v.scrubGate(ScrubOptions{})
	var bad []*BadCellError
	for _, c := range cells {
		if c < 0 || c >= v.man.GridCells() {
			return nil, fmt.Errorf("read cell %d of image %s/%s: it has %d", c, v.man.Name, v.man.Version, v.man.GridCells())
		}
		if _, data := v.man.PieceOf(c); !data && !v.man.IsZero(c) {
			continue // the image does not use it
		}
		if err := forget(context.Background(), c*v.man.Cell, v.man.Cell); err != nil {
			return nil, err
		}
		b, err := v.checkCell(buf, c)
		if err != nil {
			return nil, err
		}
		if b != nil {
			bad = append(bad, b)
		}
	}
	return bad, nil
}

// MendCells makes damaged cells again from their compressed form, and has fetch get those that are damaged in both; nil =
// nobody is asked. It returns how many it made again; Damaged tells what is still bad.
func (l *Library) MendCells(ctx context.Context, v *Version, bad []*BadCellError, fetch Fetch) (made int, got Fetched, err error) {
	left, err := l.RepairCells(ctx, v, bad)
	made = len(bad) - len(left)
	if err != nil || len(left) == 0 || fetch == nil {
		return made, got, err
	}
	var pieces []int
	for _, b := range left {
		if b.Piece >= 0 { // a zero cell needs nobody
			pieces = append(pieces, b.Piece)
		}
	}
	if len(pieces) > 0 {
		got = fetch(ctx, v, pieces)
	}
	return made, got, ctx.Err()
}
