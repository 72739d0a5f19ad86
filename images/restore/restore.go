// Package restore writes an image version to a file the way the agent writes a disk: zero cells, data cells, backup
// table, primary table last.
//
// It exists for round-trip tests and for looking at an image with other tools. It writes regular files only: a disk
// is written by the agent alone, under a signed order.
package restore

import (
	"context"
	"errors"
	"fmt"
	"os"

	"labswarm/images/fsmap/part"
	"labswarm/images/library"
	"labswarm/images/manifest"
	"labswarm/images/mask"
)

// ToFile writes a version over the content of a regular file, whose size is the size of the target disk in bytes.
// Bytes the image does not use keep what they held where their whole cell is free, and become zero elsewhere.
func ToFile(ctx context.Context, v *library.Version, f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("restore image: %w", err)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("restore image: %q is not a regular file", f.Name())
	}
	m := v.Manifest()
	if st.Size() < m.Disk.MinSize {
		return fmt.Errorf("restore image to %q: %w", f.Name(), &part.SizeError{Need: m.Disk.MinSize, Have: st.Size()})
	}
	if err := writeCells(ctx, v, f, st.Size()); err != nil {
		return fmt.Errorf("restore image to %q: %w", f.Name(), err)
	}
	return writeTables(v, f, st.Size())
}

func writeTables(v *library.Version, f *os.File, size int64) error {
	primary, backup, err := Tables(v, size)
	if err != nil {
		return fmt.Errorf("restore image to %q: %w", f.Name(), err)
	}
	if _, err := f.WriteAt(backup, size-int64(len(backup))); err != nil {
		return fmt.Errorf("restore image to %q: %w", f.Name(), err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("restore image to %q: %w", f.Name(), err)
	}
	if _, err := f.WriteAt(primary, 0); err != nil {
		return fmt.Errorf("restore image to %q: %w", f.Name(), err)
	}
	return f.Sync()
}

// Tables computes the partition tables of a version for a disk of size bytes, from its cell 0 as the agent has it.
func Tables(v *library.Version, size int64) (primary, backup []byte, err error) {
	m := v.Manifest()
	buf := make([]byte, m.Cell)
	piece, ok := m.PieceOf(0)
	if !ok {
		return nil, nil, errors.New("the image has no cell 0")
	}
	if err := v.ReadPiece(piece, buf); err != nil {
		return nil, nil, err
	}
	l, err := part.LayoutFor(m, buf, size)
	if err != nil {
		return nil, nil, err
	}
	return l.Primary, l.Backup, nil
}

func writeCells(ctx context.Context, v *library.Version, f *os.File, size int64) error {
	m := v.Manifest()
	buf := make([]byte, m.Cell)
	for cell := range m.ZeroCells() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := writeAt(f, buf, cell*m.Cell, size); err != nil {
			return err
		}
	}
	for i := range m.Pieces() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := v.ReadPiece(i, buf); err != nil {
			return err
		}
		if err := writeAt(f, buf, m.CellOf(i)*m.Cell, size); err != nil {
			return err
		}
	}
	return nil
}

// writeAt cuts a last cell that hangs over the end of the disk.
func writeAt(f *os.File, buf []byte, off, size int64) error {
	_, err := f.WriteAt(buf[:min(int64(len(buf)), size-off)], off)
	return err
}

// Check reads a restored file back the way the agent does and returns the grid cells that are not the image's.
// On a disk of another size the table in cell 0 is fitted to the image's size before it is compared.
func Check(ctx context.Context, m *manifest.Manifest, f *os.File) (bad []int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("check restored image: %w", err)
	}
	masker := mask.New(m)
	buf := make([]byte, m.Cell)
	for cell := range m.GridCells() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		off := cell * m.Cell
		if off >= st.Size() {
			break // beyond the target, and so beyond every partition
		}
		if !masker.Touches(off, m.Cell) {
			continue
		}
		clear(buf)
		if n, err := f.ReadAt(buf[:min(m.Cell, st.Size()-off)], off); err != nil {
			return nil, fmt.Errorf("check restored image at byte %d: %w", off+int64(n), err)
		}
		if cell == 0 && st.Size() != m.Disk.Size {
			// An unreadable table leaves the buffer alone, and the hash then tells.
			_ = part.Unfit(m, buf, st.Size())
		}
		state, err := masker.CheckCell(buf, cell)
		if err != nil {
			return nil, err
		}
		if state == mask.Differs {
			bad = append(bad, cell)
		}
	}
	return bad, nil
}
