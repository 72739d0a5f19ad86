package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"labswarm/images/fsmap/part"
)

// Span is a partition as it will stand in the table, in bytes.
type Span struct {
	N           int // its number
	Start, Size int64
}

const (
	maxPartition = 132              // numbers that a table of ours can have
	busyLimit    = 10 * time.Second // for somebody who has just looked at a new partition (udev)
	busyPause    = 20 * time.Millisecond
)

// Share lets the kernel mount partitions of this disk although no table is on
// it yet: it gives up the exclusive hold, which makes every mount fail with
// EBUSY, and announces the partitions. The descriptor keeps its number, so
// those who read cells meanwhile notice nothing. Unshare must follow.
func (w *Writable) Share(parts []Span) error {
	if w.head == 0 {
		return fmt.Errorf("announce partitions of %s: its writing has not begun", w.name)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := w.reopen(0); err != nil {
		return fmt.Errorf("open %s again, shared: %w", w.name, err)
	}
	// Old partitions that the kernel could not forget when the table was cleared
	// would stand in the way. Most numbers do not exist; what matters is whether
	// the new ones can be added.
	for n := 1; n <= maxPartition; n++ {
		_ = w.blkpg(unix.BLKPG_DEL_PARTITION, Span{N: n})
	}
	for _, p := range parts {
		if err := w.blkpg(unix.BLKPG_ADD_PARTITION, p); err != nil {
			return fmt.Errorf("announce partition %d of %s to the kernel: %w", p.N, w.name, err)
		}
		w.shared = append(w.shared, p)
	}
	return nil
}

// Unshare takes the partitions away again, holds the disk exclusively and
// flushes. Everything must be unmounted; an error means that it is not.
func (w *Writable) Unshare() error {
	var errs []error
	for _, p := range w.shared {
		if err := notBusy(func() error { return w.blkpg(unix.BLKPG_DEL_PARTITION, p) }); err != nil {
			errs = append(errs, fmt.Errorf("take partition %d of %s away: %w", p.N, w.name, err))
		}
	}
	w.shared = nil
	if err := notBusy(func() error { return w.reopen(unix.O_EXCL) }); err != nil {
		errs = append(errs, fmt.Errorf("open %s again, exclusively: %w", w.name, err))
	}
	return errors.Join(append(errs, w.Flush())...)
}

// Device returns the node of a shared partition. It looks at what stands
// behind the node: a name can have come to mean another disk.
func (w *Writable) Device(n int) (string, error) {
	for _, p := range w.shared {
		if p.N != n {
			continue
		}
		node := part.DeviceName(w.path, n)
		return node, w.checkNode(node, p)
	}
	return "", fmt.Errorf("partition %d of %s is not announced", n, w.name)
}

// checkNode compares number, place and disk of a partition's node with sysfs.
func (w *Writable) checkNode(node string, p Span) error {
	var st, whole unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		return fmt.Errorf("look at %s: %w", node, err)
	}
	if err := unix.Fstat(w.fd, &whole); err != nil {
		return fmt.Errorf("look at %s: %w", w.name, err)
	}
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	// The entry of a partition lies in that of its disk.
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("look at %s: %w", node, err)
	}
	want := map[string]string{
		filepath.Join(real, "partition"): strconv.Itoa(p.N),
		filepath.Join(real, "start"):     strconv.FormatInt(p.Start/512, 10), // sysfs counts 512-byte sectors, always
		filepath.Join(real, "size"):      strconv.FormatInt(p.Size/512, 10),
		filepath.Join(real, "..", "dev"): fmt.Sprintf("%d:%d", unix.Major(whole.Rdev), unix.Minor(whole.Rdev)),
	}
	for file, value := range want {
		b, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("look at %s: %w", node, err)
		}
		if got := strings.TrimSpace(string(b)); st.Mode&unix.S_IFMT != unix.S_IFBLK || got != value {
			return fmt.Errorf("%s is not partition %d of %s: %s says %s, not %s", node, p.N, w.name, file, got, value)
		}
	}
	return nil
}

// reopen replaces the open file behind w's descriptor by another one of the
// same device, with or without the exclusive hold. The way over /proc/self/fd
// leads to the very inode, whatever the names in /dev mean by now.
func (w *Writable) reopen(excl int) error {
	fd, _, err := openDirect("/proc/self/fd/"+strconv.Itoa(w.fd), unix.O_RDWR|excl)
	if err != nil {
		return err
	}
	if w.buffered.Load() { // the driver refused O_DIRECT before
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, 0)
	}
	if err == nil {
		// In one step: a read that has begun ends on the old file.
		err = unix.Dup3(fd, w.fd, unix.O_CLOEXEC)
	}
	return errors.Join(err, unix.Close(fd))
}

// blkpg adds or deletes a partition in the kernel; the disk is not written.
func (w *Writable) blkpg(op int32, p Span) error {
	part := unix.BlkpgPartition{Start: p.Start, Length: p.Size, Pno: int32(p.N)}
	arg := unix.BlkpgIoctlArg{Op: op, Datalen: int32(unsafe.Sizeof(part)), Data: (*byte)(unsafe.Pointer(&part))}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(w.fd), unix.BLKPG, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return errno
	}
	return nil
}

// notBusy repeats what fails with EBUSY: nothing tells when the kernel has let
// go of a device that was just closed.
func notBusy(do func() error) error {
	end := time.Now().Add(busyLimit)
	for {
		err := do()
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
		time.Sleep(busyPause)
	}
}
