package metainfo

import (
	"bytes"
	"crypto/sha1"
	"testing"

	"github.com/anacrolix/torrent/bencode"
	amet "github.com/anacrolix/torrent/metainfo"
	"github.com/google/go-cmp/cmp"
)

func sample(t testing.TB, n int) ([]byte, [20]byte, [][20]byte) {
	t.Helper()
	var hs [][20]byte
	for i := range n {
		hs = append(hs, sha1.Sum([]byte{byte(i)}))
	}
	raw, ih, err := Build("lab-2026-11-20.1", 1<<20, hs)
	if err != nil {
		t.Fatalf("Build = %v", err)
	}
	return raw, ih, hs
}

func TestBuildIsReproducibleAndStandard(t *testing.T) {
	raw, ih, hs := sample(t, 7)
	again, ih2, _ := sample(t, 7)
	if !bytes.Equal(raw, again) || ih != ih2 {
		t.Fatal("Build gave different bytes for the same input")
	}
	// An independent reader must see the same thing.
	mi, err := amet.Load(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("metainfo.Load = %v", err)
	}
	in, err := mi.UnmarshalInfo()
	if err != nil {
		t.Fatalf("UnmarshalInfo = %v", err)
	}
	if [20]byte(mi.HashInfoBytes()) != ih {
		t.Error("info-hash differs from the reference reader's")
	}
	if in.Name != "lab-2026-11-20.1" || in.PieceLength != 1<<20 || in.NumPieces() != 7 || in.Length != 7<<20 ||
		in.Private == nil || !*in.Private || mi.CreationDate != 0 || mi.Announce != "" || mi.CreatedBy != "labswarm" {
		t.Errorf("reference reader sees %+v", in)
	}
	got, err := Parse(raw)
	if err != nil {
		t.Fatalf("Parse = %v", err)
	}
	want := &Torrent{InfoHash: ih, Name: "lab-2026-11-20.1", PieceLength: 1 << 20, Hashes: hs}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Parse (-want +got):\n%s", d)
	}
}

func TestParseRefuses(t *testing.T) {
	good, _, _ := sample(t, 3)
	public := bytes.Replace(good, []byte("7:privatei1e"), []byte("7:privatei0e"), 1)
	for name, in := range map[string][]byte{
		"empty":    nil,
		"public":   public,
		"no flag":  bytes.Replace(good, []byte("7:privatei1e"), nil, 1),
		"trailing": append(bytes.Clone(good), 'x'),
		"cut":      good[:len(good)-3],
		"length":   bytes.Replace(good, []byte("6:lengthi3145728e"), []byte("6:lengthi3145729e"), 1),
		"huge":     make([]byte, MaxSize+1),
		"announce": append([]byte("d8:announce3:foo"), good[1:]...),
		"date":     bytes.Replace(good, []byte("4:info"), []byte("13:creation datei5e4:info"), 1),
		"minus":    bytes.Replace(good, []byte("12:piece lengthi1048576e"), []byte("12:piece lengthi-1048576e"), 1),
		"zeros":    bytes.Replace(good, []byte("7:privatei1e"), []byte("7:privatei01e"), 1),
		"path":     bytes.Replace(good, []byte("lab-2026-11-20.1"), []byte("../2026-11-20..1"), 1),
	} {
		if in != nil && bytes.Equal(in, good) {
			t.Fatalf("%s: the case does not change the input", name)
		}
		if got, err := Parse(in); err == nil {
			t.Errorf("%s: Parse = %+v; want an error", name, got)
		}
	}
	if _, _, err := Build("x", 1<<20, nil); err == nil {
		t.Error("Build without pieces = nil error")
	}
}

func FuzzParse(f *testing.F) {
	raw, _, _ := sample(f, 2)
	f.Add(raw)
	f.Add(raw[:40])
	f.Add([]byte("d10:created by8:labswarm4:infod6:lengthi99999999999999999999eee"))
	f.Fuzz(func(t *testing.T, data []byte) {
		tor, err := Parse(data)
		if err != nil {
			return
		}
		again, ih, err := Build(tor.Name, tor.PieceLength, tor.Hashes)
		if err != nil || ih != tor.InfoHash || !bytes.Equal(again, data) {
			t.Fatalf("accepted a torrent that does not build back: %v", err)
		}
		var fields map[string]any
		if err := bencode.Unmarshal(data, &fields); err != nil {
			t.Fatalf("accepted what the codec refuses: %v", err)
		}
	})
}
