package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"labswarm/images/mask"
	"labswarm/internal/units"
)

// work is the raw disk under construction.
type work struct {
	*os.File
	ctx context.Context
	opt Options

	mu   sync.Mutex
	last time.Time // when Room was asked
	full error     // what it said
}

// newWork makes a sparse file in o.Dir that no name leads to: the kernel frees it when the last program closes it.
func newWork(ctx context.Context, o Options) (*work, error) {
	f, err := os.OpenFile(o.Dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) { // not every file system can
		if f, err = os.CreateTemp(o.Dir, ".tmp-work-"); err == nil {
			err = os.Remove(f.Name())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make a work file: %w", err)
	}
	return &work{File: f, ctx: ctx, opt: o}, nil
}

// TooBigError means that a source unpacks to more than Options.MaxSize. Sizes are bytes.
type TooBigError struct {
	File      string
	Size, Max int64 // Size 0 = unknown
}

func (e *TooBigError) Error() string {
	how := "unpacks to more than"
	if e.Size > 0 {
		how = fmt.Sprintf("is a disk of %s, more than the", units.FormatBytes(e.Size))
	}
	return fmt.Sprintf("%q %s %s that are allowed; --max-size allows more", e.File, how, units.FormatBytes(e.Max))
}

// resize sets the length of the disk.
func (w *work) resize(file string, size int64) error {
	if size > w.opt.MaxSize {
		return &TooBigError{File: file, Size: size, Max: w.opt.MaxSize}
	}
	return w.Truncate(size)
}

// progress passes on bytes read from the source.
func (w *work) progress(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n > 0 && w.opt.Progress != nil {
		w.opt.Progress(n)
	}
}

const roomEvery = 100 * time.Millisecond // between two questions for room

// room asks now and then whether there is room to go on.
func (w *work) room() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.full == nil && time.Since(w.last) >= roomEvery {
		w.last = time.Now()
		w.full = w.opt.Room()
	}
	return w.full
}

// cause returns why the work ended, when err is only what followed from it.
func (w *work) cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if full := w.opt.Room(); full != nil {
		return full
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.full != nil {
		return w.full
	}
	return err
}

const (
	holeGrain = 64 << 10 // zero blocks of this size are left out
	copyBlock = 1 << 20
)

// copyIn writes at most limit bytes of r at off and returns how many came. Zero blocks stay holes: the place must be empty.
func (w *work) copyIn(r io.Reader, off, limit int64) (n int64, err error) {
	buf := make([]byte, copyBlock)
	for n < limit {
		if err := w.ctx.Err(); err != nil {
			return n, err
		}
		if err := w.room(); err != nil {
			return n, err
		}
		k, err := fill(r, buf[:min(copyBlock, limit-n)])
		if err2 := w.writeSparse(buf[:k], off+n); err2 != nil {
			return n, err2
		}
		n += int64(k)
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// fill reads until b is full or r ends, and returns r's own error: io.ReadFull would make a stream that is cut off and a
// last short block the same.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = r.Read(b[n:])
		n += k
	}
	if n == len(b) {
		err = nil
	}
	return n, err
}

// writeError means that the work file could not be written.
type writeError struct{ err error }

func (e *writeError) Error() string { return "write the work file: " + e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

func isWrite(err error) bool {
	var w *writeError
	return errors.As(err, &w)
}

// writeSparse writes b at off without its zero blocks.
func (w *work) writeSparse(b []byte, off int64) error {
	zero := func(i int) bool { return mask.IsZero(b[i:min(i+holeGrain, len(b))]) }
	for i := 0; i < len(b); {
		if zero(i) {
			i += holeGrain
			continue
		}
		k := i
		for k < len(b) && !zero(k) {
			k = min(k+holeGrain, len(b))
		}
		if _, err := w.WriteAt(b[i:k], off+int64(i)); err != nil {
			return &writeError{err}
		}
		i = k
	}
	return nil
}
