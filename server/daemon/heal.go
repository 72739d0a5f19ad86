package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"labswarm/images/library"
	"labswarm/server/daemon/control"
	"labswarm/server/daemon/relays"
	"labswarm/swarm/peer"
	"labswarm/swarm/peercert"
)

// healer fetches cells that are damaged in the store back from relays and terminals that hold them. It is keeper.Config's
// Fetch and Sources. A cell is hashed twice on its way: by the swarm (SHA-1 of the torrent) and by the library (SHA-256 of
// the signed manifest); what a terminal changed for itself is never taken.
type healer struct {
	relays func(infoHash [20]byte) []relays.Holder
	hosts  func(infoHash [20]byte) []control.Holder
	pass   func(infoHash [20]byte) (*peercert.Pass, error)
	log    *slog.Logger
}

// Bounds of one source.
const (
	healSources = 16               // asked at most in one go
	healConnect = 6 * time.Second  // until it must be connected
	healIdle    = 2 * time.Second  // connected, and nothing on its way: it does not have the rest
	healStall   = 20 * time.Second // a cell under way must come within that
)

// sources lists who may hold a version: relays, which hold all of it unchanged, then proven terminals, then others.
func (h *healer) sources(infoHash [20]byte) []peer.Peer {
	var out []peer.Peer
	for _, r := range h.relays(infoHash) {
		out = append(out, peer.Peer{Addr: r.Addr, ID: r.Name})
	}
	for _, t := range h.hosts(infoHash) {
		out = append(out, peer.Peer{Addr: t.Addr, ID: t.Host})
	}
	return out[:min(len(out), healSources)]
}

// names is sources for keeper.Config.
func (h *healer) names(infoHash [20]byte) []string {
	var out []string
	for _, p := range h.sources(infoHash) {
		out = append(out, p.ID)
	}
	return out
}

// fetch implements library.Fetch.
func (h *healer) fetch(ctx context.Context, v *library.Version, pieces []int) (got library.Fetched) {
	st := &patch{v: v, want: map[int]bool{}}
	for _, p := range pieces {
		st.want[p] = true
	}
	list := h.sources(v.InfoHash())
	if len(list) == 0 {
		got.Note = "nobody who is there holds this image: no relay, and no PC of a running job"
		return got
	}
	var why []string
	for _, src := range list {
		if ctx.Err() != nil {
			break
		}
		had := len(st.want)
		err := h.fetchFrom(ctx, st, src)
		if n := had - len(st.want); n > 0 {
			got.Cells += n
			got.From = append(got.From, src.ID)
		}
		h.log.Info("damaged cells asked for", "image", v.Name()+"/"+v.Version(), "peer", src.ID, "came", had-len(st.want), "missing", len(st.want), "err", err)
		if len(st.want) == 0 {
			return got
		}
		why = append(why, fmt.Sprintf("%s: %v", src.ID, err))
	}
	if ctx.Err() != nil {
		why = append(why, "the time was up")
	}
	got.Note = fmt.Sprintf("%d cells could not be had (%s)", len(st.want), strings.Join(why, "; "))
	return got
}

// fetchFrom gets from one source what it has. The error says why something is missing.
func (h *healer) fetchFrom(ctx context.Context, st *patch, src peer.Peer) error {
	v := st.v
	cfg := peer.Config{
		InfoHash: v.InfoHash(), Pieces: v.Manifest().Pieces(), PieceLen: v.Manifest().Cell, PoolBuffers: 8,
		Hash: func(i int) [20]byte { return v.Torrent().Hashes[i] }, Storage: st, NoFrames: true,
		Pass: func() (*peercert.Pass, error) { return h.pass(v.InfoHash()) }, Log: h.log,
	}
	copy(cfg.PeerID[:], "-LW0100-") // BEP 20
	if _, err := rand.Read(cfg.PeerID[8:]); err != nil {
		return fmt.Errorf("make peer id: %w", err)
	}
	n, err := peer.New(cfg)
	if err != nil {
		return err
	}
	n.SetSources(peer.Assignment{Parent: src})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }() // ends with ctx
	err = waitFor(ctx, n)
	cancel()
	if e := <-ended; e != nil && err != nil {
		err = e // the disk, or the SHA-256 of the manifest
	}
	return err
}

// waitFor waits until a node has everything, or its one source has nothing more for it.
func waitFor(ctx context.Context, n *peer.Node) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	begun, moved, busy := time.Now(), time.Now(), time.Now()
	linked, have := false, -1
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.Done():
			return nil
		case <-tick.C:
		}
		s, now := n.Stats(), time.Now()
		linked = linked || s.Parent != ""
		if s.InFlight+s.Queue > 0 || s.Have != have || !linked {
			busy = now
		}
		if s.Have != have {
			have, moved = s.Have, now
		}
		switch {
		case s.HashFailures > 1:
			return fmt.Errorf("it sent %d wrong cells", s.HashFailures)
		case !linked && now.Sub(begun) > healConnect:
			return errors.New("it cannot be reached")
		case linked && now.Sub(busy) > healIdle:
			return errors.New("it does not have them as the image does")
		case now.Sub(moved) > healStall:
			return errors.New("it sent nothing for too long")
		}
	}
}

// patch is a peer.Storage of which only some cells are missing: those that are damaged in the store. One goroutine of the
// node writes; nobody reads while it runs.
type patch struct {
	v    *library.Version
	want map[int]bool
}

// Have implements peer.Storage; it is asked by peer.New only.
func (p *patch) Have(piece int) bool { return !p.want[piece] }

// ReadPiece implements peer.Storage: nobody can connect to this node.
func (p *patch) ReadPiece(int, []byte) error { return errors.New("nothing is served from here") }

// WritePiece implements peer.Storage.
func (p *patch) WritePiece(piece int, buf []byte) error {
	if err := p.v.Repair(piece, buf); err != nil {
		return err
	}
	delete(p.want, piece)
	return nil
}
