// Package registry keeps, per swarm, who takes part: address, room, order of
// joining, progress, rate and age. It decides nothing (package plan does), has
// no goroutine, no lock and no clock: the time is an argument, and the caller
// (package tracker) serialises the calls.
package registry

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"labswarm/api"
)

const (
	// MaxHosts bounds the hosts of one swarm.
	MaxHosts = 4096
	maxID    = 253 // bytes of a host id: a host name at most
	maxNames = 32  // entries kept of a list of names in a report

	// proof is how long after a blame a host must have been heard of to count as alive then.
	proof = 3 * time.Second
	// grudge is how long it counts that a host left another one.
	grudge = 2 * time.Minute
)

// Seed is a peer that holds everything, in the server or beside it.
type Seed struct {
	ID        string         // "server" for the server's own
	Addr      netip.AddrPort // where it listens
	Room      string         // the room it stands in, "" = none: it feeds any room
	LinkMbps  int            // what it can send, Mb/s; 0 = unknown: one chain
	AccusedBy []string       // hosts that had a wrong piece from it, ever
}

// Host is what is known of one host in one swarm.
type Host struct {
	ID       string         // host name
	Addr     netip.AddrPort // peer listener, never IPv4-mapped
	Room     string
	Order    uint64    // of joining; a host that comes back after its death gets a new one
	Have     int       // pieces held
	Front    int       // lowest missing piece
	RateBps  int64     // payload bytes per second received
	Done     bool      // all pieces written
	Alive    bool      // heard of within the age limit
	Released bool      // it was told that it may go: nobody is sent to it any more
	Parent   string    // source it says it fetches from, "" = none
	Rejected []string  // sources of its assignment it has left by itself
	Blamed   []string  // hosts it has left or accused and that were heard of since: it may be the suspect itself
	LastSeen time.Time // of the last report

	LinkMbps  int           // of the interface it booted from, Mb/s; 0 = unknown
	Brake     string        // what it says in most reports holds it back: api.BrakeLink, BrakeDisk, BrakeCPU, "" = nothing of its own
	PieceTime time.Duration // mean per piece over the last 30 s with this parent, times of waiting for it left out; 0 = not known yet
	Lately    time.Duration // from one report with this parent to the newest, 1.5 s or a little more; 0 = not known yet
	Gained    int           // pieces in that time
	AccusedBy []string      // hosts that had a wrong piece from it, ever; they may be gone by now
}

// Report is a host's word about itself.
type Report struct {
	ID       string
	Addr     netip.AddrPort
	Room     string
	Have     int
	Front    int
	RateBps  int64
	Done     bool
	Parent   string
	Rejected []string
	Accused  []string // sources that sent a wrong piece since the last report
	LinkMbps int
	Brake    string
	Waiting  bool // it could take more and its source has nothing for it
}

// Registry holds the hosts of one swarm. Make it with New.
type Registry struct {
	pieces int
	next   uint64
	hosts  map[string]*Host
	blames map[string]map[string]time.Time // who blamed whom, when first
	meters map[string]*meter

	// accusers says who had a wrong piece from whom: accused, then accuser. It is
	// kept when either leaves, or a bad source would be trusted again as soon as
	// its accusers are done.
	accusers map[string]map[string]bool
}

// New returns an empty registry for a torrent of the given number of pieces.
func New(pieces int) *Registry {
	return &Registry{pieces: pieces, hosts: map[string]*Host{}, blames: map[string]map[string]time.Time{},
		meters: map[string]*meter{}, accusers: map[string]map[string]bool{}}
}

// check refuses a report that cannot be true.
func (r *Registry) check(p *Report) error {
	switch {
	case p.ID == "" || len(p.ID) > maxID:
		return fmt.Errorf("host id of %d bytes, want 1 to %d", len(p.ID), maxID)
	case !p.Addr.IsValid() || p.Addr.Port() == 0 || p.Addr.Addr().IsUnspecified():
		return fmt.Errorf("peer address %v cannot be dialled", p.Addr)
	case p.Have < 0 || p.Have > r.pieces || p.Front < 0 || p.Front > r.pieces || p.Front > p.Have:
		return fmt.Errorf("%d pieces held up to %d of %d", p.Have, p.Front, r.pieces)
	case p.Done && p.Have != r.pieces:
		return fmt.Errorf("done with %d of %d pieces", p.Have, r.pieces)
	case p.RateBps < 0:
		return errors.New("negative rate")
	}
	return nil
}

// Update takes in a report. changed says that the plan may have to change: a
// new host, one back from the dead, another address, done or not any more, or
// a source left, another accuser of a source.
func (r *Registry) Update(p Report, now time.Time) (changed bool, err error) {
	if err := r.check(&p); err != nil {
		return false, fmt.Errorf("report of host %q: %w", p.ID, err)
	}
	p.Addr = netip.AddrPortFrom(p.Addr.Addr().Unmap(), p.Addr.Port())
	p.Rejected = p.Rejected[:min(len(p.Rejected), maxNames)]
	p.Accused = p.Accused[:min(len(p.Accused), maxNames)]
	h := r.hosts[p.ID]
	if h == nil && len(r.hosts) >= MaxHosts {
		return false, fmt.Errorf("report of host %q: the swarm has %d hosts already", p.ID, MaxHosts)
	}
	if h == nil || !h.Alive {
		r.next++
		h = &Host{ID: p.ID, Order: r.next, Alive: true}
		r.hosts[p.ID] = h
		delete(r.meters, p.ID)
		changed = true
	}
	if h.Addr != p.Addr || h.Done != p.Done || !slices.Equal(h.Rejected, p.Rejected) {
		changed = true
	}
	if !p.Done {
		h.Released = false // read-back dropped a piece: it takes part again
	}
	h.Addr, h.Room, h.Have, h.Front, h.RateBps = p.Addr, p.Room, p.Have, p.Front, p.RateBps
	h.Done, h.Parent, h.LastSeen = p.Done, p.Parent, now
	h.Rejected, h.LinkMbps = slices.Clone(p.Rejected), max(p.LinkMbps, 0)
	r.measure(h, p, now)
	r.blame(p, now)
	return r.accuse(p) || changed, nil
}

// measure keeps the piece time and the brake of a host. Those of its last time
// at work stay when it is done: they tell what is usual in its room.
func (r *Registry) measure(h *Host, p Report, now time.Time) {
	m := r.meters[p.ID]
	if m == nil {
		m = &meter{}
		r.meters[p.ID] = m
	}
	if p.Done {
		return
	}
	switch p.Brake {
	case api.BrakeLink, api.BrakeDisk, api.BrakeCPU:
	default: // of a newer agent: no word we could explain to people
		p.Brake = ""
	}
	m.add(sample{at: now, have: p.Have, waiting: p.Waiting, brake: p.Brake}, p.Parent)
	h.PieceTime, h.Brake = m.pieceTime(), m.brake()
	h.Lately, h.Gained = m.lately()
}

// accuse notes who had a wrong piece from whom, and reports whether that is new.
func (r *Registry) accuse(p Report) (news bool) {
	for _, id := range p.Accused {
		m := r.accusers[id]
		if id == "" || len(id) > maxID || id == p.ID || m[p.ID] || len(m) >= maxNames || m == nil && len(r.accusers) >= MaxHosts {
			continue
		}
		if m == nil {
			m = map[string]bool{}
			r.accusers[id] = m
		}
		m[p.ID], news = true, true
	}
	return news
}

// Accusers lists who had a wrong piece from a host or seed, ever, sorted.
func (r *Registry) Accusers(id string) []string {
	return slices.Sorted(maps.Keys(r.accusers[id]))
}

// blame notes whom a host has left or accused, with the time of the first time
// within grudge.
func (r *Registry) blame(p Report, now time.Time) {
	for _, id := range append(slices.Clone(p.Rejected), p.Accused...) {
		m := r.blames[p.ID]
		if m == nil {
			m = map[string]time.Time{}
			r.blames[p.ID] = m
		}
		if at, again := m[id]; again && now.Sub(at) > grudge || !again && len(m) < maxNames {
			m[id] = now
		}
	}
}

// blamed lists the hosts that id blamed in the last minutes and that were heard of
// afterwards: one that was left because it died says nothing against the one that
// left it.
func (r *Registry) blamed(id string) []string {
	var out []string
	for other, at := range r.blames[id] {
		h := r.hosts[other]
		if h == nil || !h.Alive {
			continue
		}
		if since := h.LastSeen.Sub(at); since > proof && since <= grudge {
			out = append(out, other)
		}
	}
	slices.Sort(out)
	return out
}

// Age declares hosts dead that were silent for longer than limit, and reports
// whether there was one. They stay listed, and forgotten after ten times limit.
func (r *Registry) Age(now time.Time, limit time.Duration) (changed bool) {
	for id, h := range r.hosts {
		silent := now.Sub(h.LastSeen)
		if h.Alive && silent > limit {
			h.Alive, changed = false, true
		}
		if silent > 10*limit {
			r.Remove(id)
		}
	}
	return changed
}

// Remove forgets a host and reports whether it was known.
func (r *Registry) Remove(id string) bool {
	_, ok := r.hosts[id]
	delete(r.hosts, id)
	delete(r.blames, id)
	delete(r.meters, id)
	return ok
}

// Release notes that a host was told it may go.
func (r *Registry) Release(id string) {
	if h := r.hosts[id]; h != nil {
		h.Released = true
	}
}

// Hosts returns copies of all hosts in the order of joining.
func (r *Registry) Hosts() []Host {
	out := make([]Host, 0, len(r.hosts))
	for id, h := range r.hosts {
		c := *h
		c.Blamed, c.AccusedBy = r.blamed(id), r.Accusers(id)
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Host) int { return cmp.Compare(a.Order, b.Order) })
	return out
}
