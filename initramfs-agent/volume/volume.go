// Package volume is a mounted filesystem of the disk that was just written:
// mounting without a mount point, growing, and the few file operations that
// personalisation needs.
//
// An image's filesystem was made by somebody else. It is mounted nosuid, nodev
// and noexec, and every path is opened inside it (openat2 with
// RESOLVE_IN_ROOT): an absolute symbolic link of the image stays in the image.
// Called by package finalise.
package volume

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Volume is a mounted filesystem. It is in no mount table and no other process
// can get at it: closing it unmounts it.
type Volume struct {
	fd    int
	kind  string
	plain bool // knows no owners and modes
}

// options are the mount options per filesystem, as the kernel names them.
var options = map[string][]string{
	"ext4": {"noinit_itable"}, // else a thread of the kernel's would write inode tables as long as it is mounted
	"xfs":  {"nouuid"},        // a second disk of this PC may hold the same image
	"vfat": {"quiet"},         // no error for an owner it cannot keep
}

// Driver is the kernel's name for a filesystem of a manifest; "" when it is
// none that can be mounted here.
func Driver(fs string) string {
	switch fs {
	case "ext2", "ext3", "ext4":
		return "ext4"
	case "xfs", "btrfs":
		return fs
	case "fat", "fat12", "fat16", "fat32", "vfat":
		return "vfat"
	}
	return ""
}

const (
	busyLimit = 10 * time.Second // for reads that still hold the disk's old, exclusive descriptor
	busyPause = 20 * time.Millisecond
)

// Mount mounts the device node by the kernel's driver kind. Read-only, a clean
// filesystem is not written at all.
func Mount(node, kind string, readOnly bool) (*Volume, error) {
	end := time.Now().Add(busyLimit)
	for {
		fd, err := mount(node, kind, readOnly)
		if err == nil {
			return &Volume{fd: fd, kind: kind, plain: kind == "vfat"}, nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return nil, fmt.Errorf("mount %s as %s: %w", node, kind, err)
		}
		time.Sleep(busyPause)
	}
}

func mount(node, kind string, readOnly bool) (fd int, err error) {
	ctx, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer func() { err = errors.Join(err, unix.Close(ctx)) }()
	if err := unix.FsconfigSetString(ctx, "source", node); err != nil {
		return -1, err
	}
	for _, o := range options[kind] {
		if err := unix.FsconfigSetFlag(ctx, o); err != nil {
			return -1, fmt.Errorf("option %s: %w", o, err)
		}
	}
	attrs := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	if readOnly {
		attrs |= unix.MOUNT_ATTR_RDONLY
		if err := unix.FsconfigSetFlag(ctx, "ro"); err != nil {
			return -1, err
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, fmt.Errorf("%w%s", err, said(ctx))
	}
	return unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, attrs)
}

// said is what the driver itself says about a mount that failed.
func said(ctx int) string {
	buf := make([]byte, 512)
	n, err := unix.Read(ctx, buf)
	if err != nil || n <= 0 {
		return ""
	}
	// "e " stands before an error, "w " before a warning.
	text := strings.TrimSpace(string(buf[:n]))
	if len(text) > 2 && text[1] == ' ' {
		text = text[2:]
	}
	return " (" + text + ")"
}

// Close makes everything durable and unmounts.
func (v *Volume) Close() error {
	var errs []error
	// syncfs(2) does not take the mount itself. An I/O error shows here, or nowhere.
	if top, err := open(v.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		errs = append(errs, err)
	} else if err := errors.Join(unix.Syncfs(top), unix.Close(top)); err != nil {
		errs = append(errs, fmt.Errorf("write back %s: %w", v.kind, err))
	}
	if err := unix.Close(v.fd); err != nil {
		errs = append(errs, fmt.Errorf("unmount %s: %w", v.kind, err))
	}
	return errors.Join(errs...)
}

// Root opens a folder of the volume as the root of a system: "." is its top, a
// Btrfs subvolume is a folder below.
func (v *Volume) Root(dir string) (*Tree, error) {
	return (&Tree{fd: v.fd, plain: v.plain}).Sub(dir)
}
