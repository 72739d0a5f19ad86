package disk

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Align is the alignment of buffers, offsets and lengths that every driver
// accepts for O_DIRECT, in bytes.
const Align = 4096

// Buffer returns n zeroed bytes on a page boundary, outside the Go heap. It is
// given back with FreeBuffer or lives as long as the process.
func Buffer(n int64) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, int((n+Align-1)/Align*Align), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("allocate %d bytes: %w", n, err)
	}
	return b[:n], nil
}

// FreeBuffer gives a Buffer back. Nothing may use it any more.
func FreeBuffer(b []byte) error { return unix.Munmap(b[:cap(b)]) }

// ReadError is a read that the disk did not answer.
type ReadError struct {
	Disk string
	Off  int64 // bytes
	Err  error // errno
}

// Error names disk, offset and cause.
func (e *ReadError) Error() string {
	return fmt.Sprintf("read %s at byte %d (sector %d): %v", e.Disk, e.Off, e.Off/512, e.Err)
}

// Unwrap returns the errno.
func (e *ReadError) Unwrap() error { return e.Err }

// Reader reads a whole disk past the page cache. It is safe for concurrent
// use.
type Reader struct {
	fd       int
	name     string
	size     int64
	direct   bool
	buffered atomic.Bool // O_DIRECT was refused later on
}

// Size returns the capacity in bytes.
func (r *Reader) Size() int64 { return r.size }

// ReadAt fills buf from byte off. What lies beyond the end of the disk is
// zero. off must be a multiple of the sector size and buf a Buffer or an
// aligned part of one. It fails with *ReadError.
func (r *Reader) ReadAt(buf []byte, off int64) error {
	if over := off + int64(len(buf)) - r.size; over > 0 {
		over = min(over, int64(len(buf)))
		clear(buf[int64(len(buf))-over:])
		buf = buf[:int64(len(buf))-over]
	}
	if !r.direct || r.buffered.Load() {
		// What the cache holds is not what the disk holds.
		if err := unix.Fadvise(r.fd, off, int64(len(buf)), unix.FADV_DONTNEED); err != nil {
			return &ReadError{r.name, off, err}
		}
	}
	for len(buf) > 0 {
		n, err := unix.Pread(r.fd, buf, off)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EINVAL) && r.direct && !r.buffered.Load():
			if err := r.undirect(); err != nil {
				return &ReadError{r.name, off, err}
			}
			continue
		case err != nil:
			return &ReadError{r.name, off, err}
		case n == 0:
			return &ReadError{r.name, off, io.ErrUnexpectedEOF}
		}
		buf, off = buf[n:], off+int64(n)
	}
	return nil
}

// undirect goes on through the page cache where a driver refuses O_DIRECT.
func (r *Reader) undirect() error {
	flags, err := unix.FcntlInt(uintptr(r.fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(r.fd), unix.F_SETFL, flags&^unix.O_DIRECT); err != nil {
		return err
	}
	r.buffered.Store(true)
	return nil
}

// Close closes the descriptor.
func (r *Reader) Close() error { return unix.Close(r.fd) }

// openDirect opens a device node with O_DIRECT where the driver can.
func openDirect(path string, flags int) (fd int, direct bool, err error) {
	flags |= unix.O_CLOEXEC
	fd, err = unix.Open(path, flags|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.Open(path, flags, 0)
		return fd, false, err
	}
	return fd, true, err
}

func ioctlSize(fd int) (int64, error) {
	var n uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&n)))
	if errno != 0 {
		return 0, errno
	}
	return int64(n), nil
}
