package disk

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"labswarm/api"
)

const (
	// Tail is the end of the disk that Invalidate clears: the backup GPT, from
	// which firmware and kernels would recover. Bytes.
	Tail = 1 << 20

	zeroRun = 256 << 20 // bytes per BLKZEROOUT, so that progress can be seen
	lag     = 64        // writes between a buffered write and its eviction from the cache
)

// WriteError is a write that the disk refused. It is final for this host after
// one retry: a client that goes on would re-download for ever.
type WriteError struct {
	Op   string // write, zero, flush
	Disk string
	Off  int64 // bytes
	Err  error // errno
}

// Error names operation, disk, offset and cause.
func (e *WriteError) Error() string {
	return fmt.Sprintf("%s %s at byte %d (sector %d): %v", e.Op, e.Disk, e.Off, e.Off/512, e.Err)
}

// Unwrap returns the errno.
func (e *WriteError) Unwrap() error { return e.Err }

// Writable is the one disk of a cleared order, open for writing. Only Set.Open
// makes one; its zero value refuses everything. Invalidate comes first, then
// WriteCell and Zero in any order and from any number of goroutines, then
// WriteTable.
type Writable struct {
	Reader
	disk   api.Disk
	path   string // of its node
	sector int64
	head   int64  // bytes at the start that WriteCell may not touch; 0 = not invalidated yet
	shared []Span // partitions the kernel knows of, between Share and Unshare
}

// Disk returns the disk as it was when it was opened.
func (w *Writable) Disk() api.Disk { return w.disk }

// Invalidate makes the disk visibly unbootable before anything else is
// written: its first head bytes and its last MiB become zero, are flushed, and
// the kernel forgets the old partitions. head is a multiple of Align.
func (w *Writable) Invalidate(head int64) error {
	if w.sector == 0 || head < Align || head%Align != 0 || head > w.size {
		return fmt.Errorf("invalidate %s: head of %d bytes", w.name, head)
	}
	if err := ClearTables(raw{w}, head); err != nil {
		return err
	}
	w.head = head
	w.reread()
	return nil
}

// WriteCell writes buf, a page-aligned buffer, at off in one pwrite. What lies
// beyond the end of the disk is left out. It refuses the head of the disk,
// which only WriteTable writes.
func (w *Writable) WriteCell(buf []byte, off int64) error {
	if w.head == 0 || off < w.head || off >= w.size {
		return fmt.Errorf("write %s at byte %d: outside the part that may be written now", w.name, off)
	}
	buf = buf[:min(int64(len(buf)), w.size-off)]
	if err := w.pwrite(buf, off); err != nil {
		return err
	}
	if w.direct && !w.buffered.Load() {
		return nil
	}
	// Buffered: start the writing now and drop what was written a while ago, or
	// a small terminal fills its memory with dirty pages.
	if err := unix.SyncFileRange(w.fd, off, int64(len(buf)), unix.SYNC_FILE_RANGE_WRITE); err != nil {
		return &WriteError{"write", w.name, off, err}
	}
	if old := off - lag*int64(len(buf)); old >= 0 {
		if err := unix.Fadvise(w.fd, 0, old, unix.FADV_DONTNEED); err != nil {
			return &WriteError{"write", w.name, off, err}
		}
	}
	return nil
}

// Zero clears n bytes from off. The kernel does it with the disk's own command
// where there is one; BLKDISCARD is never used, it does not promise zeros.
func (w *Writable) Zero(off, n int64) error {
	n = min(n, w.size-off)
	if w.head == 0 || off < w.head || n <= 0 {
		return fmt.Errorf("zero %s at byte %d: outside the part that may be written now", w.name, off)
	}
	for n > 0 {
		run := min(n, zeroRun)
		err := w.zeroOut(off, run)
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
			err = w.zeroByHand(off, run)
		}
		if err != nil {
			var we *WriteError
			if errors.As(err, &we) {
				return err
			}
			return &WriteError{"zero", w.name, off, err}
		}
		off, n = off+run, n-run
	}
	return nil
}

func (w *Writable) zeroOut(off, n int64) error {
	r := [2]uint64{uint64(off), uint64(n)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(w.fd), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&r)))
	if errno != 0 {
		return errno
	}
	return nil
}

func (w *Writable) zeroByHand(off, n int64) error {
	zero, err := Buffer(1 << 20)
	if err != nil {
		return err
	}
	defer FreeBuffer(zero) //nolint:errcheck // only address space
	for end := off + n; off < end; off += int64(len(zero)) {
		if err := w.pwrite(zero[:min(int64(len(zero)), end-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// WriteTable ends a deployment: the backup table at the end of the disk (may
// be empty), flush, then the head with the partition table, flush, and both
// are read back from the medium and compared.
func (w *Writable) WriteTable(head, backup []byte) error {
	if w.head == 0 || int64(len(head)) < w.head || int64(len(head))%w.sector != 0 || int64(len(backup))%w.sector != 0 ||
		int64(len(head)+len(backup)) > w.size {
		return fmt.Errorf("write table of %s: head of %d and backup of %d bytes", w.name, len(head), len(backup))
	}
	same, err := PutTables(raw{w}, head, backup)
	if err != nil {
		return err
	}
	if !same {
		return &api.Fault{Code: api.CodeVerify, Text: "the partition table of " + w.name + " reads back different from what was written"}
	}
	w.reread()
	return nil
}

// Flush makes every write so far durable and drops what the kernel caches of
// the disk. After a failed flush the state of the disk is unknown: the host
// fails, the flush is not repeated.
func (w *Writable) Flush() error {
	if w.sector == 0 {
		return errors.New("flush: disk is not open")
	}
	for {
		err := unix.Fsync(w.fd)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &WriteError{"flush", w.name, 0, err}
		}
		break
	}
	if err := unix.IoctlSetInt(w.fd, unix.BLKFLSBUF, 0); err != nil {
		return &WriteError{"flush", w.name, 0, err}
	}
	return nil
}

// reread asks the kernel to look at the partition table. Loop devices without
// partition scan answer EINVAL, an open partition EBUSY; neither matters, the
// machine reboots before anybody uses a partition.
func (w *Writable) reread() { _ = unix.IoctlSetInt(w.fd, unix.BLKRRPART, 0) }

// pwrite writes all of buf; a short write goes on where it stopped.
func (w *Writable) pwrite(buf []byte, off int64) error {
	for len(buf) > 0 {
		n, err := unix.Pwrite(w.fd, buf, off)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EINVAL) && w.direct && !w.buffered.Load():
			if err := w.undirect(); err != nil {
				return &WriteError{"write", w.name, off, err}
			}
			continue
		case err != nil:
			return &WriteError{"write", w.name, off, err}
		case n == 0:
			return &WriteError{"write", w.name, off, unix.EIO}
		}
		buf, off = buf[n:], off+int64(n)
	}
	return nil
}
