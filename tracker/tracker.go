// Package tracker says who fetches from whom: it ties the registry of hosts to
// the planner and hands every host its Assignment as soon as it changes.
//
// It moves no image bytes and stores nothing on disk: after a restart it is
// rebuilt from the hosts' next reports. Called by the server's daemon, which
// feeds it progress reports and passes assignments on.
package tracker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/tracker/announce"
	"labswarm/tracker/registry"
)

// Period is how often Run ages hosts and plans again.
const Period = 500 * time.Millisecond

const silence = 10 * time.Second // without a report after which a host is dead

// SwarmSpec describes a swarm to direct.
type SwarmSpec struct {
	InfoHash [20]byte
	Name     string // image name/version, for logs
	Pieces   int
	PieceLen int64 // bytes; 0 = unknown: no head of a chain is compared with its seed
	// Seeds: at least one. The first is the server, which feeds any room; others
	// feed the room they stand in, or any. An empty ID means "server".
	Seeds    []registry.Seed
	RoomMbps map[string]int // what may be sent into and inside a room, Mb/s; no entry = no cap
}

// HostReport is a host's word about itself, sent every 2 s or so.
type HostReport struct {
	HostID     string
	Addr       netip.AddrPort // peer listener: address of the TCP source, port as announced
	Room       string
	Have       int  // pieces held
	Front      int  // lowest missing piece
	Done       bool // all pieces written
	RateBps    int64
	Parent     string   // whom it fetches from now, "" = nobody
	ParentSlow bool     // it has left its assigned parent by itself (peer.Stats.Rejected is not empty)
	Rejected   []string // sources of its assignment it has left by itself; may be nil, then ParentSlow and Parent tell
	Accused    []string // sources that sent pieces with a wrong hash
	LinkMbps   int      // of the interface it booted from, 0 = unknown
	Brake      string   // what holds it back by its own word: api.BrakeLink, BrakeDisk, BrakeCPU or ""
	Waiting    bool     // it could take more and its source has nothing for it
}

// Tracker directs any number of swarms. Make it with New; its methods are safe
// for concurrent use. Planning is quick and happens inside the calls that make
// it necessary, so that a new host has its assignment when Update returns.
type Tracker struct {
	log     *slog.Logger
	handler *announce.Handler

	// Replanned is told of each host that gets another parent, with the planner's reason ("moved" = none of its own).
	// Set it before the first swarm; nil = nobody. It must be quick.
	Replanned func(reason string)

	mu     sync.Mutex
	swarms map[[20]byte]*swarm
}

// New returns an empty Tracker. log may be nil.
func New(log *slog.Logger) *Tracker {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	t := &Tracker{log: log, swarms: map[[20]byte]*swarm{}}
	t.handler = announce.New(directory{t}, log)
	return t
}

// AddSwarm begins to direct a swarm. Adding the same info-hash again replaces
// its seeds and keeps its hosts.
func (t *Tracker) AddSwarm(spec SwarmSpec) error {
	if spec.InfoHash == [20]byte{} || spec.Pieces < 1 || len(spec.Seeds) == 0 {
		return fmt.Errorf("add swarm %q: info-hash, pieces and a seed are needed", spec.Name)
	}
	spec.Seeds, spec.RoomMbps = slices.Clone(spec.Seeds), maps.Clone(spec.RoomMbps)
	names := map[string]bool{}
	for i := range spec.Seeds {
		s := &spec.Seeds[i]
		if s.ID == "" {
			s.ID = "server"
		}
		if !s.Addr.IsValid() || s.Addr.Port() == 0 || s.Addr.Addr().IsUnspecified() {
			return fmt.Errorf("add swarm %q: seed address %v cannot be dialled", spec.Name, s.Addr)
		}
		if names[s.ID] {
			return fmt.Errorf("add swarm %q: two seeds are called %q", spec.Name, s.ID)
		}
		names[s.ID] = true
		s.Addr = netip.AddrPortFrom(s.Addr.Addr().Unmap(), s.Addr.Port())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.swarms[spec.InfoHash]
	if s != nil && s.spec.Pieces != spec.Pieces {
		return fmt.Errorf("add swarm %q: it has %d pieces already, not %d", spec.Name, s.spec.Pieces, spec.Pieces)
	}
	if s == nil {
		s = newSwarm(spec, t.log)
		s.replanned = t.Replanned
		t.swarms[spec.InfoHash] = s
	}
	s.spec = spec
	s.replan()
	return nil
}

// Expect tells how many hosts are booting and will join a swarm soon: a done
// host stays for them. An unknown swarm is passed over.
func (t *Tracker) Expect(infoHash [20]byte, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.swarms[infoHash]; s != nil && s.expected != n {
		s.expected = n
		s.replan()
	}
}

// RemoveSwarm forgets a swarm and closes its subscriptions.
func (t *Tracker) RemoveSwarm(infoHash [20]byte) {
	t.mu.Lock()
	s := t.swarms[infoHash]
	delete(t.swarms, infoHash)
	if s != nil {
		s.close()
	}
	t.mu.Unlock()
	t.handler.Forget(infoHash)
}

// errNoSwarm is wrapped by calls for an info-hash that was not added.
var errNoSwarm = errors.New("no such swarm")

// Update takes in a report and plans again if it says something new. A report
// that cannot be true is an error and changes nothing.
func (t *Tracker) Update(infoHash [20]byte, r HostReport) error {
	return t.UpdateAt(infoHash, r, time.Now())
}

// UpdateAt is Update at a given time: a simulation has its own.
func (t *Tracker) UpdateAt(infoHash [20]byte, r HostReport, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.swarms[infoHash]
	if s == nil {
		return fmt.Errorf("report of host %q for %x: %w", r.HostID, infoHash, errNoSwarm)
	}
	return s.update(r, now)
}

// Leave removes a host at once: it said so, or its job slot ended.
func (t *Tracker) Leave(infoHash [20]byte, hostID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.swarms[infoHash]; s != nil && s.reg.Remove(hostID) {
		s.replan()
	}
}

// Assignment returns the present assignment of a living host, false when there
// is none.
func (t *Tracker) Assignment(infoHash [20]byte, hostID string) (api.Assignment, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.swarms[infoHash]; s != nil {
		a, ok := s.current[hostID]
		return a, ok
	}
	return api.Assignment{}, false
}

// Subscribe returns a channel that holds the newest assignment the receiver has
// not taken yet; older ones are replaced, never queued. It may be called before
// the host's first report. The channel is closed by cancel, by RemoveSwarm, and
// at once for an unknown swarm.
func (t *Tracker) Subscribe(infoHash [20]byte, hostID string) (<-chan api.Assignment, func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.swarms[infoHash]
	sub := &subscription{ch: make(chan api.Assignment, 1)}
	if s == nil {
		close(sub.ch)
		return sub.ch, func() {}
	}
	if s.subs[hostID] == nil {
		s.subs[hostID] = map[*subscription]struct{}{}
	}
	s.subs[hostID][sub] = struct{}{}
	if a, ok := s.current[hostID]; ok {
		sub.ch <- a
	}
	return sub.ch, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		s.unsubscribe(hostID, sub)
	}
}

// Hosts returns the hosts of a swarm in joining order, the dead of the last
// minutes included; nil for an unknown swarm.
func (t *Tracker) Hosts(infoHash [20]byte) []registry.Host {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.swarms[infoHash]; s != nil {
		return s.reg.Hosts()
	}
	return nil
}

// Flag says that a host feeds nobody, and why.
type Flag struct {
	Host  string
	Cause string // one of plan's Cause constants; plan.Explain puts it into words
}

// Flags returns the hosts of a swarm that feed nobody, in the plan's order; nil
// for an unknown swarm.
func (t *Tracker) Flags(infoHash [20]byte) []Flag {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.swarms[infoHash]
	if s == nil {
		return nil
	}
	var out []Flag
	for _, p := range s.prev {
		if p.Cause != "" {
			out = append(out, Flag{Host: p.Host, Cause: p.Cause})
		}
	}
	return out
}

// Handler serves BEP 3 /announce and /scrape for standard clients.
func (t *Tracker) Handler() http.Handler { return t.handler }

// Run declares silent hosts dead and plans again, until ctx ends; then it
// returns nil.
func (t *Tracker) Run(ctx context.Context) error {
	tick := time.NewTicker(Period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		t.TickAt(time.Now())
	}
}

// TickAt is one round of Run, for a simulation.
func (t *Tracker) TickAt(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.swarms {
		s.reg.Age(now, silence)
		s.now = now
		s.replan()
	}
}

// directory answers the announce handler.
type directory struct{ t *Tracker }

// Peers directs a standard client to the seeds and to hosts that hold much.
func (d directory) Peers(infoHash [20]byte, from netip.AddrPort, want int) ([]netip.AddrPort, bool) {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	s := d.t.swarms[infoHash]
	if s == nil {
		return nil, false
	}
	return s.peersFor(from, want), true
}

// Counts returns how many of our own peers are complete.
func (d directory) Counts(infoHash [20]byte) (announce.Counts, bool) {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	s := d.t.swarms[infoHash]
	if s == nil {
		return announce.Counts{}, false
	}
	return s.counts(), true
}
