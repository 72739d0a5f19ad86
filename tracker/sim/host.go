package sim

import (
	"net/netip"
	"slices"
	"time"

	"labswarm/api"
	"labswarm/swarm/sched"
	"labswarm/swarm/window"
)

const hashRate = 1.2e9 // bytes of SHA-1 per second and core, with SHA-NI (swarm.md)

// host is one member of the swarm: the seed, too.
type host struct {
	s    *Sim
	id   string
	addr netip.AddrPort
	room *room // nil for the server
	spec Host

	have     *window.Set
	child    *sched.Child
	early    sched.Early // pieces on their way that children know of
	up, down link
	conns    []*conn // to sources
	accepted []*conn // from children
	children int

	joined  bool
	known   bool // the tracker has heard of it
	dead    bool // its agent has ended
	off     bool // and its machine answers nothing
	diedAt  time.Duration
	left    bool // it went because it was released
	doneAt  time.Duration
	frozen  time.Duration // until when it stands still
	waiting []func()      // for the end of that
	kicked  bool
	ticking bool

	buffers  int           // pieces in memory that are not written
	toWrite  int           // of these, received whole
	hashBusy time.Duration // until when the hasher has work
	diskBusy time.Duration
	wrong    map[*sched.Fetch]bool
	bad      int // wrong pieces written: must stay 0
	refused  int // wrong pieces found out
	wasted   int64
	fromSeed int64
	switches []string

	steering   <-chan api.Assignment
	cancel     func()
	reporting  uint64 // number of the present series of reports
	assignment api.Assignment
	accused    []string
	met        map[string]time.Duration // sources of wrong pieces that it may still fetch from: when the first came

	progress  time.Duration // last block
	wroteAt   time.Duration // last piece
	pace      time.Duration // smoothed time between two pieces
	waitSince time.Duration // since when it waits without need, -1 = it does not
	waitFor   *host         // who could help
	sentAt    int64         // up.sent at the last look
	idle      bool          // it sent little since then
}

// do runs fn at h unless h is dead: now, or when it has thawed.
func (h *host) do(fn func()) {
	switch {
	case h.dead:
	case h.frozen > h.s.now:
		h.waiting = append(h.waiting, fn)
	default:
		fn()
	}
}

// freeze makes h stand still.
func (h *host) freeze(d time.Duration) {
	h.frozen = h.s.now + d
	h.s.at(h.frozen, func() {
		waiting := h.waiting
		h.waiting = nil
		for _, fn := range waiting {
			h.do(fn)
		}
	})
}

// Dial implements sched.Hands.
func (h *host) Dial(src *sched.Source) bool {
	h.s.dial(h, src)
	return true
}

// Reserve implements sched.Hands: half of the buffers are for fetching.
func (h *host) Reserve(f *sched.Fetch) bool {
	if h.buffers >= h.s.buffers {
		return false
	}
	h.buffers++
	if h.early.Tell(h.child, f.Piece, h.s.time()) {
		h.tell(func(l *sched.Link) { l.Soon(f.Piece) })
	}
	return true
}

// Release implements sched.Hands.
func (h *host) Release(f *sched.Fetch) {
	h.buffers--
	delete(h.wrong, f)
	h.early.Forget(f.Piece)
}

// join starts the host's agent.
func (h *host) join() {
	h.joined = true
	h.s.logf("%s joins", h.id)
	h.progress, h.wroteAt = h.s.now, h.s.now
	h.s.subscribe(h)
	h.report()
	h.ticking = true
	h.s.after(h.s.part(sched.Tick), h.tick)
}

// tick is the housekeeping of swarm/peer.
func (h *host) tick() {
	if h.dead {
		return
	}
	h.do(func() {
		for _, c := range h.conns {
			c.receiving()
			if c.link.Open() > 0 {
				c.link.Timed(2 * h.s.latency())
			}
		}
		for _, c := range h.accepted {
			c.pump() // what waits too long for a piece is refused
			if now := h.s.time(); len(c.queue) > 0 {
				c.down(func() { c.link.Waits(now) })
			}
		}
		h.turn(true)
	})
	if h.have.Full() && len(h.conns) == 0 {
		h.ticking = false
		return
	}
	h.s.after(sched.Tick, h.tick)
}

// kick asks for a turn now.
func (h *host) kick() {
	if h.kicked {
		return
	}
	h.kicked = true
	h.s.after(0, func() {
		h.do(func() {
			h.kicked = false
			h.turn(false)
		})
	})
}

func (h *host) turn(measure bool) {
	for _, sw := range h.child.Turn(h.s.time(), measure) {
		h.s.logf("%s switches from %s to %s: %s", h.id, sw.From.Name(), sw.To.Name(), sw.Why)
		if !sw.Back {
			h.switches = append(h.switches, sw.From.Name()+">"+sw.To.Name()+": "+sw.Why)
		}
		h.report()
	}
}

// complete hashes a piece and writes it, after those before it.
func (h *host) complete(f *sched.Fetch) {
	h.toWrite++
	cell := float64(h.s.Scenario.Cell)
	h.hashBusy = max(h.hashBusy, h.s.now) + seconds(cell/hashRate)
	if h.wrong[f] {
		h.s.at(h.hashBusy, func() { h.do(func() { h.reject(f) }) })
		return
	}
	h.diskBusy = max(h.diskBusy, h.hashBusy) + seconds(cell/(float64(h.spec.DiskMBps)*1e6))
	h.s.at(h.diskBusy, func() { h.do(func() { h.written(f) }) })
}

// reject drops a piece with a wrong hash (swarm/peer, wrong).
func (h *host) reject(f *sched.Fetch) {
	h.toWrite--
	h.refused++
	h.child.Wrong(f, h.s.time())
	if !slices.Contains(h.accused, f.From.ID) {
		h.accused = append(h.accused, f.From.ID)
	}
	if _, ok := h.met[f.From.ID]; !ok && uses(h.assignment, f.From.ID) { // else it was on its way when the word came
		h.met[f.From.ID] = h.s.now
	}
	h.kick()
	h.report() // at once (initramfs-agent/deploy, OnAccuse)
}

// written books a piece and tells everybody (swarm/peer, written).
func (h *host) written(f *sched.Fetch) {
	h.toWrite--
	h.buffers--
	if h.wrong[f] {
		h.bad++
	}
	delete(h.wrong, f)
	h.pace = (3*h.pace + h.s.now - h.wroteAt) / 4
	h.wroteAt = h.s.now
	h.early.Forget(f.Piece)
	h.child.Written(f, h.s.time())
	h.tell(func(l *sched.Link) { l.Has(f.Piece) })
	for _, c := range h.accepted {
		c.pump()
	}
	if h.have.Full() {
		h.doneAt = h.s.now
		h.s.pending--
		h.s.logf("%s is done", h.id)
		h.kick()
		h.report()
	}
}

// tell says something to every child.
func (h *host) tell(word func(*sched.Link)) {
	for _, c := range h.accepted {
		c.down(func() {
			word(c.link)
			c.child.child.Fill(c.link, h.s.time())
		})
	}
}

// holding says what can be done about a request for a piece.
func (h *host) holding(piece int) sched.Holding {
	return h.early.Holding(piece, h.have.Has(piece), h.s.time())
}

// die ends a host. off: the machine as well, so that nobody is told.
func (h *host) die(off bool) {
	if h.dead {
		return
	}
	h.dead, h.off, h.diedAt = true, off, h.s.now
	if !h.have.Full() && h != h.s.seed {
		h.s.pending--
		h.s.came(h) // nobody waits for it any more
	}
	if h.cancel != nil {
		h.cancel()
		h.steering = nil
	}
	for _, c := range slices.Clone(h.accepted) {
		c.end()
		if !off {
			c.down(func() { c.shut(errReset) })
			continue
		}
		wait := keepAlive
		if c.flying > 0 {
			wait = userTimeout
		}
		c.s.after(wait, func() { c.child.do(func() { c.shut(errTimeout) }) })
	}
	for _, c := range slices.Clone(h.conns) {
		c.closed = true
		if !off {
			c.pass(c.s.latency(), c.end)
			continue
		}
		c.s.after(userTimeout, c.end)
	}
	h.conns = nil
}

// sources translates an assignment (initramfs-agent/deploy, sources).
func sources(a api.Assignment) []sched.Peer {
	var out []sched.Peer
	for _, r := range append([]api.PeerRef{a.Parent}, a.Fallbacks...) {
		addr, err := netip.ParseAddrPort(r.Addr)
		if err != nil || slices.ContainsFunc(out, func(p sched.Peer) bool { return p.Addr == addr }) {
			continue
		}
		out = append(out, sched.Peer{Addr: addr, ID: r.HostID, Server: r.Server})
	}
	return out
}
