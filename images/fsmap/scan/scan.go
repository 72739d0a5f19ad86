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

// SpanError means that a filesystem lies on several disks, of which this is one. A part alone does not mount.
type SpanError struct {
	FS      string
	Devices int64
}

func (e *SpanError) Error() string {
	return fmt.Sprintf("the %s filesystem spans %d disks or partitions; an image holds one disk, and a part of it alone does not mount", e.FS, e.Devices)
}

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

// maxList limits what a Builder holds: 8 MiB, and an eighth of what one image takes (manifest.MaxExtents).
const maxList = manifest.MaxExtents / 8

// Builder collects extents in any order. When a filesystem is so fragmented that they become too many, it closes the
// smallest gaps between them: the result is then larger than what was added, never smaller.
type Builder struct {
	list []manifest.Extent
	gap  int64 // gaps of this many bytes and less are closed, 0 = none yet
}

// Add adds a range in bytes; empty ranges are ignored.
func (b *Builder) Add(off, n int64) {
	if n <= 0 {
		return
	}
	if k := len(b.list); k > 0 {
		if last := &b.list[k-1]; off >= last.End() && off-last.End() <= b.gap {
			last.Len = off + n - last.Off
			return
		}
	}
	if len(b.list) >= maxList {
		b.shrink()
	}
	b.list = append(b.list, manifest.Extent{Off: off, Len: n})
}

// shrink merges the list and closes gaps until it is at most half full.
func (b *Builder) shrink() {
	b.list = manifest.Merge(b.list)
	for len(b.list) > maxList/2 {
		b.gap = max(2*b.gap, 4096)
		out := b.list[:1]
		for _, e := range b.list[1:] {
			if last := &out[len(out)-1]; e.Off-last.End() <= b.gap {
				last.Len = e.End() - last.Off
			} else {
				out = append(out, e)
			}
		}
		b.list = out
	}
}

// Finish returns the extents merged, clipped to [0, size) and rounded outwards to 512 bytes.
func (b *Builder) Finish(size int64) []manifest.Extent {
	return manifest.RoundOut(b.list, manifest.Unit, size)
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
