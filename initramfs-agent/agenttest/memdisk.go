package agenttest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"labswarm/initramfs-agent/disk"
)

// ErrPowerCut is what a MemDisk answers after its last write.
var ErrPowerCut = errors.New("power cut")

// MemDisk is a disk with a volatile write cache. It keeps the rules of
// disk.Writable, takes its steps, and counts writes; at a chosen one the power
// goes, and of the writes since the last flush only some have reached the
// medium, in any order, maybe torn.
type MemDisk struct {
	CutAfter int                  // number of writes that succeed; 0 = all
	Rand     *rand.Rand           // decides what survives a cut
	Careless bool                 // Invalidate does nothing: the negative control of the power-cut test
	Lie      func(off int64) bool // true: the write at off is acknowledged and forgotten
	NoFlush  int                  // number of the flush that is acknowledged and not done, from 1; 0 = none

	mu     sync.Mutex
	medium []byte
	cache  []write // not flushed, in order
	head   int64
	writes int
	flushs int
	cached int64
	Fail   func(off int64) error // error of the write at off
}

type write struct {
	off  int64
	data []byte
}

// NewMemDisk returns a disk that holds content.
func NewMemDisk(content []byte) *MemDisk { return &MemDisk{medium: content} }

// Size is the capacity in bytes.
func (d *MemDisk) Size() int64 { return int64(len(d.medium)) }

// Writes is the number of writes so far.
func (d *MemDisk) Writes() int { d.mu.Lock(); defer d.mu.Unlock(); return d.writes }

// Flushes is the number of flushes so far.
func (d *MemDisk) Flushes() int { d.mu.Lock(); defer d.mu.Unlock(); return d.flushs }

// Cached is how many bytes were read that only the volatile cache held: what
// was proven by such a read is proven of nothing.
func (d *MemDisk) Cached() int64 { d.mu.Lock(); defer d.mu.Unlock(); return d.cached }

// Cut is a power cut now.
func (d *MemDisk) Cut() { d.mu.Lock(); defer d.mu.Unlock(); d.cut() }

// Medium is what a disk holds after a power cut: what was flushed, and what
// the cut let through.
func (d *MemDisk) Medium() []byte { d.mu.Lock(); defer d.mu.Unlock(); return d.medium }

// Reboot makes the disk usable again after a cut.
func (d *MemDisk) Reboot() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.head, d.CutAfter, d.writes, d.flushs, d.cached, d.cache, d.NoFlush = 0, 0, 0, 0, 0, nil, 0
}

// ReadAt reads through the cache, like a disk does.
func (d *MemDisk) ReadAt(buf []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(buf)
	if off < d.Size() {
		copy(buf, d.medium[off:])
	}
	for _, w := range d.cache {
		lo, hi := max(off, w.off), min(off+int64(len(buf)), w.off+int64(len(w.data)))
		if lo < hi {
			copy(buf[lo-off:hi-off], w.data[lo-w.off:])
			d.cached += hi - lo
		}
	}
	return nil
}

func (d *MemDisk) write(data []byte, off int64) error {
	if d.CutAfter > 0 && d.writes >= d.CutAfter {
		d.cut()
		return ErrPowerCut
	}
	d.writes++
	if d.Fail != nil {
		if err := d.Fail(off); err != nil {
			return err
		}
	}
	if d.Lie != nil && d.Lie(off) {
		return nil
	}
	d.cache = append(d.cache, write{off, append([]byte(nil), data...)})
	return nil
}

// cut lets an arbitrary part of the cache reach the medium, in any order, in
// sectors of 512 bytes.
func (d *MemDisk) cut() {
	for _, i := range d.Rand.Perm(len(d.cache)) {
		w := d.cache[i]
		switch d.Rand.IntN(3) {
		case 0: // lost
		case 1: // torn
			n := d.Rand.IntN(len(w.data)/512+1) * 512
			copy(d.medium[w.off:], w.data[:n])
		default:
			copy(d.medium[w.off:], w.data)
		}
	}
	d.cache = nil
}

// Flush makes every write durable.
func (d *MemDisk) Flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.flush()
}

func (d *MemDisk) flush() error {
	if d.CutAfter > 0 && d.writes >= d.CutAfter {
		d.cut()
		return ErrPowerCut
	}
	if d.flushs++; d.flushs == d.NoFlush {
		return nil
	}
	for _, w := range d.cache {
		copy(d.medium[w.off:], w.data)
	}
	d.cache = nil
	return nil
}

// steps is the disk.Medium of a MemDisk: a device's, which knows no head.
type steps struct{ *MemDisk }

func (s steps) Pwrite(buf []byte, off int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(buf, off)
}

// Invalidate clears head and tail and flushes.
func (d *MemDisk) Invalidate(head int64) error {
	if !d.Careless {
		if err := disk.ClearTables(steps{d}, head); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.head = head
	return nil
}

// WriteCell writes outside the head.
func (d *MemDisk) WriteCell(buf []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.head == 0 || off < d.head || off >= d.Size() {
		return fmt.Errorf("write at %d with a head of %d", off, d.head)
	}
	return d.write(buf[:min(int64(len(buf)), d.Size()-off)], off)
}

// Zero clears a range.
func (d *MemDisk) Zero(off, n int64) error { return d.WriteCell(make([]byte, n), off) }

// WriteTable writes backup, flush, head, flush, and reads both back.
func (d *MemDisk) WriteTable(head, backup []byte) error {
	same, err := disk.PutTables(steps{d}, head, backup)
	if err == nil && !same {
		err = errors.New("the partition table reads back different")
	}
	return err
}
