package disk

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/initramfs-agent/disk/target"
)

// Captured is a disk that is opened to be captured: read-only for this process, and read-only in the kernel for
// everybody while it is open. There is no way from it to a Writable.
type Captured struct {
	*Reader
	undo func() error
}

// OpenReading opens the disk of a capture order, and no other, for reading past the page cache. It refuses, with an
// *api.Fault, when the disk is not the one of the order or is in use.
func (s *Set) OpenReading(r order.Reading) (*Captured, error) {
	if !r.Valid() {
		return nil, &api.Fault{Code: api.CodeBadOrder, Text: "open a disk for a capture without a verified order"}
	}
	want := r.Order().Disk
	disks, err := s.List()
	if err != nil {
		return nil, &api.Fault{Code: api.CodeDiskNotFound, Text: "look for the disk to be captured", Err: err}
	}
	d, err := target.Choose(want, disks)
	if err != nil {
		return nil, err
	}
	undo, err := s.freeze(d)
	if err != nil {
		return nil, &api.Fault{Code: api.CodeDiskRead, Text: "make " + d.Name + " read-only", Err: err}
	}
	rd, err := s.Reader(d)
	if err == nil {
		if err = s.same(rd.fd, want, d); err != nil {
			err = errors.Join(err, rd.Close())
		}
	}
	if err != nil {
		return nil, errors.Join(err, undo())
	}
	return &Captured{Reader: rd, undo: undo}, nil
}

// freeze sets the kernel's read-only flag of a disk unless this process has done so already; undo takes it back then.
func (s *Set) freeze(d api.Disk) (undo func() error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.guarded[d.Name] {
		return func() error { return nil }, nil
	}
	if err := s.setReadOnly(d, true); err != nil {
		return nil, err
	}
	return func() error { return s.setReadOnly(d, false) }, nil
}

// same compares what stands behind a descriptor with the order.
func (s *Set) same(fd int, want order.DiskID, d api.Disk) error {
	wrong := func(format string, args ...any) error {
		return &api.Fault{Code: api.CodeDiskNotFound, Text: "the disk behind " + d.Name + " has changed: " + fmt.Sprintf(format, args...)}
	}
	size, err := ioctlSize(fd)
	if err != nil || size != want.Bytes {
		return wrong("size %d, the order says %d (%v)", size, want.Bytes, err)
	}
	sector, err := unix.IoctlGetInt(fd, unix.BLKSSZGET)
	if err != nil || sector != want.Sector {
		return wrong("sector size %d, the order says %d (%v)", sector, want.Sector, err)
	}
	return nil
}

// Close closes the descriptor and takes back the read-only flag where this set it.
func (c *Captured) Close() error { return errors.Join(c.Reader.Close(), c.undo()) }

// At returns the disk as an io.ReaderAt for any offset and length, for tables and used maps. Close it.
func (r *Reader) At() (*At, error) {
	buf, err := Buffer(atBuffer)
	if err != nil {
		return nil, err
	}
	return &At{r: r, buf: buf, off: -1}, nil
}

// atBuffer is read at once, in bytes: readers look at neighbouring tables.
const atBuffer = 256 << 10

// At is an io.ReaderAt over a Reader. It is safe for concurrent use, one call at a time.
type At struct {
	r   *Reader
	mu  sync.Mutex
	buf []byte // aligned
	off int64  // on the disk of what buf holds, -1 = nothing
}

var _ io.ReaderAt = (*At)(nil)

// ReadAt implements io.ReaderAt. It fails with *ReadError.
func (a *At) ReadAt(p []byte, off int64) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for n < len(p) {
		pos := off + int64(n)
		if pos < 0 || pos >= a.r.size {
			return n, io.EOF
		}
		if at := pos / atBuffer * atBuffer; at != a.off {
			a.off = -1
			if err := a.r.ReadAt(a.buf, at); err != nil {
				return n, err
			}
			a.off = at
		}
		from := pos - a.off
		n += copy(p[n:], a.buf[from:min(atBuffer, a.r.size-a.off)])
	}
	return n, nil
}

// Close gives the buffer back.
func (a *At) Close() error { return FreeBuffer(a.buf) }
