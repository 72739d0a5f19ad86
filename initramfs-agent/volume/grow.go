package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of the online resizers. <linux/fs.h> does not carry them: they are
// from fs/ext4/ext4.h, fs/xfs/libxfs/xfs_fs.h and linux/btrfs.h, and have been
// stable since 3.3 and before.
const (
	ext4Resize  = 0x40086610 // EXT4_IOC_RESIZE_FS, u64 blocks
	xfsGeometry = 0x80705864 // XFS_IOC_FSGEOMETRY_V1, 112 bytes
	xfsGrow     = 0x4010586e // XFS_IOC_FSGROWFSDATA, u64 blocks, u32 percentage of inodes
	btrfsResize = 0x50009403 // BTRFS_IOC_RESIZE, i64 and a name of 4088 bytes
)

// CanGrow tells whether a driver's filesystems can be grown while mounted.
func CanGrow(kind string) bool { return CanHoldLinux(kind) }

// CanHoldLinux tells whether a driver's filesystems keep owners, modes and links.
func CanHoldLinux(kind string) bool { return kind == "ext4" || kind == "xfs" || kind == "btrfs" }

// Grow makes the filesystem, mounted writable, as big as its partition of size
// bytes. It returns its size in bytes before and after as statfs(2) tells them,
// without what the filesystem keeps for itself.
func (v *Volume) Grow(size int64) (before, after int64, err error) {
	fd, err := open(v.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("grow %s: %w", v.kind, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	before, block, err := sizeOf(fd)
	if err != nil {
		return 0, 0, fmt.Errorf("grow %s: %w", v.kind, err)
	}
	switch v.kind {
	case "ext4":
		n := uint64(size / block)
		err = ioctl(fd, ext4Resize, unsafe.Pointer(&n))
	case "xfs":
		err = growXFS(fd, size)
	case "btrfs":
		var arg [4096]byte
		copy(arg[8:], "max")
		err = ioctl(fd, btrfsResize, unsafe.Pointer(&arg))
	default:
		err = errors.New("it cannot be grown while it is mounted")
	}
	if err != nil {
		return before, before, fmt.Errorf("grow %s to %d bytes: %w", v.kind, size, err)
	}
	after, _, err = sizeOf(fd)
	return before, after, err
}

// growXFS keeps the percentage of inodes, which the request would change too.
func growXFS(fd int, size int64) error {
	var geo [112]byte // struct xfs_fsop_geom_v1: blocksize at 0, imaxpct at 28
	if err := ioctl(fd, xfsGeometry, unsafe.Pointer(&geo)); err != nil {
		return fmt.Errorf("ask for its geometry: %w", err)
	}
	block := int64(binary.NativeEndian.Uint32(geo[0:]))
	if block == 0 {
		return errors.New("its geometry makes no sense")
	}
	if old := binary.NativeEndian.Uint64(geo[32:]); old >= uint64(size/block) {
		return nil // XFS refuses what is not more
	}
	var arg [16]byte
	binary.NativeEndian.PutUint64(arg[0:], uint64(size/block))
	binary.NativeEndian.PutUint32(arg[8:], binary.NativeEndian.Uint32(geo[28:]))
	return ioctl(fd, xfsGrow, unsafe.Pointer(&arg))
}

func sizeOf(fd int) (size, block int64, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Blocks) * st.Bsize, st.Bsize, nil
}

func ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
