package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/swarm/peer"
	"labswarm/tracker"
)

const (
	reportEvery = 2 * time.Second        // as the agent does
	watchEvery  = 20 * time.Millisecond  // of what comes from whom, where that is asked for
	redialAfter = 500 * time.Millisecond // a lost control connection
)

// steered is one host: a node steered over the control connection.
type steered struct {
	*member
	a    helperArgs
	liar bool          // it says it lacks one cell, so that it is not let go but made a source
	kick chan struct{} // report now

	mu      sync.Mutex
	accused []string // not reported yet
}

// oursHost is a host that fetches.
func oursHost(ctx context.Context, a helperArgs) error {
	h := &steered{a: a, kick: make(chan struct{}, 1)}
	var err error
	h.member, err = openHost(ctx, a, func(c *peer.Config) {
		c.OnAccuse = h.onAccuse
		c.OnSwitch = func(peer.Peer, peer.Peer, string) { h.report() }
	})
	if err != nil {
		return err
	}
	h.SetLink(int(a.LinkMbit)) // as the agent does
	return h.run(ctx)
}

// badHost is a host that holds everything, some of it wrong, and serves it.
func badHost(ctx context.Context, a helperArgs) error {
	m, err := openBad(ctx, a)
	if err != nil {
		return err
	}
	h := &steered{member: m, a: a, liar: true, kick: make(chan struct{}, 1)}
	return h.run(ctx)
}

// run works until ctx ends or the node fails.
func (h *steered) run(ctx context.Context) error {
	if err := gate(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	ended := make(chan error, 1)
	wg.Go(func() { ended <- h.Run(ctx) })
	wg.Go(func() { h.control(ctx) })
	if h.a.Watch {
		wg.Go(func() { h.watch(ctx) })
	}
	select {
	case <-h.Done():
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
	s := h.Stats()
	if err := say(lineDone, doneNote{Received: s.BytesFromPeers + s.BytesFromServer, Switches: s.Switches, Failures: s.HashFailures}); err != nil {
		return err
	}
	h.report()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

// report has the next report sent now.
func (h *steered) report() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// onAccuse is called for a piece with a wrong hash.
func (h *steered) onAccuse(_ int, from peer.Peer) {
	h.mu.Lock()
	h.accused = append(h.accused, from.ID)
	h.mu.Unlock()
	h.report()
	_ = say(lineAccuse, from.ID) // the bench is gone: nobody to tell
}

// control keeps a control connection to the server until ctx ends: without it
// the node goes on with what it was told last.
func (h *steered) control(ctx context.Context) {
	for ctx.Err() == nil {
		if err := h.session(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "control connection:", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(redialAfter):
		}
	}
}

// session is one control connection.
func (h *steered) session(ctx context.Context) error {
	d := net.Dialer{Timeout: 2 * time.Second}
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(h.a.Seed, portControl).String())
	if err != nil {
		return err
	}
	if err := impatient(c); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { <-ctx.Done(); _ = c.Close() })
	wg.Go(func() { defer cancel(); h.follow(c) })
	rep := json.NewEncoder(c)
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		r := h.word()
		if err := rep.Encode(r); err != nil {
			h.mu.Lock()
			h.accused = append(r.Accused, h.accused...)
			h.mu.Unlock()
			return err
		}
		select {
		case <-tick.C:
		case <-h.kick:
		case <-ctx.Done():
			return nil
		}
	}
}

// word is the host's report about itself.
func (h *steered) word() tracker.HostReport {
	s := h.Stats()
	r := tracker.HostReport{
		HostID: h.a.ID, Addr: netip.AddrPortFrom(h.a.Addr, portPeer), Room: h.a.Room, Have: s.Have, Front: s.Front, Done: s.Have == s.Pieces,
		RateBps: s.RateBps, Parent: s.Parent, ParentSlow: len(s.Rejected) > 0,
		LinkMbps: int(h.a.LinkMbit), Waiting: s.Have < s.Pieces && s.InFlight == 0,
	}
	_ = say(lineHave, s.Have) // the bench is gone: nobody to tell
	if h.liar {
		r.Have, r.Front, r.Done = s.Pieces-1, s.Pieces-1, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r.Accused, h.accused = h.accused, nil
	return r
}

// follow hands assignments to the node until the connection ends.
func (h *steered) follow(c net.Conn) {
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
		h.SetSources(src)
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

// watch says whom bytes come from, until ctx ends.
func (h *steered) watch(ctx context.Context) {
	had := map[string]int64{}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		for id, n := range h.Stats().BySource {
			if n > had[id] && say(lineFrom, id) != nil {
				return
			}
			had[id] = n
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
