package tracker

import (
	"cmp"
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
	maxAhead = 8 // hosts a standard client is told of besides the seeds

	// How long a host may fetch from somebody else than its planned parent
	// before the plan takes that as its word against the parent.
	strayGrace = 8 * time.Second
	slowGrace  = 1500 * time.Millisecond // when it says so itself: two reports in a row
)

// swarm is one swarm; the Tracker's lock guards it.
type swarm struct {
	spec      SwarmSpec
	log       *slog.Logger
	reg       *registry.Registry
	now       time.Time // of the newest report or tick
	prev      []plan.Assignment
	current   map[string]api.Assignment
	rev       uint64
	strays    map[string]time.Time // hosts that keep away from their parent, since when
	completed map[string]bool      // hosts that became done, ever
	expected  int                  // hosts that are booting and will join
	causes    map[string]string    // leaves and why, as logged
	subs      map[string]map[*subscription]struct{}
	replanned func(reason string) // Tracker.Replanned
}

// subscription is one reader of a host's assignments.
type subscription struct{ ch chan api.Assignment }

func newSwarm(spec SwarmSpec, log *slog.Logger) *swarm {
	return &swarm{
		spec: spec, log: log.With("swarm", spec.Name), reg: registry.New(spec.Pieces),
		current: map[string]api.Assignment{}, subs: map[string]map[*subscription]struct{}{},
		completed: map[string]bool{}, strays: map[string]time.Time{}, causes: map[string]string{},
		rev: uint64(time.Now().UnixMilli()), // so that it rises across restarts of the server, too
	}
}

// update takes in a report.
func (s *swarm) update(r HostReport, now time.Time) error {
	s.now = now
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
	seeds := slices.Clone(s.spec.Seeds)
	for i := range seeds {
		seeds[i].AccusedBy = s.reg.Accusers(seeds[i].ID)
	}
	s.prev = plan.Plan(plan.View{Pieces: s.spec.Pieces, PieceLen: s.spec.PieceLen, Now: s.now, Seeds: seeds, Hosts: hosts, Prev: s.prev,
		Expected: s.expected, RoomMbps: s.spec.RoomMbps})
	refs := make(map[string]api.PeerRef, len(hosts)+len(seeds))
	for _, h := range hosts {
		refs[h.ID] = api.PeerRef{HostID: h.ID, Addr: h.Addr.String()}
	}
	for i, sd := range seeds { // the first is the server's own: alone trusted for pieces that others sent wrong
		refs[sd.ID] = api.PeerRef{HostID: sd.ID, Addr: sd.Addr.String(), Server: i == 0}
	}
	gone := s.current
	s.current = make(map[string]api.Assignment, len(s.prev))
	for _, p := range s.prev {
		a := api.Assignment{Parent: refs[p.Parent], Release: p.Release, UploadMbps: p.UploadMbps, Suspect: p.Cause == plan.CauseSuspect}
		for _, f := range p.Fallbacks {
			a.Fallbacks = append(a.Fallbacks, refs[f])
		}
		if p.Release {
			s.reg.Release(p.Host)
		}
		s.pass(p, gone[p.Host], a)
	}
	for id := range s.strays {
		if _, ok := s.current[id]; !ok {
			delete(s.strays, id)
		}
	}
	s.nameLeaves()
}

// pass gives a host its assignment if it differs from the old one, whose zero
// value stands for none.
func (s *swarm) pass(p plan.Assignment, old, a api.Assignment) {
	a.Rev = old.Rev
	if old.Rev != 0 && same(old, a) {
		s.current[p.Host] = old
		return
	}
	if old.Parent != a.Parent {
		delete(s.strays, p.Host)
		if old.Rev != 0 && s.replanned != nil {
			s.replanned(cmp.Or(p.Cause, "moved"))
		}
	}
	s.rev++
	a.Rev = s.rev
	s.current[p.Host] = a
	s.log.Info("assignment", "host", p.Host, "parent", p.Parent, "fallbacks", p.Fallbacks, "leaf", p.Leaf, "release", p.Release)
	for sub := range s.subs[p.Host] {
		sub.put(a)
	}
}

// nameLeaves logs once who feeds nobody, and why.
func (s *swarm) nameLeaves() {
	now := map[string]string{}
	for _, p := range s.prev {
		if p.Cause == "" {
			continue
		}
		now[p.Host] = p.Cause
		if s.causes[p.Host] != p.Cause {
			s.log.Warn("host feeds nobody", "host", p.Host, "cause", p.Cause, "why", plan.Explain(p.Cause))
		}
	}
	for id := range s.causes {
		if _, lives := s.current[id]; lives && now[id] == "" {
			s.log.Info("host may feed others again", "host", id)
		}
	}
	s.causes = now
}

// same compares two assignments of equal Rev.
func same(a, b api.Assignment) bool {
	return a.Parent == b.Parent && a.Release == b.Release && a.UploadMbps == b.UploadMbps && a.Suspect == b.Suspect && slices.Equal(a.Fallbacks, b.Fallbacks)
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
// it is one of our hosts, else the seeds and those hosts that hold most: a
// client that starts now can have everything they hold from them.
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
	hosts = slices.DeleteFunc(hosts, func(h registry.Host) bool {
		return !h.Alive || h.Released || h.Have*4 < s.spec.Pieces || s.causes[h.ID] != ""
	})
	slices.SortStableFunc(hosts, func(a, b registry.Host) int { return cmp.Compare(b.Have, a.Have) })
	for _, h := range hosts[:min(len(hosts), maxAhead)] {
		out = append(out, h.Addr)
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
