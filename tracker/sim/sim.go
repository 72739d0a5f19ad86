package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"time"

	"labswarm/swarm/sched"
	"labswarm/swarm/window"
	"labswarm/tracker"
)

// Sim is one run under way.
type Sim struct {
	queue
	Scenario *Scenario
	rng      *rand.Rand
	log      io.Writer
	hash     [20]byte
	tracker  *tracker.Tracker // nil while the server is down
	series   int              // of trackers
	seed     *host
	hosts    []*host // without the seed
	rooms    []*room
	byAddr   map[netip.AddrPort]*host
	buffers  int           // pieces a host may fetch at once
	coming   int           // hosts that the tracker has not heard of
	pending  int           // hosts that live, or are still to come, and are not done
	trusted  time.Duration // see Result
	broken   []string      // invariants that did not hold
}

// start is the virtual time at the beginning.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *Sim) time() time.Time { return start.Add(s.now) }

func (s *Sim) logf(format string, a ...any) {
	if s.log != nil {
		//nolint:errcheck // a log for people
		fmt.Fprintf(s.log, "%9.3f s  %s\n", s.now.Seconds(), fmt.Sprintf(format, a...))
	}
}

// latency is one way of a LAN, with some chance.
func (s *Sim) latency() time.Duration { return s.Scenario.Latency }

// part is a random part of d.
func (s *Sim) part(d time.Duration) time.Duration { return time.Duration(s.rng.Int64N(int64(d) + 1)) }

// Run plays a scenario to its end and returns what came out. log may be nil.
func Run(sc *Scenario, log io.Writer) (*Result, error) {
	return newSim(sc, log).run()
}

func (s *Sim) run() (*Result, error) {
	if err := s.startTracker(); err != nil {
		return nil, err
	}
	s.schedule()
	s.after(time.Second, s.look)
	limit := s.Scenario.Limit()
	for len(s.broken) == 0 && s.pending > 0 && s.step(limit) {
	}
	if s.pending > 0 && len(s.broken) == 0 {
		s.violate("not done after %.0f s: %s", limit.Seconds(), s.unfinished())
	}
	res := s.result()
	if len(s.broken) == 0 {
		s.checkCopies(res)
		s.drain()
		s.checkReleased()
	}
	res.Broken = s.broken
	return res, nil
}

func newSim(sc *Scenario, log io.Writer) *Sim {
	s := &Sim{
		Scenario: sc, rng: rand.New(rand.NewPCG(sc.Seed, 0x51b)), log: log, hash: [20]byte{1},
		byAddr: map[netip.AddrPort]*host{}, buffers: max(window.Size(sc.Cell), 8) / 2, coming: len(sc.Hosts), pending: len(sc.Hosts),
	}
	s.build()
	return s
}

// build makes the hosts and their cables.
func (s *Sim) build() {
	sc := s.Scenario
	for _, r := range sc.Rooms {
		rate := bytesPerSecond(r.UplinkMbps)
		s.rooms = append(s.rooms, &room{name: r.Name, in: link{rate: rate}, out: link{rate: rate}})
	}
	add := func(id string, spec Host, where *room, n int) *host {
		rate := bytesPerSecond(spec.Mbps)
		h := &host{
			s: s, id: id, spec: spec, room: where, up: link{rate: rate}, down: link{rate: rate},
			addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 7441),
			have: window.NewSet(sc.Cells), wrong: map[*sched.Fetch]bool{}, met: map[string]time.Duration{}, waitSince: -1,
		}
		h.child = sched.NewChild(h, h.have, sc.Cell)
		if spec.Told {
			h.child.SetLink(spec.says())
		}
		s.byAddr[h.addr] = h
		return h
	}
	s.seed = add("server", Host{Mbps: sc.SeedMbps, DiskMBps: 1000}, nil, 1)
	s.seed.have.Fill()
	s.seed.joined = true
	for i, spec := range sc.Hosts {
		s.hosts = append(s.hosts, add(fmt.Sprintf("h%04d", i), spec, s.rooms[spec.Room], i+16))
	}
}

// schedule books everything that the scenario says.
func (s *Sim) schedule() {
	for _, h := range s.hosts {
		s.at(h.spec.Join, func() {
			h.join()
		})
		for _, f := range h.spec.Faults {
			s.at(f.At, func() { s.fault(h, f) })
		}
	}
	for _, o := range s.Scenario.Outages {
		s.at(o.At, func() { s.serverDown(o) })
	}
	for _, c := range s.Scenario.Cuts {
		s.at(c.At, func() { s.cut(s.rooms[c.Room], c.For) })
	}
}

func (s *Sim) fault(h *host, f Fault) {
	if h.dead || !h.joined {
		return
	}
	s.logf("%s: %v for %v", h.id, f.Kind, f.For)
	switch f.Kind {
	case Killed:
		h.die(false)
	case PowerCut:
		h.die(true)
	case Stall:
		h.freeze(f.For)
	}
}

// serverDown stops the tracker, with o.Process also the seed; both come back.
func (s *Sim) serverDown(o Outage) {
	s.logf("the server is away for %v", o.For)
	old := s.tracker
	s.tracker = nil
	if o.Process {
		s.seed.die(false)
	}
	s.after(o.For, func() {
		s.logf("the server is back")
		if !o.Process {
			s.tracker = old
			s.series++
			s.trackerTick(s.series)
			for _, h := range s.hosts {
				if h.joined && !h.dead && h.steering == nil { // it came in between
					s.subscribe(h)
				}
			}
			s.steer()
			return
		}
		s.seed.dead, s.seed.conns = false, nil
		if err := s.startTracker(); err != nil {
			s.violate("%v", err)
		}
	})
}

// cut separates a room from all others for a while.
func (s *Sim) cut(r *room, d time.Duration) {
	s.logf("room %s is cut off for %v", r.name, d)
	r.cut = true
	s.after(userTimeout, func() {
		if d < userTimeout {
			return
		}
		for _, h := range s.hosts {
			for _, c := range append([]*conn(nil), h.conns...) {
				if len(c.held) > 0 && split(c.child.room, c.parent.room) { // unacknowledged for too long
					c.end()
					c.child.do(func() { c.shut(errTimeout) })
				}
			}
		}
	})
	s.after(d, func() {
		s.logf("room %s is back", r.name)
		r.cut, r.healed = false, s.now
		for _, h := range s.hosts {
			for _, c := range h.conns {
				c.release()
			}
			for _, c := range h.accepted {
				c.release()
			}
		}
		for _, c := range s.seed.accepted {
			c.release()
		}
		s.steer()
	})
}
