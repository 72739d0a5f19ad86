// Package seeder is the server as a source: it opens image versions of live
// jobs and serves their pieces through swarm/peer, many swarms behind one
// listener. It decides neither who may connect (AllowPeer and Admit say) nor who
// fetches from whom (the tracker does). Called by server/daemon.
package seeder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/time/rate"

	"labswarm/swarm/peer"
	"labswarm/swarm/peercert"
)

// Source is one opened image version. When it is a peer.FrameSource besides, its
// pieces travel compressed to hosts that understand that; when it is a
// peer.FileSource, they are read from the file.
type Source interface {
	InfoHash() [20]byte
	Pieces() int
	PieceLen() int64
	Hash(piece int) [20]byte
	// ReadPiece fills buf with a piece that is right, or fails.
	ReadPiece(piece int, buf []byte) error
	Close() error
}

// Config is what a Seeder needs.
type Config struct {
	Listener  net.Listener          // peers' port; Run closes it
	PeerID    [20]byte              // BEP 20
	AllowPeer func(netip.Addr) bool // who may connect
	// Pass is the seed's certificate in a swarm, asked for each connection; Admit
	// has the last word on a host's. Without Pass peers come in plain TCP.
	Pass       func(infoHash [20]byte) (*peercert.Pass, error)
	Admit      func(infoHash [20]byte, id peercert.ID) error
	RateBps    int64 // bytes per second to all peers together, 0 = no cap
	PlainPeers bool  // let standard clients in too
	NoFrames   bool  // send every piece plain
	Log        *slog.Logger
}

// Seeder serves any number of image versions.
type Seeder struct {
	cfg     Config
	mux     *peer.Mux
	limiter *rate.Limiter

	mu    sync.Mutex
	ctx   context.Context // of Run; nil before and after
	nodes map[[20]byte]*seed
	wg    sync.WaitGroup
}

// seed is one served version.
type seed struct {
	src  Source
	node *peer.Node
	stop context.CancelFunc
}

// New returns a Seeder that serves nothing yet.
func New(cfg Config) (*Seeder, error) {
	if cfg.Listener == nil || cfg.AllowPeer == nil || cfg.PeerID == [20]byte{} || (cfg.Pass == nil) != (cfg.Admit == nil) {
		return nil, errors.New("set up seeder: listener, peer id and AllowPeer are needed, Pass and Admit together or not at all")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Seeder{cfg: cfg, mux: peer.NewMux(cfg.Listener, cfg.Log), nodes: map[[20]byte]*seed{}}
	if cfg.RateBps > 0 {
		s.limiter = peer.NewLimiter(cfg.RateBps)
	}
	return s, nil
}

// Run accepts peers until ctx ends, then stops every node, closes every source
// and returns nil; or an error when the listener breaks.
func (s *Seeder) Run(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	for _, sd := range s.nodes {
		s.start(sd)
	}
	s.mu.Unlock()
	err := s.mux.Run(ctx)
	s.mu.Lock()
	for ih, sd := range s.nodes {
		s.drop(ih, sd)
	}
	s.ctx = nil
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

// Has reports whether a version is served.
func (s *Seeder) Has(infoHash [20]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[infoHash] != nil
}

// Add serves a version. The Seeder closes src when it stops, or at once when
// the version is served already or cannot be.
func (s *Seeder) Add(src Source) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ih := src.InfoHash()
	if s.nodes[ih] != nil {
		return src.Close()
	}
	st := storage{src: src}
	st.frames, _ = src.(peer.FrameSource)
	st.files, _ = src.(peer.FileSource)
	cfg := peer.Config{
		InfoHash: ih, PeerID: s.cfg.PeerID, Pieces: src.Pieces(), PieceLen: src.PieceLen(), Hash: src.Hash,
		Storage: st, Seed: true, Limiter: s.limiter, AllowPeer: s.cfg.AllowPeer, PlainPeers: s.cfg.PlainPeers, NoFrames: s.cfg.NoFrames, Log: s.cfg.Log,
	}
	if s.cfg.Pass != nil {
		cfg.Pass = func() (*peercert.Pass, error) { return s.cfg.Pass(ih) }
		cfg.Admit = func(id peercert.ID) error { return s.cfg.Admit(ih, id) }
	}
	node, err := peer.New(cfg)
	if err == nil {
		err = s.mux.Add(node)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("seed %x: %w", ih, err), src.Close())
	}
	sd := &seed{src: src, node: node}
	s.nodes[ih] = sd
	if s.ctx != nil {
		s.start(sd)
	}
	return nil
}

// start runs a node; s.mu is held. The goroutine ends with Run's context or
// with Remove; it closes the source.
func (s *Seeder) start(sd *seed) {
	ctx, cancel := context.WithCancel(s.ctx)
	sd.stop = cancel
	s.wg.Go(func() {
		defer cancel()
		if err := sd.node.Run(ctx); err != nil {
			s.cfg.Log.Error("seed stopped", "err", err)
		}
		if err := sd.src.Close(); err != nil {
			s.cfg.Log.Warn("close image", "err", err)
		}
	})
}

// drop stops a node; s.mu is held.
func (s *Seeder) drop(ih [20]byte, sd *seed) {
	s.mux.Remove(sd.node)
	delete(s.nodes, ih)
	if sd.stop != nil {
		sd.stop()
		return
	}
	if err := sd.src.Close(); err != nil {
		s.cfg.Log.Warn("close image", "err", err)
	}
}

// Remove stops serving a version and cuts its connections.
func (s *Seeder) Remove(infoHash [20]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sd := s.nodes[infoHash]; sd != nil {
		s.drop(infoHash, sd)
	}
}

// Restore says that pieces of a version, which were refused because they were
// damaged, are right again.
func (s *Seeder) Restore(infoHash [20]byte, pieces []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sd := s.nodes[infoHash]; sd != nil {
		for _, p := range pieces {
			sd.node.Restore(p)
		}
	}
}

// Expel cuts the connections of a host that is no member any more.
func (s *Seeder) Expel(infoHash [20]byte, host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sd := s.nodes[infoHash]; sd != nil {
		sd.node.Expel(host)
	}
}

// Sent counts what was sent of a version since Add, in bytes of the image and as
// it travelled, compressed or not; 0 when it is not served.
func (s *Seeder) Sent(infoHash [20]byte) (image, wire int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sd := s.nodes[infoHash]
	if sd == nil {
		return 0, 0
	}
	st := sd.node.Stats()
	return st.BytesUploaded, st.WireUploaded
}

// storage adapts a Source to a seed's Storage: nothing is ever written.
type storage struct {
	src    Source
	frames peer.FrameSource // nil: none
	files  peer.FileSource  // nil: none
}

func (s storage) Have(int) bool                         { return true }
func (s storage) ReadPiece(piece int, buf []byte) error { return s.src.ReadPiece(piece, buf) }
func (s storage) WritePiece(int, []byte) error {
	return errors.New("write piece: the seed holds everything")
}

// Frame implements peer.FrameSource.
func (s storage) Frame(piece int, buf []byte) ([]byte, bool) {
	if s.frames == nil {
		return nil, false
	}
	return s.frames.Frame(piece, buf)
}

// File implements peer.FileSource.
func (s storage) File(piece int) (*os.File, int64, bool) {
	if s.files == nil {
		return nil, 0, false
	}
	return s.files.File(piece)
}
