// Package tftp serves the boot files and GRUB's scripts over TFTP (RFC 1350,
// 2347-2349), read only and from RAM. It is the first step of every PXE
// firmware and, for GRUB 2.06 which has no HTTP, the way of kernel and initramfs
// too. What the library leaves open is closed here: names are looked up in a
// fixed map, transfers are counted per address and in all, and an unproven
// address gets no more than one block. Called by server/netboot.
package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/pin/tftp/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"labswarm/server/decide"
	"labswarm/server/netboot/bootfile"
	"labswarm/server/netboot/bootreq"
	"labswarm/server/netboot/desk"
	"labswarm/server/netboot/portowner"
)

const (
	// retries after the first sending. With three the library's packets (four
	// OACKs and a final ERROR) drew x4.3 of a forged request with tsize alone,
	// over the bar of x4 (TestReflection).
	retries = 2
	// blockMax keeps a DATA packet in one Ethernet frame, with room for a tag.
	blockMax   = 1428
	recvBuffer = 1 << 20 // bytes
	// plainBlock is the block size without options (RFC 1350).
	plainBlock = 512
)

// Config is what the server needs.
type Config struct {
	IP        netip.Addr // our lab address
	Interface string     // "" = not bound to an interface (tests on loopback)
	Port      int        // 0 = 69
	Files     *bootfile.Files
	Scripts   *bootfile.Scripts
	Desk      *desk.Desk
	Log       *slog.Logger
	Count     func(result string) // told of each transfer; nil = nobody
	PerHost   int                 // transfers per address, 0 = 2
	Total     int                 // transfers in all, 0 = 64
	// Timeout of one round trip, 0 = 3 s; slow firmware needs it.
	Timeout time.Duration
}

// Server is the TFTP server.
type Server struct {
	cfg    Config
	conn   *net.UDPConn
	lib    *tftp.Server
	limits *limits
	ctx    context.Context // set once by Run before the first request
}

// errNotFound becomes ERROR 1 at once: shim and GRUB probe for names that do
// not exist, and a timeout there costs the boot.
var errNotFound = errors.New("file not found")

// Listen binds the port. A port in use gives a *portowner.BusyError.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Port == 0 {
		cfg.Port = 69
	}
	if cfg.Count == nil {
		cfg.Count = func(string) {}
	}
	if cfg.PerHost == 0 {
		cfg.PerHost = 2
	}
	if cfg.Total == 0 {
		cfg.Total = 64
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 3 * time.Second
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		if cfg.Interface == "" {
			return nil
		}
		var opErr error
		if err := c.Control(func(fd uintptr) { opErr = unix.BindToDevice(int(fd), cfg.Interface) }); err != nil {
			return err
		}
		return opErr
	}}
	pc, err := lc.ListenPacket(ctx, "udp4", netip.AddrPortFrom(cfg.IP, uint16(cfg.Port)).String())
	if err != nil {
		return nil, portowner.Explain(fmt.Errorf("bind udp port %d on %s: %w", cfg.Port, cfg.IP, err), "udp", cfg.Port)
	}
	conn := pc.(*net.UDPConn)
	if err := conn.SetReadBuffer(recvBuffer); err != nil { // a room starts at once
		return nil, fmt.Errorf("enlarge TFTP receive buffer: %w", errors.Join(err, conn.Close()))
	}
	s := &Server{cfg: cfg, conn: conn, limits: newLimits(cfg.PerHost, cfg.Total)}
	s.lib = tftp.NewServer(s.handle, nil)
	s.lib.SetTimeout(cfg.Timeout)
	s.lib.SetRetries(retries)
	s.lib.SetBackoff(func(int) time.Duration { return 0 }) // the timeout itself is the pause
	s.lib.SetBlockSize(blockMax)
	return s, nil
}

// Addr is the bound address.
func (s *Server) Addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Close closes a server that was never run.
func (s *Server) Close() error { return s.conn.Close() }

// Run serves until ctx ends. Running transfers are cut then: their clients get
// an ERROR with the next block, silent ones end with the library's timeout, so
// Run returns within 9 s.
func (s *Server) Run(ctx context.Context) error {
	s.ctx = ctx
	defer func() { // the library closes it too, unless ctx ended before its loop began
		if err := s.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.cfg.Log.Debug("close TFTP socket", "err", err)
		}
	}()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-gctx.Done()
		s.lib.Shutdown() // waits for the transfers
		return nil
	})
	g.Go(func() error {
		for ctx.Err() == nil {
			if err := s.serve(); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// serve runs the library's loop; a panic in its packet parser is logged and the
// loop starts again.
func (s *Server) serve() (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error("TFTP packet dropped: parser panicked", "err", p, "stack", string(debug.Stack()))
		}
	}()
	if err := s.lib.Serve(s.conn); err != nil {
		return fmt.Errorf("serve TFTP: %w", err)
	}
	return nil
}

// handle serves one read request, in the library's goroutine for it. Its error
// goes to the client as ERROR 1.
func (s *Server) handle(name string, rf io.ReaderFrom) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error("TFTP transfer failed: handler panicked", "err", p, "stack", string(debug.Stack()))
			err = errors.New("internal error")
		}
	}()
	out, ok := rf.(tftp.OutgoingTransfer)
	if !ok {
		return errors.New("internal error")
	}
	remote := out.RemoteAddr()
	ip := remote.AddrPort().Addr().Unmap()
	if len(name) > 255 {
		return errNotFound
	}
	clean := bootfile.CleanPath(name)
	if !s.cfg.Desk.OnLink(ip) {
		s.cfg.Log.Debug("TFTP refused: address is not booting here", "ip", ip.String(), "file", clean)
		return errors.New("access denied")
	}
	if !s.exists(clean) { // before waiting for a slot: this answer must be quick
		s.cfg.Log.Debug("TFTP file does not exist", "ip", ip.String(), "file", clean)
		return errNotFound
	}
	slot, err := s.limits.enter(s.ctx, ip, s.cfg.Desk.Booting(ip))
	if err != nil {
		s.cfg.Count("refused")
		s.cfg.Log.Debug("TFTP transfer refused", "ip", ip.String(), "file", clean, "err", err)
		return err
	}
	defer slot.leave()
	res, err := s.resource(clean, ip)
	if err != nil {
		s.cfg.Count("refused")
		s.cfg.Log.Debug("TFTP file not served", "ip", ip.String(), "file", clean, "err", err)
		return err
	}
	return s.transfer(out, rf, res, slot, ip)
}

// exists reports whether a name is known, without asking anybody.
func (s *Server) exists(clean string) bool {
	if clean == bootfile.NameGrubCfg || clean == bootfile.NameAutoexec {
		return true
	}
	if _, ok := bootfile.HostCfgMAC(clean); ok {
		return true
	}
	_, ok := s.cfg.Files.Get(clean)
	return ok
}

// resource is what a name stands for.
type resource struct {
	name string
	data []byte
	mac  string // for an initramfs: whose boot it is
}

func (s *Server) resource(clean string, ip netip.Addr) (resource, error) {
	switch clean {
	case bootfile.NameGrubCfg:
		return resource{name: clean, data: s.cfg.Scripts.GrubCfg()}, nil
	case bootfile.NameAutoexec:
		return resource{name: clean, data: s.cfg.Scripts.Autoexec()}, nil
	}
	if mac, ok := bootfile.HostCfgMAC(clean); ok {
		r := bootreq.Request{Proto: decide.ProtoTFTP, MAC: mac, IP: ip, File: clean}
		a := s.cfg.Desk.Ask(s.ctx, r)
		s.cfg.Desk.Asked(r, a)
		return resource{name: clean, data: s.cfg.Scripts.GRUB(a, mac, true)}, nil
	}
	f, ok := s.cfg.Files.Get(clean)
	if !ok {
		return resource{}, errNotFound
	}
	res := resource{name: clean, data: f.Data}
	if bootfile.NeedsSession(clean) {
		mac, ok := s.cfg.Desk.AllowFile(s.ctx, decide.ProtoTFTP, ip, clean)
		if !ok {
			return resource{}, errNotFound
		}
		if bootfile.IsInitrd(clean) {
			res.mac = mac
		}
	}
	return res, nil
}

func (s *Server) transfer(out tftp.OutgoingTransfer, rf io.ReaderFrom, res resource, sl *slot, ip netip.Addr) error {
	out.SetSize(int64(len(res.data))) // before ReadFrom, else no tsize is sent
	start := time.Now()
	src := &source{ctx: s.ctx, slot: sl, data: bytes.NewReader(res.data), size: len(res.data), rf: rf}
	n, err := rf.ReadFrom(src)
	switch {
	case err != nil && normalEnd(err):
		// OVMF opens each file twice: first for its size only, then it ends
		// the transfer with ERROR 8. GRUB closes files half read.
		s.cfg.Count("ended")
		s.cfg.Log.Debug("TFTP transfer ended by the client", "ip", ip.String(), "file", res.name, "sent", n)
		return nil
	case err != nil:
		s.cfg.Count("failed")
		s.cfg.Log.Info("TFTP transfer failed", "ip", ip.String(), "file", res.name, "sent", n, "size", len(res.data), "err", err)
		return err
	}
	s.cfg.Count("ok")
	s.cfg.Log.Debug("TFTP transfer", "ip", ip.String(), "file", res.name, "size", n, "ms", time.Since(start).Milliseconds())
	if res.mac != "" && n == int64(len(res.data)) {
		s.cfg.Desk.Fetched(res.mac)
	}
	return nil
}

// normalEnd reports whether the client ended the transfer with an ERROR packet
// of its own. The library has no error type for it.
func normalEnd(err error) bool { return strings.Contains(err.Error(), "code=") }
