package library

import (
	"context"
	"fmt"
)

// RepairCells writes damaged cells, as Verify found them, again: data cells from their compressed form where that is
// still right, zero cells as zeros. It returns those that are left: what cannot be had right stays as it is. A cell is
// written in place, only when what is written matches the signed manifest: a crash leaves it damaged at worst, and the
// next call begins anew. Verify again afterwards.
func (l *Library) RepairCells(ctx context.Context, v *Version, bad []*BadCellError) (left []*BadCellError, err error) {
	if l.key == nil {
		return bad, fmt.Errorf("repair image %s/%s: %w", v.man.Name, v.man.Version, ErrReadOnly)
	}
	check, err := newFrameCheck(v)
	if err != nil {
		return bad, err
	}
	defer check.close()
	for i, b := range bad {
		if err := ctx.Err(); err != nil {
			return append(left, bad[i:]...), err
		}
		cell := check.again(b.Piece)
		if cell == nil {
			left = append(left, b)
			continue
		}
		if err := v.rewrite(b.Cell, cell); err != nil {
			return append(left, bad[i:]...), err
		}
	}
	return left, nil
}

// again is the right content of a piece, from its frame; zeros for -1, a zero cell; nil when it cannot be had.
func (c *frameCheck) again(piece int) []byte {
	cell := make([]byte, c.v.man.Cell)
	if piece < 0 {
		return cell
	}
	ok, err := c.right(piece, nil, func(_, plain []byte) error { copy(cell, plain); return nil })
	if !ok || err != nil {
		return nil
	}
	return cell
}
