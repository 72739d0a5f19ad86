package ntfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/fstest"
	"labswarm/images/fsmap/scan"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

// volumeWith makes an NTFS volume with files in its root folder.
func volumeWith(t testing.TB, k *fixture.Kit, size int64, files map[string][]byte, options ...string) string {
	t.Helper()
	img := k.Sparse("ntfs.img", size)
	k.Run("ntfs-3g", "", "mkntfs", append(append([]string{"-q", "-F", "-f"}, options...), img)...)
	for name, content := range files {
		path := k.Path("file")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		k.Run("ntfs-3g", "", "ntfscp", "-q", img, path, name)
	}
	return img
}

// exchange replaces a file's bytes where Find says they lie.
func exchange(t testing.TB, img string, f *File, with []byte) {
	t.Helper()
	w, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Parts {
		if _, err := w.WriteAt(with[:p.Len], p.Off); err != nil {
			t.Fatal(err)
		}
		with = with[p.Len:]
	}
	if err := w.Close(); err != nil || len(with) > 0 {
		t.Fatalf("%d bytes left, %v", len(with), err)
	}
}

func open(t testing.TB, img string) *Files {
	t.Helper()
	r, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // read only
	st, err := r.Stat()
	if err != nil {
		t.Fatal(err)
	}
	v, err := Open(r, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestFind: files of every size, in the record and outside, are found, and what is written in their places is what
// ntfs-3g then reads; the volume stays in order.
func TestFind(t *testing.T) {
	for _, opts := range [][]string{{"-c", "512"}, {"-c", "4096"}, {"-c", "65536"}, {"-s", "4096", "-c", "4096"}} {
		t.Run(fmt.Sprint(opts), func(t *testing.T) {
			t.Parallel()
			k := fixture.New(t, testreq.Tool)
			files := map[string][]byte{}
			for i, n := range []int{0, 1, 100, 300, 500, 600, 680, 1000, 4096, 5000, 70000} {
				files[fmt.Sprintf("File%d.xml", n)] = fixture.Random(uint64(i), n)
			}
			img := volumeWith(t, k, 40<<20, files, opts...)
			resident, outside := 0, 0
			for name, content := range files {
				f, err := open(t, img).Find(1<<20, "f"+name[1:]) // in any case
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(f.Content, content) || manifest.Sum(f.Parts) != int64(len(content)) {
					t.Fatalf("%s: another content", name)
				}
				if len(f.Parts) > 1 || len(content) > 0 && f.Parts[0].Off%512 != 0 {
					resident++
				} else {
					outside++
				}
				with := fixture.Random(99, len(content))
				exchange(t, img, f, with)
				if got := k.Run("ntfs-3g", "", "ntfscat", img, name); got != string(with) {
					t.Errorf("%s: ntfscat reads another content", name)
				}
				if again, err := open(t, img).Find(1<<20, name); err != nil || !bytes.Equal(again.Content, with) {
					t.Errorf("%s: read again: %v", name, err)
				}
			}
			if resident < 3 || outside < 3 {
				t.Errorf("%d files in their records, %d outside: both kinds are wanted", resident, outside)
			}
			k.Run("ntfs-3g", "", "ntfsfix", "-n", img)
			for name, want := range map[string]error{"nothing.xml": ErrNotFound, "$Extend": ErrNotFound, "File70000.xml": scan.ErrUnsupported} {
				if f, err := open(t, img).Find(60000, name); !errors.Is(err, want) {
					t.Errorf("%s: %v, %v; want %v", name, f, err, want)
				}
			}
			if _, err := open(t, img).Find(60000, "File100.xml", "x"); !errors.Is(err, ErrNotFound) {
				t.Errorf("a path through a file: %v", err)
			}
		})
	}
}

func TestOpenRefusesDirty(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	img := volumeWith(t, k, 24<<20, nil)
	k.Run("ntfs-3g", "", "ntfsfix", img) // marks it for a check
	d := fstest.Load(t, img)
	var dirty *NotCleanError
	if _, err := Open(d, d.Size); !errors.As(err, &dirty) {
		t.Errorf("Open = %v; want NotCleanError", err)
	}
	if _, err := Open(d, d.Size-4096); err == nil {
		t.Error("a volume longer than its partition was opened")
	}
}

// FuzzFind damages a real volume: what Find returns lies inside it and is what stands there.
func FuzzFind(f *testing.F) {
	k := fixture.New(f, testreq.Tool)
	img := volumeWith(f, k, 24<<20, map[string][]byte{"a.xml": fixture.Random(1, 600), "b.xml": fixture.Random(2, 9000)})
	whole := fstest.Load(f, img)
	f.Add([]byte{})
	f.Add([]byte{0, 9, 1, 2, 3})
	f.Fuzz(func(t *testing.T, edits []byte) {
		if len(edits) > 100 {
			return
		}
		d := whole.Damage(edits)
		v, err := Open(d, d.Size)
		if err != nil {
			return
		}
		for _, name := range []string{"a.xml", "b.xml", "c.xml"} {
			file, err := v.Find(64<<10, name)
			if err != nil {
				continue
			}
			if len(file.Content) > 64<<10 || manifest.Sum(file.Parts) != int64(len(file.Content)) {
				t.Fatalf("%d bytes in %+v", len(file.Content), file.Parts)
			}
			for _, p := range file.Parts {
				if p.Off < 0 || p.Len < 0 || p.Off > d.Size-p.Len {
					t.Fatalf("%+v lies outside", p)
				}
			}
		}
	})
}
