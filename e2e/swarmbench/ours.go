package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/images/metainfo"
	"labswarm/swarm/peer"
	"labswarm/tracker"
	"labswarm/tracker/registry"
)

const reportEvery = 500 * time.Millisecond

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// profile writes a CPU profile until stop is called; an empty name does nothing.
func profile(file string) (stop func() error, err error) {
	if file == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error { pprof.StopCPUProfile(); return f.Close() }, nil
}

// disk is a peer.Storage on a file in tmpfs.
type disk struct {
	f    *os.File
	cell int64
	full bool
}

func (d disk) Have(int) bool { return d.full }

func (d disk) ReadPiece(i int, buf []byte) error {
	_, err := d.f.ReadAt(buf, int64(i)*d.cell)
	return err
}

func (d disk) WritePiece(i int, buf []byte) error {
	_, err := d.f.WriteAt(buf, int64(i)*d.cell)
	return err
}

// File implements peer.FileSource.
func (d disk) File(i int) (*os.File, int64, bool) { return d.f, int64(i) * d.cell, true }

// newNode makes the real data plane of one host.
func newNode(ctx context.Context, a helperArgs, t *metainfo.Torrent, seed bool) (*peer.Node, *os.File, error) {
	flags := os.O_RDWR | os.O_CREATE
	if seed {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(filepath.Join(a.Dir, payloadName), flags, 0o600)
	if err != nil {
		return nil, nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", netip.AddrPortFrom(a.Addr, portPeer).String())
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	cfg := peer.Config{
		InfoHash: t.InfoHash, Pieces: len(t.Hashes), PieceLen: t.PieceLength, Hash: func(i int) [20]byte { return t.Hashes[i] },
		Storage: disk{f, t.PieceLength, seed}, Listener: l, Seed: seed, PlainPeers: a.Plain,
	}
	copy(cfg.PeerID[:], fmt.Sprintf("-LS0001-%012s", a.ID))
	if a.TLS {
		id := a.ID
		if seed {
			id = "server"
		}
		if cfg.Pass, err = swarmPass(t.InfoHash, id, seed); err != nil {
			return nil, nil, errors.Join(err, l.Close(), f.Close())
		}
	}
	n, err := peer.New(cfg)
	if err != nil {
		return nil, nil, errors.Join(err, l.Close(), f.Close())
	}
	return n, f, nil
}

// oursSeed is the server: seed, tracker and the control connections.
func oursSeed(ctx context.Context, a helperArgs) error {
	t, err := readTorrent(a.Torrent)
	if err != nil {
		return err
	}
	n, f, err := newNode(ctx, a, t, true)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	tr := tracker.New(quiet())
	if err := tr.AddSwarm(tracker.SwarmSpec{InfoHash: t.InfoHash, Name: "bench", Pieces: len(t.Hashes),
		Seeds: []registry.Seed{{ID: "server", Addr: netip.AddrPortFrom(a.Addr, portPeer)}}}); err != nil {
		return err
	}
	tr.Expect(t.InfoHash, a.Expect)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", netip.AddrPortFrom(a.Addr, portControl).String())
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make(chan error, 3)
	ctx, cancel := context.WithCancel(ctx)
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { errs <- n.Run(ctx) })
	wg.Go(func() { errs <- tr.Run(ctx) })
	wg.Go(func() { <-ctx.Done(); _ = l.Close() }) // ends acceptHosts
	wg.Go(func() { acceptHosts(ctx, l, tr, t.InfoHash) })
	if a.Plain { // it says READY itself
		return serveHTTP(ctx, netip.AddrPortFrom(a.Addr, portTracker), tr.Handler())
	}
	if err := say(lineReady, nil); err != nil {
		return err
	}
	select {
	case err := <-errs:
		return err
	case <-ctx.Done():
		return nil
	}
}

// acceptHosts serves control connections until l is closed; each ends with its
// host or ctx.
func acceptHosts(ctx context.Context, l net.Listener, tr *tracker.Tracker, ih [20]byte) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			if err := serveHost(ctx, c, tr, ih); err != nil && ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "control connection:", err)
			}
		})
	}
}

// serveHost feeds one host's reports to the tracker and the tracker's
// assignments to the host, JSON lines both ways.
func serveHost(ctx context.Context, c net.Conn, tr *tracker.Tracker, ih [20]byte) error {
	defer c.Close() //nolint:errcheck // the connection's end is the host's
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	in := bufio.NewScanner(c)
	var unsubscribe func()
	var wg sync.WaitGroup
	defer wg.Wait()
	for in.Scan() {
		var r tracker.HostReport
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			return err
		}
		if err := tr.Update(ih, r); err != nil {
			return err
		}
		if unsubscribe != nil {
			continue
		}
		var ch <-chan api.Assignment
		ch, unsubscribe = tr.Subscribe(ih, r.HostID)
		defer unsubscribe()
		wg.Go(func() {
			enc := json.NewEncoder(c)
			for a := range ch {
				if enc.Encode(a) != nil {
					_ = c.Close()
				}
			}
		})
	}
	return nil // a host that dies says nothing: the tracker finds out by its silence
}

// oursHost is one host: a node steered over the control connection.
func oursHost(ctx context.Context, a helperArgs) error {
	t, err := readTorrent(a.Torrent)
	if err != nil {
		return err
	}
	n, f, err := newNode(ctx, a, t, false)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // compared by the bench
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a.Seed, portControl).String())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	ended := make(chan error, 1)
	wg.Go(func() { ended <- n.Run(ctx) })
	wg.Go(func() { <-ctx.Done(); _ = c.Close() })
	wg.Go(func() { follow(c, n) })
	rep := json.NewEncoder(c)
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	done := n.Done()
	lost := false
	for {
		if !lost && rep.Encode(reportOf(a, n)) != nil {
			lost = true // the node goes on with what it was told last
		}
		select {
		case <-tick.C:
		case <-done:
			done = nil
			s := n.Stats()
			if err := say(lineDone, doneNote{Received: s.BytesFromPeers + s.BytesFromServer, Switches: s.Switches}); err != nil {
				return err
			}
		case err := <-ended:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

func reportOf(a helperArgs, n *peer.Node) tracker.HostReport {
	s := n.Stats()
	return tracker.HostReport{
		HostID: a.ID, Addr: netip.AddrPortFrom(a.Addr, portPeer), Room: "bench", Have: s.Have, Front: s.Front, Done: s.Have == s.Pieces,
		RateBps: s.RateBps, Parent: s.Parent, ParentSlow: len(s.Rejected) > 0, Rejected: s.Rejected,
	}
}

// follow hands assignments to the node until the connection ends.
func follow(c net.Conn, n *peer.Node) {
	in := bufio.NewScanner(c)
	for in.Scan() {
		var a api.Assignment
		if err := json.Unmarshal(in.Bytes(), &a); err != nil {
			fmt.Fprintln(os.Stderr, "read assignment:", err)
			return
		}
		src := peer.Assignment{Parent: source(a.Parent)}
		for _, f := range a.Fallbacks {
			src.Fallbacks = append(src.Fallbacks, source(f))
		}
		n.SetSources(src)
		if say(lineParent, a.Parent.HostID) != nil {
			return
		}
	}
}

// source reads a reference; one without an address is no source.
func source(r api.PeerRef) peer.Peer {
	addr, err := netip.ParseAddrPort(r.Addr)
	if err != nil {
		return peer.Peer{}
	}
	return peer.Peer{Addr: addr, ID: r.HostID, Server: r.Server}
}
