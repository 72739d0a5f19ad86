// Package cells is the stream in which a terminal sends the cells of its disk to the server while it is captured
// (docs/PROTOCOL.md, "Capture"). Both ends use it. It bounds what it reads and allocates nothing per cell; what a cell
// holds is judged by the receiver.
package cells

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// HeadLen is the length in bytes of what stands before each frame: u32 ordinal, u32 length of the frame, SHA-256 of the
// masked cell. Numbers are little-endian.
const HeadLen = 4 + 4 + 32

// MaxFrame is the longest frame of a cell of the given size, both in bytes: that of a cell that does not shrink, with
// room for its block headers.
func MaxFrame(cell int) int { return cell + cell/1024 + 64 }

// Head describes one cell. One without a frame is all zero, or, with a hash, that of the base at the same place.
type Head struct {
	Ord int      // place among the cells with used bytes, in disk order
	Len int      // bytes of the zstd frame that follows; 0 = none travels
	Sum [32]byte // SHA-256 of the masked cell; zero for a zero cell
}

// Append appends the encoded head to dst.
func Append(dst []byte, h Head) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.Ord))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.Len))
	return append(dst, h.Sum[:]...)
}

// ErrStream is wrapped by errors over bytes that are no such stream.
var ErrStream = errors.New("stream of cells")

// Reader reads a stream. It is for one goroutine.
type Reader struct {
	r    io.Reader
	head [HeadLen]byte
	buf  []byte
}

// NewReader reads cells of the given size in bytes from r.
func NewReader(r io.Reader, cell int) *Reader {
	return &Reader{r: r, buf: make([]byte, MaxFrame(cell))}
}

// Next returns the next cell's head and frame, which is good until the next call. io.EOF stands for the end between two
// cells; a stream that breaks in a cell is io.ErrUnexpectedEOF.
func (r *Reader) Next() (Head, []byte, error) {
	if _, err := io.ReadFull(r.r, r.head[:]); err != nil {
		return Head{}, nil, err
	}
	n := binary.LittleEndian.Uint32(r.head[4:])
	h := Head{Ord: int(binary.LittleEndian.Uint32(r.head[:])), Len: int(n), Sum: [32]byte(r.head[8:])}
	if int64(n) > int64(len(r.buf)) {
		return h, nil, fmt.Errorf("%w: cell %d has a frame of %d bytes, at most %d", ErrStream, h.Ord, n, len(r.buf))
	}
	if _, err := io.ReadFull(r.r, r.buf[:n]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return h, nil, err
	}
	return h, r.buf[:n], nil
}
