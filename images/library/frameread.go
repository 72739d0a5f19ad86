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

	"labswarm/images/manifest"
	"labswarm/swarm/frame"
)

// frameStore is an opened frame store. The frames are a cache of disk.raw: without them pieces travel plain.
type frameStore struct {
	zst       *os.File
	index     []byte          // entries
	good, bad []atomic.Uint64 // one bit per piece: its CRC-32C was right, or wrong, in this process
}

// parseFrameIndex checks frames.idx against the manifest and returns its entries. size is the length of frames.zst.
func parseFrameIndex(b []byte, cell int64, pieces int, digest [32]byte, size int64) ([]byte, error) {
	if len(b) != frameHead+pieces*frameEntry+32 {
		return nil, fmt.Errorf("%s has %d bytes; %d pieces want %d", frameIndexFile, len(b), pieces, frameHead+pieces*frameEntry+32)
	}
	body, sum := b[:len(b)-32], sha256.Sum256(b[:len(b)-32])
	head, entries := body[:frameHead], body[frameHead:]
	switch {
	case !bytes.Equal(sum[:], b[len(b)-32:]):
		return nil, fmt.Errorf("%s is damaged", frameIndexFile)
	case string(head[:8]) != frameMagic:
		return nil, fmt.Errorf("%s is of another format", frameIndexFile)
	case int64(binary.LittleEndian.Uint32(head[8:])) != cell, int64(binary.LittleEndian.Uint32(head[12:])) != int64(pieces),
		!bytes.Equal(head[16:], digest[:]):
		return nil, fmt.Errorf("%s belongs to another image", frameIndexFile)
	}
	var at uint64
	for e := entries; len(e) > 0; e = e[frameEntry:] {
		if binary.LittleEndian.Uint64(e) != at {
			return nil, fmt.Errorf("%s is not in the order of the pieces", frameIndexFile)
		}
		at += uint64(binary.LittleEndian.Uint32(e[8:]))
	}
	if at != uint64(size) {
		return nil, fmt.Errorf("%s has %d bytes; the index says %d", framesFile, size, at)
	}
	return entries, nil
}

// openFrames opens the frame store if the version has one that is whole.
func (v *Version) openFrames() (*frameStore, error) {
	b, err := v.read(frameIndexFile, frameHead+frameEntry*manifest.MaxPieces+32)
	if err != nil {
		return nil, err
	}
	zst, err := os.Open(filepath.Join(v.dir, framesFile))
	if err != nil {
		return nil, err
	}
	st, err := zst.Stat()
	var entries []byte
	if err == nil {
		entries, err = parseFrameIndex(b, v.man.Cell, v.man.Pieces(), v.Digest(), st.Size())
	}
	if err != nil {
		return nil, errors.Join(err, zst.Close())
	}
	words := (v.man.Pieces() + 63) / 64
	return &frameStore{zst: zst, index: entries, good: make([]atomic.Uint64, words), bad: make([]atomic.Uint64, words)}, nil
}

// FramesErr says why an image whose manifest promises frames has none that can be used; nil when all is well. Its
// pieces travel plain then.
func (v *Version) FramesErr() error { return v.framesErr }

// FrameBytes is the size of the frame store, 0 without one.
func (v *Version) FrameBytes() (n int64) {
	if v.frames != nil {
		for e := v.frames.index; len(e) > 0; e = e[frameEntry:] {
			n += int64(binary.LittleEndian.Uint32(e[8:]))
		}
	}
	return n
}

// Frame returns the zstd frame of piece i, in buf when that is big enough; false when the piece has none that is
// worth sending. The first read of each frame in the life of this Version is checked against its CRC-32C; a wrong one
// is an error once, and from then on it counts as missing: a rotten frame never leaves.
func (v *Version) Frame(i int, buf []byte) ([]byte, bool, error) {
	if i < 0 || i >= v.man.Pieces() {
		return nil, false, fmt.Errorf("read frame %d of %d: out of range", i, v.man.Pieces())
	}
	s := v.frames
	word, bit := i/64, uint64(1)<<(i%64)
	if s == nil || s.bad[word].Load()&bit != 0 {
		return nil, false, nil
	}
	e := s.index[i*frameEntry:]
	n := int(binary.LittleEndian.Uint32(e[8:]))
	if !frame.Worth(n, int(v.man.Cell)) {
		return nil, false, nil
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err := s.zst.ReadAt(buf, int64(binary.LittleEndian.Uint64(e)))
	if err == nil && s.good[word].Load()&bit == 0 && crc32.Checksum(buf, castagnoli()) != binary.LittleEndian.Uint32(e[12:]) {
		err = errors.New("it does not match its CRC")
	}
	if err != nil {
		s.bad[word].Or(bit)
		return nil, false, fmt.Errorf("read frame %d of image %s/%s: %w; the piece travels plain", i, v.man.Name, v.man.Version, err)
	}
	s.good[word].Or(bit)
	return buf, true, nil
}
