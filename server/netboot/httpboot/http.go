// Package httpboot serves boot files and boot scripts over plain HTTP: to iPXE,
// to GRUB 2.12 and to UEFI firmware that boots by HTTP. Nothing here is secret;
// images and the agent API never pass this port. Called by server/netboot.
package httpboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"labswarm/server/decide"
	"labswarm/server/inventory/ident"
	"labswarm/server/netboot/bootfile"
	"labswarm/server/netboot/bootreq"
	"labswarm/server/netboot/desk"
	"labswarm/server/netboot/portowner"
)

const (
	maxConns = 1024 // a room of 300 PCs with a few connections each
	// writeTime bounds one answer: 20 MB to a 10 Mbit/s client take 16 s, 300
	// PCs at once share the link.
	writeTime = 10 * time.Minute
)

// Config is what the server needs.
type Config struct {
	IP      netip.Addr // our lab address
	Port    int        // 0 = 80
	Files   *bootfile.Files
	Scripts *bootfile.Scripts
	Desk    *desk.Desk
	Log     *slog.Logger
}

// Server is the HTTP boot server.
type Server struct {
	cfg Config
	ln  net.Listener
}

// Listen binds the port. A port in use gives a *portowner.BusyError.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Port == 0 {
		cfg.Port = 80
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", netip.AddrPortFrom(cfg.IP, uint16(cfg.Port)).String())
	if err != nil {
		return nil, portowner.Explain(fmt.Errorf("bind tcp port %d on %s: %w", cfg.Port, cfg.IP, err), "tcp", cfg.Port)
	}
	return &Server{cfg: cfg, ln: ln}, nil
}

// Addr is the bound address.
func (s *Server) Addr() netip.AddrPort { return s.ln.Addr().(*net.TCPAddr).AddrPort() }

// Close closes a server that was never run.
func (s *Server) Close() error { return s.ln.Close() }

// Run serves until ctx ends; open answers get 2 s to finish.
func (s *Server) Run(ctx context.Context) error {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      writeTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	g, gctx := errgroup.WithContext(ctx)
	ln := &listener{Listener: s.ln, ctx: gctx, drain: drainTime}
	defer ln.wg.Wait()
	g.Go(func() error {
		<-gctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(gctx), 2*time.Second)
		defer cancel()
		if srv.Shutdown(end) != nil { // somebody is still reading
			return srv.Close()
		}
		return nil
	})
	g.Go(func() error {
		err := srv.Serve(netutil.LimitListener(ln, maxConns))
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("serve boot files by HTTP: %w", err)
	})
	return g.Wait()
}

// ServeHTTP answers one request. There is no http.ServeMux: shim asks for
// "//grubx64.efi", the mux would answer with a redirect, firmware does not
// follow it and the boot fails.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil && p != any(http.ErrAbortHandler) {
			s.cfg.Log.Error("HTTP boot request failed: handler panicked", "ip", r.RemoteAddr, "err", p, "stack", string(debug.Stack()))
		}
	}()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, "unreadable client address", http.StatusBadRequest)
		return
	}
	s.route(w, r, bootfile.CleanPath(r.URL.Path), from.Addr().Unmap())
}

func (s *Server) route(w http.ResponseWriter, r *http.Request, name string, ip netip.Addr) {
	switch name {
	case bootfile.NameAutoexec:
		s.script(w, r, s.cfg.Scripts.Autoexec())
	case bootfile.NameGrubCfg:
		s.script(w, r, s.cfg.Scripts.GrubCfg())
	case bootfile.NameBootIPXE:
		q, a := s.ask(r, decide.ProtoHTTPIPXE, name, ip, "")
		s.script(w, r, s.cfg.Scripts.IPXE(a, q.MAC, q.UUID))
	case bootfile.NameHostCfg:
		q, a := s.ask(r, decide.ProtoHTTPGRUB, name, ip, "")
		s.script(w, r, s.cfg.Scripts.GRUB(a, q.MAC, false))
	default:
		if mac, ok := bootfile.HostCfgMAC(name); ok {
			_, a := s.ask(r, decide.ProtoHTTPGRUB, name, ip, mac)
			s.script(w, r, s.cfg.Scripts.GRUB(a, mac, false))
			return
		}
		s.file(w, r, name, ip)
	}
}

// ask puts the question for a script and notes the session. MAC and UUID are
// parsed, never echoed; a request without a MAC is told by its address.
func (s *Server) ask(r *http.Request, proto bootreq.Proto, name string, ip netip.Addr, mac string) (bootreq.Request, bootreq.Answer) {
	q := bootreq.Request{Proto: proto, MAC: mac, IP: ip, File: name}
	query := r.URL.Query()
	if q.MAC == "" {
		if m, err := ident.ParseMAC(query.Get("mac")); err == nil {
			q.MAC = m
		}
	}
	if u, err := ident.ParseUUID(query.Get("uuid")); err == nil {
		q.UUID = u
	}
	if q.MAC == "" {
		if m, ok := s.cfg.Desk.MACOf(ip); ok {
			q.MAC = m
		}
	}
	a := s.cfg.Desk.Ask(r.Context(), q)
	if r.Method == http.MethodGet {
		s.cfg.Desk.Asked(q, a)
	}
	return q, a
}

// script sends a generated text with its length: no chunked bodies, firmware
// and GRUB do not like them.
func (s *Server) script(w http.ResponseWriter, r *http.Request, text []byte) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=us-ascii")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	if _, err := w.Write(text); err != nil {
		s.cfg.Log.Debug("send boot script", "ip", r.RemoteAddr, "err", err)
	}
}

// file sends a boot file. Kernel and initramfs exist only for an address whose
// session was answered Agent: everybody else gets 404.
func (s *Server) file(w http.ResponseWriter, r *http.Request, name string, ip netip.Addr) {
	f, ok := s.cfg.Files.Get(name)
	var mac string
	if ok && bootfile.NeedsSession(name) {
		mac, ok = s.cfg.Desk.AllowFile(r.Context(), decide.ProtoHTTPFile, ip, name)
	}
	if !ok {
		s.cfg.Log.Debug("boot file not served", "ip", ip.String(), "file", name)
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", contentType(name))
	h.Set("Cache-Control", "no-store")
	start := time.Now()
	count := &counter{ResponseWriter: w}
	http.ServeContent(count, r, name, time.Time{}, bytes.NewReader(f.Data))
	s.cfg.Log.Debug("boot file", "ip", ip.String(), "mac", mac, "file", name, "method", r.Method, "sent", count.n, "ms", time.Since(start).Milliseconds())
	if bootfile.IsInitrd(name) && r.Method == http.MethodGet && count.n > 0 && count.last(int64(len(f.Data))) {
		s.cfg.Desk.Fetched(mac)
	}
}

// contentType: UEFI firmware tells a boot image by .efi or by this type.
func contentType(name string) string {
	if strings.HasSuffix(name, ".efi") {
		return "application/efi"
	}
	return "application/octet-stream"
}
