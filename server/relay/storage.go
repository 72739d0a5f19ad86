package relay

import (
	"context"
	"crypto/sha1" //nolint:gosec // BEP 3 piece hashes are SHA-1
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"labswarm/images/library"
)

// copied is a peer.Storage over a published copy. Every read is hashed; a cell
// that is wrong is reported once, and taken again when it comes.
type copied struct {
	*library.Version
	rotten chan int // pieces to fetch again

	badFrames atomic.Int32 // compressed cells found damaged; they count as missing

	mu  sync.Mutex
	bad map[int]bool
}

// Have implements peer.Storage: what is published was read back as a whole.
func (c *copied) Have(int) bool { return true }

// ReadPiece implements peer.Storage.
func (c *copied) ReadPiece(piece int, buf []byte) error {
	err := c.Version.ReadPiece(piece, buf)
	if err == nil && sha1.Sum(buf) != c.Torrent().Hashes[piece] { //nolint:gosec // see the import
		err = errors.New("it does not match its SHA-1 any more")
	}
	if err != nil {
		c.report(piece)
	}
	return err
}

// report names a damaged piece once, until it has been written again.
func (c *copied) report(piece int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bad[piece] {
		return
	}
	select {
	case c.rotten <- piece:
		if c.bad == nil {
			c.bad = map[int]bool{}
		}
		c.bad[piece] = true
	default: // the next read reports it again
	}
}

// tell is report that waits until there is room.
func (c *copied) tell(ctx context.Context, piece int) error {
	for {
		c.report(piece)
		c.mu.Lock()
		told := c.bad[piece]
		c.mu.Unlock()
		if told {
			return nil
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// WritePiece implements peer.Storage: it repairs the copy in place.
func (c *copied) WritePiece(piece int, buf []byte) error {
	if err := c.Repair(piece, buf); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.bad, piece)
	return nil
}

// Frame implements peer.FrameSource. A frame whose checksum is wrong counts as
// missing: the piece travels plain.
func (c *copied) Frame(piece int, buf []byte) ([]byte, bool) {
	b, ok, err := c.Version.Frame(piece, buf)
	if err != nil {
		c.badFrames.Add(1) // the version says so once
	}
	return b, ok && err == nil
}
