// Package frame makes and reads the zstd frame of one cell (RFC 8878): exactly
// one frame, whose declared content size is the cell's, and nothing behind it.
// The decoder works in a fixed buffer, so that hostile bytes cost no memory.
//
// It does no I/O and does not hash: the caller checks the plain cell. Called by
// images/library (import, reading) and by swarm/peer.
package frame

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// ErrFrame is wrapped by every error over bytes that are not the frame of a
// cell.
var ErrFrame = errors.New("zstd frame")

func bad(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrFrame, fmt.Sprintf(format, a...))
}

// Worth reports whether a frame of n bytes saves enough to travel in place of a
// plain cell of the given size: at least a sixteenth.
func Worth(n, cell int) bool { return n > 0 && n <= MaxLen(cell) }

// MaxLen is the length in bytes of the longest frame that may travel for a cell
// of the given size.
func MaxLen(cell int) int { return int(int64(cell) * 15 / 16) }

// Encoder makes frames. It is safe for concurrent use, but meant for one worker.
type Encoder struct{ z *zstd.Encoder }

// NewEncoder returns an encoder for cells of the given size in bytes.
func NewEncoder(cell int) (*Encoder, error) { return newEncoder(cell, level) }

// level was chosen by measurement on a Debian system of 374 cells of 1 MiB, one
// core (see docs/IMAGE-FORMAT.md).
const level = zstd.SpeedDefault

func newEncoder(cell int, l zstd.EncoderLevel) (*Encoder, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(l), zstd.WithWindowSize(window(cell)),
		zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("set up the encoder for cells of %d bytes: %w", cell, err)
	}
	return &Encoder{z}, nil
}

// window is the smallest zstd window that holds a whole cell: a power of two.
func window(cell int) int {
	w := zstd.MinWindowSize
	for w < cell {
		w *= 2
	}
	return w
}

// Encode appends the frame of a cell to dst. A cell that does not shrink becomes
// a frame of raw blocks, a few bytes longer than itself.
func (e *Encoder) Encode(dst, cell []byte) []byte { return e.z.EncodeAll(cell, dst) }

// Decoder reads frames of cells of one size. It is safe for concurrent use; one
// call works at a time.
type Decoder struct {
	cell int
	z    *zstd.Decoder
}

// NewDecoder returns a decoder for cells of the given size in bytes. Close
// releases it.
func NewDecoder(cell int) (*Decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(cell)),
		zstd.WithDecoderMaxWindow(uint64(window(cell))), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("set up the decoder for cells of %d bytes: %w", cell, err)
	}
	return &Decoder{cell: cell, z: z}, nil
}

// Close releases the decoder; it must not be used afterwards.
func (d *Decoder) Close() { d.z.Close() }

// Decode reads the frame src into dst, which must be one cell long and not
// overlap src. On an error dst holds anything.
func (d *Decoder) Decode(dst, src []byte) error {
	if len(dst) != d.cell {
		return fmt.Errorf("decode a cell of %d bytes into %d bytes", d.cell, len(dst))
	}
	if err := Check(src, d.cell); err != nil {
		return err
	}
	out, err := d.z.DecodeAll(src, dst[:0:d.cell])
	if err != nil {
		return bad("%v", err)
	}
	if len(out) != d.cell || &out[0] != &dst[0] {
		return bad("it holds %d bytes, not %d", len(out), d.cell)
	}
	return nil
}

// Bounds of the number of blocks: a million empty ones would only cost time.
const (
	minBlock  = 1 << 10 // bytes of the cell per block, on average
	minBlocks = 16
)

// Check walks the headers of src without decoding: one frame with the content
// size of a cell, no dictionary, not skippable, and its last block (with the
// checksum, if there is one) ends where src ends.
func Check(src []byte, cell int) error {
	var h zstd.Header
	if err := h.Decode(src); err != nil {
		return bad("header: %v", err)
	}
	switch {
	case h.Skippable:
		return bad("it is skippable")
	case h.DictionaryID != 0:
		return bad("it needs dictionary %d", h.DictionaryID)
	case !h.HasFCS || h.FrameContentSize != uint64(cell):
		return bad("it declares %d bytes, not %d", h.FrameContentSize, cell)
	case h.HeaderSize > len(src):
		return bad("it ends in its header")
	}
	rest, last := src[h.HeaderSize:], false
	for n := 0; !last; n++ {
		if len(rest) < 3 {
			return bad("it is cut off")
		}
		if n > cell/minBlock+minBlocks {
			return bad("it has more than %d blocks", n)
		}
		b := uint32(rest[0]) | uint32(rest[1])<<8 | uint32(rest[2])<<16 // RFC 8878, 3.1.1.2
		size := int(b >> 3)
		if b>>1&3 == 1 { // RLE: one byte, repeated
			size = 1
		}
		if last = b&1 == 1; last && h.HasCheckSum {
			size += 4
		}
		if rest = rest[3:]; len(rest) < size {
			return bad("it is cut off")
		}
		rest = rest[size:]
	}
	if len(rest) > 0 {
		return bad("%d bytes follow it", len(rest))
	}
	return nil
}
