package library

import (
	"context"
	"crypto/sha1" // pieces of a BitTorrent v1 file are SHA-1
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"labswarm/images/manifest"
	"labswarm/images/mask"
)

// cellSums are the results of reading all cells, in ascending order of the data cells.
type cellSums struct {
	data   []manifest.Run
	zero   []manifest.Run
	sha1   [][20]byte
	sha256 []byte
}

// cellQueue hands out the cells of a run list in ascending order, with their ordinal.
type cellQueue struct {
	mu   sync.Mutex
	runs []manifest.Run
	next int64 // within runs[0]
	ord  int64
}

func (q *cellQueue) take() (cell, ord int64, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.runs) == 0 {
		return 0, 0, false
	}
	cell, ord = q.runs[0].First+q.next, q.ord
	q.next++
	q.ord++
	if q.next == q.runs[0].Count {
		q.runs, q.next = q.runs[1:], 0
	}
	return cell, ord, true
}

// eachCell calls f for every cell of runs on all cores. Each worker has a buffer of one cell.
func eachCell(ctx context.Context, runs []manifest.Run, cell int64, f func(ctx context.Context, buf []byte, cell, ord int64) error) error {
	q := &cellQueue{runs: runs}
	g, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			buf := make([]byte, cell)
			for {
				c, ord, ok := q.take()
				if !ok {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := f(ctx, buf, c, ord); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// newRaw makes disk.raw of size bytes in dir, a clone of the base's where the file system can, if there is room for need
// bytes. How much of a clone changes, nobody knows yet.
func (j *importJob) newRaw(dir string, size, need int64) (*os.File, error) {
	raw, err := os.OpenFile(filepath.Join(dir, rawFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err = j.base.clone(raw); err == nil {
		err = raw.Truncate(size)
	}
	if err == nil && (j.base == nil || !j.base.cloned) {
		err = j.lib.checkSpace(need)
	}
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return raw, nil
}

// copyCells reads every used byte of the source once: masked, hashed and written to disk.raw in dir.
func (j *importJob) copyCells(ctx context.Context, dir string) (err error) {
	raw, err := j.newRaw(dir, j.src.size, manifest.Sum(j.work))
	if err != nil {
		return err
	}
	defer func() { err = closeInto(err, raw.Close()) }()
	room := j.lib.newRoom(manifest.Sum(j.work))
	if j.frames, err = j.newFrames(dir); err != nil {
		return err
	}
	touched := manifest.TouchedCells(j.work, j.cell)
	n := countCells(touched)
	sha1s, sha256s, isData := make([][20]byte, n), make([][32]byte, n), make([]bool, n)
	masker := mask.FromUsed(j.plan.used)
	span := mask.FromUsed(j.work)
	rep := newReporter("copy", n*j.cell, j.opt.Progress)
	err = eachCell(ctx, touched, j.cell, func(ctx context.Context, buf []byte, cell, ord int64) error {
		off := cell * j.cell
		if err := j.readSpan(span, buf, off); err != nil {
			return err
		}
		masker.Mask(buf, off)
		piece := -1 // the base's, of the same content
		if !mask.IsZero(buf) {
			isData[ord], sha1s[ord], sha256s[ord] = true, sha1.Sum(buf), sha256.Sum256(buf)
			piece = j.base.piece(cell, sha256s[ord])
			if err := j.base.write(raw, buf[:min(j.cell, j.src.size-off)], off, piece); err != nil {
				return err
			}
		} else {
			buf = nil
		}
		if err := j.addFrame(ctx, ord, buf, piece); err != nil {
			return err
		}
		rep.add(j.cell)
		if piece >= 0 && j.base.cloned {
			return nil
		}
		return room.take(j.cell)
	})
	if err != nil {
		return err
	}
	j.collect(touched, isData, sha1s, sha256s)
	if err := j.base.trim(raw, j.sums.data, j.cell, j.src.size); err != nil {
		return err
	}
	return j.syncFiles(raw, rep)
}

// addFrame adds the compressed form of a cell; nil: it is no data cell. That of the base's piece is taken where there is one.
func (j *importJob) addFrame(ctx context.Context, ord int64, cell []byte, piece int) error {
	if j.frames == nil {
		return nil
	}
	if f := j.base.frame(piece, cell); f != nil {
		return j.frames.keep(ctx, ord, f)
	}
	return j.frames.add(ctx, ord, cell)
}

func (j *importJob) syncFiles(raw *os.File, rep *reporter) error {
	j.opt.Progress(Progress{Phase: "sync", Done: rep.done, Total: rep.total})
	if j.frames != nil {
		if err := j.frames.f.Sync(); err != nil {
			return err
		}
	}
	return raw.Sync()
}

// newFrames starts the frame store, unless it is not wanted or there may be no room for it: frames only save time.
func (j *importJob) newFrames(dir string) (*frameWriter, error) {
	if j.opt.Codec != CodecZstd {
		return nil, nil
	}
	var full *NoSpaceError
	need := 2 * manifest.Sum(j.work)
	if j.base != nil && j.base.cloned {
		need /= 2
	}
	if err := j.lib.checkSpace(need); errors.As(err, &full) {
		j.opt.Warn("no room for compressed cells beside the image: its cells will travel uncompressed")
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return newFrameWriter(dir, j.cell)
}

// readSpan fills buf with the cell at off, reading from its first to its last wanted byte in one go.
func (j *importJob) readSpan(span *mask.Masker, buf []byte, off int64) error {
	first, end := int64(-1), int64(0)
	span.Each(off, int64(len(buf)), func(o, n int64) {
		if first < 0 {
			first = o
		}
		end = o + n
	})
	if first < 0 {
		clear(buf)
		return nil
	}
	clear(buf[:first-off])
	clear(buf[end-off:])
	n, err := j.src.ReadAt(buf[first-off:end-off], first)
	if int64(n) == end-first {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %q at byte %d: %w", j.src.path, first+int64(n), err)
}

const (
	holeGrain = 4 << 10  // zero test by pages: smaller holes save nothing
	holeMin   = 64 << 10 // shorter zero ranges are written; holes cost metadata
)

// writeSparse writes buf at off, leaving zero ranges of holeMin and more as holes.
func writeSparse(f *os.File, buf []byte, off int64) error {
	start, end := -1, 0 // the pending stretch of content
	flush := func() error {
		if start < 0 {
			return nil
		}
		if _, err := f.WriteAt(buf[start:end], off+int64(start)); err != nil {
			return err
		}
		// Start the disk now, so that the fsync at the end finds little to do. Only a hint.
		_ = unix.SyncFileRange(int(f.Fd()), off+int64(start), int64(end-start), unix.SYNC_FILE_RANGE_WRITE)
		start = -1
		return nil
	}
	for i := 0; i < len(buf); i += holeGrain {
		k := min(i+holeGrain, len(buf))
		if mask.IsZero(buf[i:k]) {
			continue
		}
		if start >= 0 && i-end >= holeMin {
			if err := flush(); err != nil {
				return err
			}
		}
		if start < 0 {
			start = i
		}
		end = k
	}
	return flush()
}

// collect turns the per-cell results into the manifest's lists. A used cell that is not data is a zero cell.
func (j *importJob) collect(touched []manifest.Run, isData []bool, sha1s [][20]byte, sha256s [][32]byte) {
	s := cellSums{data: []manifest.Run{}, zero: []manifest.Run{}}
	ord := 0
	for _, r := range touched {
		for c := r.First; c < r.First+r.Count; c++ {
			if isData[ord] {
				s.data = manifest.AppendCell(s.data, c)
				s.sha1 = append(s.sha1, sha1s[ord])
				s.sha256 = append(s.sha256, sha256s[ord][:]...)
			}
			ord++
		}
	}
	s.zero = append(s.zero, subtract(manifest.TouchedCells(j.plan.used, j.cell), s.data)...)
	j.sums = s
}

// subtract returns the cells of a that are not in b; b is a subset of a.
func subtract(a, b []manifest.Run) []manifest.Run {
	var out []manifest.Run
	k := 0
	for _, r := range a {
		at, end := r.First, r.First+r.Count
		for ; k < len(b) && b[k].First < end; k++ {
			if b[k].First > at {
				out = append(out, manifest.Run{First: at, Count: b[k].First - at})
			}
			at = b[k].First + b[k].Count
		}
		if at < end {
			out = append(out, manifest.Run{First: at, Count: end - at})
		}
	}
	return out
}
