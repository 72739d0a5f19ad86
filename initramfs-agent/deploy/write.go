package deploy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/initramfs-agent/bootenv"
	"labswarm/initramfs-agent/bundle"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/finalise"
	"labswarm/initramfs-agent/personalise"
	"labswarm/initramfs-agent/readback"
	"labswarm/initramfs-agent/report"
	"labswarm/initramfs-agent/writer"
	"labswarm/swarm/peer"
	"labswarm/swarm/peercert"
)

// deploy does what an accepted order says, from the scan to the last moment as
// a source for others.
func (s *session) deploy(ctx context.Context, o order.Order, v *order.Verified, b *bundle.Bundle, d api.Disk) (err error) {
	plan, err := s.check(ctx, b, d)
	if err != nil {
		return err
	}
	cleared, err := s.clear(ctx, o, v, plan, d)
	if err != nil {
		return err
	}
	w, err := s.cfg.Disks.Open(cleared)
	if err != nil {
		return s.granted(cleared, err)
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	s.commit(cleared)
	s.setState(api.StateWriting, "clearing the old partition table")
	ses, err := writer.Begin(ctx, w, plan, s.phase)
	if err != nil {
		return err
	}
	node, err := s.newNode(o, b, ses, d)
	if err != nil {
		return err
	}
	swarm := s.start(ctx, node)
	defer swarm.stop()
	if err := s.fetchAndProve(ctx, o, b, w, ses, swarm); err != nil {
		return err
	}
	return s.linger(ctx)
}

// running is a swarm node at work.
type running struct {
	*peer.Node
	cancel context.CancelFunc
	ended  chan struct{} // closed when Run has returned
	err    error         // of Run, valid after ended
}

func (s *session) start(ctx context.Context, node *peer.Node) *running {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{Node: node, cancel: cancel, ended: make(chan struct{})}
	s.goSafe(func() error {
		defer close(r.ended)
		r.err = node.Run(ctx)
		return nil
	})
	return r
}

// stop ends the node and waits until it touches the disk no more.
func (r *running) stop() {
	r.cancel()
	<-r.ended
}

// granted notes a fence that was granted for a disk that then could not be
// opened: the server must hear of it under that fence.
func (s *session) granted(c order.Cleared, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fence = c.Fence()
	return err
}

// newNode makes this host's member of the swarm.
func (s *session) newNode(o order.Order, b *bundle.Bundle, ses *writer.Session, d api.Disk) (*peer.Node, error) {
	nics := s.cfg.Source.Collect(nil, nil).NICs
	compressed := s.compressed(nics, d)
	mem := budget(bootenv.RAMBytes(), b.Manifest.Cell, compressed)
	cfg := peer.Config{
		InfoHash: b.Torrent.InfoHash, Pieces: b.Manifest.Pieces(), PieceLen: b.Manifest.Cell, Hash: b.PieceHash,
		Storage: ses.Storage, Listener: s.ln, PoolBuffers: mem.buffers, FrameCacheBytes: mem.frames, NoFrames: !compressed, Log: s.cfg.Log,
		Pass: func() (*peercert.Pass, error) { return s.pass, nil }, PlainPeers: o.Swarm.PlainPeers,
		OnAccuse: func(piece int, from peer.Peer) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.accused) < 64 { // the server needs evidence, not a flood
				s.accused = append(s.accused, api.Accu{Host: from.ID, Piece: piece})
			}
			s.report() // the planner decides within a second who is bad
		},
		Doubt:    s.corrupt,
		OnSwitch: func(_, _ peer.Peer, _ string) { s.report() },
	}
	copy(cfg.PeerID[:], "-LS0100-") // BEP 20
	if _, err := rand.Read(cfg.PeerID[8:]); err != nil {
		return nil, fmt.Errorf("make peer id: %w", err)
	}
	debug.FreeOSMemory() // what reading the image's tables took: tens of MiB for a large one
	node, err := peer.New(cfg)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.handed, s.node, s.written, s.pool = true, node, ses.Storage.Written, cfg.PoolBuffers
	node.SetLink(s.link)
	node.SetSources(sources(s.assigned))
	node.SetUploadLimit(uploadLimit(s.assigned))
	s.mu.Unlock()
	return node, nil
}

// fetchAndProve fetches what is missing, reads everything back, fetches once
// more what differs, gives the PC its own name, and writes the table.
func (s *session) fetchAndProve(ctx context.Context, o order.Order, b *bundle.Bundle, w *disk.Writable, ses *writer.Session, node *running) error {
	s.setState(api.StateWriting, "")
	if err := s.complete(ctx, b, node, starveWait); err != nil {
		return err
	}
	proof, err := s.prove(ctx, b, ses, node)
	if err != nil {
		return err
	}
	if err := s.trusted(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	s.proof = proof
	s.mu.Unlock()
	s.setState(api.StateFinalising, "")
	if err := s.finalise(ctx, o, b, w, ses); err != nil {
		return err
	}
	if err := ses.Finish(proof); err != nil {
		return err
	}
	s.mu.Lock()
	s.proven = true
	s.mu.Unlock()
	s.setState(api.StateFinalising, "reporting to the server")
	s.cfg.Log.Info("disk proven", "cells", proof.Cells(), "readback", proof.Digest(), "rss", bootenv.RSSBytes())
	res, err := report.Done(proof, s.base())
	if err != nil {
		return err
	}
	rctx, cancel := context.WithTimeout(ctx, resultWait)
	defer cancel()
	if _, err := s.send(rctx, res); err != nil {
		// The disk is right whether the server knows or not: the next boot
		// finds every cell in place and reports then.
		s.cfg.Log.Error("result not accepted", "err", err)
	}
	return nil
}

// finalise grows and personalises; what it changes is no longer the image's, so
// it runs on a proven disk only. The swarm goes on: a changed cell fails its
// hash when it is read for another host, and that host gets it elsewhere.
func (s *session) finalise(ctx context.Context, o order.Order, b *bundle.Bundle, w *disk.Writable, ses *writer.Session) error {
	l, err := ses.Layout()
	if err != nil {
		return err
	}
	out, err := finalise.Run(ctx, w, b.Manifest, l.Parts, finalise.Options{
		Policy: o.Personalise, Load: s.cfg.Load, Log: s.cfg.Log, Say: s.detail,
		Host: hostOf(o), Hooks: hooksOf(b),
	})
	s.mu.Lock()
	s.final = out
	s.mu.Unlock()
	return err
}

// hostOf is what the order says of this PC.
func hostOf(o order.Order) personalise.Host {
	h := personalise.Host{Name: o.Host.Name, Room: o.Host.Room, Image: o.Image.Name + "/" + o.Image.Version, Job: o.Job, Network: o.Network}
	if len(o.Host.MACs) > 0 {
		h.MAC = o.Host.MACs[0] // that of the host record stands first
	}
	return h
}

// hooksOf are the hooks of the signed manifest.
func hooksOf(b *bundle.Bundle) (out []personalise.Hook) {
	for i, h := range b.Manifest.Personalise.Hooks {
		out = append(out, personalise.Hook{Hook: h, Content: b.Hooks[i]})
	}
	return out
}

// complete waits until every piece is written.
func (s *session) complete(ctx context.Context, b *bundle.Bundle, node *running, starve time.Duration) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	last, lastAt := -1, bootenv.Uptime()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-node.ended:
			if node.err != nil {
				return node.err
			}
			return errors.New("the data plane has stopped")
		case <-node.Done():
			s.phase(b.ShippedBytes(), b.ShippedBytes())
			return nil
		case <-tick.C:
		}
		st := node.Stats()
		s.phase(int64(st.Have)*b.Manifest.Cell, b.ShippedBytes())
		if st.Have != last {
			last, lastAt = st.Have, bootenv.Uptime()
		}
		idle := bootenv.Uptime() - lastAt
		switch {
		case idle > starve:
			return &api.Fault{Code: api.CodeNoSource, Text: fmt.Sprintf("no data for %s: %d of %d cells are written; neither the server nor another host sends the rest", idle.Round(time.Minute), st.Have, st.Pieces)}
		case idle > 5*time.Second:
			s.waits(fmt.Sprintf("waiting for data from %s, %s", first(st.Parent, "the server"), idle.Round(time.Second)))
		default:
			s.detail("")
		}
	}
}

// prove reads back; a cell that differs is fetched and written once more.
func (s *session) prove(ctx context.Context, b *bundle.Bundle, ses *writer.Session, node *running) (readback.Proof, error) {
	s.setState(api.StateVerifying, "")
	proof, bad, err := ses.Verify(ctx, s.phase)
	if err != nil || proof.Valid() {
		return proof, err
	}
	s.cfg.Log.Error("cells read back different from what was written, writing them again", "pieces", len(bad), "first", bad)
	for _, p := range bad {
		node.Drop(p)
	}
	s.setState(api.StateWriting, fmt.Sprintf("writing %d cells again", len(bad)))
	if err := s.complete(ctx, b, node, settle); err != nil {
		return readback.Proof{}, err
	}
	s.setState(api.StateVerifying, "")
	proof, bad, err = ses.Verify(ctx, s.phase)
	if err == nil && !proof.Valid() {
		err = &api.Fault{Code: api.CodeVerify, Text: fmt.Sprintf("%d cells read back different from what was written, twice: the disk does not keep what it is given; replace it", max(len(bad), 1))}
	}
	return proof, err
}

// releasedAlready tells whether the planner said so before this host was done.
func (s *session) releasedAlready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.assigned.Release
}

// linger stays as a source until nobody needs this host.
func (s *session) linger(ctx context.Context) error {
	s.setState(api.StateDone, "helping the others")
	if s.releasedAlready() {
		s.setState(api.StateRebooting, "")
		return nil
	}
	t := time.NewTimer(s.cfg.SeedWait)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-s.released:
	}
	s.setState(api.StateRebooting, "")
	return nil
}
