package library

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"labswarm/images/manifest"
)

// files are the small files of v as they travel.
func files(v *Version) Files {
	return Files{Manifest: v.ManifestJSON(), Sig: v.Sig(), Torrent: v.TorrentBytes(), Used: v.UsedBin(), Hashes: v.HashesBin(), Hooks: v.HooksBin()}
}

// copies opens an empty library for versions of l's.
func copies(t *testing.T, l *Library) *Library {
	t.Helper()
	c, err := OpenCopies(filepath.Join(t.TempDir(), "copies"), l.pubs)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func receive(t *testing.T, c *Library, v *Version) *Incoming {
	t.Helper()
	in, err := c.Receive(t.Context(), v.Name(), v.Version(), files(v), nil)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// fill writes the pieces of v that want names into in.
func fill(t *testing.T, in *Incoming, v *Version, want func(piece int) bool) {
	t.Helper()
	buf := make([]byte, v.Manifest().Cell)
	for i := range v.Manifest().Pieces() {
		if !want(i) {
			continue
		}
		if err := v.ReadPiece(i, buf); err != nil {
			t.Fatal(err)
		}
		if err := in.WritePiece(i, buf); err != nil {
			t.Fatal(err)
		}
	}
}

func close1(t *testing.T, c interface{ Close() error }) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestReceive goes through a fetch that is interrupted twice and meets bit rot,
// and expects the very files of the original at the end.
func TestReceive(t *testing.T) {
	l, v := imported(t, ImportOptions{})
	c := copies(t, l)
	n := v.Manifest().Pieces()
	in := receive(t, c, v)
	for i := range n {
		if in.Have(i) {
			t.Fatalf("an empty folder has piece %d", i)
		}
	}
	if _, err := c.Receive(t.Context(), v.Name(), v.Version(), files(v), nil); !errors.Is(err, ErrBusy) {
		t.Errorf("a second Receive at the same time = %v; want ErrBusy", err)
	}
	fill(t, in, v, func(p int) bool { return p%3 != 0 })
	close1(t, in) // a kill leaves the same
	if list, err := c.Pending(); err != nil || !slices.Equal(list, []string{v.Name() + "/" + v.Version()}) {
		t.Errorf("Pending = %v, %v", list, err)
	}
	if list, err := c.List(); err != nil || len(list) != 0 {
		t.Errorf("an unfinished version is listed: %v, %v", list, err)
	}

	// One bit of a piece that is there rots meanwhile.
	rotten := 4
	raw := filepath.Join(c.fetchPath(v.Name(), v.Version()), rawFile)
	flip(t, raw, v.Manifest().CellOf(rotten)*v.Manifest().Cell+100)
	in = receive(t, c, v)
	for i := range n {
		if want := i%3 != 0 && i != rotten; in.Have(i) != want {
			t.Errorf("piece %d is there: %v; want %v", i, in.Have(i), want)
		}
	}
	bad, err := in.Publish(t.Context(), nil)
	if err != nil || len(bad) != (n+2)/3+1 {
		t.Fatalf("Publish of an unfinished version = %d bad, %v; want %d", len(bad), err, (n+2)/3+1)
	}
	fill(t, in, v, func(p int) bool { return slices.Contains(bad, p) })
	// A byte outside of everything that is used, and the end of a fetch.
	bad, err = in.Publish(t.Context(), nil)
	if err != nil || len(bad) != 0 {
		t.Fatalf("Publish = %v, %v", bad, err)
	}
	close1(t, in)
	got, err := c.Get(v.Name(), "latest")
	if err != nil {
		t.Fatal(err)
	}
	defer close1(t, got)
	if err := got.FramesErr(); err != nil || got.FrameBytes() != v.FrameBytes() {
		t.Errorf("frames of the copy: %v, %d bytes; want %d", err, got.FrameBytes(), v.FrameBytes())
	}
	if !bytes.Equal(payload(t, got), payload(t, v)) {
		t.Error("the copy's payload differs")
	}
	for _, f := range []string{rawFile, manifestFile, sigFile, torrentFile, framesFile} {
		a, err1 := os.ReadFile(filepath.Join(v.Dir(), f))
		b, err2 := os.ReadFile(filepath.Join(got.Dir(), f))
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs from the original's (%v)", f, err)
		}
	}
	if _, err := c.Receive(t.Context(), v.Name(), v.Version(), files(v), nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Receive of a version that is here = %v", err)
	}
	if err := c.Remove(v.Name(), v.Version()); err != nil {
		t.Error(err)
	}
}

// flip inverts a bit of a file.
func flip(t *testing.T, path string, off int64) {
	t.Helper()
	b := make([]byte, 1)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		_, err = f.ReadAt(b, off)
		b[0] ^= 1
		if err == nil {
			_, err = f.WriteAt(b, off)
		}
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestReceiveRefuses: nothing touches the disk for files that are not signed by
// a trusted key or do not belong together.
func TestReceiveRefuses(t *testing.T) {
	l, v := imported(t, ImportOptions{Codec: CodecNone})
	_, foreign, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Files){
		"foreign signature": func(f *Files) { f.Sig = manifest.Sign(foreign, f.Manifest) },
		"changed manifest": func(f *Files) {
			f.Manifest = bytes.Replace(f.Manifest, []byte(`"sector":512`), []byte(`"sector":4096`), 1)
		},
		"other torrent": func(f *Files) {
			f.Torrent = bytes.Replace(f.Torrent, []byte("labswarm"), []byte("labswarn"), 1)
		},
		"no torrent": func(f *Files) { f.Torrent = nil },
	} {
		c := copies(t, l)
		f := files(v)
		change(&f)
		if _, err := c.Receive(t.Context(), v.Name(), v.Version(), f, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if list, err := c.Pending(); err != nil || len(list) != 0 {
			t.Errorf("%s: left %v, %v", name, list, err)
		}
	}
	c := copies(t, l)
	if _, err := c.Receive(t.Context(), "other", v.Version(), files(v), nil); err == nil {
		t.Error("accepted under another name")
	}
	if _, err := l.Receive(t.Context(), v.Name(), v.Version(), files(v), nil); !errors.Is(err, ErrReadOnly) {
		t.Errorf("a library of own versions takes a foreign one: %v", err)
	}
}

// TestReceiveWithRubbishOnDisk: what a power cut left in the place of zeros
// does not survive the piece's arrival.
func TestReceiveWithRubbishOnDisk(t *testing.T) {
	l, v := imported(t, ImportOptions{Codec: CodecNone})
	c := copies(t, l)
	in := receive(t, c, v)
	close1(t, in)
	m := v.Manifest()
	raw := filepath.Join(c.fetchPath(v.Name(), v.Version()), rawFile)
	for i := range m.Pieces() {
		write(t, raw, m.CellOf(i)*m.Cell, bytes.Repeat([]byte{0xa5}, int(min(m.Cell, m.Disk.Size-m.CellOf(i)*m.Cell))))
	}
	in = receive(t, c, v)
	defer close1(t, in)
	fill(t, in, v, func(int) bool { return true })
	if bad, err := in.Publish(t.Context(), nil); err != nil || len(bad) != 0 {
		t.Errorf("Publish = %v, %v", bad, err)
	}
}

func TestForgetAndCancel(t *testing.T) {
	l, v := imported(t, ImportOptions{Codec: CodecNone})
	c := copies(t, l)
	in := receive(t, c, v)
	fill(t, in, v, func(int) bool { return true })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := in.Publish(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Publish with an ended context = %v", err)
	}
	if err := c.Forget(v.Name(), v.Version()); !errors.Is(err, ErrBusy) {
		t.Errorf("Forget of an open fetch = %v; want ErrBusy", err)
	}
	close1(t, in)
	if err := c.Forget(v.Name(), v.Version()); err != nil {
		t.Error(err)
	}
	if list, err := c.Pending(); err != nil || len(list) != 0 {
		t.Errorf("Pending = %v, %v", list, err)
	}
}

// TestRepair: a damaged cell takes its right content again, and nothing else.
func TestRepair(t *testing.T) {
	_, v := imported(t, ImportOptions{Codec: CodecNone})
	m := v.Manifest()
	good := make([]byte, m.Cell)
	if err := v.ReadPiece(2, good); err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(v.Dir(), rawFile), m.CellOf(2)*m.Cell+200)
	wrong := bytes.Clone(good)
	wrong[0] ^= 1
	var bad *BadCellError
	if err := v.Repair(2, wrong); !errors.As(err, &bad) {
		t.Errorf("Repair with other content = %v", err)
	}
	if res, err := v.Verify(t.Context(), nil); err != nil || len(res.Bad) != 1 {
		t.Fatalf("Verify = %+v, %v; want the one damaged cell", res, err)
	}
	if err := v.Repair(2, good); err != nil {
		t.Error(err)
	}
	if res, err := v.Verify(t.Context(), nil); err != nil || !res.OK() {
		t.Errorf("Verify after the repair = %+v, %v", res, err)
	}
}
