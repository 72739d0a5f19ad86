package coldplug

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Watch loads modules for devices that appear later (USB network adapters and
// disks) until ctx ends.
func (l *Loader) Watch(ctx context.Context) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("open uevent socket: %w", err)
	}
	defer unix.Close(fd) //nolint:errcheck // a socket that was only read
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return fmt.Errorf("bind uevent socket: %w", err)
	}
	// The timeout is how often ctx is looked at.
	tv := unix.NsecToTimeval(int64(500 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fmt.Errorf("set uevent timeout: %w", err)
	}
	buf := make([]byte, 16<<10)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS): // events were lost: look at everything again
			l.round()
			continue
		case err != nil:
			return fmt.Errorf("read uevent: %w", err)
		}
		if a := addedAlias(buf[:n]); a != "" {
			todo := map[string]bool{}
			for _, m := range l.news(a) {
				todo[m] = true
			}
			l.loadAll(todo)
		}
	}
	return nil
}

// addedAlias returns the MODALIAS of an "add" event, "" for anything else. The
// message is "add@/devices/..." and NAME=value fields, each ended by a zero.
func addedAlias(msg []byte) string {
	fields := bytes.Split(msg, []byte{0})
	if len(fields) == 0 || !bytes.HasPrefix(fields[0], []byte("add@")) {
		return ""
	}
	for _, f := range fields[1:] {
		if v, ok := strings.CutPrefix(string(f), "MODALIAS="); ok {
			return v
		}
	}
	return ""
}
