package library

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync/atomic"

	"labswarm/swarm/frame"
)

// frameStore is an opened frame store. The frames are a cache of disk.raw: without them pieces travel plain.
type frameStore struct {
	zst   *os.File
	at    int64           // where the frames begin in zst
	index []byte          // entries
	bad   []atomic.Uint64 // one bit per piece: it was found damaged in this process
}

// parseTrailer checks what stands behind the frames of a store against the manifest and returns the index entries. size
// is the length of the frames.
func parseTrailer(b []byte, cell int64, pieces int, digest [32]byte, size int64) ([]byte, error) {
	if len(b) != trailerLen(pieces) {
		return nil, fmt.Errorf("the index of %s has %d bytes; %d pieces want %d", framesFile, len(b), pieces, trailerLen(pieces))
	}
	skip, b := b[:skipHead], b[skipHead:]
	body, want := b[:len(b)-frameDigest], b[len(b)-frameDigest:]
	sum := sha256.Sum256(body)
	head, entries := body[:frameHead], body[frameHead:]
	switch {
	case binary.LittleEndian.Uint32(skip) != skipMagic, int(binary.LittleEndian.Uint32(skip[4:])) != len(b), !bytes.Equal(sum[:], want):
		return nil, fmt.Errorf("the index of %s is damaged", framesFile)
	case string(head[:8]) != frameMagic:
		return nil, fmt.Errorf("%s is of another format", framesFile)
	case int64(binary.LittleEndian.Uint32(head[8:])) != cell, int64(binary.LittleEndian.Uint32(head[12:])) != int64(pieces),
		!bytes.Equal(head[16:], digest[:]):
		return nil, fmt.Errorf("%s belongs to another image", framesFile)
	}
	var at uint64
	for e := entries; len(e) > 0; e = e[frameEntry:] {
		if binary.LittleEndian.Uint64(e) != at {
			return nil, fmt.Errorf("the index of %s is not in the order of the pieces", framesFile)
		}
		at += uint64(binary.LittleEndian.Uint32(e[8:]))
	}
	if at != uint64(size) {
		return nil, fmt.Errorf("%s has frames of %d bytes; the index says %d", framesFile, size, at)
	}
	return entries, nil
}

// openFrames opens the frame store if the version has one that is whole.
func (v *Version) openFrames() (*frameStore, error) {
	zst, err := os.Open(filepath.Join(v.dir, framesFile))
	if err != nil {
		return nil, err
	}
	entries, err := v.readIndex(zst)
	if err != nil {
		return nil, errors.Join(err, zst.Close())
	}
	words := (v.man.Pieces() + 63) / 64
	return &frameStore{zst: zst, index: entries, bad: make([]atomic.Uint64, words)}, nil
}

func (v *Version) readIndex(zst *os.File) ([]byte, error) {
	st, err := zst.Stat()
	if err != nil {
		return nil, err
	}
	trailer := make([]byte, trailerLen(v.man.Pieces()))
	size := st.Size() - int64(len(trailer))
	if size < 0 {
		return nil, fmt.Errorf("%s is cut off: it has %d bytes", framesFile, st.Size())
	}
	if _, err := zst.ReadAt(trailer, size); err != nil {
		return nil, err
	}
	return parseTrailer(trailer, v.man.Cell, v.man.Pieces(), v.Digest(), size)
}

// FramesErr says why an image that should have frames has none that can be used; nil when all is well. Its pieces
// travel plain then.
func (v *Version) FramesErr() error { return v.framesErr }

// HasFrames tells whether there is a frame store that can be used.
func (v *Version) HasFrames() bool { return v.frames != nil }

// FrameBytes is the size of all frames, 0 without a frame store.
func (v *Version) FrameBytes() (n int64) {
	for i := range v.man.Pieces() {
		n += int64(v.frames.len(i))
	}
	return n
}

// WireBytes is what one copy of the image takes on the wire between hosts that understand frames: the frames that are
// worth sending, the other cells plain.
func (v *Version) WireBytes() (n int64) {
	for i := range v.man.Pieces() {
		if f := v.frames.len(i); frame.Worth(f, int(v.man.Cell)) {
			n += int64(f)
		} else {
			n += v.man.Cell
		}
	}
	return n
}

// len is the length of frame i, 0 in a store that is not there.
func (s *frameStore) len(i int) int {
	if s == nil {
		return 0
	}
	return int(binary.LittleEndian.Uint32(s.index[i*frameEntry+8:]))
}

// read reads frame i into buf and checks its CRC-32C, at each read: that costs some 30 us, and a file rots also while
// it is served.
func (s *frameStore) read(i int, buf []byte) ([]byte, error) {
	e, n := s.index[i*frameEntry:], s.len(i)
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err := s.zst.ReadAt(buf, s.at+int64(binary.LittleEndian.Uint64(e)))
	if err == nil && crc32.Checksum(buf, castagnoli()) != binary.LittleEndian.Uint32(e[12:]) {
		err = errors.New("it does not match its CRC")
	}
	return buf, err
}

// Frame returns the zstd frame of piece i, in buf when that is big enough; false when the piece has none that is
// worth sending. A frame that does not match its CRC-32C is an error once, and from then on it counts as missing: a
// rotten frame never leaves.
func (v *Version) Frame(i int, buf []byte) ([]byte, bool, error) {
	if i < 0 || i >= v.man.Pieces() {
		return nil, false, fmt.Errorf("read frame %d of %d: out of range", i, v.man.Pieces())
	}
	s := v.frames
	word, bit := i/64, uint64(1)<<(i%64)
	if s == nil || s.bad[word].Load()&bit != 0 {
		return nil, false, nil
	}
	if !frame.Worth(s.len(i), int(v.man.Cell)) {
		return nil, false, nil
	}
	buf, err := s.read(i, buf)
	if err != nil {
		s.bad[word].Or(bit)
		return nil, false, fmt.Errorf("read frame %d of image %s/%s: %w; the piece travels plain", i, v.man.Name, v.man.Version, err)
	}
	return buf, true, nil
}
