package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/images/library"
	"labswarm/images/manifest"
	"labswarm/images/metainfo"
	"labswarm/internal/units"
	"labswarm/swarm/peer"
	"labswarm/swarm/peercert"
)

// image is one version on its way from the server to the relay's disk and from
// there to hosts.
type image struct {
	r      *relay
	want   api.RelayWant
	ctx    context.Context //nolint:containedctx // of run; stop ends it
	cancel context.CancelFunc
	done   chan struct{} // closed when run has returned

	mu       sync.Mutex
	state    string
	node     *peer.Node
	pieces   int
	have     int // while there is no node
	served   bool
	sources  peer.Assignment
	pass     *peercert.Pass  // nil: not a member of the swarm yet
	issued   api.RelayPass   // what pass was made of
	sent     int64           // by nodes that have ended
	scrubNow *api.RelayScrub // the verification that runs, nil = none
	received int64
}

func newImage(r *relay, w api.RelayWant) *image {
	im := &image{r: r, want: w, done: make(chan struct{}), state: "begins"}
	im.ctx, im.cancel = context.WithCancel(context.Background())
	return im
}

// retry is the pause after something that may pass: a full disk, a server that
// is away.
const retry = 15 * time.Second

// run takes the version from where it is to being served, until stop or ctx.
func (im *image) run(ctx context.Context) {
	defer close(im.done)
	defer context.AfterFunc(ctx, im.cancel)()
	for im.ctx.Err() == nil {
		err := im.work()
		if im.ctx.Err() != nil {
			break
		}
		var full *library.NoSpaceError
		if errors.As(err, &full) {
			im.r.cramp(im.want.Name)
		}
		im.r.cfg.Log.Error("image on the relay", "image", im.id(), "err", err, "retry_in", retry)
		im.say("%v; next try in %v", err, retry)
		select {
		case <-im.ctx.Done():
		case <-time.After(retry):
		}
	}
}

// stop ends the image and waits until it touches the disk no more.
func (im *image) stop() {
	im.cancel()
	<-im.done
}

func (im *image) id() string { return im.want.Name + "/" + im.want.Version }

// work is one try from the present state of the disk. It returns only with an
// error, or when the image is stopped.
func (im *image) work() error {
	for {
		lib := im.r.library()
		v, err := lib.Get(im.want.Name, im.want.Version)
		switch {
		case errors.Is(err, library.ErrNotFound):
			if err := im.fetch(lib); err != nil {
				return err
			}
			continue
		case err == nil:
			if d := v.Digest(); hex.EncodeToString(d[:]) == im.want.Digest {
				if err = im.serve(v); !errors.Is(err, errRebuild) {
					return err
				}
				im.r.cfg.Log.Warn("compressed cells are damaged: all of them are made again", "image", im.id())
				err = nil
				break
			}
			err = v.Close() // the same number and another content: the server was set up anew
		default:
			im.r.cfg.Log.Warn("copy is damaged: its cells are checked one by one", "image", im.id(), "err", err)
			err = nil
		}
		if err = errors.Join(err, lib.Demote(im.want.Name, im.want.Version)); err != nil {
			return err
		}
	}
}

// files fetches the small files; the library checks them.
func (im *image) files() (f library.Files, err error) {
	im.say("fetches the image's description")
	for _, p := range []struct {
		name  string
		limit int64
		to    *[]byte
	}{
		{"manifest.json", manifest.MaxJSON, &f.Manifest},
		{"manifest.sig", manifest.SigSize, &f.Sig},
		{"image.torrent", metainfo.MaxSize, &f.Torrent},
		{"used.bin", library.MaxUsed, &f.Used},
		{"hashes.bin", library.MaxHashes, &f.Hashes},
		{"hooks.bin", library.MaxHooks, &f.Hooks},
	} {
		if *p.to, err = im.r.c.file(im.ctx, im.want, p.name, p.limit); err != nil {
			return f, err
		}
	}
	if d := manifest.Digest(f.Manifest); hex.EncodeToString(d[:]) != im.want.Digest {
		return f, errors.New("the manifest that came is not the one the server named")
	}
	return f, nil
}

// fetch receives the version and publishes it.
func (im *image) fetch(lib *library.Library) (err error) {
	f, err := im.files()
	if err != nil {
		return err
	}
	in, err := lib.Receive(im.ctx, im.want.Name, im.want.Version, f, im.progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	have := 0
	for i := range in.Version().Manifest().Pieces() {
		if in.Have(i) {
			have++
		}
	}
	im.r.cfg.Log.Info("image is fetched", "image", im.id(), "cells", in.Version().Manifest().Pieces(), "kept", have)
	for {
		if err := im.fill(in); err != nil {
			return err
		}
		im.say("reads the copy back")
		bad, err := in.Publish(im.ctx, im.progress)
		if err != nil {
			return err
		}
		if len(bad) == 0 {
			im.readBack()
			im.r.cfg.Log.Info("image is complete and read back", "image", im.id())
			return nil
		}
		im.r.cfg.Log.Warn("the disk gave back wrong cells, fetching them again", "image", im.id(), "cells", len(bad))
		in.Mark(bad)
	}
}

// fill fetches what is missing, as any leecher does.
func (im *image) fill(in *library.Incoming) error {
	return im.runNode(in.Version(), in, func(ctx context.Context, n *peer.Node) error {
		im.say("fetches")
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.Done():
			return nil
		}
	})
}

// serve is the life of a complete copy.
func (im *image) serve(v *library.Version) (err error) {
	defer func() { err = errors.Join(err, v.Close()) }()
	if err := v.FramesErr(); err != nil {
		im.r.cfg.Log.Warn("image is sent uncompressed", "image", im.id(), "err", err)
	}
	st := &copied{Version: v, rotten: make(chan int, 64)}
	return im.runNode(v, st, func(ctx context.Context, n *peer.Node) error {
		im.r.cfg.Log.Info("image is served", "image", im.id())
		im.setServed(true)
		defer im.setServed(false)
		im.say("serves")
		verified := make(chan error, 1)
		var wg sync.WaitGroup
		wg.Go(func() { verified <- im.scrub(ctx, v, st) })
		defer wg.Wait()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case err := <-verified:
				if err != nil {
					return err
				}
			case piece := <-st.rotten:
				im.r.cfg.Log.Error("cell is damaged on this disk: not served, fetched again", "image", im.id(), "piece", piece)
				// The node marks a piece that could not be read right after the
				// storage has said so; let it finish.
				time.Sleep(50 * time.Millisecond)
				n.Drop(piece)
			}
		}
	})
}

// runNode runs a node over a storage while work lasts. It ends with work, or
// with the node.
func (im *image) runNode(v *library.Version, st peer.Storage, work func(ctx context.Context, n *peer.Node) error) error {
	cfg := peer.Config{
		InfoHash: v.InfoHash(), Pieces: v.Manifest().Pieces(), PieceLen: v.Manifest().Cell,
		Hash: func(i int) [20]byte { return v.Torrent().Hashes[i] }, Storage: st, Limiter: im.r.limiter, Pass: im.swarmPass,
		Log: im.r.cfg.Log.With("image", im.id()),
	}
	copy(cfg.PeerID[:], "-LR0100-") // BEP 20
	if _, err := rand.Read(cfg.PeerID[8:]); err != nil {
		return fmt.Errorf("make peer id: %w", err)
	}
	n, err := peer.New(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(im.ctx)
	defer cancel()
	im.mu.Lock()
	im.node, im.pieces = n, cfg.Pieces
	n.SetSources(im.sources)
	im.mu.Unlock()
	defer im.forgetNode(n)
	if err := im.r.mux.Add(n); err != nil {
		return err
	}
	defer im.r.mux.Remove(n)
	ended := make(chan error, 1)
	go func() { // ends with ctx
		err := n.Run(ctx)
		cancel()
		ended <- err
	}()
	err = work(ctx, n)
	cancel()
	if nerr := <-ended; nerr != nil { // why the work was cut short
		err = nerr
	}
	return err
}

// forgetNode keeps the figures of a node that has ended.
func (im *image) forgetNode(n *peer.Node) {
	s := n.Stats()
	im.mu.Lock()
	defer im.mu.Unlock()
	im.node, im.have = nil, s.Have
	im.sent += s.BytesUploaded
	im.received += s.BytesFromPeers + s.BytesFromServer
}

// uploaded is how many image bytes were sent to hosts.
func (im *image) uploaded() int64 {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.node == nil {
		return im.sent
	}
	return im.sent + im.node.Stats().BytesUploaded
}

// update takes the server's word on whom to fetch from and by which
// certificate.
func (im *image) update(w api.RelayWant) {
	ref := func(p api.PeerRef) peer.Peer {
		addr, err := netip.ParseAddrPort(p.Addr)
		if err != nil {
			return peer.Peer{}
		}
		return peer.Peer{Addr: addr, ID: p.HostID, Server: p.Server}
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	if !bytes.Equal(w.Pass.Authority, im.issued.Authority) || !bytes.Equal(w.Pass.Cert, im.issued.Cert) {
		pass, err := peercert.NewPass(w.Pass.Authority, w.Pass.Cert, im.r.c.key)
		if err != nil { // the old one is as good as none then
			im.r.cfg.Log.Error("certificate for the swarm", "image", im.id(), "err", err)
		} else {
			im.r.cfg.Log.Info("member of the swarm", "image", im.id())
		}
		im.pass, im.issued = pass, w.Pass
	}
	if w.Sources == nil {
		return
	}
	out := peer.Assignment{Parent: ref(w.Sources.Parent)}
	for _, f := range w.Sources.Fallbacks {
		out.Fallbacks = append(out.Fallbacks, ref(f))
	}
	im.sources = out
	if im.node != nil {
		im.node.SetSources(out)
	}
}

// swarmPass is what a new connection proves itself with.
func (im *image) swarmPass() (*peercert.Pass, error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.pass == nil {
		return nil, errors.New("the server has not made this relay a member of the swarm yet")
	}
	return im.pass, nil
}

func (im *image) setServed(on bool) {
	im.mu.Lock()
	im.served = on
	im.mu.Unlock()
	select {
	case im.r.kick <- struct{}{}: // the plan is to know at once
	default:
	}
}

func (im *image) serving() bool { im.mu.Lock(); defer im.mu.Unlock(); return im.served }

// say sets the line for people.
func (im *image) say(format string, a ...any) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.state = fmt.Sprintf(format, a...)
}

// progress is told by the library.
func (im *image) progress(p library.Progress) {
	what := map[string]string{"check": "checks what is here", "verify": "reads the copy back"}[p.Phase]
	if what != "" && p.Total > 0 {
		im.say("%s, %d %%, %s", what, 100*p.Done/p.Total, units.FormatRate(p.Rate))
	}
}

// view is the image in a report.
func (im *image) view() api.RelayImage {
	scrub := im.scrubView()
	im.mu.Lock()
	defer im.mu.Unlock()
	v := api.RelayImage{Name: im.want.Name, Version: im.want.Version, InfoHash: im.want.InfoHash, Pieces: im.pieces, Have: im.have,
		Serving: im.served, State: im.state, Sent: im.sent, Received: im.received, Scrub: scrub}
	if im.node != nil {
		s := im.node.Stats()
		v.Have, v.RateBps = s.Have, s.RateBps
		v.Sent += s.BytesUploaded
		v.Received += s.BytesFromPeers + s.BytesFromServer
		if im.served && s.Have < s.Pieces {
			v.State = fmt.Sprintf("fetches %d damaged cells again", s.Pieces-s.Have)
		}
	}
	return v
}
