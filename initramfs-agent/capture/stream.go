package capture

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"runtime"
	"sync"

	"labswarm/api/cells"
	"labswarm/images/manifest"
	"labswarm/images/mask"
	"labswarm/initramfs-agent/disk"
	"labswarm/swarm/frame"
)

// Bounds of what is read ahead of the network.
const (
	maxWorkers = 4         // each holds a cell and an encoder
	maxAhead   = 8         // cells that are read and not sent, and
	aheadBytes = 8 << 20   // their bytes, but for two cells
	batchBytes = 256 << 20 // of the disk per upload: the server says then how far it is
)

// Disk is what is read: disk.Captured, or memory in tests.
type Disk interface {
	Size() int64
	ReadAt(buf []byte, off int64) error
}

// Stream is the cells of a disk from one ordinal on, in their order. Its buffers do not grow with the disk. It is for
// one goroutine; Close ends its workers.
type Stream struct {
	order  chan *result // in the order of the cells, bounded
	cancel context.CancelFunc
	wg     sync.WaitGroup
	next   int // ordinal whose cell is sent next
	cell   int64

	rest []byte // of the cell that is being sent
	left int64  // bytes of the disk that this batch may still take
	note func(next int)
	err  error
	out  []byte      // whose end rest is
	free chan []byte // buffers that were sent
}

// result is one cell on its way.
type result struct {
	ord  int
	cell int64 // grid cell
	done chan struct{}
	out  []byte // head and frame
	err  error
}

// NewStream begins to read the cells with used bytes of d, from ordinal from on. base holds 32 bytes for each of them, the
// SHA-256 of a cell that the server has already; nil = none.
func NewStream(ctx context.Context, d Disk, used []manifest.Extent, cell int64, from int, base []byte) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	ahead := int(min(max(aheadBytes/cell, 2), maxAhead))
	s := &Stream{order: make(chan *result, ahead), free: make(chan []byte, ahead+1), cancel: cancel, next: from, cell: cell}
	work := make(chan *result)
	masker := mask.FromUsed(used)
	var workers []*worker
	for range min(runtime.NumCPU(), maxWorkers, ahead) {
		w, err := newWorker(d, masker, cell)
		if err != nil {
			cancel()
			return nil, err
		}
		w.base = base
		workers = append(workers, w)
	}
	for _, w := range workers {
		s.wg.Go(func() { w.run(ctx, work, s) }) // ends with work
	}
	s.wg.Go(func() { // ends with ctx or behind the last cell
		defer close(s.order)
		defer close(work)
		ord := 0
		for _, r := range manifest.TouchedCells(used, cell) {
			if n := from - ord; int64(n) >= r.Count {
				ord += int(r.Count)
				continue
			}
			for c := r.First; c < r.First+r.Count; c++ {
				if ord >= from && !s.hand(ctx, work, &result{ord: ord, cell: c, done: make(chan struct{})}) {
					return
				}
				ord++
			}
		}
	})
	return s, nil
}

// hand gives a cell to a worker and puts it in line.
func (s *Stream) hand(ctx context.Context, work chan<- *result, r *result) bool {
	select {
	case s.order <- r:
	case <-ctx.Done():
		return false
	}
	select {
	case work <- r:
		return true
	case <-ctx.Done():
		r.err = ctx.Err()
		close(r.done)
		return false
	}
}

// Next returns the ordinal of the next cell that is sent.
func (s *Stream) Next() int { return s.next }

// Err returns why the disk could not be read, nil when it could.
func (s *Stream) Err() error { return s.err }

// Close ends the reading.
func (s *Stream) Close() {
	s.cancel()
	for r := range s.order { // so that nobody waits for room
		<-r.done
	}
	s.wg.Wait()
}

// Batch begins an upload: Read ends after so many bytes of the disk that the server should be asked how far it is. note
// is told the ordinal behind each cell that is sent.
func (s *Stream) Batch(note func(next int)) { s.left, s.note = batchBytes, note }

// Read implements io.Reader over one batch.
func (s *Stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.left <= 0 {
			return 0, io.EOF
		}
		r, ok := <-s.order
		if !ok {
			return 0, io.EOF
		}
		<-r.done
		if r.err != nil {
			s.err = r.err
			continue
		}
		s.recycle(s.out)
		s.out, s.rest = r.out, r.out
		s.next = r.ord + 1
		s.note(s.next)
		s.left -= s.cell
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// recycle keeps a buffer for the next cell.
func (s *Stream) recycle(b []byte) {
	select {
	case s.free <- b:
	default:
	}
}

// buffer is one that was sent, or a new one.
func (s *Stream) buffer() []byte {
	select {
	case b := <-s.free:
		return b[:0]
	default:
		return make([]byte, 0, cells.HeadLen+s.cell/2)
	}
}

// worker reads and compresses.
type worker struct {
	d    Disk
	mask *mask.Masker
	buf  []byte
	enc  *frame.Encoder
	base []byte
}

func newWorker(d Disk, m *mask.Masker, cell int64) (*worker, error) {
	enc, err := frame.NewEncoder(int(cell))
	if err != nil {
		return nil, err
	}
	buf, err := disk.Buffer(cell)
	return &worker{d: d, mask: m, buf: buf, enc: enc}, err
}

func (w *worker) run(ctx context.Context, work <-chan *result, s *Stream) {
	defer disk.FreeBuffer(w.buf) //nolint:errcheck // only address space
	for r := range work {
		if r.err = ctx.Err(); r.err == nil {
			r.out, r.err = w.one(r, s.buffer())
		}
		close(r.done)
	}
}

// one makes what is sent of a cell: read, masked, and looked at for zeros, as the server will.
func (w *worker) one(r *result, out []byte) ([]byte, error) {
	off := r.cell * int64(len(w.buf))
	if err := w.d.ReadAt(w.buf, off); err != nil {
		return nil, err
	}
	w.mask.Mask(w.buf, off)
	if mask.IsZero(w.buf) {
		return cells.Append(out, cells.Head{Ord: r.ord}), nil
	}
	h := cells.Head{Ord: r.ord, Sum: sha256.Sum256(w.buf)}
	if at := r.ord * len(h.Sum); at+len(h.Sum) <= len(w.base) && bytes.Equal(w.base[at:at+len(h.Sum)], h.Sum[:]) {
		return cells.Append(out, h), nil
	}
	out = w.enc.Encode(cells.Append(out, h), w.buf) // the length is not known yet
	h.Len = len(out) - cells.HeadLen
	cells.Append(out[:0], h)
	return out, nil
}
