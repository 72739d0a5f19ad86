package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"labswarm/server/decide"
	"labswarm/server/netboot/bootreq"
	"labswarm/server/netboot/desk"
	"labswarm/server/netboot/portowner"
)

const (
	maxPacket = 1500 // bytes; a DHCP packet never needs more on Ethernet
	workers   = 8    // OVMF waits 4 s between its steps, a commit may take long
	queueLen  = 256  // packets waiting for a worker; more are dropped and counted
)

// ServerConfig is what the socket loop needs.
type ServerConfig struct {
	Site      Site
	Interface *net.Interface
	Pool      *Pool // mode dhcp; nil in mode proxy
	Desk      *desk.Desk
	Log       *slog.Logger
	Count     func(kind, result string) // told of each packet; nil = nobody
	Port      int                       // 0 = 67
	ProxyPort int                       // 0 = 4011
}

// Server is the socket loop of ports 67 and 4011.
type Server struct {
	cfg     ServerConfig
	conns   [2]*net.UDPConn // 67, 4011
	dropped atomic.Int64    // packets without a free worker
	unsup   sync.Map        // MAC -> arch: unsupported machines already told
	unsupN  atomic.Int64
}

type packet struct {
	data   []byte
	from   netip.AddrPort
	conn   *net.UDPConn
	at4011 bool
}

// Listen binds both ports on the interface. A port in use gives a
// *portowner.BusyError that names the process.
func Listen(ctx context.Context, cfg ServerConfig) (*Server, error) {
	if cfg.Port == 0 {
		cfg.Port = dhcpv4.ServerPort
	}
	if cfg.ProxyPort == 0 {
		cfg.ProxyPort = 4011
	}
	if cfg.Count == nil {
		cfg.Count = func(string, string) {}
	}
	s := &Server{cfg: cfg}
	for i, port := range []int{cfg.Port, cfg.ProxyPort} {
		conn, err := bind(ctx, cfg.Interface.Name, port)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.conns[i] = conn
	}
	return s, nil
}

// bind opens a broadcast socket on one interface. No SO_REUSEADDR: sharing port
// 67 with another DHCP server in silence is the fault we must report.
func bind(ctx context.Context, ifName string, port int) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var opErr error
		if err := c.Control(func(fd uintptr) {
			opErr = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1), unix.BindToDevice(int(fd), ifName))
		}); err != nil {
			return err
		}
		return opErr
	}}
	pc, err := lc.ListenPacket(ctx, "udp4", fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, portowner.Explain(fmt.Errorf("bind udp port %d on %s: %w", port, ifName, err), "udp", port)
	}
	return pc.(*net.UDPConn), nil
}

// Close closes sockets that Run has not closed.
func (s *Server) Close() error {
	var err error
	for _, c := range s.conns {
		if c == nil {
			continue
		}
		if e := c.Close(); e != nil && !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Run answers until ctx ends (nil) or a socket fails. All its goroutines have
// ended when it returns.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	queue := make(chan packet, queueLen)
	g.Go(func() error { // closes the sockets, which ends the readers
		<-ctx.Done()
		return s.Close()
	})
	var readers sync.WaitGroup
	for i, conn := range s.conns {
		readers.Add(1)
		g.Go(func() error {
			defer readers.Done()
			return s.read(ctx, conn, i == 1, queue)
		})
	}
	g.Go(func() error { readers.Wait(); close(queue); return nil })
	for range workers {
		g.Go(func() error {
			for p := range queue {
				s.handle(ctx, p)
			}
			return nil
		})
	}
	return g.Wait()
}

func (s *Server) read(ctx context.Context, conn *net.UDPConn, at4011 bool, queue chan<- packet) error {
	buf := make([]byte, maxPacket+1)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the end of ctx closed the socket
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("read DHCP packet: %w", err)
		case err != nil: // for example ICMP errors, or the interface went down for a moment
			s.cfg.Log.Warn("read DHCP packet", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		case n > maxPacket:
			continue
		}
		p := packet{data: append([]byte(nil), buf[:n]...), from: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), conn: conn, at4011: at4011}
		select {
		case queue <- p:
		default: // the client asks again in a second
			s.cfg.Count("unread", "dropped")
			if d := s.dropped.Add(1); d%1000 == 1 {
				s.cfg.Log.Warn("too many DHCP packets at once, some are dropped", "dropped", d)
			}
		}
	}
}

func (s *Server) handle(ctx context.Context, p packet) {
	defer func() {
		if e := recover(); e != nil {
			s.cfg.Log.Error("DHCP packet dropped: handler panicked", "ip", p.from.String(), "err", e, "stack", string(debug.Stack()))
		}
	}()
	m, err := dhcpv4.FromBytes(p.data)
	if err != nil || !Acceptable(m) {
		s.cfg.Count("unread", "bad")
		return
	}
	c := Classify(m)
	if c.MAC == "" {
		return
	}
	if r, ok := s.answer(ctx, m, c, p); ok {
		s.cfg.Count(m.MessageType().String(), "answered")
		s.send(p, m, r)
		return
	}
	s.cfg.Count(m.MessageType().String(), "silent")
}

// answer asks the desk and the pool, and renders. It also tells sightings.
func (s *Server) answer(ctx context.Context, m *dhcpv4.DHCPv4, c Client, p packet) (*dhcpv4.DHCPv4, bool) {
	q := Query{Msg: m, Client: c, At4011: p.at4011}
	var a bootreq.Answer
	a.Decision = decide.Decision{Action: decide.Ignore}
	if c.Boots() {
		s.cfg.Desk.Discovered(c.MAC)
		if !Supported(c.Arch) {
			s.unsupported(c)
		} else if s.asks(m, p) {
			a = s.cfg.Desk.Ask(ctx, s.request(m, c, p))
		}
	} else if c.InstalledOS() && !p.at4011 {
		s.cfg.Desk.Sighting(sighting(m, c))
	}
	if s.cfg.Pool != nil && !p.at4011 {
		ip, v := s.lease(m, c)
		if v == Refuse {
			return Nak(s.cfg.Site, m)
		}
		q.Lease = ip
	}
	if ci := addr(m.ClientIPAddr); p.at4011 && ci.IsValid() && ci == p.from.Addr() {
		s.cfg.Desk.Learn(ci, c.MAC, c.UUID, c.Arch)
	}
	return Reply(s.cfg.Site, q, a)
}

// asks reports whether a boot client's message will get a boot answer, so that
// words between a client and its router are not taken for boot questions.
func (s *Server) asks(m *dhcpv4.DHCPv4, p packet) bool {
	_, ok := replyType(s.cfg.Site, Query{Msg: m, At4011: p.at4011, Lease: s.cfg.Site.Server})
	return ok
}

func (s *Server) request(m *dhcpv4.DHCPv4, c Client, p packet) bootreq.Request {
	r := bootreq.Request{Proto: decide.ProtoDHCP, MAC: c.MAC, UUID: c.UUID, Arch: c.Arch,
		IP: addr(m.ClientIPAddr), UserClass: c.UserClass, VendorClass: c.VendorClass}
	switch {
	case p.at4011:
		r.Proto = decide.Proto4011
	case s.cfg.Site.Proxy:
		r.Proto = decide.ProtoProxy
	}
	return r
}

func sighting(m *dhcpv4.DHCPv4, c Client) bootreq.Sighting {
	ip := addr(m.ClientIPAddr)
	if !ip.IsValid() {
		ip = addr(m.RequestedIPAddress())
	}
	return bootreq.Sighting{Kind: bootreq.SightOS, MAC: c.MAC, IP: ip, Hostname: c.Hostname,
		VendorClass: c.VendorClass, MessageType: m.MessageType().String(), Arch: c.Arch}
}

// unsupported tells of a PC we have no boot files for, once per MAC.
func (s *Server) unsupported(c Client) {
	if s.unsupN.Load() >= maxPool { // MACs can be invented
		return
	}
	if _, told := s.unsup.LoadOrStore(c.MAC, c.Arch); told {
		return
	}
	s.unsupN.Add(1)
	s.cfg.Log.Warn("unsupported architecture: this PC boots its own disk", "mac", c.MAC, "arch", c.Arch, "class", c.VendorClass)
	s.cfg.Desk.Sighting(bootreq.Sighting{Kind: bootreq.SightUnsupported, MAC: c.MAC, VendorClass: c.VendorClass, Arch: c.Arch})
}

// lease runs the address part of a message in mode dhcp.
func (s *Server) lease(m *dhcpv4.DHCPv4, c Client) (netip.Addr, Verdict) {
	pool, now := s.cfg.Pool, time.Now()
	if id := addr(m.ServerIdentifier()); id.IsValid() && id != s.cfg.Site.Server {
		pool.Withdraw(c.MAC)
		return netip.Addr{}, Silent
	}
	ci, want := addr(m.ClientIPAddr), addr(m.RequestedIPAddress())
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		ip, ok := pool.Offer(c.MAC, want, now)
		if !ok {
			s.cfg.Log.Warn("address pool is used up: enlarge it", "mac", c.MAC)
			return netip.Addr{}, Silent
		}
		return ip, Ack
	case dhcpv4.MessageTypeRequest:
		if !want.IsValid() {
			want = ci
		}
		v, err := pool.Confirm(c.MAC, want, now)
		if err != nil {
			s.cfg.Log.Error("save lease", "mac", c.MAC, "ip", want.String(), "err", err)
		}
		return want, v
	case dhcpv4.MessageTypeRelease:
		if err := pool.Release(c.MAC, ci, now); err != nil {
			s.cfg.Log.Error("save released lease", "mac", c.MAC, "err", err)
		}
	case dhcpv4.MessageTypeDecline:
		pool.Decline(c.MAC, want, now)
		s.cfg.Log.Warn("address is in use by a stranger, set aside", "mac", c.MAC, "ip", want.String())
	}
	return netip.Addr{}, Silent
}

// send writes a reply from our lab address, also when the interface has others.
func (s *Server) send(p packet, m, r *dhcpv4.DHCPv4) {
	to := Destination(m, p.from)
	if r.MessageType() == dhcpv4.MessageTypeNak {
		to = Destination(&dhcpv4.DHCPv4{}, p.from)
	}
	cm := &ipv4.ControlMessage{Src: s.cfg.Site.Server.AsSlice(), IfIndex: s.cfg.Interface.Index}
	_, err := ipv4.NewPacketConn(p.conn).WriteTo(r.ToBytes(), cm, net.UDPAddrFromAddrPort(to))
	if err != nil && !errors.Is(err, net.ErrClosed) {
		s.cfg.Log.Warn("send DHCP reply", "ip", to.String(), "err", err)
		return
	}
	s.cfg.Log.Debug("DHCP reply", "type", r.MessageType().String(), "mac", r.ClientHWAddr.String(), "to", to.String(),
		"yiaddr", r.YourIPAddr.String(), "file", r.BootFileName, "at4011", p.at4011)
}
