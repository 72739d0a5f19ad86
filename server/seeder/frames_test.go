package seeder

import (
	"bytes"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"labswarm/swarm/frame"
)

// framedRAM is an image with a frame store.
type framedRAM struct {
	*ram
	frames [][]byte
	asked  atomic.Int32
}

func (r *framedRAM) Frame(i int, buf []byte) ([]byte, bool) {
	r.asked.Add(1)
	return append(buf[:0], r.frames[i]...), true
}

// TestFramesAreServed: an image with frames travels compressed, and what is
// counted is the image's bytes all the same.
func TestFramesAreServed(t *testing.T) {
	s, addr := serve(t, Config{AllowPeer: func(netip.Addr) bool { return true }})
	r := &framedRAM{ram: newRAM(t, "framed", 5)}
	e, err := frame.NewEncoder(pieceLen)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range r.data {
		clear(b[pieceLen/3:])
		r.frames = append(r.frames, e.Encode(nil, b))
	}
	if err := s.Add(r); err != nil {
		t.Fatal(err)
	}
	st, ok := fetch(t, r.ram, addr, 20*time.Second)
	if !ok {
		t.Fatal("the image did not arrive")
	}
	for i, want := range r.data {
		if !bytes.Equal(st.got[i], want) {
			t.Errorf("piece %d is wrong", i)
		}
	}
	if r.asked.Load() == 0 {
		t.Error("no frame was asked for")
	}
	want, wantWire := int64(len(r.data))*pieceLen, int64(0)
	for _, f := range r.frames {
		wantWire += int64(len(f))
	}
	for end := time.Now().Add(20 * time.Second); sent(s, r.ih) < want && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n, wire := s.Sent(r.ih); n != want || wire != wantWire {
		t.Errorf("Sent = %d, %d; want %d image bytes and %d on the wire", n, wire, want, wantWire)
	}
}

// TestNoFrames: a seeder that is told so sends every piece plain.
func TestNoFrames(t *testing.T) {
	s, addr := serve(t, Config{AllowPeer: func(netip.Addr) bool { return true }, NoFrames: true})
	r := &framedRAM{ram: newRAM(t, "framed", 3), frames: [][]byte{{1}, {2}, {3}}}
	if err := s.Add(r); err != nil {
		t.Fatal(err)
	}
	if _, ok := fetch(t, r.ram, addr, 20*time.Second); !ok {
		t.Fatal("the image did not arrive")
	}
	if n := r.asked.Load(); n != 0 {
		t.Errorf("%d frames were asked for", n)
	}
}
