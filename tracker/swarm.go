package tracker

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"labswarm/api"
	"labswarm/tracker/announce"
	"labswarm/tracker/plan"
	"labswarm/tracker/registry"
)

const (
	maxDone = 4 // finished hosts a standard client is told of

	// How long a host may fetch from somebody else than its planned parent
	// before the plan takes that as its word against the parent.
	strayGrace = 8 * time.Second
	slowGrace  = 5 * time.Second // when it says so itself
)

// swarm is one swarm; the Tracker's lock guards it.
type swarm struct {
	spec      SwarmSpec
	log       *slog.Logger
	reg       *registry.Registry
	prev      []plan.Assignment
	current   map[string]api.Assignment
	rev       uint64
	strays    map[string]time.Time // hosts that keep away from their parent, since when
	completed map[string]bool      // hosts that became done, ever
	expected  int                  // hosts that are booting and will join
	subs      map[string]map[*subscription]struct{}
}

// subscription is one reader of a host's assignments.
type subscription struct{ ch chan api.Assignment }

func newSwarm(spec SwarmSpec, log *slog.Logger) *swarm {
	return &swarm{
		spec: spec, log: log.With("swarm", spec.Name), reg: registry.New(spec.Pieces),
		current: map[string]api.Assignment{}, subs: map[string]map[*subscription]struct{}{},
		completed: map[string]bool{}, strays: map[string]time.Time{},
		rev: uint64(time.Now().UnixMilli()), // so that it rises across restarts of the server, too
	}
}

// update takes in a report.
func (s *swarm) update(r HostReport, now time.Time) error {
	rejected := slices.Clone(r.Rejected)
	if p := s.strayed(r, now); p != "" && !slices.Contains(rejected, p) {
		rejected = append(rejected, p)
	}
	if slices.ContainsFunc(s.spec.Seeds, func(sd registry.Seed) bool { return sd.ID == r.HostID }) {
		return fmt.Errorf("report of host %q: a seed has that name", r.HostID)
	}
	changed, err := s.reg.Update(registry.Report{
		ID: r.HostID, Addr: r.Addr, Room: r.Room, Have: r.Have, Front: r.Front, RateBps: r.RateBps,
		Done: r.Done, Parent: r.Parent, Rejected: rejected, Accused: r.Accused,
		LinkMbps: r.LinkMbps, Brake: r.Brake, Waiting: r.Waiting,
	}, now)
	if err != nil {
		return err
	}
	if r.Done {
		s.completed[r.HostID] = true
	}
	if changed {
		s.replan()
	}
	return nil
}

// strayed returns the parent that a host was told to use and has not used for a
// while: it fetches from somebody else. A short absence says nothing: the report
// was under way while the assignment changed, or the parent stumbled and the
// host goes back to it by itself.
func (s *swarm) strayed(r HostReport, now time.Time) string {
	a, ok := s.current[r.HostID]
	if !ok || r.Done || r.Parent == "" || r.Parent == a.Parent.HostID {
		delete(s.strays, r.HostID)
		return ""
	}
	grace := strayGrace
	if r.ParentSlow {
		grace = slowGrace
	}
	since, straying := s.strays[r.HostID]
	if !straying {
		s.strays[r.HostID] = now
		return ""
	}
	if now.Sub(since) < grace {
		return ""
	}
	return a.Parent.HostID
}

// replan asks the planner and passes on what has changed.
func (s *swarm) replan() {
	hosts := s.reg.Hosts()
	s.prev = plan.Plan(plan.View{Pieces: s.spec.Pieces, Seeds: s.spec.Seeds, Hosts: hosts, Prev: s.prev, Expected: s.expected})
	refs := map[string]api.PeerRef{}
	for _, h := range hosts {
		refs[h.ID] = api.PeerRef{HostID: h.ID, Addr: h.Addr.String()}
	}
	for _, sd := range s.spec.Seeds {
		refs[sd.ID] = api.PeerRef{HostID: sd.ID, Addr: sd.Addr.String(), Server: true}
	}
	gone := s.current
	s.current = map[string]api.Assignment{}
	for _, p := range s.prev {
		a := api.Assignment{Parent: refs[p.Parent], Release: p.Release}
		for _, f := range p.Fallbacks {
			a.Fallbacks = append(a.Fallbacks, refs[f])
		}
		if p.Release {
			s.reg.Release(p.Host)
		}
		old, had := gone[p.Host]
		a.Rev = old.Rev
		if had && same(old, a) {
			s.current[p.Host] = old
			continue
		}
		if !had || old.Parent != a.Parent {
			delete(s.strays, p.Host)
		}
		s.rev++
		a.Rev = s.rev
		s.current[p.Host] = a
		s.log.Info("assignment", "host", p.Host, "parent", p.Parent, "fallbacks", p.Fallbacks, "leaf", p.Leaf, "release", p.Release)
		for sub := range s.subs[p.Host] {
			sub.put(a)
		}
	}
	for id := range s.strays {
		if _, ok := s.current[id]; !ok {
			delete(s.strays, id)
		}
	}
}

// same compares two assignments of equal Rev.
func same(a, b api.Assignment) bool {
	return a.Parent == b.Parent && a.Release == b.Release && slices.Equal(a.Fallbacks, b.Fallbacks)
}

// put replaces what the reader has not taken. Only the lock's holder sends, so
// the second send cannot block.
func (s *subscription) put(a api.Assignment) {
	select {
	case <-s.ch:
	default:
	}
	s.ch <- a
}

func (s *swarm) unsubscribe(hostID string, sub *subscription) {
	if _, ok := s.subs[hostID][sub]; !ok {
		return
	}
	delete(s.subs[hostID], sub)
	if len(s.subs[hostID]) == 0 {
		delete(s.subs, hostID)
	}
	close(sub.ch)
}

// close ends all subscriptions.
func (s *swarm) close() {
	for id, subs := range s.subs {
		for sub := range subs {
			s.unsubscribe(id, sub)
		}
	}
}

// peersFor is the list for a peer that announces itself: its planned sources if
// it is one of our hosts, else the seeds and a few hosts that are done.
func (s *swarm) peersFor(from netip.AddrPort, want int) []netip.AddrPort {
	hosts := s.reg.Hosts()
	var out []netip.AddrPort
	for _, h := range hosts {
		if a, ok := s.current[h.ID]; ok && h.Addr == from && h.Alive {
			for _, p := range append([]api.PeerRef{a.Parent}, a.Fallbacks...) {
				if addr, err := netip.ParseAddrPort(p.Addr); err == nil {
					out = append(out, addr)
				}
			}
			return out[:min(len(out), want)]
		}
	}
	for _, sd := range s.spec.Seeds {
		out = append(out, sd.Addr)
	}
	n := 0
	for _, h := range hosts {
		if h.Done && h.Alive && !h.Released && n < maxDone {
			out = append(out, h.Addr)
			n++
		}
	}
	return out[:min(len(out), want)]
}

// counts is for scrapes.
func (s *swarm) counts() announce.Counts {
	c := announce.Counts{Complete: len(s.spec.Seeds), Downloaded: len(s.completed)}
	for _, h := range s.reg.Hosts() {
		switch {
		case !h.Alive:
		case h.Done:
			c.Complete++
		default:
			c.Incomplete++
		}
	}
	return c
}
