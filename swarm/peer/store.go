package peer

import (
	"context"
	"crypto/sha1" //nolint:gosec // BEP 3 piece hashes are SHA-1; the agent's read-back uses SHA-256
	"errors"
	"fmt"
	"time"

	"labswarm/swarm/wire"
)

const (
	maxServerCopies = 4 // wrong copies of one piece from the server before this host is the suspect
	maxDoubts       = 2 // times it may clear itself of that
)

var errHash = errors.New("wrong SHA-1")

// check hands a complete piece to the checkers and, in the order of arrival, to
// writeLoop. mu is held.
func (n *Node) check(f *fetch) {
	f.checked = make(chan error, 1)
	if sum, ok := f.sum.whole(int(n.cfg.PieceLen)); ok {
		var err error
		if sum != n.cfg.Hash(f.Piece) {
			err = errHash
		}
		f.checked <- err
	} else {
		n.hashq <- f // as long as the pool, like writeq: neither blocks
	}
	n.writeq <- f
}

// wrong drops a piece whose hash does not match. Nothing of it has gone
// anywhere; it is fetched again, from the server.
func (n *Node) wrong(ctx context.Context, f *fetch, why error) error {
	n.mu.Lock()
	n.hashFails++
	n.queued--
	n.frames.release(f.frame)
	attempts := n.child.Wrong(f.Fetch, time.Now())
	from := Peer(f.From.Peer) // SetSources may change it
	n.kick()
	n.mu.Unlock()
	n.log.Warn("wrong piece", "piece", f.Piece, "peer", from.name(), "err", why)
	if n.cfg.OnAccuse != nil {
		n.cfg.OnAccuse(f.Piece, from)
	}
	if attempts == 0 || attempts%maxServerCopies != 0 || !from.Server {
		return nil
	}
	err := &CorruptError{Piece: f.Piece, Attempts: attempts}
	if n.cfg.Doubt == nil || n.doubts >= maxDoubts {
		return err
	}
	n.doubts++
	return n.cfg.Doubt(ctx, err)
}

// writeLoop hands right pieces to the storage, one at a time and in order, and
// drops wrong ones. A failed write is repeated once; a second failure ends the
// node. It ends with ctx.
func (n *Node) writeLoop(ctx context.Context) error {
	for {
		var f *fetch
		var err error
		select {
		case <-ctx.Done():
			return nil
		case f = <-n.writeq:
		}
		select {
		case <-ctx.Done():
			return nil
		case err = <-f.checked:
		}
		if err != nil {
			if err := n.wrong(ctx, f, err); err != nil && ctx.Err() == nil {
				n.fail(err)
				return err
			}
			continue
		}
		err = n.cfg.Storage.WritePiece(f.Piece, f.buf.b)
		if err != nil {
			n.log.Warn("write failed, trying once more", "piece", f.Piece, "err", err)
			err = n.cfg.Storage.WritePiece(f.Piece, f.buf.b)
		}
		if err != nil {
			serr := &StorageError{Op: "write", Piece: f.Piece, Err: err}
			n.fail(serr)
			return serr
		}
		have, front := n.written(f)
		if n.cfg.OnFront != nil {
			n.cfg.OnFront(have, front)
		}
	}
}

// written books a piece that is on the disk: from now on it is ours to serve.
func (n *Node) written(f *fetch) (have, front int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pool.releaseFetch(f.buf, f.Piece)
	n.queued--
	delete(n.fetches, f.Piece)
	delete(n.noServe, f.Piece)
	n.early.Forget(f.Piece)
	if f.FrameLen > 0 {
		n.framesGot++
	}
	if f.frame != nil {
		n.frames.put(f.frame)
		n.frames.release(f.frame)
	}
	now := time.Now()
	n.child.Written(f.Fetch, now)
	for c := range n.conns {
		wire.PutHave(&c.ctrl, f.Piece) // to everybody: planners and seeds count holders
		if len(c.upq) > 0 {
			c.push() // it may wait for this piece
		} else {
			c.hint(now)
		}
	}
	if n.have.Full() {
		close(n.done)
		n.log.Info("all pieces written", "pieces", n.cfg.Pieces)
		n.kick()
	}
	return n.have.Count(), n.have.Front()
}

// prefetchLoop reads pieces into the cache that a child will want next, so that
// reading and hashing overlap with sending. It ends with ctx.
func (n *Node) prefetchLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case u := <-n.prefetch:
			if u.frame {
				if f := n.frame(u.piece); f != nil {
					n.frames.release(f)
					continue
				}
			}
			if u.direct && !n.pool.has(u.piece) {
				if _, _, ok := n.inFile(u.piece); ok {
					continue
				}
			}
			select {
			case n.uploads <- struct{}{}:
			default:
				continue // uploads use all their buffers: no room to be early
			}
			if b, err := n.load(ctx, u.piece); err == nil {
				n.pool.release(b)
			}
			<-n.uploads
		}
	}
}

// load returns a piece we hold in a buffer the caller must release: from the
// cache, or read and hashed. The caller holds a token of n.uploads.
func (n *Node) load(ctx context.Context, piece int) (*buffer, error) {
	for {
		if b := n.pool.get(piece); b != nil {
			return b, nil
		}
		n.mu.Lock()
		bad, wait := n.noServe[piece], n.loading[piece]
		if wait == nil && !bad {
			n.loading[piece] = make(chan struct{})
		}
		n.mu.Unlock()
		if bad {
			return nil, errHash
		}
		if wait == nil {
			return n.read(piece)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// read reads a piece from the storage into a buffer and checks it.
func (n *Node) read(piece int) (*buffer, error) {
	err := errors.New("no buffer free")
	b := n.pool.grabUpload()
	if b != nil {
		if err = n.readRight(piece, b.b); err == nil {
			n.pool.put(b, piece)
		} else {
			n.pool.release(b)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.loading[piece])
	delete(n.loading, piece)
	if err != nil {
		n.readFails++
		n.noServe[piece] = true
		n.log.Error("piece cannot be served", "piece", piece, "err", err)
		return nil, fmt.Errorf("read piece %d: %w", piece, err)
	}
	return b, nil
}

// readRight fills buf with a piece and checks it.
func (n *Node) readRight(piece int, buf []byte) error {
	right := func() bool { return sha1.Sum(buf) == n.cfg.Hash(piece) } //nolint:gosec // see the import
	if src, ok := n.cfg.Storage.(FileSource); ok {
		if f, off, ok := src.File(piece); ok { // saves what ReadPiece may do besides
			if _, err := f.ReadAt(buf, off); err == nil && right() {
				return nil
			}
		}
	}
	if err := n.cfg.Storage.ReadPiece(piece, buf); err != nil {
		return err
	}
	if !right() {
		return errHash
	}
	return nil
}
