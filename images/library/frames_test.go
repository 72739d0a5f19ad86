package library

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"labswarm/images/fixture"
	"labswarm/internal/testreq"
	"labswarm/swarm/frame"
)

// payload is what the torrent promises: all pieces one after the other.
func payload(t testing.TB, v *Version) []byte {
	t.Helper()
	cell := int(v.Manifest().Cell)
	b := make([]byte, v.Manifest().Pieces()*cell)
	for i := range v.Manifest().Pieces() {
		if err := v.ReadPiece(i, b[i*cell:(i+1)*cell]); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// imported makes a version of the small disk and closes it at the end.
func imported(t testing.TB, o ImportOptions) (*Library, *Version) {
	t.Helper()
	o.Name, o.File = "lab", golden(t, fixture.New(t, testreq.Tool))
	return importedFile(t, o)
}

// importedFile imports o.File into a library of the test's own and closes the version at the end.
func importedFile(t testing.TB, o ImportOptions) (*Library, *Version) {
	t.Helper()
	l, _ := newLibrary(t)
	v, err := l.Import(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, v
}

// TestFrames: the zstd program makes the torrent's payload of frames.zst, and
// every frame is its piece.
func TestFrames(t *testing.T) {
	zstd := testreq.Tool(t, "zstd", "zstd")
	l, v := imported(t, ImportOptions{})
	want := payload(t, v)
	cmd := exec.CommandContext(t.Context(), zstd, "-dc", filepath.Join(v.Dir(), framesFile))
	got, err := cmd.Output()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("zstd -dc: %d bytes, %v; want the %d of the torrent", len(got), err, len(want))
	}
	cell := int(v.Manifest().Cell)
	d, err := frame.NewDecoder(cell)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	n, plain, buf := 0, make([]byte, cell), make([]byte, cell)
	for range 2 { // checked, then from the second read on not
		for i := range v.Manifest().Pieces() {
			f, ok, err := v.Frame(i, buf)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				continue
			}
			n++
			if err := d.Decode(plain, f); err != nil || !bytes.Equal(plain, want[i*cell:(i+1)*cell]) {
				t.Errorf("frame %d: %v", i, err)
			}
		}
	}
	if n < 10 || v.FrameBytes() == 0 {
		t.Errorf("%d frames of %d bytes", n, v.FrameBytes())
	}
	for _, i := range []int{-1, v.Manifest().Pieces()} {
		if _, ok, err := v.Frame(i, nil); ok || err == nil {
			t.Errorf("Frame(%d) = %v, %v; want an error", i, ok, err)
		}
	}
	// The codec is no content. A copy of disk.raw has no backup GPT, which changes nothing of it either.
	_, err = l.Import(t.Context(), ImportOptions{Name: "lab", File: filepath.Join(v.Dir(), rawFile), Codec: CodecNone})
	if !errors.Is(err, ErrUnchanged) {
		t.Errorf("import of the same disk without frames = %v; want ErrUnchanged", err)
	}
}

func TestCodecNone(t *testing.T) {
	_, v := imported(t, ImportOptions{Codec: CodecNone})
	if _, err := os.Stat(filepath.Join(v.Dir(), framesFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v; want it not to exist", framesFile, err)
	}
	if _, ok, err := v.Frame(0, nil); ok || err != nil || v.FramesErr() != nil || v.Manifest().Codec != CodecNone {
		t.Errorf("Frame = %v, %v; FramesErr %v; codec %q", ok, err, v.FramesErr(), v.Manifest().Codec)
	}
}

// TestDamagedFrames: whatever happens to the frame store, the version opens and
// gives its pieces.
func TestDamagedFrames(t *testing.T) {
	l, v := imported(t, ImportOptions{})
	want := payload(t, v)
	path := filepath.Join(v.Dir(), framesFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	trailer := len(good) - trailerLen(v.Manifest().Pieces())
	put := func(b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flip := func(i int) []byte { b := bytes.Clone(good); b[i] ^= 1; return b }
	for name, harmed := range map[string][]byte{
		"empty":           {},
		"cut":             good[:len(good)-1],
		"longer":          append(bytes.Clone(good), 0),
		"longer in front": append([]byte{0}, good...),
		"index only":      good[trailer:],
		"no index":        good[:trailer],
		"index rotten":    flip(trailer + 8 + 60),
		"not skippable":   flip(trailer),
		"skip length":     flip(trailer + 4),
		"other image":     flip(trailer + 8 + 20),
		"other format":    flip(trailer + 8 + 6),
		"checksum rotten": flip(len(good) - 1),
		"none":            nil,
	} {
		if put(harmed); harmed == nil {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		w, err := l.Get("lab", v.Version())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, ok, err := w.Frame(0, nil); ok || err != nil || w.FramesErr() == nil {
			t.Errorf("%s: Frame = %v, %v; FramesErr %v", name, ok, err, w.FramesErr())
		}
		if !bytes.Equal(payload(t, w), want) {
			t.Errorf("%s: the pieces changed", name)
		}
		if res, err := w.Verify(t.Context(), nil); err != nil || !res.OK() || res.FramesOK() {
			t.Errorf("%s: Verify = %+v, %v; want good cells and no compressed ones", name, res, err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	// A frame that rots after it was read well is found all the same.
	put(good)
	w, err := l.Get("lab", v.Version())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := w.Frame(0, nil); !ok || err != nil {
		t.Errorf("good frame: %v, %v", ok, err)
	}
	write(t, path, 9, []byte{good[9] ^ 1})
	if _, ok, err := w.Frame(0, nil); ok || err == nil {
		t.Errorf("frame that rotted after the first read: %v, %v; want an error", ok, err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	// One rotten frame is found at its first read and counts as missing.
	put(flip(9))
	checkRotten(t, l, v.Version())
}

// checkRotten expects frame 0 to be rotten and frame 3 not.
func checkRotten(t *testing.T, l *Library, version string) {
	t.Helper()
	w, err := l.Get("lab", version)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := w.Frame(0, nil); ok || err == nil {
		t.Errorf("rotten frame: %v, %v; want an error", ok, err)
	}
	if _, ok, err := w.Frame(0, nil); ok || err != nil {
		t.Errorf("rotten frame again: %v, %v; want none", ok, err)
	}
	if _, ok, err := w.Frame(3, nil); !ok || err != nil {
		t.Errorf("frame beside a rotten one: %v, %v", ok, err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func FuzzFrameIndex(f *testing.F) {
	w := &frameWriter{cell: 1 << 20, index: make([]byte, 2*frameEntry)}
	f.Add(w.trailer([32]byte{1}), 2)
	f.Add([]byte(frameMagic), 0)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		n = max(0, min(n, 1000))
		e, err := parseTrailer(b, 1<<20, n, [32]byte{1}, 0)
		if err == nil && len(e) != n*frameEntry {
			t.Errorf("%d bytes of entries for %d pieces", len(e), n)
		}
	})
}
