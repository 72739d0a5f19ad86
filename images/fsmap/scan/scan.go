// Package scan holds what the used-map readers share: exact reads, runs of set bits and a bounded list of extents.
// Only the packages beside it use it.
package scan

import (
	"errors"
	"fmt"
	"io"
	"math/bits"

	"labswarm/images/manifest"
)

// ErrUnsupported means that a filesystem is in order but of a form the reader does not know. The caller then counts
// the whole partition as used.
var ErrUnsupported = errors.New("not a form this reader knows")

// ErrCorrupt means that a filesystem's own tables contradict each other.
var ErrCorrupt = errors.New("filesystem tables contradict each other")

// MaxRead limits one read of metadata, in bytes.
const MaxRead = 1 << 20

// Read reads exactly n bytes at off.
func Read(r io.ReaderAt, off int64, n int) ([]byte, error) {
	if n < 0 || n > MaxRead || off < 0 {
		return nil, fmt.Errorf("read %d bytes at %d: %w", n, off, ErrCorrupt)
	}
	b := make([]byte, n)
	if err := Fill(r, off, b); err != nil {
		return nil, err
	}
	return b, nil
}

// Fill reads exactly len(b) bytes at off.
func Fill(r io.ReaderAt, off int64, b []byte) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(b), off, err)
}

// Builder collects extents in any order. It stops taking more at manifest.MaxExtents, and Finish then fails.
type Builder struct {
	list []manifest.Extent
	full bool
}

// Add adds a range in bytes; empty ranges are ignored.
func (b *Builder) Add(off, n int64) {
	if n <= 0 || b.full {
		return
	}
	if k := len(b.list); k > 0 && b.list[k-1].End() == off {
		b.list[k-1].Len += n
		return
	}
	if len(b.list) >= manifest.MaxExtents {
		b.list = manifest.Merge(b.list)
		if len(b.list) >= manifest.MaxExtents/2 {
			b.full = true
			return
		}
	}
	b.list = append(b.list, manifest.Extent{Off: off, Len: n})
}

// Full tells that the limit is reached; a reader may stop early.
func (b *Builder) Full() bool { return b.full }

// Finish returns the extents merged, clipped to [0, size) and rounded outwards to 512 bytes.
func (b *Builder) Finish(size int64) ([]manifest.Extent, error) {
	if b.full {
		return nil, fmt.Errorf("more than %d extents: %w", manifest.MaxExtents/2, ErrUnsupported)
	}
	return manifest.RoundOut(b.list, manifest.Unit, size), nil
}

// Runs calls f for every run of set bits among the first n bits of bm, least significant bit first.
func Runs(bm []byte, n int64, f func(start, count int64)) {
	n = min(n, int64(len(bm))*8)
	start := int64(-1)
	for i := int64(0); i < n; {
		b := bm[i>>3] >> (i & 7)
		left := 8 - i&7
		if start < 0 {
			skip := min(int64(bits.TrailingZeros8(b)), left)
			if skip < left && i+skip < n {
				start = i + skip
			}
			i += skip
			continue
		}
		ones := min(int64(bits.TrailingZeros8(^b)), left)
		if ones < left {
			f(start, min(i+ones, n)-start)
			start = -1
		}
		i += ones
	}
	if start >= 0 {
		f(start, n-start)
	}
}
