// Package disk is the only place in labswarm's agent that opens a block device,
// and Set.Open the only function that opens one for writing. It demands an
// order.Cleared, which only a verified order and the server's committed
// commence can make; it finds the disk anew by the target rule and looks at
// identity, size and sector size once more through the open descriptor.
//
// A test in the agent's root walks every source file and fails on any other
// write to a device. Package disk knows nothing of images: the order of
// writing is in package writer.
package disk

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/initramfs-agent/disk/inventory"
	"labswarm/initramfs-agent/disk/target"
)

// Set is the disks of this machine, each set read-only in the kernel until an
// order opens it (the second line of defence; the first is Open's argument).
type Set struct {
	sys     inventory.System
	protect bool

	mu      sync.Mutex
	guarded map[string]bool // kernel names this process has set read-only
}

// NewSet returns the disks that sys shows. With protect, List sets each disk
// read-only as it sees it for the first time; beside a running system that is
// left out, the disks are not ours to guard.
func NewSet(sys inventory.System, protect bool) *Set {
	return &Set{sys: sys, protect: protect, guarded: map[string]bool{}}
}

// List returns every disk, those that cannot be a target with the reason in
// Note. A disk this process guards is not reported as read-only.
func (s *Set) List() ([]api.Disk, error) {
	disks, err := s.sys.Disks()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range disks {
		d := &disks[i]
		switch {
		case s.guarded[d.Name]:
			d.ReadOnly = false
		case s.protect && !d.ReadOnly && d.Bytes > 0:
			if err := s.setReadOnly(*d, true); err == nil {
				s.guarded[d.Name] = true
			}
			// A driver that refuses is left as it is: the guard is a second line.
		}
		s.look(d)
	}
	return target.Annotate(disks), nil
}

// setReadOnly switches the kernel's read-only flag of a whole disk, through a
// descriptor that cannot write.
func (s *Set) setReadOnly(d api.Disk, on bool) (err error) {
	fd, err := unix.Open(s.sys.Path(d), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", d.Name, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	v := 0
	if on {
		v = 1
	}
	if err := unix.IoctlSetPointerInt(fd, unix.BLKROSET, v); err != nil {
		return fmt.Errorf("set read-only flag of %s: %w", d.Name, err)
	}
	return nil
}

// Reader opens a disk for reading past the page cache.
func (s *Set) Reader(d api.Disk) (*Reader, error) {
	fd, direct, err := openDirect(s.sys.Path(d), unix.O_RDONLY)
	if err != nil {
		return nil, &api.Fault{Code: api.CodeDiskRead, Text: "open " + d.Name + " for reading", Err: err}
	}
	return &Reader{fd: fd, name: d.Name, size: d.Bytes, direct: direct}, nil
}

// Open opens the disk of a cleared order for writing. It refuses, with an
// *api.Fault, when the disk is not the one of the order in every respect, is
// too small, is in use, or holds foreign data that the order does not give up.
func (s *Set) Open(c order.Cleared) (*Writable, error) {
	if !c.Valid() {
		return nil, &api.Fault{Code: api.CodeBadOrder, Text: "open a disk for writing without a cleared order"}
	}
	want := c.Order()
	disks, err := s.List()
	if err != nil {
		return nil, &api.Fault{Code: api.CodeDiskNotFound, Text: "look for the target disk", Err: err}
	}
	d, err := target.Choose(want.Disk, disks)
	if err != nil {
		return nil, err
	}
	if d.Bytes < want.Image.MinDiskBytes {
		return nil, &api.Fault{Code: api.CodeDiskTooSmall,
			Text: fmt.Sprintf("%s has %d bytes, the image needs %d", target.Describe(d), d.Bytes, want.Image.MinDiskBytes)}
	}
	if err := target.Foreign(d, want.Replace); err != nil {
		return nil, err
	}
	if err := s.release(d); err != nil {
		return nil, &api.Fault{Code: api.CodeDiskWrite, Text: "make " + d.Name + " writable", Err: err}
	}
	return s.openChecked(want, d)
}

// release takes the guard from the one target disk.
func (s *Set) release(d api.Disk) error {
	s.mu.Lock()
	guarded := s.guarded[d.Name]
	s.mu.Unlock()
	if !guarded {
		return nil
	}
	return s.setReadOnly(d, false)
}

// openChecked opens d and compares what stands behind the descriptor with the
// order: between the look at sysfs and the open a path can have come to mean
// another disk.
func (s *Set) openChecked(want order.Order, d api.Disk) (*Writable, error) {
	// O_EXCL: the kernel refuses when anything on the disk is mounted or held.
	fd, direct, err := openDirect(s.sys.Path(d), unix.O_RDWR|unix.O_EXCL)
	if err != nil {
		text := "open " + d.Name + " for writing"
		if errors.Is(err, unix.EBUSY) {
			text += ": something on it is mounted or in use"
		}
		return nil, &api.Fault{Code: api.CodeDiskWrite, Text: text, Err: err}
	}
	if err := s.recheck(fd, want.Disk, d); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	w := &Writable{Reader: Reader{fd: fd, name: d.Name, size: d.Bytes, direct: direct}, disk: d, path: s.sys.Path(d), sector: int64(d.Sector)}
	if d.Foreign, err = s.marks(d, &w.Reader); err == nil {
		err = target.Foreign(d, want.Replace)
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (s *Set) recheck(fd int, want order.DiskID, d api.Disk) error {
	wrong := func(format string, args ...any) error {
		return &api.Fault{Code: api.CodeDiskNotFound, Text: "the disk behind " + d.Name + " has changed: " + fmt.Sprintf(format, args...)}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return wrong("fstat: %v", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return wrong("it is not a block device")
	}
	again, err := s.sys.ByNumber(unix.Major(st.Rdev), unix.Minor(st.Rdev))
	if err != nil {
		return wrong("%v", err)
	}
	if again.ReadOnly {
		return wrong("it is read-only")
	}
	if _, err := target.Choose(want, []api.Disk{again}); err != nil {
		return err
	}
	return s.same(fd, want, d)
}
