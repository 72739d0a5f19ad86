package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"labswarm/swarm/sched"
	"labswarm/swarm/wire"
)

// TestHostileChildren: whoever asks for what cannot be is hung up on, gets no byte
// of content, and others are served all the same.
func TestHostileChildren(t *testing.T) {
	t.Parallel()
	const pieces = 12
	tr := softTorrent(t, pieces)
	seed := framedSeed(t, tr, encode(t, tr))
	ask := func(piece, begin, length int) func(*bytesBuffer) {
		return func(b *bytesBuffer) { wire.PutBlock(b, pp.Request, piece, begin, length) }
	}
	askFrame := func(piece, begin, length int) func(*bytesBuffer) {
		return func(b *bytesBuffer) {
			wire.PutFrameRequest(b, wire.OwnExtensionID, piece, begin, length)
		}
	}
	const plainHello = "d8:labswarmd3:blki16384ee1:md8:labswarmi1eee" // ours, without frames
	for name, c := range map[string]struct {
		hello string
		say   func(*bytesBuffer)
	}{
		"a piece that is not there":       {framedHello, ask(pieces, 0, 16<<10)},
		"beyond the piece's end":          {framedHello, ask(1, testPiece-100, 16<<10)},
		"an offset near 2^31":             {framedHello, ask(1, 1<<31-1, 16<<10)},
		"an offset above 2^31":            {framedHello, ask(1, 1<<31, 16<<10)},
		"nothing":                         {framedHello, ask(1, 0, 0)},
		"more than a block":               {framedHello, ask(1, 0, wire.MaxBlock+1)},
		"a frame of no piece":             {framedHello, askFrame(pieces, 0, 16<<10)},
		"a frame beyond any end":          {framedHello, askFrame(1, testPiece, 16<<10)},
		"no byte of a frame":              {framedHello, askFrame(1, 0, 0)},
		"a frame, without having offered": {plainHello, askFrame(1, 0, 16<<10)},
		"a message of 2 GiB":              {framedHello, func(b *bytesBuffer) { b.Write([]byte{0x7f, 0xff, 0xff, 0xff, 20, 1, 1}) }},
		"a bitfield of another torrent":   {framedHello, func(b *bytesBuffer) { wire.PutBitfield(b, make([]bool, 999)) }},
	} {
		t.Run(name, func(t *testing.T) { // one after the other: a listener admits few strangers of one address at once
			nc, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", seed.addr.String())
			if err != nil {
				t.Fatal(err)
			}
			defer shutQuiet(nc)
			p := &plainPeer{t: t, nc: nc}
			p.hello(tr.infoHash, c.hello)
			p.say(func(b *bytesBuffer) { wire.PutState(b, interested) })
			for m, ok := p.next(pieces); ; m, ok = p.next(pieces) {
				if !ok {
					t.Fatal("hung up on before anything was asked for")
				}
				if m.Type == unchoke {
					break
				}
			}
			p.say(c.say)
			for m, ok := p.next(pieces); ok; m, ok = p.next(pieces) { // until it hangs up; nc has a deadline
				if m.Type == piece {
					t.Errorf("got %d bytes of piece %d", m.Length, m.Index)
				}
			}
			if _, err := nc.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection is still open")
			}
			h := start(t, "honest", tr, newStore(t, tr, []int{}), nil)
			h.from(seed)
			h.wait()
			h.store.check()
		})
	}
}

// pipes is a listener whose connections are pipes: they obey the clock of a
// synctest bubble.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipes) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// trickle writes b byte by byte with pauses until the other side hangs up or all
// is written, then waits for the end, and returns how long it was listened to.
func trickle(nc net.Conn, b []byte, pause time.Duration) time.Duration {
	start := time.Now()
	for _, x := range b {
		if _, err := nc.Write([]byte{x}); err != nil {
			return time.Since(start)
		}
		time.Sleep(pause)
	}
	_, _ = io.Copy(io.Discard, nc) // ends when the other side does
	return time.Since(start)
}

// TestSlowLorisHandshake: a handshake that comes byte by byte is not waited for.
func TestSlowLorisHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		m := NewMux(l, nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- m.Run(ctx) }()
		ours, theirs := net.Pipe()
		l.conns <- theirs
		if d := trickle(ours, wire.NewHandshake([20]byte{1}, [20]byte{2}).Append(nil), time.Second); d > handshakeTime+time.Second {
			t.Errorf("listened to for %v; want at most %v", d, handshakeTime)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := ours.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestSlowLorisMessages: a message that has begun must end soon, whatever it is;
// silence between messages is allowed.
func TestSlowLorisMessages(t *testing.T) {
	tr := newTorrent(t, 4, testPiece)
	st := newStore(t, tr, nil)
	for name, b := range map[string][]byte{
		"length":  {0, 0, 0, 13},
		"request": {0, 0, 0, 13, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 64, 0},
		"payload": append(wire.AppendPieceHeader(nil, 1, 0, 16<<10), make([]byte, 16<<10)...),
		"frame":   append(wire.AppendFrameHeader(nil, wire.OwnExtensionID, 1, 0, 20_000, 16<<10), make([]byte, 16<<10)...),
		"unknown": append([]byte{0, 0, 2, 0, 99}, make([]byte, 511)...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, err := New(Config{InfoHash: tr.infoHash, PeerID: [20]byte{1}, Pieces: 4, PieceLen: testPiece,
					Hash: func(i int) [20]byte { return tr.hashes[i] }, Storage: st, Seed: true})
				if err != nil {
					t.Fatal(err)
				}
				if err := n.begin(t.Context()); err != nil {
					t.Fatal(err)
				}
				ours, theirs := net.Pipe()
				c := &conn{n: n, nc: theirs, r: wire.NewReader(theirs, 4), name: "loris", since: time.Now(), more: make(chan struct{}, 1),
					gone: make(chan struct{})}
				c.link = sched.NewLink(nil, c, 4, wire.PlainBlock, plainQueue)
				ended := make(chan error, 1)
				go func() {
					err := c.readLoop()
					ended <- errors.Join(err, theirs.Close())
				}()
				time.Sleep(idleTime - time.Second) // a silent peer is only a silent peer
				if _, err := ours.Write([]byte{0, 0, 0, 0}); err != nil {
					t.Fatalf("a keepalive after %v: %v", idleTime-time.Second, err)
				}
				if d := trickle(ours, b, 4*time.Second); d > messageTime+4*time.Second {
					t.Errorf("listened to for %v; want at most %v", d, messageTime)
				}
				if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("readLoop = %v; want a deadline", err)
				}
				if err := errors.Join(ours.Close(), n.pool.close(), n.frames.close()); err != nil {
					t.Error(err)
				}
				n.closeCheckers()
				n.stop(nil)
			})
		})
	}
}

// TestHostileMessages: a parent that says what cannot be is hung up on, at once or
// when it is found to send nothing that was asked for, though there is nobody else
// to fetch from; then the host gets everything from the
// next source, and nothing that the first one said is left in its memory.
func TestHostileMessages(t *testing.T) {
	t.Parallel()
	const pieces = 12
	tr := softTorrent(t, pieces)
	good := encode(t, tr)
	head := func(b []byte, payload int) func(*bytesBuffer) {
		return func(w *bytesBuffer) { w.Write(b); w.Write(make([]byte, payload)) }
	}
	for name, say := range map[string]func(*bytesBuffer){
		"a message of 2 GiB":            head([]byte{0x7f, 0xff, 0xff, 0xff, 7}, 100),
		"a message of 4 GiB":            head([]byte{0xff, 0xff, 0xff, 0xff, 7}, 100),
		"a block larger than any":       head(wire.AppendPieceHeader(nil, 1, 0, 2*wire.MaxBlock), 2*wire.MaxBlock),
		"a block of a piece not there":  head(wire.AppendPieceHeader(nil, pieces, 0, 16<<10), 16<<10),
		"a block of piece 2^32-1":       head([]byte{0, 0, 0x40, 9, 7, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, 16<<10),
		"a block beyond the end":        head(wire.AppendPieceHeader(nil, 1, testPiece, 16<<10), 16<<10),
		"a block at 2^32-1":             head([]byte{0, 0, 0x40, 9, 7, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff}, 16<<10),
		"a frame of a gigabyte":         head(wire.AppendFrameHeader(nil, wire.OwnExtensionID, 1, 0, 1<<30, 16<<10), 16<<10),
		"a frame of a piece not there":  head(wire.AppendFrameHeader(nil, wire.OwnExtensionID, pieces, 0, 20_000, 16<<10), 16<<10),
		"a frame's block past its end":  head(wire.AppendFrameHeader(nil, wire.OwnExtensionID, 1, 20_000, 20_000, 16<<10), 16<<10),
		"have of a piece not there":     func(b *bytesBuffer) { wire.PutHave(b, pieces) },
		"a bitfield of another torrent": func(b *bytesBuffer) { wire.PutBitfield(b, make([]bool, 999)) },
		"an extension hello of 1 MiB":   head([]byte{0, 0x10, 0, 2, 20, 0}, 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hung := make(chan struct{})
			var once sync.Once
			odd := listenAs(t, tr, framedHello, func(p *plainPeer) {
				p.say(func(b *bytesBuffer) { wire.PutState(b, pp.HaveAll); wire.PutState(b, unchoke) })
				for m, ok := p.next(pieces); ok && m.Type != request; m, ok = p.next(pieces) {
				}
				p.say(say)
				_, err := io.Copy(io.Discard, p.nc) // until it hangs up; nc has a deadline
				if errors.Is(err, os.ErrDeadlineExceeded) {
					return
				}
				once.Do(func() { close(hung) })
			})
			h := start(t, "h", tr, newStore(t, tr, []int{}), nil)
			h.SetSources(Assignment{Parent: odd})
			select {
			case <-hung:
			case <-h.ended:
				t.Fatalf("the host has ended: %v", h.err)
			case <-time.After(deadline):
				t.Fatal("the connection is still open")
			}
			if s := h.Stats(); s.Have != 0 || s.HashFailures != 0 {
				t.Errorf("%+v; want nothing taken from it", s)
			}
			seed := framedSeed(t, tr, good)
			h.SetSources(Assignment{Parent: seed.ref()})
			h.wait()
			h.store.check()
			until(t, "its buffers are free", func() bool {
				h.pool.mu.Lock()
				defer h.pool.mu.Unlock()
				return h.pool.fetching == 0
			})
		})
	}
}
