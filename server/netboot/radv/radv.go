// Package radv ends iPXE's wait for IPv6 in an IPv4-only LAN: its interface
// configuration is done only when DHCPv4 and router solicitation have both
// ended, and without an answer the latter takes 16 s (boot 27 s instead of
// 11 s, seen). Each router solicitation on the lab interface is answered with
// an empty router advertisement: lifetime 0, no options, unicast to the asker.
// Such an advertisement announces no router and no prefix, so it changes
// nothing for other hosts (RFC 4861 4.2, 6.2.6). Called by server/netboot.
package radv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

const (
	typeSolicit   = 133 // RFC 4861 4.1
	typeAdvertise = 134 // RFC 4861 4.2
	hopLimit      = 255 // RFC 4861 6.1: anything else was forwarded and is dropped
)

// Server answers router solicitations on one interface.
type Server struct {
	conn *ipv6.PacketConn
	raw  net.PacketConn
	log  *slog.Logger
}

// Listen opens the raw ICMPv6 socket on the interface; it needs CAP_NET_RAW and
// an interface with IPv6 switched on. The socket is closed by Run or Close.
func Listen(ctx context.Context, ifi *net.Interface, log *slog.Logger) (*Server, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var opErr error
		if err := c.Control(func(fd uintptr) { opErr = unix.BindToDevice(int(fd), ifi.Name) }); err != nil {
			return err
		}
		return opErr
	}}
	raw, err := lc.ListenPacket(ctx, "ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, fmt.Errorf("open router solicitation socket on %s: %w", ifi.Name, err)
	}
	s := &Server{conn: ipv6.NewPacketConn(raw), raw: raw, log: log}
	if err := s.setup(ifi); err != nil {
		return nil, errors.Join(fmt.Errorf("set up router solicitation socket on %s: %w", ifi.Name, err), raw.Close())
	}
	return s, nil
}

func (s *Server) setup(ifi *net.Interface) error {
	if err := s.conn.JoinGroup(ifi, &net.IPAddr{IP: net.ParseIP("ff02::2")}); err != nil { // all routers
		return fmt.Errorf("join the all-routers group: %w", err)
	}
	if err := s.conn.SetHopLimit(hopLimit); err != nil {
		return err
	}
	if err := s.conn.SetControlMessage(ipv6.FlagHopLimit, true); err != nil {
		return err
	}
	var f ipv6.ICMPFilter
	f.SetAll(true)
	f.Accept(ipv6.ICMPTypeRouterSolicitation)
	return s.conn.SetICMPFilter(&f)
}

// Close closes the socket of a server that was never run.
func (s *Server) Close() error { return s.raw.Close() }

// Run answers until ctx ends; it then closes the socket and returns nil.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		if err := s.raw.Close(); err != nil {
			s.log.Debug("close router solicitation socket", "err", err)
		}
	})
	defer stop()
	buf := make([]byte, 1500)
	for {
		n, cm, src, err := s.conn.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("read router solicitation: %w", err)
		case err != nil:
			s.log.Debug("read router solicitation", "err", err)
			continue
		}
		to, ok := src.(*net.IPAddr)
		if !ok || cm == nil || !Wanted(buf[:n], cm.HopLimit, to.IP) {
			continue
		}
		if _, err := s.conn.WriteTo(Advertisement(), nil, src); err != nil {
			s.log.Debug("answer router solicitation", "ip", src.String(), "err", err)
			continue
		}
		s.log.Debug("router solicitation answered", "ip", src.String())
	}
}

// Wanted reports whether a packet is a solicitation that can be answered by
// unicast: right type and length, not forwarded, from a link-local address.
func Wanted(pkt []byte, hops int, src net.IP) bool {
	return len(pkt) >= 8 && pkt[0] == typeSolicit && pkt[1] == 0 && hops == hopLimit && src.IsLinkLocalUnicast()
}

// Advertisement is the empty answer: current hop limit 64, router lifetime 0,
// no flags, no timers, no options. The kernel fills in the checksum.
func Advertisement() []byte {
	ra := make([]byte, 16)
	ra[0] = typeAdvertise
	ra[4] = 64
	return ra
}
