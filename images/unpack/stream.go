package unpack

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"labswarm/internal/units"
)

const (
	// maxWindow is the longest window or dictionary that a compressed stream may ask for, in bytes. It is what `zstd`
	// takes without --long=31 and what `xz -9` needs twice.
	maxWindow = 128 << 20
	readAhead = 256 << 10 // bytes read from the file at once
)

// unpacker returns a reader of what is compressed in r, which must begin with f's magic.
func unpacker(f Format, r *bufio.Reader) (io.ReadCloser, error) {
	switch f {
	case Gzip:
		return gzip.NewReader(r)
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(r)), nil
	case Zstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case XZ:
		head, err := r.Peek(xzHead)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if n := xzDict(head); n > maxWindow {
			return nil, fmt.Errorf("it needs a dictionary of %s, more than the %s that are allowed: pack it with xz -9 or less", units.FormatBytes(n), units.FormatBytes(maxWindow))
		}
		x, err := xz.NewReader(r)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	}
	return nil, fmt.Errorf("%s is not read here", f)
}

const xzHead = 12 + 4*256 // bytes of a stream's header and the longest block header

// xzDict returns the dictionary size in bytes that the first block of an xz file asks for (xz gives all blocks the same);
// 0 = none found, which the reader then finds fault with. Format: "The .xz file format" 2.1.1, 3.1 and 5.3.1.
func xzDict(head []byte) int64 {
	const streamHeader, lzma2 = 12, 0x21
	if len(head) < streamHeader+2 {
		return 0
	}
	b := head[streamHeader:]
	if n := (int(b[0]) + 1) * 4; n <= len(b) {
		b = b[:n]
	}
	flags, at := b[1], 2
	varint := func() (v uint64) {
		for shift := 0; at < len(b) && shift < 63; shift += 7 {
			c := b[at]
			at++
			v |= uint64(c&0x7f) << shift
			if c < 0x80 {
				break
			}
		}
		return v
	}
	for _, bit := range []byte{0x40, 0x80} { // compressed and uncompressed size
		if flags&bit != 0 {
			varint()
		}
	}
	for range flags&3 + 1 {
		id, n := varint(), varint()
		if n > uint64(len(b)-at) {
			return 0
		}
		if id == lzma2 && n == 1 {
			bits := b[at] & 0x3f
			if bits >= 40 {
				return 1<<32 - 1
			}
			return int64(2|uint64(bits)&1) << (bits/2 + 11)
		}
		at += int(n)
	}
	return 0
}

// decompress unpacks a compressed raw disk.
func (s *Source) decompress(w *work) error {
	in := &counter{r: io.NewSectionReader(s.in[0], 0, s.size), w: w}
	r := bufio.NewReaderSize(in, readAhead)
	n, err := s.unpackStream(w, s.format, r, 0, w.opt.MaxSize+1, func() int64 { return in.n - int64(r.Buffered()) })
	if err != nil {
		return err
	}
	if n > w.opt.MaxSize {
		return &TooBigError{File: s.path, Max: w.opt.MaxSize}
	}
	return w.Truncate(n)
}

// unpackStream unpacks r to offset off of the disk, at most limit bytes. at tells how many compressed bytes were read.
func (s *Source) unpackStream(w *work, f Format, r *bufio.Reader, off, limit int64, at func() int64) (n int64, err error) {
	z, err := unpacker(f, r)
	if err == nil {
		n, err = w.copyIn(z, off, limit)
		// Nothing is written by closing a reader.
		_ = z.Close()
	}
	return n, s.streamError(w, f, err, n, at())
}

// streamError says where a stream went wrong, unless it is the work that failed.
func (s *Source) streamError(w *work, f Format, err error, n, at int64) error {
	switch {
	case err == nil:
		return nil
	case w.ctx.Err() != nil, w.room() != nil, isWrite(err):
		return err
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return s.errorf("the zstd data needs a window of more than %s: pack it again without --long", units.FormatBytes(maxWindow))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return s.errorf("the %s data ends in the middle, at byte %d, after %s of content: the file is cut off; copy it again", f, at, units.FormatBytes(n))
	}
	return s.errorf("the %s data is damaged near byte %d, after %s of content: %v", f, at, units.FormatBytes(n), err)
}
