package library

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/manifest"
)

// small makes a version of a disk of 6 MiB, half of it zero, in cells of 256 KiB, without any tool.
func small(t testing.TB, o ImportOptions) (*Library, *Version) {
	t.Helper()
	disk := fixture.MBR(8, 4)
	clear(disk[3*MiB : 4*MiB])
	copy(disk[4*MiB:], bytes.Repeat([]byte("compressible "), 50000))
	o.Name, o.Cell, o.File = "lab", 256<<10, filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(o.File, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	return importedFile(t, o)
}

// elsewhere opens the library of another server.
func elsewhere(t testing.TB, seed uint64) (*Library, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "images")
	l, err := Open(dir, ed25519.NewKeyFromSeed(fixture.Random(seed, 32)), nil)
	if err != nil {
		t.Fatal(err)
	}
	return l, dir
}

func exportTo(t *testing.T, l *Library, v *Version) (path, fingerprint string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "image.tar")
	fingerprint, err := l.Export(t.Context(), v, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ents, err := os.ReadDir(filepath.Dir(path)); err != nil || len(ents) != 1 || !IsExport(path) {
		t.Fatalf("beside the export: %v, %v", ents, err)
	}
	return path, fingerprint
}

// TestExportImport: what leaves one server arrives on another, with the other's word for it, and is signed anew there.
func TestExportImport(t *testing.T) {
	for _, codec := range []string{CodecZstd, CodecNone} {
		t.Run(codec, func(t *testing.T) {
			l, v := small(t, ImportOptions{Codec: codec, OSHint: "Debian"})
			path, fingerprint := exportTo(t, l, v)
			other, dir := elsewhere(t, 6)
			for _, told := range []string{"", "sha256:" + strings.Repeat("0", 64), strings.ToUpper(fingerprint), fingerprint[:23]} {
				_, err := other.ImportExport(t.Context(), ImportOptions{Name: "lab", File: path}, told)
				var signer *UnknownSignerError
				if !errors.As(err, &signer) || signer.Fingerprint != fingerprint || !strings.Contains(err.Error(), fingerprint) {
					t.Errorf("told %q: %v; want UnknownSignerError with the fingerprint", told, err)
				}
			}
			if left := leftovers(t, dir); left != nil {
				t.Fatalf("left %q", left)
			}
			w, err := other.ImportExport(t.Context(), ImportOptions{Name: "lab", File: path}, fingerprint)
			if err != nil {
				t.Fatal(err)
			}
			defer close1(t, w)
			if !sameContent(v.man, w.man) || !bytes.Equal(payload(t, v), payload(t, w)) || w.man.OSHint != "Debian" {
				t.Errorf("another image has arrived: %+v", w.man)
			}
			if r := verified(t, w); !r.OK() || !r.FramesOK() || !w.HasFrames() {
				t.Errorf("Verify = %+v, frames %v", r, w.HasFrames())
			}
			if err := manifest.VerifySig(l.pubs, w.ManifestJSON(), w.Sig()); err == nil {
				t.Error("it carries the other server's signature")
			}
			origin, err := os.ReadFile(filepath.Join(w.Dir(), originFile))
			sig, err2 := os.ReadFile(filepath.Join(w.Dir(), originSigFile))
			if err != nil || err2 != nil || manifest.VerifySig(l.pubs, origin, sig) != nil || !bytes.Equal(origin, v.ManifestJSON()) {
				t.Errorf("the origin cannot be proved: %v, %v", err, err2)
			}
			if _, err := other.ImportExport(t.Context(), ImportOptions{Name: "lab", File: path}, fingerprint); !errors.Is(err, ErrUnchanged) {
				t.Errorf("the same export again = %v; want ErrUnchanged", err)
			}
			// An export of our own needs no word, and makes a version on the newest under any name.
			again, err := l.ImportExport(t.Context(), ImportOptions{Name: "lab", File: path, Force: []string{ForceUnchanged}}, "")
			if err != nil || again.man.Base != v.Version() || again.Version() == v.Version() {
				t.Fatalf("own export: %v", err)
			}
			close1(t, again)
			for _, name := range []string{"../lab", "LAB", "lаb", ""} {
				if _, err := other.ImportExport(t.Context(), ImportOptions{Name: name, File: path}, fingerprint); err == nil {
					t.Errorf("import under the name %q = nil error", name)
				}
			}
			if left := leftovers(t, dir); len(left) != 1 {
				t.Errorf("left %q", left)
			}
		})
	}
}

// TestExportDamaged: one flipped bit anywhere in a member, a cut at any place, a foreign member: refused, and nothing is
// left.
func TestExportDamaged(t *testing.T) {
	l, v := small(t, ImportOptions{})
	path, fingerprint := exportTo(t, l, v)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other, dir := elsewhere(t, 6)
	bad := filepath.Join(t.TempDir(), "bad.tar")
	refused := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(bad, b, 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := other.ImportExport(t.Context(), ImportOptions{Name: "lab", File: bad}, fingerprint)
		if err == nil {
			close1(t, w)
			t.Fatalf("%s: taken", what)
		}
		if left := leftovers(t, dir); left != nil {
			t.Fatalf("%s: left %q", what, left)
		}
	}
	secs, err := members(bytes.NewReader(good), int64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range secs {
		for _, at := range []int64{0, s.size / 3, s.size - 1} {
			b := bytes.Clone(good)
			b[s.off+at] ^= 0x20
			refused("a bit of "+name, b)
		}
		refused("cut in "+name, good[:s.off+s.size/2])
		refused("cut before "+name, good[:s.off-512])
	}
	refused("empty", nil)
	refused("no tar", fixture.Random(1, 4096))
	for what, change := range map[string]func(*tar.Header, []byte) (*tar.Header, []byte){
		"a path":   func(h *tar.Header, b []byte) (*tar.Header, []byte) { h.Name = "../" + h.Name; return h, b },
		"odd name": func(h *tar.Header, b []byte) (*tar.Header, []byte) { h.Name = "mаnifest.json"; return h, b },
		"a link": func(h *tar.Header, _ []byte) (*tar.Header, []byte) {
			return &tar.Header{Name: h.Name, Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, nil
		},
		"an empty":  func(h *tar.Header, _ []byte) (*tar.Header, []byte) { h.Size = 0; return h, nil },
		"a missing": func(*tar.Header, []byte) (*tar.Header, []byte) { return nil, nil },
		"another's key": func(h *tar.Header, b []byte) (*tar.Header, []byte) {
			if h.Name != pubFile {
				return h, b
			}
			pub, _ := ed25519.NewKeyFromSeed(fixture.Random(7, 32)).Public().(ed25519.PublicKey)
			return h, pub
		},
	} {
		for i := range 4 { // the small members, one after the other
			if what == "another's key" && i != 2 {
				continue
			}
			refused(what, rewrite(t, good, i, change))
		}
	}
	twice := append(bytes.Clone(good[:secs[manifestFile].off+(secs[manifestFile].size+511)/512*512]), good...)
	refused("a member twice", twice)
}

// rewrite makes the tar again with member n changed.
func rewrite(t *testing.T, in []byte, n int, change func(*tar.Header, []byte) (*tar.Header, []byte)) []byte {
	t.Helper()
	var out bytes.Buffer
	r, w := tar.NewReader(bytes.NewReader(in)), tar.NewWriter(&out)
	for i := 0; ; i++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if i == n {
			if h, b = change(h, b); h == nil {
				continue
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestExportRefuses: a damaged image is not exported, nothing is written over, and nothing is left.
func TestExportRefuses(t *testing.T) {
	l, v := small(t, ImportOptions{})
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Export(t.Context(), v, there, nil); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Errorf("export over a file = %v", err)
	}
	if _, err := l.Export(t.Context(), v, filepath.Join(dir, "no", "folder"), nil); err == nil {
		t.Error("export into no folder = nil error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := l.Export(ctx, v, filepath.Join(dir, "stopped"), func(p Progress) {
		if p.Done > 0 {
			cancel()
		}
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped export = %v", err)
	}
	zst := filepath.Join(v.Dir(), framesFile)
	write(t, zst, 9, []byte{^at(t, zst, 9)})
	if _, err := l.Export(t.Context(), v, filepath.Join(dir, "rotten"), nil); err == nil || !strings.Contains(err.Error(), "--repair") {
		t.Errorf("export of a rotten frame = %v", err)
	}
	if err := os.Remove(zst); err != nil {
		t.Fatal(err)
	}
	hurt(t, v, v.Manifest().CellOf(3))
	var cell *BadCellError
	if _, err := l.Export(t.Context(), reopen(t, l, v), filepath.Join(dir, "rotten"), nil); !errors.As(err, &cell) {
		t.Errorf("export of a rotten cell = %v; want BadCellError", err)
	}
	ents, err := os.ReadDir(dir)
	if b, err2 := os.ReadFile(there); err != nil || err2 != nil || len(ents) != 1 || string(b) != "mine" {
		t.Errorf("left %v, %q", ents, b)
	}
}

// FuzzMembers: whatever stands in an export, its members lie inside it and within their limits.
func FuzzMembers(f *testing.F) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range []string{manifestFile, sigFile, pubFile, torrentFile, framesFile} {
		if w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 9, Mode: 0o600, Format: tar.FormatGNU}) != nil {
			f.Fatal(name)
		}
		if _, err := w.Write([]byte("123456789")); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		secs, err := members(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for name, s := range secs {
			if s.off < 0 || s.size <= 0 || s.off+s.size > int64(len(b)) || name == sigFile && s.size > manifest.SigSize {
				t.Errorf("member %q: %+v of %d bytes", name, s, len(b))
			}
		}
	})
}
