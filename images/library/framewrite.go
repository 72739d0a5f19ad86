package library

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"labswarm/swarm/frame"
)

// The frame store (docs/IMAGE-FORMAT.md) and the layout of its index, which is a skippable frame at its end (RFC 8878,
// 3.1.2): one file can be replaced in one step.
const (
	framesFile  = "frames.zst"
	skipMagic   = 0x184D2A5E
	skipHead    = 8
	frameMagic  = "LSWFRM2\x00"
	frameHead   = 8 + 4 + 4 + 32
	frameEntry  = 16
	frameDigest = 32

	aheadBytes = 16 << 20 // of cells that may be ready before their turn, at least: small cells must not stall the workers
)

// trailerLen is the length of everything behind the frames of n pieces.
func trailerLen(n int) int { return skipHead + frameHead + n*frameEntry + frameDigest }

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// frameWriter writes the frames of data cells in the order of the cells, while workers bring them in any order.
type frameWriter struct {
	f     *os.File
	cell  int64
	encs  chan *frame.Encoder
	ahead int64 // how far a worker may be ahead of the oldest cell missing

	mu    sync.Mutex
	next  int64            // cell, by ordinal, whose frame is written next
	early map[int64][]byte // frames that wait for it; nil for a cell without
	moved chan struct{}    // closed when next has grown
	off   int64
	index []byte // entries
}

func newFrameWriter(dir string, cell int64) (*frameWriter, error) {
	workers := runtime.GOMAXPROCS(0)
	w := &frameWriter{cell: cell, encs: make(chan *frame.Encoder, workers), ahead: max(int64(4*workers), aheadBytes/cell),
		early: map[int64][]byte{}, moved: make(chan struct{})}
	for range workers {
		e, err := frame.NewEncoder(int(cell))
		if err != nil {
			return nil, err
		}
		w.encs <- e
	}
	var err error
	w.f, err = os.OpenFile(filepath.Join(dir, framesFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return w, err
}

// add takes the cell with ordinal ord; nil: it is no data cell. It waits while too many cells before it are missing.
// Every ordinal from 0 must be added once, or ctx must end.
func (w *frameWriter) add(ctx context.Context, ord int64, cell []byte) error {
	if err := w.wait(ctx, ord); err != nil {
		return err
	}
	var b []byte
	if cell != nil {
		e := <-w.encs
		b = e.Encode(make([]byte, 0, w.cell/2), cell)
		w.encs <- e
	}
	return w.put(ord, b)
}

// keep takes the frame of the cell with ordinal ord, made earlier, in place of add.
func (w *frameWriter) keep(ctx context.Context, ord int64, b []byte) error {
	if err := w.wait(ctx, ord); err != nil {
		return err
	}
	return w.put(ord, b)
}

func (w *frameWriter) put(ord int64, b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.early[ord] = b
	grown := false
	for {
		b, ok := w.early[w.next]
		if !ok {
			break
		}
		delete(w.early, w.next)
		w.next++
		grown = true
		if b == nil {
			continue
		}
		if _, err := w.f.WriteAt(b, w.off); err != nil {
			return err
		}
		w.entry(len(b), crc32.Checksum(b, castagnoli()))
	}
	if grown {
		close(w.moved)
		w.moved = make(chan struct{})
	}
	return nil
}

// entry takes the frame that was written at off into the index.
func (w *frameWriter) entry(n int, crc uint32) {
	w.index = binary.LittleEndian.AppendUint64(w.index, uint64(w.off))
	w.index = binary.LittleEndian.AppendUint32(w.index, uint32(n))
	w.index = binary.LittleEndian.AppendUint32(w.index, crc)
	w.off += int64(n)
}

func (w *frameWriter) wait(ctx context.Context, ord int64) error {
	for {
		w.mu.Lock()
		ok, moved := ord < w.next+w.ahead, w.moved
		w.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// finish writes the index for the manifest with the given digest, syncs and closes the file.
func (w *frameWriter) finish(digest [32]byte) error {
	_, err := w.f.WriteAt(w.trailer(digest), w.off)
	if err == nil {
		err = w.f.Sync()
	}
	return errors.Join(err, w.f.Close())
}

// trailer is what stands behind the frames.
func (w *frameWriter) trailer(digest [32]byte) []byte {
	n := len(w.index) / frameEntry
	b := make([]byte, 0, trailerLen(n))
	b = binary.LittleEndian.AppendUint32(b, skipMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(trailerLen(n)-skipHead))
	b = append(b, frameMagic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(w.cell))
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	b = append(b, digest[:]...)
	b = append(b, w.index...)
	sum := sha256.Sum256(b[skipHead:])
	return append(b, sum[:]...)
}

// installFrames makes the frame store in dir that of the version in folder to, in one step: whatever happens, there is the
// old store or the new one.
func installFrames(dir, to string) error {
	if err := os.Rename(filepath.Join(dir, framesFile), filepath.Join(to, framesFile)); err != nil {
		return err
	}
	return syncDir(to)
}
