package library

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"labswarm/images/manifest"
)

// base is the version that a new one is made on: its disk.raw is shared where the file system can, its compressed cells
// are copied. It saves room and time and is never believed: what is taken from it is compared with the cell just read.
type base struct {
	v      *Version
	check  *frameCheck // nil: it has no compressed cells, or none are wanted
	cloned bool        // disk.raw began as a clone of the base's
	bufs   sync.Pool   // *[]byte of one cell
}

// newBase wraps the newest version; nil stays nil.
func newBase(v *Version, frames bool) (*base, error) {
	if v == nil {
		return nil, nil
	}
	b := &base{v: v}
	b.bufs.New = func() any { buf := make([]byte, v.man.Cell); return &buf }
	if frames && v.frames != nil {
		var err error
		if b.check, err = newFrameCheck(v); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *base) close() error {
	if b == nil {
		return nil
	}
	if b.check != nil {
		b.check.close()
	}
	return b.v.Close()
}

// version names the base in a manifest.
func (b *base) version() string {
	if b == nil {
		return ""
	}
	return b.v.man.Version
}

// clone makes raw share all blocks of the base's disk.raw (ioctl_ficlone(2): XFS, Btrfs and others). Where the file
// system cannot, raw stays empty and is written from the source.
func (b *base) clone(raw *os.File) error {
	if b == nil {
		return nil
	}
	err := unix.IoctlFileClone(int(raw.Fd()), int(b.v.raw.Fd()))
	switch {
	case err == nil:
		b.cloned = true
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENOSYS):
	default:
		return &os.PathError{Op: "clone", Path: filepath.Join(b.v.dir, rawFile), Err: err}
	}
	return nil
}

// piece returns the base's piece of the same content, as its manifest has it; -1 when there is none.
func (b *base) piece(cell int64, sum [sha256.Size]byte) int {
	if b == nil {
		return -1
	}
	if p, ok := b.v.man.PieceOf(cell); ok && b.v.man.PieceSHA256(p) == sum {
		return p
	}
	return -1
}

// write puts a data cell into raw. buf is the cell as far as it lies in the disk, piece the base's of the same content.
func (b *base) write(raw *os.File, buf []byte, off int64, piece int) error {
	if b == nil || !b.cloned {
		return writeSparse(raw, buf, off)
	}
	if piece >= 0 {
		have := b.bufs.Get().(*[]byte)
		defer b.bufs.Put(have)
		// The base's disk.raw may have rotted, or end earlier: only what is there counts.
		if n, _ := raw.ReadAt((*have)[:len(buf)], off); n == len(buf) && bytes.Equal((*have)[:n], buf) {
			return nil
		}
	}
	if err := punch(raw, off, int64(len(buf))); err != nil {
		return err
	}
	return writeSparse(raw, buf, off)
}

// frame returns the base's compressed form of a cell; nil when there is none that is right.
func (b *base) frame(piece int, cell []byte) []byte {
	if b == nil || b.check == nil || piece < 0 {
		return nil
	}
	var out []byte
	ok, err := b.check.right(piece, cell, func(f, _ []byte) error { out = bytes.Clone(f); return nil })
	if !ok || err != nil {
		return nil
	}
	return out
}

// trim makes holes of everything in a cloned raw of size bytes that is not in data, cells of the given size.
func (b *base) trim(raw *os.File, data []manifest.Run, cell, size int64) error {
	if b == nil || !b.cloned {
		return nil
	}
	at := int64(0)
	for _, r := range data {
		if err := punch(raw, at, r.First*cell-at); err != nil {
			return err
		}
		at = (r.First + r.Count) * cell
	}
	return punch(raw, at, size-at)
}

// punch makes a hole. off and n are bytes; nothing happens for n <= 0.
func punch(f *os.File, off, n int64) error {
	if n <= 0 {
		return nil
	}
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return &os.PathError{Op: "punch hole", Path: f.Name(), Err: err}
		}
	}
}
