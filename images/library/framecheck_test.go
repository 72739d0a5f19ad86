package library

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labswarm/images/fixture"
	"labswarm/images/manifest"
)

func reopen(t *testing.T, l *Library, v *Version) *Version {
	t.Helper()
	w, err := l.Get(v.Name(), v.Version())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func verified(t *testing.T, v *Version) Result {
	t.Helper()
	r, err := v.Verify(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestVerifyAndRepairFrames: rotten frames are named by their cells, never
// served, and made again bit by bit as they were.
func TestVerifyAndRepairFrames(t *testing.T) {
	l, v := imported(t, ImportOptions{})
	if r := verified(t, v); !r.OK() || !r.FramesOK() || r.Frames != v.Manifest().Pieces() {
		t.Fatalf("fresh image: %+v", r)
	}
	path := filepath.Join(v.Dir(), framesFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A flipped bit in the first frame, and in the fourth.
	harmed := bytes.Clone(good)
	off := 0
	for i := range 4 {
		if i == 0 || i == 3 {
			harmed[off+v.frames.len(i)/2] ^= 4
		}
		off += v.frames.len(i)
	}
	if err := os.WriteFile(path, harmed, 0o600); err != nil {
		t.Fatal(err)
	}
	w := reopen(t, l, v)
	want := []int64{v.Manifest().CellOf(0), v.Manifest().CellOf(3)}
	r := verified(t, w)
	if d := cmp.Diff(want, r.BadFrames); d != "" || !r.OK() || r.FramesOK() || r.Frames != v.Manifest().Pieces()-2 {
		t.Errorf("rotten frames: %+v (-want +got)\n%s", r, d)
	}
	for _, i := range []int{0, 3} {
		for range 2 {
			if _, ok, _ := w.Frame(i, nil); ok {
				t.Errorf("rotten frame %d was given out", i)
			}
		}
	}
	if err := l.RepairFrames(t.Context(), w, nil); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, reopen(t, l, v)); !r.FramesOK() {
		t.Errorf("after the repair: %+v", r)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, good) {
		t.Errorf("the repaired store is not the first one again: %v", err)
	}
	if left := leftovers(t, l.dir); strings.Contains(strings.Join(left, " "), ".tmp-") {
		t.Errorf("left behind: %q", left)
	}
}

// TestFrameOfAnotherCell: frames that are whole in themselves, with a CRC that is
// right, but of another cell, are found by verify: it unpacks and compares.
func TestFrameOfAnotherCell(t *testing.T) {
	l, v := imported(t, ImportOptions{})
	w, err := newFrameWriter(t.TempDir(), v.Manifest().Cell)
	if err != nil {
		t.Fatal(err)
	}
	n := v.Manifest().Pieces()
	for i := range n {
		buf := make([]byte, v.Manifest().Cell)
		from := i
		if i == 1 {
			from = 2
		}
		if err := v.ReadPiece(from, buf); err != nil {
			t.Fatal(err)
		}
		if err := w.add(t.Context(), int64(i), buf); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.finish(v.Digest()); err != nil {
		t.Fatal(err)
	}
	if err := installFrames(filepath.Dir(w.f.Name()), v.Dir()); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, reopen(t, l, v)); len(r.BadFrames) != 1 || r.BadFrames[0] != v.Manifest().CellOf(1) {
		t.Errorf("Verify = %+v; want cell %d named", r, v.Manifest().CellOf(1))
	}
}

// TestRepairWantsGoodCells: a damaged cell cannot become a frame; the old store
// stays, and nothing is left behind.
func TestRepairWantsGoodCells(t *testing.T) {
	l, v := imported(t, ImportOptions{})
	path := filepath.Join(v.Dir(), framesFile)
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw := filepath.Join(v.Dir(), rawFile)
	off := v.Manifest().Used()[0].Off
	write(t, raw, off, []byte{^at(t, raw, off)})
	var bad *BadCellError
	if err := l.RepairFrames(t.Context(), reopen(t, l, v), nil); !errors.As(err, &bad) {
		t.Errorf("RepairFrames over a damaged cell = %v; want BadCellError", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, old) {
		t.Errorf("the store changed: %v", err)
	}
	readOnly, err := Open(l.dir, nil, l.pubs)
	if err != nil {
		t.Fatal(err)
	}
	if err := readOnly.RepairFrames(t.Context(), v, nil); !errors.Is(err, ErrReadOnly) {
		t.Errorf("RepairFrames without the key = %v", err)
	}
	// The frame is right though its cell is not: it is not called bad.
	if r := verified(t, reopen(t, l, v)); len(r.Bad) != 1 || !r.FramesOK() {
		t.Errorf("Verify = %+v; want one bad cell and good frames", r)
	}
	if left := leftovers(t, l.dir); strings.Contains(strings.Join(left, " "), ".tmp-") {
		t.Errorf("left behind: %q", left)
	}
}

// TestImportAddsFrames: the same disk again gives an image without compressed
// cells just these; its signed manifest stays as it is.
func TestImportAddsFrames(t *testing.T) {
	l, v := imported(t, ImportOptions{Codec: CodecNone})
	disk := filepath.Join(v.Dir(), rawFile)
	var said []string
	again := func(codec string) (*Version, error) {
		said = nil
		return l.Import(t.Context(), ImportOptions{Name: "lab", File: disk, Codec: codec, Warn: func(s string) { said = append(said, s) }})
	}
	if _, err := again(CodecNone); !errors.Is(err, ErrUnchanged) {
		t.Errorf("import without frames = %v; want ErrUnchanged", err)
	}
	w, err := again(CodecZstd)
	if err != nil {
		t.Fatal(err)
	}
	if w.Version() != v.Version() || !bytes.Equal(w.ManifestJSON(), v.ManifestJSON()) || !w.HasFrames() || !strings.Contains(strings.Join(said, "\n"), "added") {
		t.Errorf("import of the same disk: version %s, frames %v, said %q", w.Version(), w.HasFrames(), said)
	}
	if r := verified(t, w); !r.FramesOK() || r.Frames != v.Manifest().Pieces() {
		t.Errorf("Verify = %+v", r)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	for range 2 { // once they are there the content is unchanged
		if _, err := again(CodecZstd); !errors.Is(err, ErrUnchanged) {
			t.Errorf("import with frames there = %v; want ErrUnchanged", err)
		}
	}
	list, err := l.List()
	if err != nil || len(list) != 1 || list[0].FrameBytes == 0 || list[0].WireBytes >= list[0].ShippedBytes {
		t.Errorf("List = %+v, %v", list, err)
	}
	if left := leftovers(t, l.dir); strings.Contains(strings.Join(left, " "), ".tmp-") {
		t.Errorf("left behind: %q", left)
	}
}

const repairEnv = "LABSWARM_TEST_REPAIR"

// repairForever is the test program's other life: it repairs the frames of the
// version in dir until it is killed.
func repairForever(dir string) {
	key := ed25519.NewKeyFromSeed(fixture.Random(5, 32)) // that of newLibrary
	for {
		l, err := Open(dir, key, nil)
		if err != nil {
			panic(err)
		}
		v, err := l.Get("lab", "")
		if err != nil {
			panic(err)
		}
		if err := l.RepairFrames(context.Background(), v, nil); err != nil {
			panic(err)
		}
		if err := v.Close(); err != nil {
			panic(err)
		}
	}
}

// TestRepairKilled: SIGKILL at any time leaves a store that is whole, the old one
// or the new one.
func TestRepairKilled(t *testing.T) {
	l, v := imported(t, ImportOptions{})
	path := filepath.Join(v.Dir(), framesFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rotten := bytes.Clone(good)
	rotten[9] ^= 1
	begin := func() *exec.Cmd {
		if err := os.WriteFile(path, rotten, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), repairEnv+"="+l.dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	isGood := func() bool {
		now, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(now, good) && !bytes.Equal(now, rotten) {
			t.Fatalf("the store is neither the old one nor the new one: %d bytes", len(now))
		}
		return bytes.Equal(now, good)
	}
	end := func(cmd *exec.Cmd) {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
	}
	start, cmd := time.Now(), begin()
	for !isGood() { // how long one takes on this machine, now
		if time.Sleep(time.Millisecond); time.Since(start) > time.Minute {
			t.Fatal("the repair does not end")
		}
	}
	took := time.Since(start)
	end(cmd)
	repaired := 0
	for range 12 {
		cmd := begin()
		time.Sleep(rand.N(took * 3 / 2))
		end(cmd)
		if isGood() {
			repaired++
		}
	}
	t.Logf("one repair takes %v; killed 12 times: %d old stores, %d new ones", took, 12-repaired, repaired)
	if l, err = Open(l.dir, l.key, nil); err != nil { // sweeps what the killed ones left
		t.Fatal(err)
	}
	if left := leftovers(t, l.dir); strings.Contains(strings.Join(left, " "), ".tmp-") {
		t.Errorf("left behind: %q", left)
	}
}

// TestRepairCells: a cell that has rotted comes back from its compressed form, a
// zero cell becomes zero; one that is damaged in both forms stays named.
func TestRepairCells(t *testing.T) {
	l, v := imported(t, ImportOptions{})
	m := v.Manifest()
	raw, zst := filepath.Join(v.Dir(), rawFile), filepath.Join(v.Dir(), framesFile)
	want := payload(t, v)
	hurt := func(cell int64) {
		e := m.Used()[manifest.First(m.Used(), cell*m.Cell)]
		off := max(e.Off, cell*m.Cell)
		write(t, raw, off, []byte{^at(t, raw, off)})
	}
	last := m.Pieces() - 1 // its cell hangs over the end of the disk
	hurt(m.CellOf(2))
	hurt(m.CellOf(last))
	for c := range m.ZeroCells() {
		hurt(c)
		break
	}
	// And piece 0 in both forms.
	hurt(m.CellOf(0))
	write(t, zst, 9, []byte{at(t, zst, 9) ^ 1})
	w := reopen(t, l, v)
	found := verified(t, w)
	if len(found.Bad) != 4 || len(found.BadFrames) != 1 {
		t.Fatalf("Verify = %+v; want four bad cells and one bad frame", found)
	}
	if left, err := l.RepairCells(t.Context(), w, found.Bad); err != nil || len(left) != 1 || left[0].Piece != 0 {
		t.Errorf("RepairCells left %v, %v; want piece 0", left, err)
	}
	if r := verified(t, reopen(t, l, v)); len(r.Bad) != 1 || r.Bad[0].Cell != m.CellOf(0) {
		t.Errorf("after the repair: %+v; want only cell %d bad", r.Bad, m.CellOf(0))
	}
	hurt(m.CellOf(0)) // the bit flips back
	w = reopen(t, l, v)
	if !bytes.Equal(payload(t, w), want) {
		t.Error("the repaired pieces are not the first ones")
	}
	readOnly, err := Open(l.dir, nil, l.pubs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readOnly.RepairCells(t.Context(), w, nil); !errors.Is(err, ErrReadOnly) {
		t.Errorf("RepairCells without the key = %v", err)
	}
}
