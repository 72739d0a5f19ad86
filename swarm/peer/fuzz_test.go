package peer

import (
	"bytes"
	"crypto/sha1"
	"io"
	"net"
	"testing"
	"time"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"labswarm/swarm/frame"
	"labswarm/swarm/sched"
	"labswarm/swarm/wire"
)

// tape is a connection whose other side says what is on the tape and then hangs up.
type tape struct {
	net.Conn
	r io.Reader
}

func (c *tape) Read(b []byte) (int, error)        { return c.r.Read(b) }
func (c *tape) Close() error                      { return nil }
func (c *tape) SetReadDeadline(_ time.Time) error { return nil }

// undialled is a node whose source is connected by the test.
type undialled struct{ *Node }

func (undialled) Dial(*sched.Source) bool { return true }

// fuzzTalk is what an honest parent says: all of piece 0 plain, piece 1 as a frame.
func fuzzTalk(piece []byte, f []byte) []byte {
	var b bytes.Buffer
	wire.PutExtended(&b, 0, []byte(framedHello))
	wire.PutState(&b, pp.HaveAll)
	wire.PutState(&b, pp.Unchoke)
	for i := 0; i < len(piece); i += wire.PlainBlock {
		b.Write(wire.AppendPieceHeader(nil, 0, i, wire.PlainBlock))
		b.Write(piece[i : i+wire.PlainBlock])
	}
	for i := 0; i < len(f); i += wire.PlainBlock {
		n := min(wire.PlainBlock, len(f)-i)
		b.Write(wire.AppendFrameHeader(nil, wire.OwnExtensionID, 1, i, len(f), n))
		b.Write(f[i : i+n])
	}
	wire.PutFrameRequest(&b, wire.OwnExtensionID, 2, 0, 100)
	wire.PutBlock(&b, pp.Reject, 3, 0, wire.PlainBlock)
	wire.PutState(&b, pp.Choke)
	wire.PutHave(&b, 2)
	return b.Bytes()
}

// FuzzParent feeds a host with what a parent says: it must not panic, must end,
// must give back every buffer, and must not take a wrong piece for a right one.
func FuzzParent(f *testing.F) {
	const pieceLen = 2 * wire.PlainBlock
	piece := make([]byte, pieceLen)
	for i := range 20_000 {
		piece[i] = byte(i * i >> 3)
	}
	e, err := frame.NewEncoder(pieceLen)
	if err != nil {
		f.Fatal(err)
	}
	fr := e.Encode(nil, piece)
	f.Add(fuzzTalk(piece, fr))
	f.Add(fuzzTalk(piece, append(bytes.Clone(fr), 0)))
	f.Add(fuzzTalk(make([]byte, pieceLen), fr[:100]))
	f.Fuzz(func(t *testing.T, said []byte) {
		hear(t, said, piece, false)
		hear(t, said, piece, true)
	})
}

// hear is one talk of FuzzParent; slow: the reader hashes.
func hear(t *testing.T, said, piece []byte, slow bool) {
	pieceLen, sum := int64(len(piece)), sha1.Sum(piece)
	n, err := New(Config{InfoHash: [20]byte{1}, PeerID: [20]byte{2}, Pieces: 4, PieceLen: pieceLen, PoolBuffers: 8,
		Hash: func(int) [20]byte { return sum }, Storage: &nullStore{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.child = sched.NewChild(undialled{n}, n.have, pieceLen)
	n.child.SetSources([]sched.Peer{{ID: "fuzz"}}, time.Now())
	n.child.Turn(time.Now(), false)
	src := n.child.Active()
	c := &conn{n: n, nc: &tape{r: bytes.NewReader(said)}, r: wire.NewReader(bytes.NewReader(said), 4), src: src, name: "fuzz", fast: true,
		since: time.Now(), in: &intake{}, more: make(chan struct{}, 1), gone: make(chan struct{})}
	c.slow.Store(slow)
	c.link = sched.NewLink(src, c, 4, wire.PlainBlock, plainQueue)
	n.child.Attach(c.link)
	n.conns[c] = struct{}{}
	if err := c.readLoop(); err == nil {
		t.Error("the connection goes on after its end")
	}
	for len(n.writeq) > 0 {
		f := <-n.writeq
		var err error
		if len(f.checked) > 0 { // hashed while it came
			err = <-f.checked
		} else if err = n.checkers[0].unpack(<-n.hashq); err == nil && sha1.Sum(f.buf.b) != sum {
			err = errHash
		}
		if err == nil && !bytes.Equal(f.buf.b, piece) {
			t.Error("a wrong piece is taken for a right one")
		}
		n.frames.release(f.frame)
		n.pool.releaseFetch(f.buf, -1)
	}
	n.detach(c)
	if n.pool.fetching != 0 || len(n.pool.free) != 8 {
		t.Errorf("%d buffers still fetching, %d of 8 free", n.pool.fetching, len(n.pool.free))
	}
	if frames, bytes := n.frames.figures(); frames != 0 || bytes != 0 || len(n.frames.free) != 1 {
		t.Errorf("%d frames of %d bytes are left in %d spans", frames, bytes, len(n.frames.free))
	}
	n.closeCheckers()
	if err := n.pool.close(); err != nil {
		t.Error(err)
	}
	if err := n.frames.close(); err != nil {
		t.Error(err)
	}
}
