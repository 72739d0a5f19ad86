package doctor

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

type rawControl = syscall.RawConn

// bindDevice keeps a socket to one interface and allows broadcasts on it.
func bindDevice(c rawControl, ifName string) error {
	var opErr error
	err := c.Control(func(fd uintptr) {
		opErr = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1), unix.BindToDevice(int(fd), ifName))
	})
	return errors.Join(err, opErr)
}
