package library

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/mask"
	"labswarm/internal/testreq"
)

// place finds in an error where it is: a partition, a byte or sector, or an amount of bytes.
var place = regexp.MustCompile(`partitions? \d|(byte|sector|entry|offset|LBA) \d|\d bytes|GPT|MBR|table`)

// refusedDisk looks whether an import was refused in words that name the file and the place, and left nothing.
func refusedDisk(t *testing.T, dir, what, file string, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), filepath.Base(file)) || !place.MatchString(err.Error()) {
		t.Errorf("%s: Import = %v; want it refused, with file and place", what, err)
	}
	for _, name := range leftovers(t, dir) {
		if !strings.HasPrefix(name, newestPrefix) {
			t.Errorf("%s: left %q", what, name)
		}
	}
}

// TestCutDisks: a disk that ends too early is refused wherever it ends.
func TestCutDisks(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := goldenCopy(t, k)
	l, dir := newLibrary(t)
	r := rand.New(rand.NewPCG(4, 4))
	cuts := []int64{131*MiB - 1, rootAt + rootSize - 512, rootAt, espAt, 512 * 34, 1536, 1024, 513}
	for range 40 {
		cuts = append(cuts, 512*r.Int64N(131*MiB/512), r.Int64N(131*MiB))
	}
	slices.Sort(cuts)
	for _, n := range slices.Backward(cuts) {
		if n == 0 {
			continue
		}
		if err := os.Truncate(disk, n); err != nil {
			t.Fatal(err)
		}
		_, err := l.Import(t.Context(), ImportOptions{Name: "lab", File: disk})
		refusedDisk(t, dir, "cut", disk, err)
	}
}

// TestFlippedDisks: one wrong bit anywhere on a disk, most of them where it hurts, is refused or gives an image that is
// right in itself. In the partition table it is refused always, and so are partitions that overlap.
func TestFlippedDisks(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := goldenCopy(t, k)
	l, dir := newLibrary(t)
	r := rand.New(rand.NewPCG(5, 5))
	refused, taken := 0, 0
	flip := func(what string, off int64, must bool) {
		t.Helper()
		old := readAt(t, disk, off)
		write(t, disk, off, []byte{old ^ 1<<r.IntN(8)})
		defer write(t, disk, off, []byte{old})
		v, err := l.Import(t.Context(), ImportOptions{Name: "lab", File: disk, Codec: CodecNone})
		if err != nil {
			refused++
			refusedDisk(t, dir, what, disk, err)
			return
		}
		taken++
		if must {
			t.Errorf("%s, byte %d: taken", what, off)
		}
		if res := verified(t, v); !res.OK() {
			t.Errorf("%s, byte %d: %+v", what, off, res)
		}
		close1(t, v)
		if err := l.Remove("lab", v.Version()); err != nil {
			t.Fatal(err)
		}
	}
	for range 12 {
		flip("GPT header", 512+r.Int64N(92), true)
		flip("GPT entry", 1024+r.Int64N(4*128), true)
	}
	for range 6 {
		flip("GPT at the end", diskSize-1-r.Int64N(33*512), false)
		flip("FAT boot sector", espAt+r.Int64N(512), false)
		flip("ext4 superblock", rootAt+1024+r.Int64N(1024), false)
		flip("ext4 descriptors and bitmaps", rootAt+2048+r.Int64N(300<<10), false)
		flip("anywhere", r.Int64N(diskSize), false)
	}
	if refused < 24 || taken == 0 {
		t.Errorf("%d refused, %d taken: the test flips nothing that counts", refused, taken)
	}
}

// TestOverlapAndNames: what must not become an image, whatever it holds.
func TestOverlapAndNames(t *testing.T) {
	l, dir := newLibrary(t)
	mbr := fixture.MBR(3, 4, 4)
	file := filepath.Join(t.TempDir(), "disk.img")
	put := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlap := bytes.Clone(mbr)
	copy(overlap[446+16+8:], overlap[446+8:446+12]) // the second begins where the first does
	put(overlap)
	_, err := l.Import(t.Context(), ImportOptions{Name: "lab", File: file})
	refusedDisk(t, dir, "overlap", file, err)
	put(mbr)
	for _, name := range []string{"..", "../lab", "lab/..", "/lab", ".lab", "lab\n", "lab\x00", "läb", "lаb" /* Cyrillic */, "lab\u202e", "ｌab", "-lab", "LAB", strings.Repeat("a", 49)} {
		if _, err := l.Import(t.Context(), ImportOptions{Name: name, File: file}); err == nil || !strings.Contains(err.Error(), "image name") {
			t.Errorf("Import as %q = %v", name, err)
		}
		if _, err := l.Capture(t.Context(), CaptureOptions{ID: 1, Name: name}, Draft{}, nil); err == nil || !strings.Contains(err.Error(), "image name") {
			t.Errorf("Capture as %q = %v", name, err)
		}
		if _, err := l.Get(name, ""); err == nil {
			t.Errorf("Get(%q) = nil error", name)
		}
	}
	if left := leftovers(t, dir); left != nil {
		t.Errorf("left %q", left)
	}
}

// TestDamagedVersion: any bit that changes in any file of a version, and any end that is missing, is found when the version
// is opened or verified, and the cell or the file is named.
func TestDamagedVersion(t *testing.T) {
	l, v := small(t, ImportOptions{})
	r := rand.New(rand.NewPCG(6, 6))
	found := func(what string) {
		t.Helper()
		w, err := l.Get("lab", v.Version())
		if err != nil {
			if !strings.Contains(err.Error(), "lab/"+v.Version()) {
				t.Errorf("%s: Get = %v; want the version named", what, err)
			}
			return
		}
		defer close1(t, w)
		res, err := w.Verify(t.Context(), nil)
		if err != nil && !strings.Contains(err.Error(), "lab/"+v.Version()) || err == nil && res.OK() && res.FramesOK() {
			t.Errorf("%s: Verify = %+v, %v; want it found", what, res, err)
		}
	}
	for _, name := range []string{rawFile, framesFile, manifestFile, sigFile, torrentFile} {
		path := filepath.Join(v.Dir(), name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for range 12 {
			at := r.Int64N(int64(len(good)))
			for name == rawFile && !mask.FromUsed(v.man.Used()).Touches(at, 1) { // what is not used may be anything
				at = r.Int64N(int64(len(good)))
			}
			write(t, path, at, []byte{good[at] ^ 1<<r.IntN(8)})
			found("a bit of " + name)
			write(t, path, at, good[at:at+1])
		}
		for _, n := range []int64{0, 1, r.Int64N(int64(len(good))), int64(len(good)) - 1} {
			if err := os.Truncate(path, n); err != nil {
				t.Fatal(err)
			}
			found("the end of " + name)
			if err := os.WriteFile(path, good, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		w := reopen(t, l, v)
		if res := verified(t, w); !res.OK() || !res.FramesOK() {
			t.Fatalf("%s restored: %+v", name, res)
		}
	}
}

func readAt(t *testing.T, path string, off int64) byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return b[0]
}
