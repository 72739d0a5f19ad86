package peer

import (
	"bytes"
	"encoding/binary"
	"testing"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"labswarm/swarm/frame"
	"labswarm/swarm/wire"
)

const framedHello = "d8:labswarmd3:blki16384e1:zi1ee1:md8:labswarmi1eee"

// frameServer answers every request for a frame with answer(piece).
func frameServer(answer func(p *plainPeer, m wire.Message) bool) func(p *plainPeer) {
	return func(p *plainPeer) {
		p.say(func(b *bytesBuffer) { wire.PutState(b, pp.HaveAll) })
		for {
			m, ok := p.next(1 << 10)
			if !ok {
				return
			}
			switch {
			case m.Type == interested:
				ok = p.say(func(b *bytesBuffer) { wire.PutState(b, unchoke) })
			case m.Type == request:
				ok = answer(p, m)
			}
			if !ok {
				return
			}
		}
	}
}

// sendFrame answers a request for block m of the frame f.
func sendFrame(p *plainPeer, m wire.Message, f []byte) bool {
	if m.Begin >= len(f) {
		return true
	}
	end := min(m.Begin+m.Length, len(f))
	return p.say(func(b *bytesBuffer) {
		b.Write(wire.AppendFrameHeader(nil, wire.OwnExtensionID, m.Index, m.Begin, len(f), end-m.Begin))
		b.Write(f[m.Begin:end])
	})
}

// sendPlain answers a request with bytes of the piece.
func sendPlain(p *plainPeer, m wire.Message, tr *torrent) bool {
	return p.say(func(b *bytesBuffer) {
		b.Write(wire.AppendPieceHeader(nil, m.Index, m.Begin, m.Length))
		b.Write(tr.piece(m.Index)[m.Begin : m.Begin+m.Length])
	})
}

// TestHostileFrames: whatever a parent sends as a frame, nothing wrong reaches
// the storage and the server fills the gap.
func TestHostileFrames(t *testing.T) {
	t.Parallel()
	tr := softTorrent(t, 16)
	good := encode(t, tr)
	bomb := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0}
	bomb = binary.LittleEndian.AppendUint32(bomb, testPiece)
	for i := range 1000 {
		h := uint32(128<<10)<<3 | 1<<1 // RLE blocks of 128 KiB
		if i == 999 {
			h |= 1
		}
		bomb = append(bomb, byte(h), byte(h>>8), byte(h>>16), 'A')
	}
	skip := append(binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, 4), 1, 2, 3, 4)
	window := binary.LittleEndian.AppendUint32([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x80, 0xa7}, testPiece) // 1.9 GiB
	window = append(window, 3|testPiece<<3&0xff, testPiece<<3>>8&0xff, testPiece<<3>>16, 'A')
	half, err := frame.NewEncoder(testPiece / 2)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(i int) []byte{
		"bomb":      func(int) []byte { return bomb },
		"short":     func(int) []byte { return half.Encode(nil, make([]byte, testPiece/2)) },
		"trailing":  func(i int) []byte { return append(bytes.Clone(good[i]), 0) },
		"two":       func(i int) []byte { return append(bytes.Clone(good[0]), good[0]...) },
		"skippable": func(i int) []byte { return append(bytes.Clone(skip), good[0]...) },
		"cut":       func(i int) []byte { return good[i/4*4][:len(good[i/4*4])-1] },
		"window":    func(int) []byte { return window },
		"noise":     func(i int) []byte { return tr.piece(3)[:100] },
		"other":     func(i int) []byte { return good[(i/4*4+4)%len(tr.hashes)] },
		"too long":  func(i int) []byte { return make([]byte, testPiece) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := framedSeed(t, tr, good)
			odd := listenAs(t, tr, framedHello, frameServer(func(p *plainPeer, m wire.Message) bool {
				if !m.Frame {
					return sendPlain(p, m, tr)
				}
				return sendFrame(p, m, f(m.Index))
			}))
			accused := make(chan Peer, 100)
			h := start(t, "host", tr, newStore(t, tr, []int{}), func(c *Config) { c.OnAccuse = func(_ int, p Peer) { accused <- p } })
			h.SetSources(Assignment{Parent: odd, Fallbacks: []Peer{seed.ref()}})
			h.wait()
			h.store.check()
			s := h.Stats()
			if s.BytesFromServer == 0 {
				t.Error("nothing came from the server")
			}
			if name == "too long" { // hung up on before there was a piece to judge
				return
			}
			if s.HashFailures == 0 || len(accused) != s.HashFailures {
				t.Errorf("%d wrong pieces, %d accusations; want the same number, not 0", s.HashFailures, len(accused))
			}
			for len(accused) > 0 {
				if p := <-accused; p.ID != odd.ID {
					t.Errorf("accused %s; want %s", p.ID, odd.ID)
				}
			}
		})
	}
}

// TestLyingFrameLengths: what a parent says of a frame's length must fit what it
// sends; else it is hung up on or found stalled, and the server takes over.
func TestLyingFrameLengths(t *testing.T) {
	t.Parallel()
	tr := softTorrent(t, 16)
	good := encode(t, tr)
	for name, lie := range map[string]struct{ frameLen, sent int }{
		"nothing":                 {0, 1000},
		"a gigabyte":              {1 << 30, 16 << 10},
		"a byte more than plain":  {testPiece + 1, 16 << 10},
		"more than it ever sends": {40_000, 16 << 10},
		"less than it sends":      {1000, 16 << 10},
		"a block cut short":       {40_000, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := framedSeed(t, tr, good)
			odd := listenAs(t, tr, framedHello, frameServer(func(p *plainPeer, m wire.Message) bool {
				if m.Begin > 0 {
					return true
				}
				return p.say(func(b *bytesBuffer) {
					b.Write(wire.AppendFrameHeader(nil, wire.OwnExtensionID, m.Index, 0, lie.frameLen, lie.sent))
					b.Write(make([]byte, lie.sent))
				})
			}))
			h := start(t, "host", tr, newStore(t, tr, []int{}), nil)
			h.SetSources(Assignment{Parent: odd, Fallbacks: []Peer{seed.ref()}})
			h.wait()
			h.store.check()
			if s := h.Stats(); s.BytesFromServer == 0 || s.FramesReceived == 0 {
				t.Errorf("%d bytes from the server, %d frames; want it to take over, compressed", s.BytesFromServer, s.FramesReceived)
			}
		})
	}
}

// TestFrameTurnsPlain: a parent that loses the frame in the middle of a piece
// goes on plain; the host starts the piece again.
func TestFrameTurnsPlain(t *testing.T) {
	tr := softTorrent(t, 12)
	good := encode(t, tr)
	odd := listenAs(t, tr, framedHello, frameServer(func(p *plainPeer, m wire.Message) bool {
		if f := good[m.Index]; m.Frame && f != nil && m.Begin == 0 && m.Index%4 == 2 {
			delete(good, m.Index)
			return sendFrame(p, m, f)
		}
		return sendPlain(p, m, tr)
	}))
	h := start(t, "host", tr, newStore(t, tr, []int{}), nil)
	h.SetSources(Assignment{Parent: odd})
	h.wait()
	h.store.check()
	if s := h.Stats(); s.HashFailures > 0 || s.Switches > 0 {
		t.Errorf("%d wrong pieces, %d switches; want none", s.HashFailures, s.Switches)
	}
}

// TestEndlessTurns: one that changes its mind with every block is hung up on.
func TestEndlessTurns(t *testing.T) {
	t.Parallel()
	tr := softTorrent(t, 4)
	seed := start(t, "seed", tr, newStore(t, tr, nil), asSeed)
	n := 0
	odd := listenAs(t, tr, framedHello, frameServer(func(p *plainPeer, m wire.Message) bool {
		n++
		return sendFrame(p, wire.Message{Index: m.Index, Length: 16 << 10}, make([]byte, 20_000+n%2))
	}))
	h := start(t, "host", tr, newStore(t, tr, []int{}), nil)
	h.SetSources(Assignment{Parent: odd, Fallbacks: []Peer{seed.ref()}})
	h.wait()
	h.store.check()
	if h.Stats().BytesFromServer == 0 {
		t.Error("nothing came from the server")
	}
}
