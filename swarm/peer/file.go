package peer

import (
	"crypto/sha1" //nolint:gosec // BEP 3 piece hashes are SHA-1
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"labswarm/swarm/wire"
)

// FileSource is what a Storage may be besides: some pieces lie in a file just as
// they are hashed, unless something is wrong with it. They are read from there,
// and to a peer without TLS they go from there by sendfile, without a piece
// buffer. Either way the Node hashes them before.
type FileSource interface {
	// File returns the file of a piece and its offset in bytes there; false: it
	// must be read with ReadPiece, as when the file turns out wrong. The file
	// stays open until the Node has ended.
	File(piece int) (f *os.File, off int64, ok bool)
}

const (
	vouchTime  = 10 * time.Second // a piece found right in its file is not hashed again so soon
	vouchMany  = 256              // such pieces at once
	fileChunk  = 128 << 10        // bytes read at once for hashing: fits a core's own cache
	fileLength = 1 << 20          // bytes of one sendfile call
)

// vouched are the pieces found right in their file a moment ago.
type vouched struct {
	mu   sync.Mutex
	at   map[int]time.Time
	busy map[int]chan struct{}
	bufs sync.Pool
}

func newVouched() *vouched {
	return &vouched{at: map[int]time.Time{}, busy: map[int]chan struct{}{}, bufs: sync.Pool{New: func() any { return new([fileChunk]byte) }}}
}

// do reports whether a piece is right; look finds out, once for all who ask.
func (v *vouched) do(piece int, look func(buf []byte) bool) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for v.busy[piece] != nil {
		wait := v.busy[piece]
		v.mu.Unlock()
		<-wait // a read and a hash
		v.mu.Lock()
	}
	if at, ok := v.at[piece]; ok && time.Since(at) < vouchTime {
		return true
	}
	done := make(chan struct{})
	v.busy[piece] = done
	v.mu.Unlock()
	buf := v.bufs.Get().(*[fileChunk]byte)
	ok := look(buf[:])
	v.bufs.Put(buf)
	v.mu.Lock()
	delete(v.busy, piece)
	close(done)
	delete(v.at, piece)
	if ok {
		if len(v.at) >= vouchMany {
			clear(v.at) // rare: hashing again costs a millisecond
		}
		v.at[piece] = time.Now()
	}
	return ok
}

// inFile returns where a piece lies in a file and was found right.
func (n *Node) inFile(piece int) (f *os.File, off int64, ok bool) {
	src, isFile := n.cfg.Storage.(FileSource)
	if !isFile {
		return nil, 0, false
	}
	if f, off, ok = src.File(piece); !ok {
		return nil, 0, false
	}
	ok = n.vouched.do(piece, func(buf []byte) bool {
		sum, err := sumFile(f, off, n.cfg.PieceLen, buf)
		if err != nil || sum != n.cfg.Hash(piece) {
			n.log.Warn("piece cannot be sent from its file, it is read the other way", "piece", piece, "err", err)
			return false
		}
		return true
	})
	return f, off, ok
}

// sumFile hashes a part of a file.
func sumFile(f *os.File, off, length int64, buf []byte) (sum [20]byte, err error) {
	h := sha1.New() //nolint:gosec // see the import
	for length > 0 {
		k, err := f.ReadAt(buf[:min(length, int64(len(buf)))], off)
		h.Write(buf[:k])
		off, length = off+int64(k), length-int64(k)
		if err != nil && length > 0 {
			return sum, fmt.Errorf("read %s at byte %d: %w", f.Name(), off, err)
		}
	}
	h.Sum(sum[:0])
	return sum, nil
}

// direct reports whether blocks may go from a file into the socket.
func (c *conn) direct() bool {
	_, bare := c.nc.(*net.TCPConn)
	return bare && c.n.limiter.Load() == nil
}

// fromFile sends a block from the piece's file; false when it has to be sent
// from a buffer.
func (s *sender) fromFile(u upload) (sent bool, err error) {
	c := s.c
	if !c.direct() || c.n.pool.has(u.piece) {
		return false, nil
	}
	if s.filePiece != u.piece || s.file == nil {
		if err := s.flush(); err != nil { // hashing may take a while
			return true, err
		}
		var ok bool
		if s.file, s.fileOff, ok = c.n.inFile(u.piece); !ok {
			s.file = nil
			return false, nil
		}
		s.filePiece = u.piece
		s.release()
	}
	s.ctrl = wire.AppendPieceHeader(s.ctrl, u.piece, u.begin, u.length)
	if err := c.nc.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return true, fmt.Errorf("set deadline: %w", err)
	}
	if err := sendFile(rawTCP(c.nc), s.ctrl, s.file, s.fileOff+int64(u.begin), u.length); err != nil {
		return true, fmt.Errorf("send to %s from file: %w", c.name, err)
	}
	s.ctrl = s.ctrl[:0]
	c.n.sent(int64(u.length), u.length)
	return true, nil
}

// sendFile writes head and then length bytes of f from off, as one stream of
// full segments.
func sendFile(tc *net.TCPConn, head []byte, f *os.File, off int64, length int) error {
	rc, err := tc.SyscallConn()
	if err != nil {
		return fmt.Errorf("reach the socket: %w", err)
	}
	src := int(f.Fd())
	var serr error
	err = rc.Write(func(fd uintptr) (done bool) {
		for len(head) > 0 || length > 0 {
			var k int
			if len(head) > 0 {
				k, serr = unix.SendmsgN(int(fd), head, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
			} else {
				k, serr = unix.Sendfile(int(fd), src, &off, min(length, fileLength))
			}
			switch {
			case serr == unix.EINTR:
				continue
			case serr == unix.EAGAIN:
				serr = nil
				return false
			case serr != nil:
				return true
			case k == 0:
				serr = io.ErrUnexpectedEOF
				return true
			case len(head) > 0:
				head = head[k:]
			default:
				length -= k
			}
		}
		return true
	})
	if serr != nil {
		return serr
	}
	return err
}
