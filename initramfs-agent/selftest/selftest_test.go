package selftest

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// faulty is real memory with a fault: whenever a block is handed out, the fault
// has happened to it.
type faulty struct {
	*ram
	fault  func(block int, b []byte)
	mu     sync.Mutex
	closed int
}

func (f *faulty) Block(i int) []byte {
	b := f.ram.Block(i)
	if f.fault != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.fault(i, b)
	}
	return b
}

func (f *faulty) Close() error { f.closed++; return f.ram.Close() }

// with is a test of that many blocks with a fault.
func with(t testing.TB, blocks int, fault func(int, []byte)) (Options, *faulty) {
	t.Helper()
	f := &faulty{fault: fault}
	return Options{Bytes: int64(blocks) * BlockSize, Rounds: 2 * blocks, Time: time.Nanosecond, Map: func(n int64) (Memory, error) {
		m, err := mapRAM(n)
		if err != nil {
			return nil, err
		}
		f.ram = m.(*ram)
		return f, nil
	}}, f
}

// TestGoodMemoryPasses: the real memory of this machine, all patterns.
func TestGoodMemoryPasses(t *testing.T) {
	r, err := Run(t.Context(), Options{Bytes: 3*BlockSize + 17, Rounds: 5})
	if err != nil || r.Bytes != 3*BlockSize || r.Patterns != len(patterns()) || r.Rounds != 5 || r.Took <= 0 {
		t.Fatalf("Run = %+v, %v; want a pass of 3 blocks and %d patterns", r, err, len(patterns()))
	}
	if s := r.String(); !strings.Contains(s, "3.00 MiB") || !strings.Contains(s, "68 patterns") || !strings.Contains(s, "5 times") {
		t.Errorf("report %q", s)
	}
}

// TestTimeBound: when the time is over the first pattern is still gone through.
func TestTimeBound(t *testing.T) {
	o, f := with(t, 2, nil)
	if r, err := Run(t.Context(), o); err != nil || r.Patterns != 1 || f.closed != 1 {
		t.Errorf("Run = %+v, %v, closed %d times; want one pattern", r, err, f.closed)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var bad *BadError
	o, f = with(t, 2, nil)
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) || errors.As(err, &bad) || f.closed != 1 {
		t.Errorf("Run with an ended context = %v, closed %d times; want its error and no verdict", err, f.closed)
	}
	o.Map = func(int64) (Memory, error) { return nil, errors.ErrUnsupported }
	if _, err := Run(t.Context(), o); !errors.Is(err, errors.ErrUnsupported) || errors.As(err, &bad) {
		t.Errorf("Run without memory = %v; want no verdict", err)
	}
}

// TestFaultsAreFound: one fault of each kind, found by the first pattern and its
// inverse, whatever the place.
func TestFaultsAreFound(t *testing.T) {
	const blocks = 2
	rapid.Check(t, func(rt *rapid.T) {
		at := rapid.IntRange(0, blocks-1).Draw(rt, "block")
		off := rapid.IntRange(0, BlockSize-1).Draw(rt, "byte")
		bit := byte(1) << rapid.IntRange(0, 7).Draw(rt, "bit")
		what := rapid.SampledFrom([]string{"stuck at 1", "stuck at 0", "weak", "address line"}).Draw(rt, "fault")
		n := 0
		o, f := with(t, blocks, nil)
		f.fault = func(i int, b []byte) {
			switch {
			case what == "address line" && i == at: // the block and its neighbour are one
				copy(f.ram.Block((at+1)%blocks), b)
			case i != at:
			case what == "stuck at 1":
				b[off] |= bit
			case what == "stuck at 0":
				b[off] &^= bit
			case what == "weak": // flips now and then
				if n++; n == 4 {
					b[off] ^= bit
				}
			}
		}
		_, err := Run(t.Context(), o)
		var bad *BadError
		if !errors.As(err, &bad) {
			rt.Fatalf("%s: Run = %v; want a *BadError", what, err)
		}
		if bad.Test != "hash" && what != "address line" && (bad.Off/BlockSize != int64(at) || bad.Off%BlockSize/word != int64(off/word) || bad.Want^bad.Got == 0) {
			rt.Errorf("%s of block %d, byte %d: found as %v", what, at, off, bad)
		}
	})
}

// TestEachTestFindsSomething is the control of the single tests: a fault that
// only this one meets.
func TestEachTestFindsSomething(t *testing.T) {
	for _, p := range append(patterns()[:6], pattern{name: "walking bit", kind: walking, k: 63}, pattern{name: "hash"}) {
		o, f := with(t, 1, nil)
		o.Time = time.Minute
		first := make([]byte, BlockSize)
		if p.name == "hash" {
			first = knownCell()
		} else {
			fill(first, 0, p, 0)
		}
		want := binary.LittleEndian.Uint64(first[800:])
		f.fault = func(_ int, b []byte) { // one pattern in one word brings it up
			if binary.LittleEndian.Uint64(b[800:]) == want && binary.LittleEndian.Uint64(b[808:]) == binary.LittleEndian.Uint64(first[808:]) {
				b[801] ^= 4
			}
		}
		_, err := Run(t.Context(), o)
		var bad *BadError
		if !errors.As(err, &bad) || bad.Test != p.name {
			t.Errorf("a fault that only %s %d meets: %v", p.name, p.k, err)
		}
	}
}

func TestSize(t *testing.T) {
	for _, tt := range []struct{ available, want int64 }{{0, minBytes}, {4 << 30, 2 << 30}, {64 << 30, maxBytes}} {
		if got := Size(tt.available); got != tt.want {
			t.Errorf("Size(%d) = %d; want %d", tt.available, got, tt.want)
		}
	}
}

func BenchmarkSweep(b *testing.B) {
	m, err := mapRAM(256 << 20)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	b.SetBytes(256 << 20)
	for b.Loop() {
		if err := sweep(b.Context(), m, patterns()[0]); err != nil {
			b.Fatal(err)
		}
	}
}
