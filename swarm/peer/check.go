package peer

import (
	"context"
	"crypto/sha1" //nolint:gosec // BEP 3 piece hashes are SHA-1
	"runtime"

	"labswarm/swarm/frame"
)

// maxCheckers bounds the pieces that are unpacked and hashed side by side. One
// core does some 300 MB/s of both; cells that travel compressed come in faster
// than that on 1 Gb/s.
const maxCheckers = 4

// readerHashes is the rate in bytes per second below which the goroutine that reads
// a piece hashes it as well: a core does some 1 GB/s of both. Faster, hashing
// is left to the checkers, beside the reading.
const readerHashes = 250e6

// checker unpacks and hashes pieces.
type checker struct {
	n       *Node
	decoder *frame.Decoder
	scratch []byte // a frame that found no room in the cache
}

// newCheckers makes one checker per core, fewer when there are few buffers.
func (n *Node) newCheckers() error {
	for range min(runtime.GOMAXPROCS(0), maxCheckers, 1+n.cfg.PoolBuffers/16) {
		d, err := frame.NewDecoder(int(n.cfg.PieceLen))
		if err != nil {
			return err
		}
		n.checkers = append(n.checkers, &checker{n: n, decoder: d})
	}
	return nil
}

func (n *Node) closeCheckers() {
	for _, k := range n.checkers {
		k.decoder.Close()
	}
}

// run checks complete pieces and leaves the verdict with them. It ends with ctx.
func (k *checker) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-k.n.hashq:
			err := k.unpack(f)
			if err == nil && sha1.Sum(f.buf.b) != k.n.cfg.Hash(f.Piece) { //nolint:gosec // see the import
				err = errHash
			}
			f.checked <- err
		}
	}
}

// unpack turns a received frame into the plain piece, in the same buffer. The
// frame's bytes are kept if there is room: they are what our children get.
func (k *checker) unpack(f *fetch) error {
	if f.FrameLen == 0 {
		return nil
	}
	src := k.scratch
	if f.frame = k.n.frames.alloc(f.Piece, f.FrameLen, k.n.childFronts()); f.frame != nil {
		src = f.frame.b
	} else if src == nil {
		k.scratch = make([]byte, frame.MaxLen(int(k.n.cfg.PieceLen)))
		src = k.scratch
	}
	src = src[:copy(src, f.buf.b[:f.FrameLen])]
	return k.decoder.Decode(f.buf.b, src)
}
