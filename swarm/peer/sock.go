package peer

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	notSentLowat = 64 << 10 // bytes a socket may hold unsent: no standing queue at a parent (swarm.md section 4)
	userTimeout  = 15_000   // ms of unacknowledged data after which the kernel gives up (RFC 5482)
	keepAlive    = 15 * time.Second
)

// tune sets the socket options of a peer connection. TCP_NODELAY is Go's default.
func tune(nc net.Conn) error {
	tc := rawTCP(nc)
	if tc == nil {
		return fmt.Errorf("tune connection to %v: not TCP", nc.RemoteAddr())
	}
	if err := tc.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive, Count: 4}); err != nil {
		return fmt.Errorf("set keepalive: %w", err)
	}
	rc, err := tc.SyscallConn()
	if err != nil {
		return fmt.Errorf("reach the socket: %w", err)
	}
	var serr error
	err = rc.Control(func(fd uintptr) {
		if serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLowat); serr != nil {
			return
		}
		serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, userTimeout)
	})
	if err == nil {
		err = serr
	}
	if err != nil {
		return fmt.Errorf("set TCP options: %w", err)
	}
	return nil
}

// sockTimes is the smallest round trip the kernel has seen on nc and for how long
// no data has come; 0 when unknown.
func sockTimes(nc net.Conn) (rtt, silent time.Duration) {
	tc := rawTCP(nc)
	if tc == nil {
		return 0, 0
	}
	rc, err := tc.SyscallConn()
	if err != nil {
		return 0, 0
	}
	if err := rc.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		if info.Min_rtt != ^uint32(0) {
			rtt = time.Duration(info.Min_rtt) * time.Microsecond
		}
		silent = time.Duration(info.Last_data_recv) * time.Millisecond
	}); err != nil {
		return 0, 0
	}
	return rtt, silent
}

// remoteAddr is the peer's address as netip, never IPv4-mapped.
func remoteAddr(nc net.Conn) netip.AddrPort {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return unmap(a.AddrPort())
	}
	return netip.AddrPort{}
}
