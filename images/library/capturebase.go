package library

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"labswarm/swarm/frame"
)

// maxBaseCells bounds the list of hashes that a terminal is given: 32 MiB, which is 1 TiB of disk in cells of 1 MiB.
const maxBaseCells = 1 << 20

// openBase opens the version whose cells a terminal need not send. It must be of the same image.
func (c *Capture) openBase() error {
	if c.opt.Base == "" || c.total > maxBaseCells {
		return nil
	}
	v, err := c.lib.Get(c.opt.Name, c.opt.Base)
	if err != nil {
		return fmt.Errorf("its base: %w", err)
	}
	if v.man.Cell != c.cell {
		return errors.Join(fmt.Errorf("its base %s has cells of %d bytes, not of %d", c.opt.Base, v.man.Cell, c.cell), v.Close())
	}
	if c.base, err = newBase(v, true); err != nil {
		return errors.Join(err, v.Close())
	}
	return nil
}

// BaseHashes returns what the terminal compares its cells with: 32 bytes for each cell that is to come, from ordinal 0,
// the SHA-256 of the base's cell at the same place, or zeros where it has none; nil without a base.
func (c *Capture) BaseHashes() []byte {
	if c.base == nil {
		return nil
	}
	out := make([]byte, 0, sha256.Size*c.total)
	for _, r := range c.runs {
		for g := r.First; g < r.First+r.Count; g++ {
			var sum [sha256.Size]byte
			if p, ok := c.base.v.man.PieceOf(g); ok {
				sum = c.base.v.man.PieceSHA256(p)
			}
			out = append(out, sum[:]...)
		}
	}
	return out
}

// BaseVersion is the version that BaseHashes are of; "" for none.
func (c *Capture) BaseVersion() string { return c.base.version() }

// fromBase reads cell g from the base into c.buf and returns its frame. The terminal says that it has the hash sum: the
// base's manifest must say so too, and its bytes are hashed once more.
func (c *Capture) fromBase(g int64, sum [sha256.Size]byte) ([]byte, error) {
	piece := c.base.piece(g, sum)
	if piece < 0 {
		return nil, fmt.Errorf("%w: cell %d is said to equal a base's, which has none like it", ErrCaptured, g)
	}
	if err := c.base.v.ReadVerified(piece, c.buf); err != nil {
		return nil, fmt.Errorf("the base %s/%s is damaged (`labswarm image verify --repair` looks at it; capture without --base does not need it): %w", c.opt.Name, c.base.version(), err)
	}
	if b := c.base.frame(piece, c.buf); b != nil {
		return b, nil
	}
	if c.enc == nil {
		var err error
		if c.enc, err = frame.NewEncoder(int(c.cell)); err != nil {
			return nil, err
		}
	}
	return c.enc.Encode(nil, c.buf), nil
}

// writeShared puts a cell of the base into disk.raw: the same blocks where the file system can (ioctl_ficlonerange(2)),
// else a copy. n is the cell's length in the disk.
func (c *Capture) writeShared(off, n int64) error {
	err := unix.IoctlFileCloneRange(int(c.raw.Fd()), &unix.FileCloneRange{Src_fd: int64(c.base.v.raw.Fd()), Src_offset: uint64(off), Src_length: uint64(n), Dest_offset: uint64(off)})
	if err == nil {
		return nil
	}
	return writeSparse(c.raw, c.buf[:n], off)
}
