package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"labswarm/swarm/window"
	"labswarm/swarm/wire"
)

const (
	dialTime  = 3 * time.Second  // for a TCP connection to a source
	stallTime = 4 * time.Second  // without a byte while requests are open
	forgive   = 10 * time.Second // a new assignment may return to a source we left this long ago
	badPieces = 3                // wrong pieces from one source after which we go to the next
	maxReturn = 3                // failures after which we do not go back to a source by ourselves
	goodAgain = 60 * time.Second // without a failure after which the earlier ones are forgotten
)

// errRetired ends a connection that is not needed any more: nobody's fault.
var errRetired = errors.New("not needed any more")

// source is one entry of the assignment. Guarded by Node.mu.
type source struct {
	Peer
	conn       *conn     // nil while not connected
	pending    bool      // a dial or its connection is under way
	fails      int       // failures in a row
	notBefore  time.Time // backoff
	rejected   string    // why we left it; "" = in good standing
	rejectedAt time.Time
	final      bool // do not go back to it before the tracker says so
	bad        int  // pieces with a wrong hash
}

// reject books a failure of s.
func (s *source) reject(reason string) {
	now := time.Now()
	if now.Sub(s.rejectedAt) > goodAgain {
		s.fails = 0
	}
	s.fails++
	s.notBefore = now.Add(window.Backoff(s.fails))
	s.rejected, s.rejectedAt = reason, now
}

// loop is the housekeeping: it chooses the source, keeps the connections that
// are wanted, drops stalled ones and measures rates. It ends with ctx.
func (n *Node) loop(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		measure := false
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			measure = true
		case <-n.wake:
		}
		for _, call := range n.turn(time.Now(), measure) {
			call()
		}
	}
}

// turn is one round of housekeeping; it returns the callbacks to make without
// the lock.
func (n *Node) turn(now time.Time, measure bool) (calls []func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if measure {
		n.dropStalled(now)
		n.measure(now)
	}
	if n.have.Full() {
		n.active = nil
		n.retire(nil)
		return nil
	}
	if measure {
		n.judge(now)
	}
	if call := n.choose(now); call != nil {
		calls = append(calls, call)
	}
	n.goBack(now)
	wanted := n.wanted(now)
	for s := range wanted {
		n.dial(s, now)
	}
	n.retire(wanted)
	for _, s := range n.sources {
		if s.conn != nil {
			n.fill(s.conn)
		}
	}
	return calls
}

// measure updates the rate of reception.
func (n *Node) measure(now time.Time) {
	if n.rateAt.IsZero() {
		n.rateAt, n.rateRx, n.rateWire = now, n.rx, n.rxWire
		return
	}
	d := now.Sub(n.rateAt).Seconds()
	if d < tick.Seconds()/2 {
		return
	}
	part := min(d, 1) // smoothed over about a second
	n.rate += (float64(n.rx-n.rateRx)/d - n.rate) * part
	n.wireRate += (float64(n.rxWire-n.rateWire)/d - n.wireRate) * part
	n.rateAt, n.rateRx, n.rateWire = now, n.rx, n.rxWire
}

// dropStalled closes connections that owe us bytes and send none, and decides
// about peers that never sent their extension handshake.
func (n *Node) dropStalled(now time.Time) {
	for c := range n.conns {
		last := time.Unix(0, c.lastRx.Load())
		switch {
		case owes(n, c) && now.Sub(last) > stallTime:
			c.close(fmt.Errorf("stalled: no byte for %v with %d requests open", stallTime, c.open))
		case !c.ready && now.Sub(c.since) > extendedTime:
			c.settle(wire.Extended{})
		}
		if c.src != nil && c.open > 0 {
			c.rtt = minRTT(c.nc)
		}
	}
}

// owes reports whether c should be sending: requests are open, or it holds half
// a piece and is not even the source in use any more.
func owes(n *Node, c *conn) bool {
	return c.open > 0 || len(c.order) > 0 && c.src != n.active
}

// judge applies the rules about slow parents.
func (n *Node) judge(now time.Time) {
	a := n.active
	if a == nil || a.conn == nil || !a.conn.ready {
		n.monitor.Reset()
		return
	}
	s := window.Sample{At: now, Have: n.have.Count(), Other: -1, Rx: n.rxWire, Bound: n.bound}
	n.bound = false
	gives := n.gives(a, n.window)
	s.Gives, s.Far = gives > 0, gives >= n.window
	next := n.next(now)
	if next != nil && next.conn != nil {
		s.Costly = next.Server
		s.OtherGives = n.gives(next, 1) > 0
		if !next.conn.theirs.Full() {
			s.Other = next.conn.theirs.Count()
		}
	}
	v := n.monitor.Add(s)
	if v == window.Barren && n.tried != nil {
		n.tried.rejected, n.tried.final, n.tried.notBefore = "", false, time.Time{}
		n.tried = nil
		return
	}
	if v == window.Stay || v == window.Barren || next == nil || next.conn == nil || next.rejected != "" {
		return
	}
	if v == window.Starving {
		n.monitor.Reset()
		n.leave(a, string(v), false)
		return
	}
	n.monitor.Switched()
	n.tried = a
	n.leave(a, string(v), true)
}

// gives counts the missing pieces s could send now, up to limit.
func (n *Node) gives(s *source, limit int) int {
	if s.conn == nil || s.conn.choked {
		return 0
	}
	return window.Obtainable(n.have, s.conn.theirs, limit)
}

// leave turns away from a source whose connection still works; final: not to
// come back by ourselves.
func (n *Node) leave(s *source, reason string, final bool) {
	s.reject(reason)
	s.final = final
	n.left, n.leftWhy = s, reason
	if n.active == s {
		n.active = nil
	}
	if s.conn != nil {
		s.conn.close(errRetired)
	}
	n.kick()
}

// choose makes sure that there is an active source, if one can be had now.
func (n *Node) choose(now time.Time) (call func()) {
	if a := n.active; a != nil {
		if a.conn != nil || a.pending || a.rejected == "" {
			return nil
		}
		n.left, n.leftWhy, n.active = a, a.rejected, nil
		n.monitor.Reset()
	}
	cs := make([]window.Candidate, len(n.sources))
	for i, s := range n.sources {
		cs[i] = window.Candidate{Rejected: s.rejected != "", NotBefore: s.notBefore}
	}
	i, _ := window.Choose(cs, now)
	if i < 0 {
		return nil // the next tick looks again; backoff has its end
	}
	n.active = n.sources[i]
	from, why := n.left, n.leftWhy
	n.left = nil
	if from == nil || from == n.active {
		return nil
	}
	n.switches++
	n.lastWhy = why
	to := n.active
	n.log.Info("source changed", "from", from.name(), "peer", to.name(), "reason", why)
	if n.cfg.OnSwitch == nil {
		return nil
	}
	f, p, q := n.cfg.OnSwitch, from.Peer, to.Peer
	return func() { f(p, q, why) }
}

// better is a source before the active one in the assignment's order that is
// worth another try: it was lost or had nothing for us, not slow or wrong.
func (n *Node) better(now time.Time) *source {
	for _, s := range n.sources {
		if s == n.active {
			return nil
		}
		if !s.final && s.fails < maxReturn && !s.notBefore.After(now) {
			return s
		}
	}
	return nil
}

// goBack returns to a better source once it is connected and has something for
// us: a parent that stumbled must not cost the seed another copy.
func (n *Node) goBack(now time.Time) {
	if n.active == nil {
		return
	}
	s := n.better(now)
	if s == nil || s.conn == nil || !s.conn.ready || n.gives(s, 1) == 0 {
		return
	}
	n.log.Info("back to the better source", "from", n.active.name(), "peer", s.name())
	s.rejected = ""
	n.active = s
	n.monitor.Reset()
}

// next is the source after the active one: the grandparent, which we watch in
// order to know what is possible, and to go to it without delay. nil when the
// active one is the last.
func (n *Node) next(now time.Time) *source {
	after := false
	for _, s := range n.sources {
		if after && !s.notBefore.After(now) {
			return s
		}
		after = after || s == n.active
	}
	return nil
}

// wanted is the set of sources to be connected to.
func (n *Node) wanted(now time.Time) map[*source]bool {
	w := map[*source]bool{}
	if n.active != nil {
		w[n.active] = true
	}
	if s := n.next(now); s != nil {
		w[s] = true
	}
	if s := n.better(now); s != nil && n.active != nil {
		w[s] = true
	}
	if len(n.bars) > 0 {
		for _, s := range n.sources {
			if s.Server && !s.notBefore.After(now) {
				w[s] = true
				break
			}
		}
	}
	return w
}

// retire closes the connections to sources that are not wanted, once nothing is
// on its way from them.
func (n *Node) retire(wanted map[*source]bool) {
	for c := range n.conns {
		if c.src != nil && !wanted[c.src] && (c.open == 0 || n.have.Full()) {
			c.close(errRetired)
		}
	}
}

// dial connects to s in the background, unless that is so or must wait.
func (n *Node) dial(s *source, now time.Time) {
	if s.conn != nil || s.pending || s.notBefore.After(now) {
		return
	}
	peer := s.Peer
	s.pending = n.goLocked(func() {
		err := n.connect(peer, s)
		n.mu.Lock()
		defer n.mu.Unlock()
		s.conn, s.pending = nil, false
		if !errors.Is(err, errRetired) && n.ctx.Err() == nil {
			s.reject("lost: " + reason(err))
			n.log.Info("source lost", "peer", peer.name(), "err", err)
		}
		n.kick()
	})
}

// reason shortens an error for a table cell.
func reason(err error) string {
	r, _, _ := strings.Cut(fmt.Sprint(err), "\n")
	return r
}

// connect dials and shakes hands with p, then works on the connection until it
// ends.
func (n *Node) connect(p Peer, s *source) error {
	ctx, cancel := context.WithTimeout(n.ctx, dialTime)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", p.Addr.String())
	if err != nil {
		return fmt.Errorf("connect to %s: %w", p.name(), err)
	}
	stop := context.AfterFunc(n.ctx, func() { shutQuiet(nc) }) // also during the handshake
	defer stop()
	defer shutQuiet(nc)
	if nc, err = n.secure(nc, p); err != nil {
		return err
	}
	if err := n.greet(nc); err != nil {
		return err
	}
	if err := nc.SetReadDeadline(time.Now().Add(handshakeTime)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	hs, err := wire.ReadHandshake(nc)
	switch {
	case err != nil:
		return err
	case hs.InfoHash != n.cfg.InfoHash:
		return fmt.Errorf("%s answered for swarm %x", p.name(), hs.InfoHash)
	case hs.PeerID == n.cfg.PeerID:
		return fmt.Errorf("%s is this host itself", p.name())
	}
	return n.runConn(nc, hs, s)
}

// shutQuiet closes a connection that may be closed already.
func shutQuiet(nc net.Conn) {
	_ = nc.Close() // nothing was buffered; the error changes nothing
}
