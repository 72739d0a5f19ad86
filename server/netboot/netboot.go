// Package netboot answers PCs that boot from the network: DHCP or proxyDHCP
// (ports 67 and 4011), TFTP (69), plain HTTP for boot files (80) and router
// solicitations. It renders decisions; it takes none: every question goes to
// the Decider, which the daemon implements. Images never leave through these
// ports and nothing here is secret. Called by server/daemon.
package netboot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"labswarm/server/netboot/bootfile"
	"labswarm/server/netboot/bootreq"
	"labswarm/server/netboot/desk"
	"labswarm/server/netboot/dhcp"
	"labswarm/server/netboot/httpboot"
	"labswarm/server/netboot/neigh"
	"labswarm/server/netboot/radv"
	"labswarm/server/netboot/tftp"
)

// Aliases of the shared words, so that the daemon imports one package.
type (
	// Proto is the boot protocol that asks.
	Proto = bootreq.Proto
	// Request is what one boot protocol knows about the asking machine.
	Request = bootreq.Request
	// Answer is the decision plus the facts that rendering needs.
	Answer = bootreq.Answer
	// Sighting is something seen on the wire that is no boot question.
	Sighting = bootreq.Sighting
	// SightingKind says what was seen.
	SightingKind = bootreq.SightingKind
	// Decider answers boot questions.
	Decider = bootreq.Decider
)

// Kinds of sightings and boot styles, as in bootreq.
const (
	SightOS          = bootreq.SightOS
	SightForeignBoot = bootreq.SightForeignBoot
	SightUnsupported = bootreq.SightUnsupported
	StyleSilent      = bootreq.StyleSilent
	StyleChain       = bootreq.StyleChain
)

// Modes of Config.Mode.
const (
	ModeDHCP  = "dhcp"  // we give addresses and boot fields
	ModeProxy = "proxy" // the site's DHCP gives addresses, we give boot fields
	ModeOff   = "off"   // the site's DHCP points at us: TFTP and HTTP only
)

// leaseTime of addresses in mode dhcp.
const leaseTime = time.Hour

// Server is the netboot side of labswarm. New, Listen and Run are called once,
// in this order.
type Server struct {
	cfg   Config
	files *bootfile.Files
	dec   Decider

	dhcp *dhcp.Server
	tftp *tftp.Server
	http *httpboot.Server
	radv *radv.Server
	desk *desk.Desk
}

// New checks cfg and prepares a server; it opens no socket. All faults of the
// configuration come back at once.
func New(cfg Config, files *bootfile.Files, d Decider) (*Server, error) {
	if files == nil || d == nil {
		return nil, errors.New("set up netboot: boot files and a decider are needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up netboot: %w", err)
	}
	if cfg.CountDHCP == nil {
		cfg.CountDHCP = func(string, string) {}
	}
	if cfg.CountTFTP == nil {
		cfg.CountTFTP = func(string) {}
	}
	return &Server{cfg: cfg, files: files, dec: d}, nil
}

// Listen finds the interface and binds every socket, so that readiness can be
// told exactly. After an error nothing is bound.
func (s *Server) Listen() (err error) {
	ctx := context.Background() // binding does not wait
	ifi, prefix, err := findInterface(s.cfg.Interface, s.cfg.ServerIP)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	scripts, err := bootfile.NewScripts(bootfile.Site{IP: prefix.Addr(), HTTPPort: s.cfg.HTTPPort, AgentPort: s.cfg.AgentPort,
		KeyID: s.cfg.KeyID, KernelArgs: s.cfg.ExtraKernelArgs})
	if err != nil {
		return err
	}
	pool, err := s.pool(prefix)
	if err != nil {
		return err
	}
	s.desk = s.newDesk(ifi, prefix, pool)
	if s.cfg.Mode != ModeOff {
		if s.dhcp, err = dhcp.Listen(ctx, dhcp.ServerConfig{Site: s.site(prefix, scripts), Interface: ifi, Pool: pool, Desk: s.desk,
			Log: s.cfg.Log, Count: s.cfg.CountDHCP, Port: s.cfg.DHCPPort, ProxyPort: s.cfg.ProxyPort}); err != nil {
			return err
		}
	}
	if s.tftp, err = tftp.Listen(ctx, tftp.Config{IP: prefix.Addr(), Interface: ifi.Name, Port: s.cfg.TFTPPort, Files: s.files,
		Scripts: scripts, Desk: s.desk, Count: s.cfg.CountTFTP, Log: s.cfg.Log}); err != nil {
		return err
	}
	if s.http, err = httpboot.Listen(ctx, httpboot.Config{IP: prefix.Addr(), Port: s.cfg.HTTPPort, Files: s.files,
		Scripts: scripts, Desk: s.desk, Log: s.cfg.Log}); err != nil {
		return err
	}
	s.listenRA(ctx, ifi)
	s.cfg.Log.Info("netboot ready", "if", ifi.Name, "ip", prefix.String(), "mode", s.cfg.Mode, "answer_rs", s.radv != nil)
	return nil
}

// listenRA opens the solicitation socket. Without it iPXE only boots slower, so
// a kernel without IPv6 is no reason to stop.
func (s *Server) listenRA(ctx context.Context, ifi *net.Interface) {
	if !s.cfg.AnswerRS {
		return
	}
	ra, err := radv.Listen(ctx, ifi, s.cfg.Log)
	if err != nil {
		s.cfg.Log.Warn("router solicitations are not answered: iPXE clients boot about 16 s later", "if", ifi.Name, "err", err)
		return
	}
	s.radv = ra
}

func (s *Server) newDesk(ifi *net.Interface, prefix netip.Prefix, pool *dhcp.Pool) *desk.Desk {
	cfg := desk.Config{Decider: s.dec, Files: s.files, Log: s.cfg.Log}
	if s.cfg.Mode != ModeOff {
		cfg.OnLink, cfg.NeedDiscover = prefix.Masked(), true
	}
	if pool != nil {
		cfg.Lookups = append(cfg.Lookups, func(ip netip.Addr) (string, bool) { return pool.MACOf(ip, time.Now()) })
	}
	cfg.Lookups = append(cfg.Lookups, neigh.New(ifi.Index).Lookup)
	return desk.New(cfg)
}

func (s *Server) site(prefix netip.Prefix, scripts *bootfile.Scripts) dhcp.Site {
	return dhcp.Site{Server: prefix.Addr(), Proxy: s.cfg.Mode == ModeProxy, Mask: net.CIDRMask(prefix.Bits(), 32),
		Router: s.cfg.Router, DNS: s.cfg.DNS, LeaseTime: leaseTime, Style: s.cfg.ProxyStyle, Scripts: scripts}
}

// pool makes the address pool of mode dhcp.
func (s *Server) pool(prefix netip.Prefix) (*dhcp.Pool, error) {
	if s.cfg.Mode != ModeDHCP {
		return nil, nil
	}
	for _, a := range []netip.Addr{s.cfg.PoolStart, s.cfg.PoolEnd} {
		if !prefix.Contains(a) {
			return nil, fmt.Errorf("set up address pool: %s is not in %s of interface %s", a, prefix.Masked(), s.cfg.Interface)
		}
	}
	var store dhcp.LeaseStore
	if s.cfg.LeaseFile != "" {
		store = dhcp.FileStore{Path: s.cfg.LeaseFile}
	}
	taken := []netip.Addr{prefix.Addr(), s.cfg.Router, s.cfg.DNS, prefix.Masked().Addr(), lastAddr(prefix)}
	return dhcp.NewPool(s.cfg.PoolStart, s.cfg.PoolEnd, leaseTime, taken, store)
}

// Heard reports whether the DHCP ports have heard a boot client with this MAC lately. Call it after Listen.
func (s *Server) Heard(mac string) bool { return s.desk.Heard(mac) }

// Close closes what Listen bound and Run has not closed already. It may be
// called at any time after Listen, more than once.
func (s *Server) Close() error {
	var err error
	if s.dhcp != nil {
		err = errors.Join(err, s.dhcp.Close())
	}
	if s.tftp != nil {
		err = errors.Join(err, unlessClosed(s.tftp.Close()))
	}
	if s.http != nil {
		err = errors.Join(err, unlessClosed(s.http.Close()))
	}
	if s.radv != nil {
		err = errors.Join(err, unlessClosed(s.radv.Close()))
	}
	return err
}

// unlessClosed drops the error of closing a socket twice.
func unlessClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Run serves until ctx ends (nil) or a listener fails. Listen must have
// succeeded. All goroutines have ended when it returns.
func (s *Server) Run(ctx context.Context) error {
	if s.tftp == nil || s.http == nil {
		return errors.New("run netboot: Listen was not called or has failed")
	}
	g, ctx := errgroup.WithContext(ctx)
	if s.dhcp != nil {
		g.Go(func() error { return s.dhcp.Run(ctx) })
	}
	if s.radv != nil {
		g.Go(func() error { return s.radv.Run(ctx) })
	}
	g.Go(func() error { return s.tftp.Run(ctx) })
	g.Go(func() error { return s.http.Run(ctx) })
	return g.Wait()
}
