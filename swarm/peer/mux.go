package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	handshakeTime  = 10 * time.Second // for all handshakes of a new connection together
	maxPending     = 256              // connections that have not sent their handshake
	maxPendingEach = 8                // the same per address
)

// Mux serves many swarms on one listener: it shakes hands with each incoming
// connection, in TLS where the swarm has it, and hands it to the node of the
// info-hash that was asked for. A connection for a swarm it does not know, or
// without the certificate of that swarm, is closed without an answer.
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

// admit books nc as pending, within the limits. Addresses that no swarm here
// knows take no place.
func (m *Mux) admit(nc net.Conn) bool {
	if !m.any(func(n *Node) bool { return n.allows(nc) }) {
		return false
	}
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

// handshake finds out who is wanted and passes the connection on, or closes it.
func (m *Mux) handshake(nc net.Conn) {
	defer m.unbook(nc)
	defer func() { // over a stranger's bytes
		if r := recover(); r != nil {
			m.log.Error("panic over a new connection", "peer", nc.RemoteAddr().String(), "err", fmt.Sprint(r))
			m.shut(nc)
		}
	}()
	n, conn, hs, err := m.greet(nc)
	if err == nil {
		err = n.accept(conn, hs)
	}
	if err != nil {
		m.log.Debug("peer refused", "peer", nc.RemoteAddr().String(), "err", err)
		m.shut(nc)
	}
}

// node returns the node of an info-hash, nil when there is none.
func (m *Mux) node(ih [20]byte) *Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nodes[ih]
}

// plain reports whether any swarm here admits connections without TLS.
func (m *Mux) plain() bool { return m.any((*Node).plain) }

// any reports whether f is true of one of the nodes. f is called without the lock.
func (m *Mux) any(f func(*Node) bool) bool {
	m.mu.Lock()
	nodes := slices.Collect(maps.Values(m.nodes))
	m.mu.Unlock()
	return slices.ContainsFunc(nodes, f)
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
