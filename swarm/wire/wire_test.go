package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/anacrolix/torrent/bencode"
	pp "github.com/anacrolix/torrent/peer_protocol"
	"github.com/google/go-cmp/cmp"
)

const pieces = 21

// speak encodes one of everything we send.
func speak() []byte {
	var b bytes.Buffer
	have := make([]bool, pieces)
	have[0], have[20] = true, true
	PutBitfield(&b, have)
	PutKeepalive(&b)
	PutState(&b, pp.Interested)
	PutHave(&b, 20)
	PutBlock(&b, pp.Request, 3, 16384, 262144)
	PutBlock(&b, pp.Reject, 3, 16384, 262144)
	PutExtended(&b, 0, []byte("d1:md8:labswarmi1eee"))
	b.Write(AppendPieceHeader(nil, 7, 4, 5))
	b.WriteString("hello")
	PutFrameRequest(&b, OwnExtensionID, 20, 16384, 262144)
	b.Write(AppendFrameHeader(nil, OwnExtensionID, 7, 4, 9, 5))
	b.WriteString("hello")
	PutState(&b, pp.HaveAll)
	return b.Bytes()
}

func TestReader(t *testing.T) {
	r := NewReader(bytes.NewReader(speak()), pieces)
	have := make([]bool, pieces)
	have[0], have[20] = true, true
	want := []Message{
		{Type: pp.Bitfield, Bitfield: have},
		{Keepalive: true},
		{Type: pp.Interested},
		{Type: pp.Have, Index: 20},
		{Type: pp.Request, Index: 3, Begin: 16384, Length: 262144},
		{Type: pp.Reject, Index: 3, Begin: 16384, Length: 262144},
		{Type: pp.Extended, Ext: []byte("d1:md8:labswarmi1eee")},
		{Type: pp.Piece, Index: 7, Begin: 4, Length: 5},
		{Type: pp.Request, Frame: true, Index: 20, Begin: 16384, Length: 262144},
		{Type: pp.Piece, Frame: true, FrameLen: 9, Index: 7, Begin: 4, Length: 5},
		{Type: pp.HaveAll},
	}
	for i, w := range want {
		m, err := r.Next()
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if d := cmp.Diff(w, m); d != "" {
			t.Errorf("message %d (-want +got):\n%s", i, d)
		}
		if m.Type == pp.Piece { // read three of five bytes; Next skips the rest
			b := make([]byte, 3)
			if _, err := io.ReadFull(r, b); err != nil || string(b) != "hel" {
				t.Errorf("payload %q, %v; want hel", b, err)
			}
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v; want io.EOF", err)
	}
}

// TestSameAsLibrary: what we write is what the library's decoder reads.
func TestSameAsLibrary(t *testing.T) {
	b := append(AppendPieceHeader(nil, 7, 4, 5), "hello"...)
	var m pp.Message
	d := pp.Decoder{R: bufio.NewReader(bytes.NewReader(b)), MaxLength: 100}
	if err := d.Decode(&m); err != nil {
		t.Fatal(err)
	}
	if m.Type != pp.Piece || m.Index != 7 || m.Begin != 4 || string(m.Piece) != "hello" {
		t.Errorf("library reads %+v", m)
	}
}

func TestRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"bitfield too short":       {0, 0, 0, 2, 5, 0},
		"bitfield spare bits":      {0, 0, 0, 4, 5, 0, 0, 1},
		"have out of range":        {0, 0, 0, 5, 4, 0, 0, 0, 21},
		"have negative":            {0, 0, 0, 5, 4, 0xff, 0xff, 0xff, 0xff},
		"have with a tail":         {0, 0, 0, 6, 4, 0, 0, 0, 1, 0},
		"request out of range":     {0, 0, 0, 13, 6, 0, 0, 0, 21, 0, 0, 0, 0, 0, 0, 0, 1},
		"request huge offset":      {0, 0, 0, 13, 6, 0, 0, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 1},
		"request huge length":      {0, 0, 0, 13, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0, 0, 1},
		"piece too long":           {0, 4, 0, 10, 7, 0, 0, 0, 1, 0, 0, 0, 0},
		"piece too short":          {0, 0, 0, 8, 7, 0, 0, 0, 1, 0, 0, 0},
		"piece out of range":       {0, 0, 0, 10, 7, 0, 0, 0, 99, 0, 0, 0, 0, 1},
		"frame message too short":  {0, 0, 0, 14, 20, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0},
		"frame message unknown":    {0, 0, 0, 15, 20, 1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0},
		"frame request with bytes": {0, 0, 0, 16, 20, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1},
		"frame of no piece":        {0, 0, 0, 16, 20, 1, 1, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 9, 1},
		"frame huge length":        {0, 0, 0, 16, 20, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0, 0, 9, 1},
		"frame block too long":     {0, 4, 0, 16, 20, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 1},
		"other extension too long": {0, 1, 0, 16, 20, 2, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 1},
		"extended without id":      {0, 0, 0, 1, 20},
		"extended too long":        {0, 0, 0x40, 3, 20, 0},
		"unknown type, 2 GiB":      {0x7f, 0xff, 0xff, 0xff, 99},
		"choke with payload":       {0, 0, 0, 2, 0, 0},
		"not even a whole field":   {0, 0},
	} {
		m, err := NewReader(bytes.NewReader(b), pieces).Next()
		if err == nil {
			t.Errorf("%s: read %+v; want an error", name, m)
		}
		if errors.Is(err, io.EOF) {
			t.Errorf("%s: a clean end; want an error", name)
		}
	}
}

func TestUnknownIsSkipped(t *testing.T) {
	b := append([]byte{0, 0, 0, 4, 77, 1, 2, 3}, 0, 0, 0, 1, 1)
	r := NewReader(bytes.NewReader(b), pieces)
	if m, err := r.Next(); err != nil || !m.Unknown {
		t.Errorf("Next = %+v, %v; want unknown", m, err)
	}
	if m, err := r.Next(); err != nil || m.Type != pp.Unchoke {
		t.Errorf("Next = %+v, %v; want unchoke", m, err)
	}
}

func TestHandshake(t *testing.T) {
	h := NewHandshake([20]byte{1, 2}, [20]byte{3, 4})
	if !h.Bits.SupportsFast() || !h.Bits.SupportsExtended() || h.Bits.SupportsDHT() {
		t.Errorf("bits %v; want fast and extended, no DHT", h.Bits)
	}
	b := append(h.Append(nil), "next"...)
	r := bytes.NewReader(b)
	got, err := ReadHandshake(r)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(h, got); d != "" || r.Len() != 4 {
		t.Errorf("handshake (-want +got), %d bytes left, want 4:\n%s", r.Len(), d)
	}
	if _, err := ReadHandshake(bytes.NewReader(b[:67])); err == nil {
		t.Error("a short handshake was accepted")
	}
	b[5] ^= 1
	if _, err := ReadHandshake(bytes.NewReader(b)); !errors.Is(err, ErrProtocol) {
		t.Errorf("wrong protocol name: %v; want ErrProtocol", err)
	}
}

func TestExtended(t *testing.T) {
	b, err := NewExtended(128<<10, 1024).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if want := "d8:labswarmd3:blki131072ee1:md8:labswarmi1ee4:reqqi1024e1:v8:labswarme"; string(b) != want {
		t.Errorf("handshake %q; want %q", b, want)
	}
	for _, c := range []struct {
		name, in string
		block    int
		own      bool
	}{
		{"ours, smaller block wins", string(b), 64 << 10, true},
		{"ours with rubbish behind", string(b) + "xx", 64 << 10, true},
		{"a standard client", "d1:md11:ut_metadatai3e6:ut_pexi1ee13:metadata_sizei99e1:pi6881e4:reqqi250e1:v6:foobare", 16 << 10, false},
		{"extension disabled", "d8:labswarmd3:blki131072ee1:md8:labswarmi0eee", 16 << 10, false},
		{"no block size", "d1:md8:labswarmi1eee", 16 << 10, false},
		{"block not a number", "d8:labswarmd3:blk1:xe1:md8:labswarmi1eee", 16 << 10, false},
		{"m is a list", "d1:mle4:reqqi1ee", 16 << 10, false},
	} {
		e, err := ParseExtended([]byte(c.in))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := e.BlockWith(64 << 10); got != c.block || e.IsOwn() != c.own {
			t.Errorf("%s: block %d own %v; want %d %v", c.name, got, e.IsOwn(), c.block, c.own)
		}
	}
	if e, err := ParseExtended(b); err != nil || e.HasFrames() {
		t.Errorf("frames offered by a handshake without z: %v, %v", e, err)
	}
	if e, err := ParseExtended([]byte("d8:labswarmd3:blki131072e1:zi1ee1:md8:labswarmi7eee")); err != nil || !e.HasFrames() || e.OwnID() != 7 {
		t.Errorf("frames not seen in %+v, %v", e, err)
	}
	for _, bad := range []string{"", "i1e", "le", "d", "d1:m", "d99999999:", "di1ei2ee", "5:hello"} {
		if e, err := ParseExtended([]byte(bad)); err == nil {
			t.Errorf("ParseExtended(%q) = %+v; want an error", bad, e)
		}
	}
}

func TestBlockSize(t *testing.T) {
	for piece, want := range map[int64]int{16 << 10: 16 << 10, 64 << 10: 32 << 10, 256 << 10: 128 << 10, 1 << 20: 256 << 10, 4 << 20: 256 << 10, 64 << 20: 256 << 10} {
		if got := BlockSize(piece); got != want {
			t.Errorf("BlockSize(%d) = %d; want %d", piece, got, want)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(speak())
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 4, 77, 1, 2, 3, 0, 0, 0, 1, 1})
	f.Add([]byte{0, 0, 0, 10, 7, 0, 0, 0, 1, 0, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b), pieces)
		for range len(b) + 1 {
			m, err := r.Next()
			if err != nil {
				return
			}
			if m.Index < 0 || m.Index >= pieces || m.Begin < 0 || m.Length < 0 || m.Type == pp.Piece && m.Length > MaxBlock {
				t.Fatalf("accepted %+v", m)
			}
			if m.Type == pp.Bitfield && len(m.Bitfield) != pieces {
				t.Fatalf("bitfield of %d", len(m.Bitfield))
			}
		}
		t.Fatal("more messages than bytes")
	})
}

func FuzzHandshake(f *testing.F) {
	f.Add(NewHandshake([20]byte{1}, [20]byte{2}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ReadHandshake(bytes.NewReader(b))
		if err == nil && !bytes.Equal(h.Append(nil), b[:HandshakeLen]) {
			t.Fatalf("handshake %x is not what was read", h.Append(nil))
		}
	})
}

func FuzzExtended(f *testing.F) {
	b, err := bencode.Marshal(NewExtended(1<<17, 250))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("d1:md11:ut_metadatai3ee4:reqqi-5e1:vi9ee"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseExtended(b)
		if err != nil {
			return
		}
		if n := e.BlockWith(MaxBlock); n < PlainBlock || n > MaxBlock || n%PlainBlock != 0 {
			t.Fatalf("block size %d", n)
		}
	})
}
