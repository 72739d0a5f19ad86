package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"
)

const testCell = 64 << 10

// text is a cell that shrinks: random bytes of a small alphabet in the first n.
func text(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, testCell)
	for i := range n {
		b[i] = "0123456789abcdef"[r.IntN(16)]
	}
	return b
}

func coders(t testing.TB) (*Encoder, *Decoder) {
	t.Helper()
	e, err := NewEncoder(testCell)
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDecoder(testCell)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return e, d
}

func TestRoundTrip(t *testing.T) {
	e, d := coders(t)
	rapid.Check(t, func(t *rapid.T) {
		cell := make([]byte, testCell)
		copy(cell[rapid.IntRange(0, testCell-1).Draw(t, "at"):], rapid.SliceOfN(rapid.Byte(), 0, 4096).Draw(t, "bytes"))
		f := e.Encode(nil, cell)
		got := make([]byte, testCell)
		if err := d.Decode(got, f); err != nil || !bytes.Equal(got, cell) {
			t.Fatalf("Decode = %v, equal %v", err, bytes.Equal(got, cell))
		}
	})
}

func TestIncompressibleIsNotWorthIt(t *testing.T) {
	e, d := coders(t)
	cell := make([]byte, testCell)
	r := rand.NewChaCha8([32]byte{1})
	if _, err := r.Read(cell); err != nil {
		t.Fatal(err)
	}
	f := e.Encode(nil, cell)
	if Worth(len(f), testCell) || len(f) > testCell+64 {
		t.Errorf("random cell became %d bytes", len(f))
	}
	if err := d.Decode(make([]byte, testCell), f); err != nil {
		t.Error(err)
	}
	if f = e.Encode(nil, text(testCell/4)); !Worth(len(f), testCell) {
		t.Errorf("text became %d bytes", len(f))
	}
}

// hostile returns frames that must all be refused.
func hostile(t testing.TB) map[string][]byte {
	t.Helper()
	e, _ := coders(t)
	good := e.Encode(nil, text(9000))
	enc := func(cell int, opts ...zstd.EOption) []byte {
		z, err := zstd.NewWriter(nil, append(opts, zstd.WithEncoderConcurrency(1))...)
		if err != nil {
			t.Fatal(err)
		}
		return z.EncodeAll(make([]byte, cell), nil)
	}
	skip := binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, 4)
	skip = append(skip, 1, 2, 3, 4)
	var stream bytes.Buffer // no content size declared
	z, err := zstd.NewWriter(&stream, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(text(9000)); err != nil {
		t.Fatal(err)
	}
	if err := z.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	// Declares one cell and unpacks to many: RLE blocks of 128 KiB each.
	bomb := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0}
	bomb = binary.LittleEndian.AppendUint32(bomb, testCell)
	for i := range 1000 {
		h := uint32(128<<10)<<3 | 1<<1
		if i == 999 {
			h |= 1
		}
		bomb = append(bomb, byte(h), byte(h>>8), byte(h>>16), 'A')
	}
	many := bytes.Clone(bomb[:9]) // empty raw blocks without end
	for range 10_000 {
		many = append(many, 0, 0, 0)
	}
	// One cell, but a window of 1.9 GiB to unpack it in (RFC 8878, 3.1.1.1.2).
	window := binary.LittleEndian.AppendUint32([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x80, 0xa7}, testCell)
	window = append(window, 3|testCell<<3&0xff, testCell<<3>>8&0xff, testCell<<3>>16, 'A')
	return map[string][]byte{
		"empty":         {},
		"huge window":   window,
		"empty blocks":  append(many, 1, 0, 0),
		"noise":         text(100)[:100],
		"bomb":          enc(1 << 30 >> 3),
		"lying bomb":    bomb,
		"too small":     enc(testCell / 2),
		"one byte more": enc(testCell + 1),
		"trailing byte": append(bytes.Clone(good), 0),
		"two frames":    append(bytes.Clone(good), good...),
		"skippable":     skip,
		"skip before":   append(bytes.Clone(skip), good...),
		"skip behind":   append(bytes.Clone(good), skip...),
		"cut":           good[:len(good)-1],
		"no size":       stream.Bytes(),
	}
}

func TestHostile(t *testing.T) {
	_, d := coders(t)
	dst := make([]byte, testCell+16)
	for name, f := range hostile(t) {
		for i := range dst {
			dst[i] = 0xa5
		}
		if err := d.Decode(dst[:testCell], f); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: Decode = %v; want ErrFrame", name, err)
		}
		if !bytes.Equal(dst[testCell:], bytes.Repeat([]byte{0xa5}, 16)) {
			t.Errorf("%s: bytes behind the cell were written", name)
		}
	}
	allocs := testing.AllocsPerRun(5, func() {
		if d.Decode(dst[:testCell], hostileBomb) == nil {
			t.Error("bomb accepted")
		}
	})
	if allocs > 50 {
		t.Errorf("refusing a bomb takes %v allocations", allocs)
	}
}

// hostileBomb declares 1 GiB.
var hostileBomb = []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x40, 0x03, 0, 0, 'A'}

func FuzzDecode(f *testing.F) {
	e, _ := coders(f)
	f.Add(e.Encode(nil, text(9000)))
	f.Add(e.Encode(nil, text(0)))
	for _, b := range hostile(f) {
		if len(b) < 64<<10 {
			f.Add(b)
		}
	}
	d, err := NewDecoder(testCell)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(d.Close)
	f.Fuzz(func(t *testing.T, b []byte) {
		dst := make([]byte, testCell+1)
		dst[testCell] = 0xa5
		if err := d.Decode(dst[:testCell:testCell], b); err == nil {
			if Check(b, testCell) != nil {
				t.Error("decoded what Check refuses")
			}
		} else if !errors.Is(err, ErrFrame) {
			t.Error(err)
		}
		if dst[testCell] != 0xa5 {
			t.Error("bytes behind the cell were written")
		}
	})
}

// BenchmarkLevels encodes the cells of a disk image, LABSWARM_BENCH_IMAGE names
// it: MB per second of one core and what is left.
func BenchmarkLevels(b *testing.B) {
	path := os.Getenv("LABSWARM_BENCH_IMAGE")
	if path == "" {
		b.Skip("SKIP: needs LABSWARM_BENCH_IMAGE=a raw disk image")
	}
	cells := load(b, path)
	for _, l := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression} {
		b.Run(l.String(), func(b *testing.B) {
			e, err := newEncoder(1<<20, l)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(cells)) << 20)
			var frames [][]byte
			cpu := cpuTime(b)
			for b.Loop() {
				frames = frames[:0]
				for _, c := range cells {
					frames = append(frames, e.Encode(nil, c))
				}
			}
			perCore(b, len(cells), cpu)
			sum := 0
			for _, f := range frames {
				sum += min(len(f), 1<<20)
			}
			b.ReportMetric(float64(sum)/float64(len(cells)<<20), "ratio")
		})
	}
	b.Run("decode", func(b *testing.B) {
		e, err := newEncoder(1<<20, level)
		if err != nil {
			b.Fatal(err)
		}
		d, err := NewDecoder(1 << 20)
		if err != nil {
			b.Fatal(err)
		}
		defer d.Close()
		var frames [][]byte
		for _, c := range cells {
			frames = append(frames, e.Encode(nil, c))
		}
		dst := make([]byte, 1<<20)
		b.SetBytes(int64(len(cells)) << 20)
		cpu := cpuTime(b)
		for b.Loop() {
			for _, f := range frames {
				if err := d.Decode(dst, f); err != nil {
					b.Fatal(err)
				}
			}
		}
		perCore(b, len(cells), cpu)
	})
}

// perCore reports MB of cells per second of processor time since cpu, which a
// busy machine changes little.
func perCore(b *testing.B, cells int, cpu time.Duration) {
	b.ReportMetric(float64(b.N)*float64(cells)*(1<<20)/1e6/(cpuTime(b)-cpu).Seconds(), "MB/cpu-s")
}

// cpuTime is the processor time of this process so far.
func cpuTime(b *testing.B) time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// load reads the cells of 1 MiB that hold something, at most 400.
func load(b *testing.B, path string) (cells [][]byte) {
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	zero := make([]byte, 1<<20)
	for off := int64(0); off+1<<20 <= st.Size() && len(cells) < 400; off += 1 << 20 {
		c := make([]byte, 1<<20)
		if _, err := f.ReadAt(c, off); err != nil {
			b.Fatal(err)
		}
		if !bytes.Equal(c, zero) {
			cells = append(cells, c)
		}
	}
	return cells
}
