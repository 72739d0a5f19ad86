package peer

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// outlet writes to a socket, several buffers in one system call. The call never
// waits, so that Go's scheduler need not hear of it (see intake.once). For one
// goroutine at a time.
type outlet struct {
	rc  syscall.RawConn
	try func(fd uintptr) bool
	iov []unix.Iovec // what is left to write
	msg unix.Msghdr
	err error
}

func newOutlet(tc *net.TCPConn) (*outlet, error) {
	rc, err := tc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach the socket: %w", err)
	}
	o := &outlet{rc: rc}
	o.try = o.once
	return o, nil
}

// write writes all of bufs.
func (o *outlet) write(bufs ...[]byte) error {
	all := o.iov[:0]
	for _, b := range bufs {
		if len(b) > 0 {
			v := unix.Iovec{Base: &b[0]}
			v.SetLen(len(b))
			all = append(all, v)
		}
	}
	o.iov, o.err = all, nil
	err := o.rc.Write(o.try)
	clear(all) // the buffers are the caller's again
	o.iov = all[:0]
	if err == nil {
		err = o.err
	}
	return err
}

// once writes what the socket takes; false: there is more, wait.
func (o *outlet) once(fd uintptr) bool {
	for len(o.iov) > 0 {
		o.msg = unix.Msghdr{Iov: &o.iov[0]}
		o.msg.SetIovlen(len(o.iov))
		n, _, errno := syscall.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&o.msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			o.written(int(n))
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			o.err = os.NewSyscallError("sendmsg", errno)
			return true
		}
	}
	return true
}

// written takes n bytes off what is left.
func (o *outlet) written(n int) {
	for n > 0 {
		v := &o.iov[0]
		k := min(n, int(v.Len))
		n -= k
		if k < int(v.Len) {
			v.Base = (*byte)(unsafe.Add(unsafe.Pointer(v.Base), k))
			v.SetLen(int(v.Len) - k)
			return
		}
		o.iov = o.iov[1:]
	}
}
