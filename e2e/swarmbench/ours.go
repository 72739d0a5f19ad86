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
	"runtime/pprof"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"labswarm/api"
	"labswarm/tracker"
	"labswarm/tracker/registry"
)

// serverID is the seed's name in the plan.
const serverID = "server"

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// logger writes to a file as long as the process lives; an empty name to nowhere.
func logger(file string) (*slog.Logger, error) {
	if file == "" {
		return quiet(), nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	return slog.New(slog.NewTextHandler(f, nil)), nil
}

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

// oursSeed is the server: seed, tracker and the control connections.
func oursSeed(ctx context.Context, a helperArgs) error {
	m, err := openSeed(ctx, a)
	if err != nil {
		return err
	}
	if err := gate(); err != nil {
		return err
	}
	ih := m.torrent.InfoHash
	tr := tracker.New(m.log)
	if err := tr.AddSwarm(tracker.SwarmSpec{InfoHash: ih, Name: "bench", Pieces: len(m.torrent.Hashes), PieceLen: m.torrent.PieceLength,
		Seeds: []registry.Seed{{ID: serverID, Addr: netip.AddrPortFrom(a.Addr, portPeer), LinkMbps: int(a.LinkMbit)}}}); err != nil {
		return err
	}
	tr.Expect(ih, a.Expect)
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
	wg.Go(func() { errs <- m.Run(ctx) })
	wg.Go(func() { errs <- tr.Run(ctx) })
	wg.Go(func() { <-ctx.Done(); _ = l.Close() }) // ends acceptHosts
	wg.Go(func() { acceptHosts(ctx, l, tr, ih) })
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
	if err := impatient(c); err != nil {
		return err
	}
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

// impatient lets a control connection fail within seconds when nothing comes
// back, as the agent's HTTP requests do.
func impatient(c net.Conn) error {
	const patience = 4 * time.Second
	tc, ok := c.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("control connection of type %T", c)
	}
	rc, err := tc.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = rc.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(patience.Milliseconds()))
	})
	return errors.Join(err, serr)
}
