package power

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	etherWake = 0x0842
	wakePort  = 9 // discard
)

func sortShots(s []Shot) {
	slices.SortStableFunc(s, func(a, b Shot) int { return cmp.Compare(a.At, b.At) })
}

// Sender sends over one interface.
type Sender struct {
	Interface string
}

// Wake sends the packets for targets, each by UDP to the broadcast address of
// their room's subnets and as a frame of its own type, until all are out or ctx
// ends. It takes as long as Plan says: seconds to minutes. One that cannot be
// sent does not stop the others; the first error is returned.
func (s Sender) Wake(ctx context.Context, targets []Target) error {
	w, err := s.open()
	if err != nil {
		return fmt.Errorf("wake %d hosts over %s: %w", len(targets), s.Interface, err)
	}
	defer w.close()
	var first error
	begin := time.Now()
	for _, shot := range Plan(targets) {
		if wait := shot.At - time.Since(begin); wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				t.Stop()
				return context.Cause(ctx)
			case <-t.C:
			}
		}
		if err := w.send(shot); err != nil && first == nil {
			first = fmt.Errorf("wake %s (%s) over %s: %w", shot.Host, shot.MAC, s.Interface, err)
		}
	}
	return first
}

// wire is an interface's two sockets, and one for subnets behind routers.
type wire struct {
	index            int
	udp, raw, routed int
	own              net.HardwareAddr
	casts            []netip.Addr // directed broadcasts of the attached subnets
}

func (s Sender) open() (*wire, error) {
	ifi, err := net.InterfaceByName(s.Interface)
	if err != nil {
		return nil, err
	}
	w := &wire{index: ifi.Index, udp: -1, raw: -1, routed: -1, own: ifi.HardwareAddr}
	addrs, err := ifi.Addrs()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && p.Bits() < 31 {
			w.casts = append(w.casts, Broadcast(p))
		}
	}
	if w.udp, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open UDP socket: %w", err)
	}
	if w.routed, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		w.close()
		return nil, fmt.Errorf("open UDP socket: %w", err)
	}
	if w.raw, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		w.close()
		return nil, fmt.Errorf("open packet socket (CAP_NET_RAW is needed): %w", err)
	}
	// Bound to the interface: a broadcast would else leave by the default route.
	if err := errors.Join(unix.SetsockoptInt(w.udp, unix.SOL_SOCKET, unix.SO_BROADCAST, 1), unix.BindToDevice(w.udp, s.Interface),
		unix.SetsockoptInt(w.routed, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *wire) close() {
	for _, fd := range []int{w.udp, w.raw, w.routed} {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing is buffered
		}
	}
}

func (w *wire) send(s Shot) error {
	magic := Magic(s.MAC)
	casts := s.To
	if casts == nil {
		casts = w.casts
	}
	var bad error
	for _, c := range casts {
		fd := w.udp
		if !slices.Contains(w.casts, c) {
			fd = w.routed // the kernel knows the way
		}
		if err := unix.Sendto(fd, magic, 0, &unix.SockaddrInet4{Port: wakePort, Addr: c.As4()}); err != nil {
			bad = errors.Join(bad, fmt.Errorf("send to %s: %w", c, err))
		}
	}
	if len(w.own) != 6 {
		return bad // loopback
	}
	frame := append(append(Magic(nil), w.own...), etherWake>>8, etherWake&0xff)
	to := &unix.SockaddrLinklayer{Ifindex: w.index, Protocol: etherWake>>8 | etherWake&0xff<<8, Halen: 6}
	copy(to.Addr[:], frame[:6])
	if err := unix.Sendto(w.raw, append(frame, magic...), 0, to); err != nil {
		bad = errors.Join(bad, fmt.Errorf("send frame: %w", err))
	}
	return bad
}

// Broadcast is the last address of a subnet.
func Broadcast(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}
