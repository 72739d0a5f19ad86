package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"labswarm/swarm/wire"
)

const (
	handshakeTime  = 10 * time.Second // for both handshakes of a new connection
	maxPending     = 256              // connections that have not sent their handshake
	maxPendingEach = 8                // the same per address
)

// Mux serves many swarms on one listener: it reads the BEP 3 handshake of each
// incoming connection and hands it to the node of that info-hash. A connection
// for a swarm it does not know is closed without an answer.
type Mux struct {
	l   net.Listener
	log *slog.Logger

	mu      sync.Mutex
	nodes   map[[20]byte]*Node
	pending map[net.Conn]netip.Addr
	each    map[netip.Addr]int
	closed  bool
}

// NewMux returns a Mux that owns l: Run closes it. log may be nil.
func NewMux(l net.Listener, log *slog.Logger) *Mux {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Mux{l: l, log: log, nodes: map[[20]byte]*Node{}, pending: map[net.Conn]netip.Addr{}, each: map[netip.Addr]int{}}
}

// Add makes n reachable. Connections are refused until n runs and after it has
// ended. A second node for one info-hash is an error.
func (m *Mux) Add(n *Node) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.nodes[n.cfg.InfoHash]; old != nil && old != n {
		return fmt.Errorf("add swarm %x: it is served already", n.cfg.InfoHash)
	}
	m.nodes[n.cfg.InfoHash] = n
	return nil
}

// Remove makes n unreachable for new connections; the open ones are n's.
func (m *Mux) Remove(n *Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.nodes[n.cfg.InfoHash] == n {
		delete(m.nodes, n.cfg.InfoHash)
	}
}

// Run accepts until ctx ends, then closes the listener and what has not been
// handed to a node, and returns nil; or an error when the listener breaks.
func (m *Mux) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer m.closePending()
	stop := context.AfterFunc(ctx, func() {
		if err := m.l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			m.log.Warn("close peer listener", "err", err)
		}
	})
	defer stop()
	wait := time.Duration(0)
	for {
		nc, err := m.l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				m.shut(nc)
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept peers on %v: %w", m.l.Addr(), err)
		case err != nil: // out of descriptors and the like: it passes
			wait = min(max(2*wait, 10*time.Millisecond), time.Second)
			m.log.Warn("accept peer", "err", err, "retry_in", wait)
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			continue
		}
		wait = 0
		if !m.admit(nc) {
			m.shut(nc)
			continue
		}
		wg.Go(func() { m.handshake(nc) })
	}
}

// admit books nc as pending, within the limits.
func (m *Mux) admit(nc net.Conn) bool {
	a := remoteAddr(nc).Addr()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || len(m.pending) >= maxPending || m.each[a] >= maxPendingEach {
		return false
	}
	m.pending[nc] = a
	m.each[a]++
	return true
}

func (m *Mux) unbook(nc net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.pending[nc]
	if !ok {
		return
	}
	delete(m.pending, nc)
	if m.each[a]--; m.each[a] == 0 {
		delete(m.each, a)
	}
}

// handshake reads who is wanted and passes the connection on, or closes it.
func (m *Mux) handshake(nc net.Conn) {
	defer m.unbook(nc)
	err := nc.SetReadDeadline(time.Now().Add(handshakeTime))
	var hs wire.Handshake
	if err == nil {
		hs, err = wire.ReadHandshake(nc)
	}
	if err == nil {
		m.mu.Lock()
		n := m.nodes[hs.InfoHash]
		m.mu.Unlock()
		if n == nil {
			err = fmt.Errorf("no swarm %x here", hs.InfoHash)
		} else {
			err = n.accept(nc, hs)
		}
	}
	if err != nil {
		m.log.Debug("peer refused", "peer", nc.RemoteAddr().String(), "err", err)
		m.shut(nc)
	}
}

func (m *Mux) closePending() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for nc := range m.pending {
		m.shut(nc)
	}
}

func (m *Mux) shut(nc net.Conn) {
	if err := nc.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		m.log.Debug("close connection", "peer", nc.RemoteAddr().String(), "err", err)
	}
}
