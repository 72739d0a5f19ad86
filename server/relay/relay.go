// Package relay is `labswarm seed`: a second source on any Linux machine. It
// copies chosen images from a server, reads each copy back against the signed
// manifest, and serves it as a parent in the server's plan. A cell that rots on
// its disk is not sent but fetched again; all of them are looked at every week.
//
// It decides neither what is newest nor who fetches from whom: the server says
// so in its answers to the relay's reports. Called by cmd/labswarm.
package relay

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"labswarm/api"
	"labswarm/images/library"
	"labswarm/images/manifest"
	"labswarm/internal/version"
	"labswarm/swarm/peer"
)

const (
	defaultEvery = 2 * time.Second        // between reports, until the server says otherwise
	minEvery     = 250 * time.Millisecond //
)

// Config is what a relay is told.
type Config struct {
	Server   string         // address and port of the server's agent listener
	Pin      Fingerprint    // of the server's key
	Token    string         // made by `labswarm relay add`
	StateDir string         // copies of images
	Images   []string       // names
	Room     string         // the room it stands in, "" = none
	LinkMbps int            // what its link carries, Mb/s; 0 = not known
	RateBps  int64          // bytes per second to all peers together, 0 = no cap
	Scrub    time.Duration  // how often every cell on the disk is read and hashed again; 0 = never
	Listen   netip.AddrPort // for peers; an unspecified address = all
	Log      *slog.Logger
}

// Refused says that the server does not take this relay: its token, its name
// or the server's key. Trying again changes nothing.
type Refused struct{ Err error }

// Error is the sentence for people.
func (e *Refused) Error() string { return "the relay is refused: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Refused) Unwrap() error { return e.Err }

// ExitCode is the command line's "not allowed".
func (e *Refused) ExitCode() int { return 12 }

// relay is a running relay.
type relay struct {
	cfg      Config
	c        *contact
	mux      *peer.Mux
	port     int
	instance string
	limiter  *rate.Limiter
	scrubs   *scrubs
	kick     chan struct{} // report now
	wg       sync.WaitGroup

	mu      sync.Mutex
	known   bool // the server took a report
	images  map[string]*image
	lib     *library.Library
	keys    [][]byte
	cramped map[string]bool // image names without room for the wanted version
	trouble string

	swept string // of reports: what the last sweep was about
}

// Run works until ctx ends (nil), or until the server refuses the relay
// (*Refused), or until something local is broken.
func Run(ctx context.Context, cfg Config) (err error) {
	if err := cfg.check(); err != nil {
		return err
	}
	unlock, err := lockDir(cfg.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	r := &relay{cfg: cfg, kick: make(chan struct{}, 1), images: map[string]*image{}, cramped: map[string]bool{}}
	r.scrubs = newScrubs(&cfg)
	if r.instance, err = instance(cfg.StateDir); err != nil {
		return err
	}
	if r.c, err = newContact(cfg.Server, cfg.Token, cfg.Pin, cfg.Listen.Addr()); err != nil {
		return err
	}
	defer r.c.close()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", cfg.Listen.String())
	if err != nil {
		return fmt.Errorf("listen for peers: %w", err)
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		r.port = a.Port
	}
	r.mux = peer.NewMux(l, cfg.Log)
	if cfg.RateBps > 0 {
		r.limiter = peer.NewLimiter(cfg.RateBps)
	}
	cfg.Log.Info("relay starts", "version", version.String(), "server", cfg.Server, "listen", l.Addr().String(), "images", cfg.Images, "room", cfg.Room)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.mux.Run(ctx) })
	g.Go(func() error { return r.reports(ctx) })
	err = g.Wait()
	r.stopAll()
	r.wg.Wait()
	return err
}

func (c *Config) check() error {
	var errs []error
	if _, _, err := net.SplitHostPort(c.Server); err != nil {
		errs = append(errs, fmt.Errorf("server %q: want HOST:PORT", c.Server))
	}
	if c.Token == "" || c.StateDir == "" || len(c.Images) == 0 {
		errs = append(errs, errors.New("a token, a state folder and at least one image name are needed"))
	}
	for _, name := range c.Images {
		errs = append(errs, manifest.CheckName(name))
	}
	if c.LinkMbps < 0 || c.RateBps < 0 || c.Scrub < 0 || !c.Listen.IsValid() {
		errs = append(errs, errors.New("link, rate, scrub interval or listening address is out of range"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("set up relay: %w", err)
	}
	return nil
}

// lockDir keeps a second relay away from the same copies.
func lockDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "relay.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock state folder %q: another relay uses it: %w", dir, err), f.Close())
	}
	return func() { _ = f.Close() }, nil // gives the lock back; nothing was written
}

// instance is the identity of a state folder: it tells the server a restart
// from a second machine with a copied token.
func instance(dir string) (string, error) {
	path := filepath.Join(dir, "relay.id")
	raw, err := os.ReadFile(path)
	if id := strings.TrimSpace(string(raw)); err == nil && len(id) == 32 {
		return id, nil
	}
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make relay id: %w", err)
	}
	id := hex.EncodeToString(b[:])
	if err := os.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep relay id: %w", err)
	}
	return id, nil
}

// reports speaks to the server every few seconds and does what it answers. It
// ends with ctx or with a refusal.
func (r *relay) reports(ctx context.Context) error {
	every := defaultEvery
	for n := 0; ; {
		rep, err := r.c.report(ctx, r.report())
		switch {
		case ctx.Err() != nil: // what came of the report does not matter any more
		case err == nil:
			if n > 0 {
				r.cfg.Log.Info("the server answers again")
			}
			n = 0
			every = max(minEvery, min(time.Duration(rep.IntervalMs)*time.Millisecond, api.RelaySilence/3))
			r.take(ctx, rep)
		case r.refused(err):
			return &Refused{err}
		default:
			if n%15 == 0 { // hosts go on fetching; the line is for the log's reader
				r.cfg.Log.Warn("the server does not answer, trying on", "err", err)
			}
			n++
		}
		last := time.Now()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		case <-r.kick:
			select { // several images at once set no pace
			case <-ctx.Done():
				return nil
			case <-time.After(time.Until(last.Add(minEvery))):
			}
		}
	}
}

// refused tells a lasting no from a bad moment. A wrong key is one only at
// first: later somebody on the network could end relays by standing in between.
func (r *relay) refused(err error) bool {
	r.mu.Lock()
	known := r.known
	r.mu.Unlock()
	if errors.Is(err, errPin) {
		return !known
	}
	var p *api.Problem
	if !errors.As(err, &p) {
		return false
	}
	return p.Status == http.StatusUnauthorized || p.Status == http.StatusConflict || p.Status == http.StatusUnprocessableEntity
}

// report is how things are now.
func (r *relay) report() *api.RelayReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &api.RelayReport{Instance: r.instance, Version: version.String(), PeerPort: r.port, Room: r.cfg.Room, LinkMbps: r.cfg.LinkMbps,
		Wants: r.cfg.Images, Images: []api.RelayImage{}, Error: r.trouble}
	for _, im := range r.images {
		p.Images = append(p.Images, im.view())
	}
	slices.SortFunc(p.Images, func(a, b api.RelayImage) int {
		return strings.Compare(a.Name+"/"+a.Version, b.Name+"/"+b.Version)
	})
	return p
}

// take does what an answer says.
func (r *relay) take(ctx context.Context, rep api.RelayReply) {
	r.mu.Lock()
	if !r.known {
		r.cfg.Log.Info("the server knows this relay", "name", rep.Name)
	}
	r.known, r.trouble = true, ""
	if len(rep.Missing) > 0 {
		r.trouble = "the server has no image " + strings.Join(rep.Missing, ", ")
	}
	r.mu.Unlock()
	if err := r.open(rep.ImageKeys); err != nil {
		r.cfg.Log.Error("image folder", "err", err)
		r.mu.Lock()
		r.trouble = err.Error()
		r.mu.Unlock()
		return
	}
	r.follow(ctx, rep.Wants)
}

// open opens the copies once the server has said whose signature counts.
func (r *relay) open(keys [][]byte) error {
	if r.library() != nil && slices.EqualFunc(keys, r.keys, slices.Equal[[]byte]) {
		return nil
	}
	var pubs []ed25519.PublicKey
	for _, k := range keys {
		if len(k) == ed25519.PublicKeySize {
			pubs = append(pubs, k)
		}
	}
	lib, err := library.OpenCopies(filepath.Join(r.cfg.StateDir, "images"), pubs)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lib, r.keys = lib, keys
	return nil
}

func (r *relay) library() *library.Library { r.mu.Lock(); defer r.mu.Unlock(); return r.lib }
