package tftp

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// waitForSlot: a room of 300 PCs starts at once; a second of patience is
	// better than an ERROR that sends the firmware to its next boot entry.
	waitForSlot = 3 * time.Second
	maxWaiting  = 128 // goroutines waiting for a slot
	// perHostLive bounds the transfers of one address that have been cut but
	// whose goroutine still waits for an ACK.
	perHostLive = 6
	// strangers is the share of addresses whose MAC has not been seen booting:
	// requests from invented addresses hold a slot until the library gives up,
	// and must not keep the others out.
	strangers = 16
)

var errBusy = errors.New("server is busy")

// limits counts transfers per address and in all. A host over its limit does
// not get an error: firmware that has lost a packet starts again from another
// port, so its oldest transfer is cut instead.
type limits struct {
	perHost int
	total   chan struct{} // one token per transfer of a booting PC
	other   chan struct{} // the same for strangers
	waiting atomic.Int32

	mu    sync.Mutex
	hosts map[netip.Addr][]*slot
}

// slot is one running transfer.
type slot struct {
	l      *limits
	ip     netip.Addr
	tokens chan struct{} // where its token goes back
	isCut  atomic.Bool
	closed bool // guarded by limits.mu
}

func newLimits(perHost, total int) *limits {
	return &limits{perHost: perHost, total: make(chan struct{}, total), other: make(chan struct{}, min(total, strangers)), hosts: map[netip.Addr][]*slot{}}
}

// enter waits for a free slot, cuts the host's oldest transfer when it has too
// many, and gives up with errBusy.
func (l *limits) enter(ctx context.Context, ip netip.Addr, booting bool) (*slot, error) {
	if !l.roomFor(ip) {
		return nil, errBusy
	}
	tokens := l.total
	if !booting {
		tokens = l.other
	}
	if err := l.token(ctx, tokens, booting); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.hosts[ip]) >= perHostLive { // others came in while we waited
		<-tokens
		return nil, errBusy
	}
	s := &slot{l: l, ip: ip, tokens: tokens}
	l.hosts[ip] = append(l.hosts[ip], s)
	alive := 0
	for i := len(l.hosts[ip]) - 1; i >= 0; i-- {
		if o := l.hosts[ip][i]; !o.isCut.Load() {
			if alive++; alive > l.perHost {
				o.isCut.Store(true)
			}
		}
	}
	return s, nil
}

func (l *limits) roomFor(ip netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.hosts[ip]) < perHostLive
}

// token takes a token. Strangers do not wait: a flood of them would fill the
// queue.
func (l *limits) token(ctx context.Context, tokens chan struct{}, wait bool) error {
	select {
	case tokens <- struct{}{}:
		return nil
	default:
	}
	if !wait {
		return errBusy
	}
	if l.waiting.Add(1) > maxWaiting {
		l.waiting.Add(-1)
		return errBusy
	}
	defer l.waiting.Add(-1)
	t := time.NewTimer(waitForSlot)
	defer t.Stop()
	select {
	case tokens <- struct{}{}:
		return nil
	case <-t.C:
		return errBusy
	case <-ctx.Done():
		return errBusy
	}
}

// cut reports whether the transfer must stop.
func (s *slot) cut() bool { return s.isCut.Load() }

// leave ends the transfer's claim.
func (s *slot) leave() {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	list := s.l.hosts[s.ip]
	for i, o := range list {
		if o == s {
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(s.l.hosts, s.ip)
	} else {
		s.l.hosts[s.ip] = list
	}
	<-s.tokens
}
