package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"labswarm/swarm/sched"
	"labswarm/swarm/wire"
)

// errRetired ends a connection that is not needed any more: nobody's fault.
var errRetired = sched.ErrRetired

// loop is the housekeeping: it chooses the source, keeps the connections that
// are wanted, drops stalled ones and measures rates. It ends with ctx.
func (n *Node) loop(ctx context.Context) error {
	t := time.NewTicker(sched.Tick)
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
		for _, s := range n.turn(time.Now(), measure) {
			n.switched(s)
		}
	}
}

// turn is one round of housekeeping.
func (n *Node) turn(now time.Time, measure bool) []sched.Switch {
	n.mu.Lock()
	defer n.mu.Unlock()
	if measure {
		n.look(now)
	}
	return n.child.Turn(now, measure)
}

// look tells the scheduler what the sockets know, and decides about peers that
// never sent their extension handshake.
func (n *Node) look(now time.Time) {
	for c := range n.conns {
		if !c.link.Ready() && now.Sub(c.since) > extendedTime {
			c.settle(wire.Extended{})
		}
		if c.ctrl.Len() > 0 {
			c.push() // hints that were not urgent
		}
		if c.src == nil {
			c.stillThere()
			continue
		}
		c.in.hurry()
		c.slow.Store(n.child.WireRate() < readerHashes)
		at := time.Unix(0, c.lastRx.Load())
		if c.link.Open() > 0 {
			rtt, silent := sockTimes(c.nc)
			c.link.Timed(rtt)
			if came := now.Add(-silent); at.After(came) { // read late, see intake.hurry
				at = came
			}
		}
		c.link.Received(at)
		c.link.Waits(time.Unix(0, c.lastWait.Load()))
	}
}

// stillThere tells a child whose requests wait that we live, and has requests that
// have waited too long refused. mu is held.
func (c *conn) stillThere() {
	if len(c.upq) == 0 {
		return
	}
	if c.own {
		wire.PutKeepalive(&c.ctrl)
	}
	c.push()
}

// switched tells about a change of source.
func (n *Node) switched(s sched.Switch) {
	if s.Back {
		n.log.Info("back to the better source", "from", s.From.Name(), "peer", s.To.Name())
		return
	}
	n.log.Info("source changed", "from", s.From.Name(), "peer", s.To.Name(), "reason", s.Why)
	if n.cfg.OnSwitch != nil {
		n.cfg.OnSwitch(Peer(s.From), Peer(s.To), s.Why)
	}
}

// Dial implements sched.Hands: it connects to s in the background. mu is held.
func (n *Node) Dial(s *sched.Source) bool {
	peer := Peer(s.Peer)
	return n.goLocked(func() {
		err := n.connect(peer, s)
		n.mu.Lock()
		defer n.mu.Unlock()
		blame := !errors.Is(err, errRetired) && n.ctx.Err() == nil
		n.child.Lost(s, reason(err), blame, time.Now())
		if blame {
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
func (n *Node) connect(p Peer, s *sched.Source) error {
	ctx, cancel := context.WithTimeout(n.ctx, sched.DialTime)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", p.Addr.String())
	if err != nil {
		return fmt.Errorf("connect to %s: %w", p.name(), err)
	}
	stop := context.AfterFunc(n.ctx, func() { shutQuiet(raw) }) // also during the handshake
	defer stop()
	defer shutQuiet(raw)
	nc, err := n.secure(raw, p)
	if err != nil {
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
	if t, ok := nc.(*secured); ok {
		t.got = int64(wire.HandshakeLen)
	}
	return n.runConn(nc, hs, s, p.name())
}

// shutQuiet closes a connection that may be closed already.
func shutQuiet(nc net.Conn) {
	_ = nc.Close() // nothing was buffered; the error changes nothing
}
