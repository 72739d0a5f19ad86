package library

import (
	"cmp"
	"context"
	"crypto/sha1" // pieces of a BitTorrent v1 file are SHA-1
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"labswarm/images/manifest"
	"labswarm/images/mask"
)

// Result is what Verify found. Sizes are bytes.
type Result struct {
	DataCells int             // data cells read and hashed
	ZeroCells int64           // zero cells checked
	Bytes     int64           // bytes hashed
	Bad       []*BadCellError // damaged cells, ascending

	Frames    int     // compressed cells that are right
	BadFrames []int64 // cells whose compressed form is damaged or missing, ascending; they travel plain
	FramesErr error   // why there are no compressed cells at all though there should be
}

// OK tells whether no damaged cell was found. Compressed cells do not count: without them the image travels plain.
func (r Result) OK() bool { return len(r.Bad) == 0 }

// Quarantine says why no job may use the version, "" when it may.
func (r Result) Quarantine() string {
	if r.OK() {
		return ""
	}
	return fmt.Sprintf("%d cells are damaged in the store, the first is cell %d", len(r.Bad), r.Bad[0].Cell)
}

// FramesOK tells whether the compressed cells are as they should be.
func (r Result) FramesOK() bool { return len(r.BadFrames) == 0 && r.FramesErr == nil }

// Verify reads the whole version again and compares every data cell with the SHA-256 of the signed manifest and the
// SHA-1 of the torrent, every zero cell with zero, and every compressed cell with its plain one. Damaged cells are in
// the result; an error means that it could not be done. progress may be nil. Opening the version has checked signature,
// manifest and torrent already.
func (v *Version) Verify(ctx context.Context, progress func(Progress)) (Result, error) {
	return v.verifyAll(ctx, progress, nil)
}

// gate is asked before a stretch of disk.raw is read: it may wait.
type gate func(ctx context.Context, off, n int64) error

// verifyAll is Verify behind a gate; nil = none.
func (v *Version) verifyAll(ctx context.Context, progress func(Progress), g gate) (Result, error) {
	if v.frames == nil {
		res, err := v.verify(ctx, progress, g, func(context.Context, int64, []byte) error { return nil })
		res.FramesErr = v.framesErr
		return res, err
	}
	check, err := newFrameCheck(v)
	if err != nil {
		return Result{}, err
	}
	defer check.close()
	res, err := v.verify(ctx, progress, g, check.cell)
	check.into(&res)
	return res, err
}

// matches tells whether cell is what manifest and torrent say of a piece.
func (v *Version) matches(piece int, cell []byte) bool {
	return sha1.Sum(cell) == v.tor.Hashes[piece] && sha256.Sum256(cell) == v.man.PieceSHA256(piece)
}

// verify is Verify that hands every data cell on with its ordinal, masked; nil for a damaged one. Cells come from
// several goroutines.
func (v *Version) verify(ctx context.Context, progress func(Progress), g gate, each func(ctx context.Context, ord int64, cell []byte) error) (Result, error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	data, err := dataRanges(v.raw, v.man.Disk.Size)
	if err != nil {
		return Result{}, fmt.Errorf("verify image %s/%s: %w", v.man.Name, v.man.Version, err)
	}
	// A zero cell that is a hole is zero; only those with something on disk need reading.
	var runs []manifest.Run
	allocated := mask.FromUsed(data)
	pieces := v.man.Pieces()
	for _, r := range v.man.Zero {
		for c := r.First; c < r.First+r.Count; c++ {
			if allocated.Touches(c*v.man.Cell, v.man.Cell) {
				runs = manifest.AppendCell(runs, c)
			}
		}
	}
	rep := newReporter("verify", v.man.ShippedBytes()+countCells(runs)*v.man.Cell, progress)
	var mu sync.Mutex
	res := Result{DataCells: pieces, ZeroCells: v.man.ZeroCount(), Bytes: v.man.ShippedBytes()}
	check := func(ctx context.Context, buf []byte, cell int64) ([]byte, error) {
		if g != nil {
			if err := g(ctx, cell*v.man.Cell, v.man.Cell); err != nil {
				return nil, err
			}
		}
		bad, err := v.checkCell(buf, cell)
		if err != nil {
			return nil, err
		}
		if bad != nil {
			mu.Lock()
			res.Bad = append(res.Bad, bad)
			mu.Unlock()
			buf = nil
		}
		rep.add(v.man.Cell)
		return buf, nil
	}
	err = eachCell(ctx, v.man.Cells, v.man.Cell, func(ctx context.Context, buf []byte, cell, ord int64) error {
		buf, err := check(ctx, buf, cell)
		if err != nil {
			return err
		}
		return each(ctx, ord, buf)
	})
	if err == nil {
		err = eachCell(ctx, runs, v.man.Cell, func(ctx context.Context, buf []byte, cell, _ int64) error {
			_, err := check(ctx, buf, cell)
			return err
		})
	}
	if err != nil {
		return Result{}, fmt.Errorf("verify image %s/%s: %w", v.man.Name, v.man.Version, err)
	}
	slices.SortFunc(res.Bad, func(a, b *BadCellError) int { return cmp.Compare(a.Cell, b.Cell) })
	return res, nil
}

func (v *Version) checkCell(buf []byte, cell int64) (*BadCellError, error) {
	piece, isData := v.man.PieceOf(cell)
	if !isData {
		piece = -1
	}
	if err := v.readCell(cell, buf); err != nil {
		if errors.Is(err, syscall.EIO) {
			return v.bad(cell, piece, "the server's disk cannot read it"), nil
		}
		return nil, err
	}
	state, err := v.masker.CheckCell(buf, cell)
	switch {
	case err != nil:
		return nil, err
	case state != mask.Match && isData:
		return v.bad(cell, piece, "it does not match its SHA-256"), nil
	case state != mask.Match:
		return v.bad(cell, piece, "it should be zero"), nil
	case isData && sha1.Sum(buf) != v.tor.Hashes[piece]:
		return v.bad(cell, piece, "it does not match its SHA-1"), nil
	}
	return nil, nil
}

// Allocated returns the bytes the version takes on the server's disk. Blocks shared with other versions are counted too.
func (v *Version) Allocated() (n int64, err error) {
	err = filepath.WalkDir(v.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			n += sys.Blocks * 512
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure image %s/%s: %w", v.man.Name, v.man.Version, err)
	}
	return n, nil
}
