package capture

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"labswarm/api"
	"labswarm/api/cells"
	"labswarm/images/fixture"
	"labswarm/images/manifest"
	"labswarm/images/mask"
	"labswarm/images/survey"
	"labswarm/internal/testreq"
	"labswarm/swarm/frame"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

// makeDisk makes a small disk; loader says whether its EFI partition can start a PC.
func makeDisk(t *testing.T, k *fixture.Kit, loader bool) []byte {
	t.Helper()
	esp := k.FAT(8*mib, 12, "")
	if loader {
		file := k.Path("BOOTX64.EFI")
		if err := os.WriteFile(file, fixture.Random(1, 4000), 0o600); err != nil {
			t.Fatal(err)
		}
		k.Run("mtools", "", "mmd", "-i", esp, "::EFI", "::EFI/BOOT")
		k.Run("mtools", "", "mcopy", "-i", esp, file, "::EFI/BOOT/BOOTX64.EFI")
	}
	root := k.Ext(16*mib, k.Tree(3, 30, 200<<10), "-t", "ext4")
	raw, err := os.ReadFile(k.Disk(27*mib+512, "label: gpt\nstart=2048, size=16384, type=U\nstart=18432, size=32768, type=L\n", map[int64]string{mib: esp, 9 * mib: root}))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func look(t *testing.T, raw []byte, force ...string) (*survey.Disk, error) {
	t.Helper()
	return Look(bytes.NewReader(raw), int64(len(raw)), 512, "", force)
}

// TestSmart: a disk that says that it fails is refused together with everything else, and taken when that is forced.
func TestSmart(t *testing.T) {
	raw := makeDisk(t, fixture.New(t, testreq.Tool), true)
	raw[9*mib+1024+96] |= 4 // dirty
	for _, tt := range []struct {
		force []string
		want  []string
	}{{nil, []string{"it says FAILED", "--force=smart", "--force=dirty"}}, {[]string{"dirty"}, []string{"--force=smart"}}, {[]string{"smart"}, []string{"--force=dirty"}}, {[]string{"dirty", "smart"}, nil}} {
		d, err := Look(bytes.NewReader(raw), int64(len(raw)), 512, "it says FAILED", tt.force)
		for _, w := range tt.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("force %q: %v; want %q in it", tt.force, err, w)
			}
		}
		if tt.want == nil && (err != nil || len(d.Forced) != 2 || !strings.HasPrefix(d.Forced[1], "smart: the disk: it says FAILED")) {
			t.Errorf("force %q: %+v, %v", tt.force, d, err)
		}
	}
}

func TestGuards(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	good := makeDisk(t, k, true)
	damaged := func(base []byte, edit ...func([]byte)) []byte {
		b := slices.Clone(base)
		for _, e := range edit {
			e(b)
		}
		return b
	}
	dirty := func(b []byte) { b[9*mib+1024+96] |= 4 }
	locked := func(b []byte) { copy(b[mib:], "\xeb\x58\x90-FVE-FS-") }
	hybrid := func(b []byte) { copy(b[446+16:], b[446:446+16]); b[446+16+4] = 0x83 }
	larger := func(b []byte) { b[9*mib+1024+4+2]++ } // blocks of the superblock
	for _, tt := range []struct {
		name  string
		raw   []byte
		force []string
		want  []string // in the refusal; none = accepted
	}{
		{"good", good, nil, nil},
		{"dirty", damaged(good, dirty), nil, []string{"partition 2 (ext4)", "--force=dirty"}},
		{"dirty, forced", damaged(good, dirty), []string{"dirty"}, nil},
		{"dirty, another guard forced", damaged(good, dirty), []string{"hibernated", "loader"}, []string{"--force=dirty"}},
		{"BitLocker", damaged(good, locked), []string{"dirty", "hibernated", "loader"}, []string{"manage-bde -off", "cannot be forced"}},
		{"both at once", damaged(good, dirty, locked), nil, []string{"manage-bde -off", "--force=dirty"}},
		{"hybrid MBR", damaged(good, hybrid), []string{"dirty", "hibernated", "loader"}, []string{"hybrid MBR"}},
		{"larger than its partition", damaged(good, larger), []string{"dirty"}, []string{"spans", "cannot be forced"}},
		{"no loader", makeDisk(t, k, false), nil, []string{"BOOTX64.EFI", "--force=loader"}},
		{"no loader, forced", makeDisk(t, k, false), []string{"loader"}, nil},
		{"empty", make([]byte, 4*mib), nil, []string{"no partition table"}},
	} {
		d, err := look(t, tt.raw, tt.force...)
		var fault *api.Fault
		switch {
		case tt.want == nil && (err != nil || len(d.Used) == 0):
			t.Errorf("%s: %v", tt.name, err)
		case tt.want == nil && len(d.Forced) != len(tt.force):
			t.Errorf("%s: forced %q", tt.name, d.Forced)
		case tt.want != nil && (!errors.As(err, &fault) || fault.Code != api.CodeGuard):
			t.Errorf("%s: %v; want a refusal", tt.name, err)
		}
		for _, w := range tt.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v; want %q in it", tt.name, err, w)
			}
		}
	}
}

func TestSame(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	raw := makeDisk(t, k, true)
	a, err := look(t, raw)
	if err != nil {
		t.Fatal(err)
	}
	b, err := look(t, raw)
	if err != nil || Same(a, b) != nil {
		t.Errorf("two looks at one disk differ: %v, %v", err, Same(a, b))
	}
	b.Used = append(slices.Clone(b.Used), manifest.Extent{Off: 26 * mib, Len: 512})
	if err := Same(a, b); err == nil || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("Same = %v", err)
	}
}

// memory is a disk in memory that can fail.
type memory struct {
	raw   []byte
	bad   int64 // offset that cannot be read, 0 = none
	reads atomic.Int64
}

var errBad = errors.New("input/output error")

func (m *memory) Size() int64 { return int64(len(m.raw)) }
func (m *memory) ReadAt(b []byte, off int64) error {
	m.reads.Add(1)
	if m.bad >= off && m.bad < off+int64(len(b)) && m.bad > 0 {
		return errBad
	}
	clear(b)
	copy(b, m.raw[off:])
	return nil
}

// TestStream: from any ordinal on, the cells come in order, once, masked, and what is zero comes as zero.
func TestStream(t *testing.T) {
	const cell = 256 << 10
	raw := fixture.Random(5, 9*mib+4096)
	used := []manifest.Extent{{Off: 0, Len: 4096}, {Off: 300 << 10, Len: 5 * mib}, {Off: 7 * mib, Len: 512}, {Off: 9*mib + 512, Len: 1024}}
	clear(raw[2*mib : 3*mib])
	masker := mask.FromUsed(used)
	var grid []int64
	for _, r := range manifest.TouchedCells(used, cell) {
		for c := r.First; c < r.First+r.Count; c++ {
			grid = append(grid, c)
		}
	}
	dec, err := frame.NewDecoder(cell)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	for _, from := range []int{0, 1, 7, len(grid) - 1, len(grid)} {
		s, err := NewStream(t.Context(), &memory{raw: raw}, used, cell, from, nil)
		if err != nil {
			t.Fatal(err)
		}
		told := from
		s.Batch(func(next int) { told = next })
		r := cells.NewReader(s, cell)
		for ord := from; ord < len(grid); ord++ {
			want := make([]byte, cell)
			copy(want, raw[grid[ord]*cell:])
			masker.Mask(want, grid[ord]*cell)
			h, b, err := r.Next()
			if err != nil || h.Ord != ord || s.Next() != ord+1 || told != ord+1 {
				t.Fatalf("from %d: cell %d: %+v, %v, told %d", from, ord, h, err, told)
			}
			if mask.IsZero(want) {
				if h.Len != 0 || h.Sum != [32]byte{} {
					t.Errorf("zero cell %d: %+v", ord, h)
				}
				continue
			}
			got := make([]byte, cell)
			if err := dec.Decode(got, b); err != nil || !bytes.Equal(got, want) || h.Sum != sha256.Sum256(want) {
				t.Errorf("cell %d: %v, equal %v", ord, err, bytes.Equal(got, want))
			}
		}
		if _, _, err := r.Next(); !errors.Is(err, io.EOF) || s.Err() != nil {
			t.Errorf("from %d: at the end: %v, %v", from, err, s.Err())
		}
		s.Close()
	}
}

// TestStreamOnBase: a cell that the server has goes as its hash, all others as ever.
func TestStreamOnBase(t *testing.T) {
	const cell = 256 << 10
	raw := fixture.Random(5, 6*cell)
	clear(raw[2*cell : 3*cell])
	var base []byte
	for i := range 5 { // of a shorter base; it has another cell 1, and no cell 4
		sum := sha256.Sum256(raw[i*cell : (i+1)*cell])
		switch i {
		case 1:
			sum[0]++
		case 4:
			clear(sum[:])
		}
		base = append(base, sum[:]...)
	}
	for _, from := range []int{0, 3} {
		s, err := NewStream(t.Context(), &memory{raw: raw}, []manifest.Extent{{Off: 0, Len: 6 * cell}}, cell, from, base)
		if err != nil {
			t.Fatal(err)
		}
		s.Batch(func(int) {})
		r := cells.NewReader(s, cell)
		for ord := from; ord < 6; ord++ {
			h, _, err := r.Next()
			same, zero := ord == 0 || ord == 3, ord == 2
			if err != nil || h.Ord != ord || (h.Len == 0) != (same || zero) || (h.Sum == [32]byte{}) != zero {
				t.Errorf("cell %d: %+v, %v", ord, h, err)
			}
		}
		s.Close()
	}
}

// TestStreamIsBounded: nothing is read far ahead of what is taken, a batch ends, and Close leaves nobody behind.
func TestStreamIsBounded(t *testing.T) {
	const cell = 256 << 10
	m := &memory{raw: fixture.Random(6, 40*cell)}
	s, err := NewStream(t.Context(), m, []manifest.Extent{{Off: 0, Len: 40 * cell}}, cell, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Batch(func(int) {})
	r := cells.NewReader(s, cell)
	for range 3 {
		if _, _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.reads.Load(); n > 3+maxAhead+maxWorkers+1 {
		t.Errorf("%d cells were read when 3 were sent", n)
	}
	s.left = 0
	if _, _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end of a batch: %v", err)
	}
	s.Batch(func(int) {})
	if h, _, err := r.Next(); err != nil || h.Ord != 3 {
		t.Errorf("next batch: %+v, %v", h, err)
	}
	s.Close()
}

func TestStreamOfABadDisk(t *testing.T) {
	const cell = 256 << 10
	s, err := NewStream(t.Context(), &memory{raw: fixture.Random(7, 20*cell), bad: 11*cell + 5}, []manifest.Extent{{Off: 0, Len: 20 * cell}}, cell, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Batch(func(int) {})
	n, err := io.Copy(io.Discard, s)
	if !errors.Is(err, errBad) || !errors.Is(s.Err(), errBad) || s.Next() != 11 || n == 0 {
		t.Errorf("read %d bytes up to cell %d: %v, %v", n, s.Next(), err, s.Err())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	gone, err := NewStream(ctx, &memory{raw: make([]byte, cell)}, []manifest.Extent{{Off: 0, Len: cell}}, cell, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
}
