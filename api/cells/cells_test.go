package cells

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	var raw []byte
	want := []Head{{Ord: 0, Len: 3, Sum: [32]byte{1}}, {Ord: 1}, {Ord: 2, Sum: [32]byte{9}}, {Ord: 7, Len: MaxFrame(4096), Sum: [32]byte{2}}}
	for _, h := range want {
		raw = append(Append(raw, h), bytes.Repeat([]byte{byte(h.Ord) + 1}, h.Len)...)
	}
	r := NewReader(bytes.NewReader(raw), 4096)
	for _, w := range want {
		h, frame, err := r.Next()
		if err != nil || h != w || len(frame) != w.Len || (w.Len > 0 && frame[w.Len-1] != byte(w.Ord)+1) {
			t.Fatalf("Next = %+v, %d bytes, %v; want %+v", h, len(frame), err, w)
		}
	}
	if _, _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		raw  []byte
		want error
	}{
		"cut in the head":      {make([]byte, HeadLen-1), io.ErrUnexpectedEOF},
		"cut in the frame":     {append(Append(nil, Head{Len: 9, Sum: [32]byte{1}}), 1, 2), io.ErrUnexpectedEOF},
		"cut before the frame": {Append(nil, Head{Len: 9, Sum: [32]byte{1}}), io.ErrUnexpectedEOF},
		"frame too long":       {Append(nil, Head{Len: MaxFrame(4096) + 1}), ErrStream},
		"frame of 4 GiB":       {Append(nil, Head{Len: 1<<32 - 1}), ErrStream},
	} {
		if _, _, err := NewReader(bytes.NewReader(tt.raw), 4096).Next(); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v; want %v", name, err, tt.want)
		}
	}
}

// FuzzReader: no panic, and every stream that is read to its end is exactly what Append would have written.
func FuzzReader(f *testing.F) {
	f.Add([]byte{})
	f.Add(append(Append(nil, Head{Ord: 1, Len: 2, Sum: [32]byte{3}}), 4, 5))
	f.Add(Append(Append(nil, Head{}), Head{Ord: 1}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := NewReader(bytes.NewReader(raw), 512)
		var again []byte
		for {
			h, frame, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return
			}
			again = append(Append(again, h), frame...)
		}
		if !bytes.Equal(again, raw) {
			t.Errorf("%x was read as %x", raw, again)
		}
	})
}
