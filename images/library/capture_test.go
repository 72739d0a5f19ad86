package library

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labswarm/images/fixture"
	"labswarm/images/manifest"
	"labswarm/images/mask"
	"labswarm/images/survey"
	"labswarm/internal/testreq"
	"labswarm/swarm/frame"
)

// terminal reads a disk as the agent of a captured terminal does.
type terminal struct {
	t    *testing.T
	raw  []byte
	used []manifest.Extent
	enc  map[int64]*frame.Encoder
}

func newTerminal(t *testing.T, file string, force ...string) *terminal {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d, findings, err := survey.Read(f, int64(len(raw)), 512, survey.Options{Force: force})
	if err != nil || findings != nil {
		t.Fatalf("survey: %v, %v", findings, err)
	}
	return &terminal{t: t, raw: raw, used: d.Used, enc: map[int64]*frame.Encoder{}}
}

func (x *terminal) draft() Draft { return Draft{Size: int64(len(x.raw)), Sector: 512, Used: x.used} }

// cell is what is sent of a cell.
func (x *terminal) cell(ord int, size int64) (sum [32]byte, b []byte) {
	at := cursor{runs: manifest.TouchedCells(x.used, size)}
	for range ord {
		at = at.after()
	}
	g, ok := at.cell()
	if !ok {
		return sum, nil
	}
	buf := make([]byte, size)
	copy(buf, x.raw[g*size:])
	mask.FromUsed(x.used).Mask(buf, g*size)
	if mask.IsZero(buf) {
		return sum, nil
	}
	if x.enc[size] == nil {
		e, err := frame.NewEncoder(int(size))
		if err != nil {
			x.t.Fatal(err)
		}
		x.enc[size] = e
	}
	return sha256.Sum256(buf), x.enc[size].Encode(nil, buf)
}

// goldenCopy is a golden disk of the test's own, which is made once for the tests of captures.
func goldenCopy(t *testing.T, k *fixture.Kit) string {
	t.Helper()
	goldenMu.Lock()
	defer goldenMu.Unlock()
	if goldenDisk == nil { // again in each test that lacks a tool, so that each says which
		var err error
		if goldenDisk, err = os.ReadFile(golden(t, k)); err != nil {
			t.Fatal(err)
		}
	}
	path := k.Path("golden.img")
	if err := os.WriteFile(path, goldenDisk, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	goldenMu   sync.Mutex
	goldenDisk []byte
)

// send sends the cells from Next on, up to ordinal end.
func (x *terminal) send(c *Capture, end int) {
	x.t.Helper()
	for ord := c.Next(); ord < end; ord++ {
		sum, b := x.cell(ord, c.CellSize())
		if err := c.Put(ord, sum, b); err != nil {
			x.t.Fatalf("Put(%d) = %v", ord, err)
		}
	}
}

func mustCapture(t *testing.T, l *Library, o CaptureOptions, d Draft) *Capture {
	t.Helper()
	c, err := l.Capture(t.Context(), o, d, nil)
	if err != nil {
		t.Fatalf("Capture = %v", err)
	}
	return c
}

func closed(t *testing.T, c interface{ Close() error }) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestCaptureEqualsImport: the same disk, cell by cell through two processes, gives the manifest of its import; what
// the first process left and somebody spoilt is asked for again.
func TestCaptureEqualsImport(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := goldenCopy(t, k)
	l, dir := newLibrary(t)
	imported := mustImport(t, l, ImportOptions{Name: "imported", File: disk})
	x := newTerminal(t, disk)
	o := CaptureOptions{ID: 7, Name: "captured"}
	c := mustCapture(t, l, o, x.draft())
	x.send(c, c.Cells()/2)
	half, cells := c.Next(), c.Cells()
	if _, err := c.Publish(t.Context(), nil); !errors.Is(err, ErrCaptured) {
		t.Errorf("Publish of a half = %v", err)
	}
	closed(t, c)

	// Another process: the last three cells are spoilt on the server's disk.
	l2, err := Open(dir, l.key, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := cursor{runs: manifest.TouchedCells(x.used, c.CellSize())}
	for range half - 3 {
		at = at.after()
	}
	g, _ := at.cell()
	write(t, l2.capturePath(7)+"/"+rawFile, g*c.CellSize()+300<<10, fixture.Random(3, 700<<10))
	c = mustCapture(t, l2, o, x.draft())
	if got := c.Next(); got < half-4 || got >= half {
		t.Errorf("went on at cell %d of %d; want just before %d", got, cells, half)
	}
	if list, err := l2.PendingCaptures(); err != nil || len(list) != 1 || list[0] != 7 {
		t.Errorf("PendingCaptures = %v, %v", list, err)
	}
	x.send(c, cells)
	v, err := c.Publish(t.Context(), nil)
	if err != nil {
		t.Fatalf("Publish = %v", err)
	}
	defer closed(t, v)
	closed(t, c)
	a, b := *imported.Manifest(), *v.Manifest()
	a.Name = b.Name
	if !sameContent(&a, &b) {
		t.Errorf("the captured image differs from the imported one:\n%s", cmp.Diff(imported.ManifestJSON(), v.ManifestJSON()))
	}
	if b.Codec != CodecZstd || v.FramesErr() != nil || !v.HasFrames() {
		t.Errorf("codec %q, frames: %v", b.Codec, v.FramesErr())
	}
	if res, err := v.Verify(t.Context(), nil); err != nil || !res.OK() || !res.FramesOK() {
		t.Errorf("Verify = %+v, %v", res, err)
	}
	if left := strings.Join(leftovers(t, dir), " "); left != "captured imported" {
		t.Errorf("in the library: %s", left)
	}
	for _, f := range []string{captureLog, captureDraft} {
		if _, err := os.Stat(v.Dir() + "/" + f); err == nil {
			t.Errorf("%s stayed in the version", f)
		}
	}
	// The same disk again is no new version.
	c = mustCapture(t, l2, CaptureOptions{ID: 8, Name: "captured"}, x.draft())
	x.send(c, cells)
	var same *UnchangedError
	if _, err := c.Publish(t.Context(), nil); !errors.As(err, &same) || same.Version != b.Version {
		t.Errorf("Publish of the same disk = %v; want UnchangedError", err)
	}
	closed(t, c)
	if err := l2.DropCapture(8); err != nil {
		t.Error(err)
	}
	if list, err := l2.PendingCaptures(); err != nil || len(list) != 0 {
		t.Errorf("PendingCaptures = %v, %v", list, err)
	}
}

func TestCaptureRefuses(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	x := newTerminal(t, goldenCopy(t, k))
	l, dir := newLibrary(t)
	for name, d := range map[string]Draft{
		"no size":         {Sector: 512, Used: x.used},
		"odd sector":      {Size: diskSize, Sector: 520, Used: x.used},
		"nothing used":    {Size: diskSize, Sector: 512},
		"beyond the end":  {Size: diskSize, Sector: 512, Used: []manifest.Extent{{Off: diskSize - 512, Len: 1024}}},
		"overlapping":     {Size: diskSize, Sector: 512, Used: []manifest.Extent{{Off: 0, Len: 1024}, {Off: 512, Len: 1024}}},
		"half a unit":     {Size: diskSize, Sector: 512, Used: []manifest.Extent{{Off: 0, Len: 100}}},
		"far too large":   {Size: 1 << 60, Sector: 512, Used: x.used},
		"too many cells":  {Size: 1 << 50, Sector: 512, Used: []manifest.Extent{{Off: 0, Len: 1 << 50}}},
		"length overflow": {Size: diskSize, Sector: 512, Used: []manifest.Extent{{Off: 512, Len: 1<<63 - 512}}},
	} {
		if c, err := l.Capture(t.Context(), CaptureOptions{ID: 1, Name: "lab"}, d, nil); err == nil {
			t.Errorf("%s: no error", name)
			closed(t, c)
		}
	}
	if left := leftovers(t, dir); left != nil {
		t.Errorf("refused drafts left %q", left)
	}
	c := mustCapture(t, l, CaptureOptions{ID: 2, Name: "lab", Cell: MiB}, x.draft())
	defer closed(t, c)
	sum, b := x.cell(0, c.CellSize())
	other, _ := x.cell(1, c.CellSize())
	enc, err := frame.NewEncoder(int(c.CellSize()))
	if err != nil {
		t.Fatal(err)
	}
	zero := make([]byte, c.CellSize())
	for name, p := range map[string]struct {
		ord int
		sum [32]byte
		b   []byte
	}{
		"another cell":   {1, sum, b},
		"wrong hash":     {0, other, b},
		"cut frame":      {0, sum, b[:len(b)-1]},
		"two frames":     {0, sum, append(append([]byte(nil), b...), b...)},
		"no frame":       {0, sum, []byte("hello")},
		"zero as data":   {0, sha256.Sum256(zero), enc.Encode(nil, zero)},
		"negative":       {-1, sum, b},
		"beyond the end": {c.Cells(), sum, b},
	} {
		if err := c.Put(p.ord, p.sum, p.b); !errors.Is(err, ErrCaptured) || c.Next() != 0 {
			t.Errorf("%s: Put = %v, next %d", name, err, c.Next())
		}
	}
	// Cell 2 holds the start of the EFI partition, of which not every byte is used.
	x.send(c, 2)
	plain := append([]byte(nil), x.raw[2*c.CellSize():3*c.CellSize()]...)
	for i := range plain {
		plain[i] ^= 0x55
	}
	if err := c.Put(2, sha256.Sum256(plain), enc.Encode(nil, plain)); !errors.Is(err, ErrCaptured) || c.Next() != 2 {
		t.Errorf("unused bytes: Put = %v, next %d", err, c.Next())
	}
	x.send(c, 3)
	if _, err := l.Capture(t.Context(), CaptureOptions{ID: 2, Name: "lab", Cell: MiB}, x.draft(), nil); !errors.Is(err, ErrBusy) {
		t.Errorf("the same capture twice = %v; want ErrBusy", err)
	}
}

// TestCaptureOfAChangedDisk: a filesystem that was written to between the look at it and the reading of its cells gives
// another used map. Nothing is published.
func TestCaptureOfAChangedDisk(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := goldenCopy(t, k)
	before := newTerminal(t, disk)
	root := k.Slice(disk, rootAt, rootSize)
	file := k.Path("new")
	if err := os.WriteFile(file, fixture.Random(4, 3*MiB), 0o600); err != nil {
		t.Fatal(err)
	}
	k.Run("e2fsprogs", "", "debugfs", "-w", "-R", "write "+file+" new", root)
	k.Put(disk, rootAt, root)
	after := newTerminal(t, disk)
	before.raw = after.raw
	l, dir := newLibrary(t)
	c := mustCapture(t, l, CaptureOptions{ID: 3, Name: "lab"}, before.draft())
	before.send(c, c.Cells())
	_, err := c.Publish(t.Context(), nil)
	if !errors.Is(err, ErrCaptured) || !strings.Contains(err.Error(), "written to while it was read") {
		t.Errorf("Publish = %v", err)
	}
	closed(t, c)
	if err := l.DropCapture(3); err != nil {
		t.Error(err)
	}
	if left := leftovers(t, dir); left != nil {
		t.Errorf("left %q", left)
	}
}

// TestCaptureForced: a guard that was overridden stays in the manifest, with its reason.
func TestCaptureForced(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := goldenCopy(t, k)
	write(t, disk, rootAt+1024+96, []byte{0x46}) // needs_recovery
	x := newTerminal(t, disk, survey.Dirty)
	l, _ := newLibrary(t)
	d := x.draft()
	d.Smart = "it says\nFAILED"
	var guard *GuardError
	if _, err := l.Capture(t.Context(), CaptureOptions{ID: 4, Name: "lab", Force: []string{survey.Dirty}}, d, nil); !errors.As(err, &guard) {
		t.Errorf("a failing disk: %v; want GuardError", err)
	}
	c := mustCapture(t, l, CaptureOptions{ID: 4, Name: "lab", Force: []string{survey.Dirty, survey.Smart}}, d)
	x.send(c, c.Cells())
	v, err := c.Publish(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, v)
	closed(t, c)
	if f := v.Manifest().Forced; len(f) != 2 || !strings.HasPrefix(f[0], "dirty: partition 4 (ext4): its journal") || !strings.HasPrefix(f[1], "smart: the disk: it says") {
		t.Errorf("forced = %q", f)
	}
}

// TestCaptureOnBase: what equals the base comes as a hash only, and the version is the one that its import makes. What a
// terminal claims is looked up, and the base's own bytes are hashed.
func TestCaptureOnBase(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := goldenCopy(t, k)
	l, dir := newLibrary(t)
	first := mustImport(t, l, ImportOptions{Name: "lab", File: disk, Cell: 256 << 10})
	write(t, disk, 100, []byte("changed")) // code in the first sector
	x := newTerminal(t, disk)
	if _, err := l.Capture(t.Context(), CaptureOptions{ID: 8, Name: "lab", Base: "2020-01-01.1"}, x.draft(), nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("a base that is not there: %v", err)
	}
	c := mustCapture(t, l, CaptureOptions{ID: 7, Name: "lab", Base: first.Version()}, x.draft())
	base := c.BaseHashes()
	if len(base) != 32*c.Cells() || c.BaseVersion() != first.Version() {
		t.Fatalf("%d bytes of hashes of %q for %d cells", len(base), c.BaseVersion(), c.Cells())
	}
	sent := 0
	for ord := range c.Cells() {
		sum, b := x.cell(ord, c.CellSize())
		if ord == 0 {
			if err := c.Put(ord, sum, nil); !errors.Is(err, ErrCaptured) {
				t.Errorf("a cell that the base does not have: %v", err)
			}
		}
		if len(b) > 0 && [32]byte(base[32*ord:]) == sum {
			b = nil
		} else if len(b) > 0 {
			sent++
		}
		if err := c.Put(ord, sum, b); err != nil {
			t.Fatalf("Put(%d) = %v", ord, err)
		}
		if ord == c.Cells()/2 { // the server is started again
			closed(t, c)
			c = mustCapture(t, l, CaptureOptions{ID: 7, Name: "lab", Base: first.Version()}, x.draft())
			if c.Next() != ord+1 {
				t.Fatalf("%d cells are here after a restart, %d were", c.Next(), ord+1)
			}
		}
	}
	if sent != 1 {
		t.Errorf("%d cells were sent with their content; want the one that changed", sent)
	}
	v, err := c.Publish(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, v)
	closed(t, c)
	other, _ := elsewhere(t, 9)
	same := mustImport(t, other, ImportOptions{Name: "lab", File: disk, Cell: 256 << 10})
	if !sameContent(v.man, same.man) || v.man.Base != first.Version() || !v.HasFrames() {
		t.Errorf("captured %+v\nimported %+v", v.man, same.man)
	}
	// A base that has rotted is not believed.
	flip(t, filepath.Join(dir, "lab", first.Version(), rawFile), rootAt+1024)
	c = mustCapture(t, l, CaptureOptions{ID: 9, Name: "lab", Base: first.Version()}, x.draft())
	defer closed(t, c)
	base = c.BaseHashes()
	for ord := range c.Cells() {
		sum, b := x.cell(ord, c.CellSize())
		if len(b) > 0 && [32]byte(base[32*ord:]) == sum {
			b = nil
		}
		if err = c.Put(ord, sum, b); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a rotten base: %v", err)
	}
}
