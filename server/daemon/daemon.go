// Package daemon is `labswarm serve`: it opens keys, store, images and every
// socket, wires the parts together and runs them under one errgroup. It holds
// no rule of its own. Called by cmd/labswarm.
package daemon

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/images/library"
	"labswarm/internal/version"
	"labswarm/server/access"
	"labswarm/server/config"
	"labswarm/server/daemon/captures"
	"labswarm/server/daemon/control"
	"labswarm/server/daemon/keeper"
	"labswarm/server/daemon/relays"
	"labswarm/server/httpapi"
	"labswarm/server/inventory"
	"labswarm/server/metrics"
	"labswarm/server/netboot"
	"labswarm/server/netboot/bootfile"
	"labswarm/server/notify"
	"labswarm/server/power"
	"labswarm/server/seeder"
	"labswarm/server/store"
	"labswarm/swarm/peercert"
	"labswarm/tracker"
	"labswarm/tracker/registry"
)

// Config is what a server is told. Start from config.Default.
type Config = config.Config

// Exit codes of `labswarm serve`.
const (
	ExitFailed = 1
	ExitLocked = 11
	ExitDenied = 12
	ExitConfig = 78
)

// Error is an error of starting or running with its exit code.
type Error struct {
	Code int
	Err  error
}

// Error is the sentence for people.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ExitCode is the process's exit code.
func (e *Error) ExitCode() int { return e.Code }

// classify gives an error of starting its exit code.
func classify(err error) error {
	var locked *store.LockedError
	var bad *config.Error
	var missing *bootfile.MissingError
	code := ExitFailed
	switch {
	case err == nil:
		return nil
	case errors.As(err, &locked):
		code = ExitLocked
	case errors.As(err, &bad), errors.As(err, &missing):
		code = ExitConfig
	case errors.Is(err, os.ErrPermission):
		code = ExitDenied
		err = fmt.Errorf("%w (run as root, or give the service CAP_NET_BIND_SERVICE and CAP_NET_RAW and a state folder of its own)", err)
	}
	return &Error{Code: code, Err: err}
}

// server is everything that is open. Its parts are closed in reverse order.
type server struct {
	cfg      Config
	log      *slog.Logger
	keys     *config.Keys
	ip       netip.Addr
	store    *store.Bolt
	book     *access.Book
	engine   *control.Engine
	relays   *relays.Book
	keeper   *keeper.Keeper
	captures *captures.Book
	seeder   *seeder.Seeder
	track    *tracker.Tracker
	boot     *netboot.Server
	lab      netip.Prefix // of the lab interface
	enrol    bool         // the boot folder holds the enrol initramfs
	begun    time.Time
	quiet    time.Duration // control.Config.Patience
	look     time.Duration // keeper.Config.Look
	reload   <-chan Config // nil = none come
	beside   bool          // tests: agents run on the server's own machine

	upkeep  *upkeep
	doctor  doctorDesk
	notify  *notify.Notifier
	library *library.Library
	files   *bootfile.Files
	metrics *metrics.Set

	agents, admin, plain, monitor net.Listener
	adminTLS                      net.Listener // nil = no --admin-listen
	adminCert                     tls.Certificate
	peers                         access.Peers
	seedPort                      uint16
	closers                       []func() error
}

// Run serves until ctx ends (nil) or a part fails. It logs one line "ready"
// and tells systemd when every socket is bound and the store is open. Errors
// carry exit codes (*Error, *config.Error).
func Run(ctx context.Context, cfg Config, log *slog.Logger) error { return Serve(ctx, cfg, log, nil) }

// Serve is Run with the configurations of later reloads, of which it takes over what config.Setting.Live marks.
func Serve(ctx context.Context, cfg Config, log *slog.Logger, reload <-chan Config) error {
	if err := cfg.Fill(); err != nil {
		return err
	}
	s := &server{cfg: cfg, log: log, begun: time.Now(), reload: reload}
	err := s.open(ctx)
	if err == nil {
		err = s.run(ctx)
	}
	return classify(errors.Join(err, s.close()))
}

// close undoes open, last first.
func (s *server) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		if err := s.closers[i](); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *server) onClose(fn func() error) { s.closers = append(s.closers, fn) }

// open opens state, images and sockets, and tells the first thing that is
// wrong.
func (s *server) open(ctx context.Context) error {
	rec, err := s.openState()
	if err != nil {
		return err
	}
	if s.ip, err = labAddr(s.cfg.Interface); err != nil {
		return err
	}
	s.lab = labPrefix(s.cfg.Interface, s.ip)
	files, err := s.bootFiles()
	if err != nil {
		return err
	}
	_, s.enrol = files.Get(bootfile.NameEnrolInitrd)
	s.files = files
	if err := s.openSwarm(ctx, rec); err != nil {
		return err
	}
	if s.boot, err = netboot.New(s.netbootConfig(), files, countedDecider{s.engine, s.metrics}); err != nil {
		return &config.Error{Err: err}
	}
	if err := s.boot.Listen(); err != nil {
		return err
	}
	s.onClose(s.boot.Close)
	if err := s.openMonitor(ctx); err != nil {
		return err
	}
	return s.openAdmin(ctx)
}

// openState opens the store, whose lock keeps a second server away, and the
// keys.
func (s *server) openState() (*store.Recovery, error) {
	if err := os.MkdirAll(s.cfg.StateDir, 0o750); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	db, rec, err := store.Open(filepath.Join(s.cfg.StateDir, "labswarm.db"), s.snapshots())
	if err != nil {
		return nil, err
	}
	s.store = db
	s.onClose(db.Close)
	s.keys, err = config.LoadKeys(s.cfg.StateDir)
	return rec, err
}

func (s *server) snapshots() string { return filepath.Join(s.cfg.StateDir, "snapshots") }

// bootFiles loads the boot files with our public keys in front of the
// initramfs.
func (s *server) bootFiles() (*bootfile.Files, error) {
	pins, err := bootfile.PinsJSON([][]byte{s.keys.ServerPublic()}, [][]byte{s.keys.ImagePublic()})
	if err != nil {
		return nil, err
	}
	return bootfile.Load(s.cfg.BootDir, pins)
}

// openSwarm opens images, peers' port, tracker, engine and the agent port.
func (s *server) openSwarm(ctx context.Context, rec *store.Recovery) error {
	// With the key: captures are signed, the keeper removes versions and repairs them.
	lib, err := library.Open(filepath.Join(s.cfg.StateDir, "images"), s.keys.Image, nil)
	if err != nil {
		return err
	}
	s.library = lib
	if s.cfg.KeepFree >= 0 {
		lib.KeepFree(s.cfg.KeepFree)
	}
	peers, err := s.listen(ctx, s.cfg.PeerPort)
	if err != nil {
		return err
	}
	seed := seeder.Config{Listener: peers, RateBps: s.cfg.SeedRateBps, PlainPeers: s.cfg.PlainPeers, NoFrames: s.cfg.Frames == "off", Log: s.log.With("part", "seed")}
	copy(seed.PeerID[:], "-LW0100-")
	if _, err := rand.Read(seed.PeerID[8:]); err != nil {
		return fmt.Errorf("make peer id: %w", err)
	}
	seed.AllowPeer = func(ip netip.Addr) bool { return s.cfg.PlainPeers || s.engine.AllowPeer(ip) || s.relays.Allow(ip) }
	seed.Pass = func(ih [20]byte) (*peercert.Pass, error) { return s.engine.PeerPass(ih) }
	seed.Admit = s.admit
	if s.seeder, err = seeder.New(seed); err != nil {
		return err
	}
	s.seedPort = portOf(peers)
	s.track = tracker.New(s.log.With("part", "tracker"))
	s.openUpkeep()
	s.openMetrics()
	s.track.Replanned = func(reason string) { s.metrics.Replans.WithLabelValues(reason).Inc() }
	sw := &swarms{lib: lib, seeder: s.seeder, track: s.track, addr: netip.AddrPortFrom(s.ip, s.seedPort), mbps: s.seedMbps, roomMbps: s.cfg.RoomMbps, log: s.log,
		served: map[[20]byte]*served{}, relays: map[[20]byte][]registry.Seed{}}
	sw.suspect = func(name, version, why string, cells ...int64) { s.keeper.Suspect(name, version, why, cells...) }
	imgs := newImages(lib)
	s.captures = captures.New(lib, func(v *library.Version) api.Image {
		d := v.Digest()
		return describe(v.Manifest(), hex.EncodeToString(d[:]))
	}, s.log.With("part", "capture"))
	s.onClose(s.captures.Close)
	self := ownIdentity()
	if s.beside {
		self = inventory.Self{}
	}
	if s.book, err = access.Open(ctx, s.store, s.log.With("part", "admin")); err != nil {
		return err
	}
	s.engine, err = control.New(ctx, control.Config{Store: timedStore{s.book.Store(), s.metrics}, Captures: s.captures, Key: s.keys.Server, Self: self, Images: imgs, Swarms: sw,
		BootStyle: s.cfg.BootStyle, Frames: s.cfg.Frames, StateDir: s.cfg.StateDir, SnapshotDir: s.snapshots(), Log: s.log, Recovered: rec,
		PlainPeers: s.cfg.PlainPeers, Patience: s.quiet, Lab: s.lab, CanEnrol: s.canEnrol, NameTaken: s.nameTaken, Beat: s.upkeep.beat, Observe: s.transition,
		Built: built(), Waker: power.Sender{Interface: s.cfg.Interface}})
	if err != nil {
		return err
	}
	s.openNotify()
	if rec != nil {
		if err := s.store.Settled(ctx); err != nil {
			return err
		}
	}
	heal := &healer{pass: s.engine.PeerPass, hosts: s.engine.Holders, log: s.log.With("part", "heal"),
		relays: func(ih [20]byte) []relays.Holder { return s.relays.Holders(ih) }} // the book is made below
	s.keeper, err = keeper.New(ctx, keeper.Config{Store: s.book.Store(), Fetch: heal.fetch, Sources: heal.names, Restored: s.seeder.Restore, Library: lib, Log: s.log.With("part", "images"), Serving: sw.serving, Busy: s.busy,
		Ring: s.engine.Bell().Ring, Every: s.cfg.ScrubEvery, Rate: s.cfg.ScrubBps, Look: s.look})
	if err != nil {
		return err
	}
	if s.agents, err = s.listen(ctx, s.cfg.AgentPort); err != nil {
		return err
	}
	s.relays, err = relays.New(ctx, relays.Config{Store: s.book.Store(), Images: imgs, Swarms: sw, Jobs: s.engine, Log: s.log.With("part", "relays"),
		ImageKeys: [][]byte{s.keys.ImagePublic()}, ServerKey: s.keys.ServerPublic(), Server: s.agents.Addr().String()})
	if err != nil {
		return err
	}
	if s.cfg.PlainPeers {
		s.plain, err = s.listen(ctx, s.cfg.TrackerPort)
	}
	return err
}

// busy reports whether a job runs; when nobody can say, it does.
func (s *server) busy(ctx context.Context) bool {
	_, live, err := s.engine.Counts(ctx)
	return err != nil || live > 0
}

// admit has the last word on who fetches from the server's seed.
func (s *server) admit(ih [20]byte, id peercert.ID) error {
	if id.Seed {
		return s.relays.Admit(ih, id.Host)
	}
	return s.engine.AdmitPeer(ih, id)
}

func (s *server) netbootConfig() netboot.Config {
	return netboot.Config{
		Interface: s.cfg.Interface, ServerIP: s.ip, Mode: s.cfg.DHCP, AgentPort: int(portOf(s.agents)),
		KeyID: order.KeyID(s.keys.ServerPublic()), PoolStart: s.cfg.PoolStart, PoolEnd: s.cfg.PoolEnd, Router: s.cfg.Router, DNS: s.cfg.DNS,
		ProxyStyle: s.cfg.ProxyStyle, AnswerRS: s.cfg.AnswerRS, ExtraKernelArgs: s.cfg.KernelArgs,
		LeaseFile: filepath.Join(s.cfg.StateDir, "leases.json"), Log: s.log.With("part", "netboot"),
		CountDHCP: s.countDHCP, CountTFTP: func(result string) { s.metrics.TFTP.WithLabelValues(result).Inc() },
		DHCPPort: s.cfg.DHCPPort, ProxyPort: s.cfg.ProxyPort, TFTPPort: s.cfg.TFTPPort, HTTPPort: s.cfg.BootHTTPPort,
	}
}

// run starts every part; the first failure ends all. A clean end is nil.
func (s *server) run(ctx context.Context) error {
	cert, err := certificate(s.keys.Server)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	agents := httpapi.NewAgent(countedAgents{s.engine, s.metrics}, cert, s.log.With("part", "agents"))
	agents.AddRelays(s.relays)
	service := adminService{s.engine, s.keeper, s.book, s}
	admin := httpapi.NewAdmin(service, s.log.With("part", "admin"))
	admin.Use(s.book, s.peers)
	agents.Observe(s.request)
	admin.Observe(s.request)
	parts := map[string]func(context.Context) error{
		"jobs":    s.engine.Run,
		"seed":    s.seeder.Run,
		"tracker": s.track.Run,
		"relays":  s.relays.Run,
		"images":  s.keeper.Run,
		"agents":  func(ctx context.Context) error { return agents.Serve(ctx, s.agents) },
		"admin":   func(ctx context.Context) error { return admin.Serve(ctx, s.admin) },
		"plain":   s.servePlain,
		"remote":  func(ctx context.Context) error { return s.serveRemote(ctx, admin) },
		"upkeep":  s.upkeep.Run,
		"notify":  s.notify.Run,
		"monitor": func(ctx context.Context) error { return s.serveMonitor(ctx, service) },
	}
	if s.boot != nil { // tests without root leave it out
		parts["netboot"] = s.boot.Run
		parts["netwatch"] = s.watchNet
	}
	for what, part := range parts {
		g.Go(func() error {
			if err := part(ctx); err != nil {
				return fmt.Errorf("run %s: %w", what, err)
			}
			return nil
		})
	}
	s.log.Info("ready", "name", s.cfg.Name, "version", version.String(), "if", s.cfg.Interface, "ip", s.ip.String(), "dhcp", s.cfg.DHCP,
		"seed_mbps", s.seedMbps(), "agents", s.agents.Addr().String(), "socket", s.admin.Addr().String(), "key", order.KeyID(s.keys.ServerPublic()))
	tellSystemd(s.log, sd.SdNotifyReady)
	err = g.Wait()
	tellSystemd(s.log, sd.SdNotifyStopping)
	return err
}

// servePlain is the tracker for standard clients, with --plain-peers only.
func (s *server) servePlain(ctx context.Context) error {
	if s.plain == nil {
		return nil
	}
	srv := &http.Server{Handler: s.track.Handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(s.plain); ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// tellSystemd tells systemd; outside of it nothing happens.
func tellSystemd(log *slog.Logger, state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		log.Warn("tell systemd", "state", state, "err", err)
	}
}
