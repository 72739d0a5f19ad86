package testnet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// OpenTap takes the PC's end of a tap, as a virtual machine does: each Read is one
// Ethernet frame that the LAN sends to it. Only one can hold a tap: close it before
// the machine is started.
func (n *Net) OpenTap(i int) (tap *os.File, err error) {
	fail := func(err error) (*os.File, error) {
		return nil, fmt.Errorf("open tap %s of LAN %s: %w", Tap(i), n.Name, err)
	}
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fail(err)
	}
	defer func() { _ = here.Close() }() // read only
	there, err := os.Open(filepath.Join("/run/netns", n.Name))
	if err != nil {
		return fail(err)
	}
	defer func() { _ = there.Close() }() // read only
	req, err := unix.NewIfreq(Tap(i))
	if err != nil {
		return fail(err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	// The kernel looks for the name in the namespace in which the tun device was opened.
	runtime.LockOSThread()
	fd := -1
	if err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err == nil {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err == nil {
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if back := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); back != nil {
			panic(fmt.Sprintf("return from a namespace: %v", back)) // this thread must run nothing else
		}
	}
	runtime.UnlockOSThread()
	if err != nil {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
		return fail(err)
	}
	return os.NewFile(uintptr(fd), Tap(i)), nil
}
