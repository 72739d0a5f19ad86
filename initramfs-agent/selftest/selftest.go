// Package selftest tests a machine whose word is in doubt: one that accuses
// several sources of wrong cells is more likely to have bad memory than to have
// met several liars (safety.md section 5, rule 4).
//
// Two tests over memory that nobody uses: a known cell is copied and hashed many
// times, and patterns are written, read back, inverted and read back again. It
// finds bad memory, it cannot prove good memory: what the kernel and the agent
// use is not tested, and the time is bounded. Called by package deploy.
package selftest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"labswarm/internal/units"
)

const (
	// BlockSize is the unit of the tests, bytes; the known cell has that size.
	BlockSize = 1 << 20

	maxBytes   = 4 << 30
	minBytes   = 16 << 20
	maxTime    = 20 * time.Second
	hashRounds = 1000
	maxWorkers = 4 // more of them only wait for the memory
)

// Memory is what is tested. Block hands out one block of BlockSize bytes; the
// tests take each block anew for every step, from several goroutines, never the
// same block twice at a time. Tests of this package put a faulty one here.
type Memory interface {
	Blocks() int
	Block(i int) []byte
	Close() error
}

// Options bound a test. Zero values stand for the limits above.
type Options struct {
	Bytes  int64         // memory to test
	Time   time.Duration // no pattern is begun after it; the first is always finished
	Rounds int           // of the hash test
	// Map gets the memory, at least one block; nil: fresh RAM outside Go's heap.
	Map func(bytes int64) (Memory, error)
}

// Size is how much of available bytes of RAM a test takes: half of it leaves the
// data plane and the kernel what they need.
func Size(available int64) int64 { return min(max(available/2, minBytes), maxBytes) }

// Report says what was tested.
type Report struct {
	Bytes    int64 // of memory, with every pattern
	Patterns int   // gone through completely
	Rounds   int   // of the hash test
	Took     time.Duration
}

// String is the report for people.
func (r Report) String() string {
	return fmt.Sprintf("%s of memory, %d patterns, a known cell hashed %d times, %.1f s",
		units.FormatBytes(r.Bytes), r.Patterns, r.Rounds, r.Took.Seconds())
}

// BadError says that the machine's memory, or its processor, is faulty.
type BadError struct {
	Test      string // what found it
	Off       int64  // byte in the memory under test
	Want, Got uint64 // what was written and what came back; 0, 0 for a wrong hash
}

func (e *BadError) Error() string {
	if e.Want == e.Got {
		return fmt.Sprintf("the %s test failed at byte %d of the tested memory", e.Test, e.Off)
	}
	return fmt.Sprintf("the %s test failed at byte %d of the tested memory: wrote %016x, read %016x", e.Test, e.Off, e.Want, e.Got)
}

// Run tests memory until all patterns are through or the time is over. A
// *BadError is the verdict; any other error means that the test could not be
// done.
func Run(ctx context.Context, o Options) (r Report, err error) {
	if o.Bytes <= 0 {
		o.Bytes = minBytes
	}
	if o.Time <= 0 {
		o.Time = maxTime
	}
	if o.Rounds <= 0 {
		o.Rounds = hashRounds
	}
	if o.Map == nil {
		o.Map = mapRAM
	}
	start := time.Now()
	m, err := o.Map(max(o.Bytes/BlockSize*BlockSize, BlockSize))
	if err != nil {
		return r, fmt.Errorf("get memory to test: %w", err)
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	r.Bytes = int64(m.Blocks()) * BlockSize
	defer func() { r.Took = time.Since(start) }()
	if err := hashes(ctx, m, o.Rounds); err != nil {
		return r, err
	}
	r.Rounds = o.Rounds
	for _, p := range patterns() {
		if r.Patterns > 0 && time.Since(start) > o.Time {
			break
		}
		if err := sweep(ctx, m, p); err != nil {
			return r, err
		}
		r.Patterns++
	}
	return r, nil
}

// each calls f for n numbers on several cores, until one fails or ctx ends.
func each(ctx context.Context, n int, f func(i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(runtime.GOMAXPROCS(0), maxWorkers) {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := f(i); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// ram is memory of the kernel's, given back by Close.
type ram struct{ b []byte }

func mapRAM(bytes int64) (Memory, error) {
	b, err := unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", units.FormatBytes(bytes), err)
	}
	return &ram{b}, nil
}

func (r *ram) Blocks() int        { return len(r.b) / BlockSize }
func (r *ram) Block(i int) []byte { return r.b[i*BlockSize : (i+1)*BlockSize : (i+1)*BlockSize] }
func (r *ram) Close() error       { return unix.Munmap(r.b) }
