package deploy

import (
	"context"
	"net"
	"net/netip"
	"sync"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/initramfs-agent/bootenv"
	"labswarm/initramfs-agent/contact"
	"labswarm/initramfs-agent/finalise"
	"labswarm/initramfs-agent/readback"
	"labswarm/initramfs-agent/report"
	"labswarm/initramfs-agent/screen"
	"labswarm/initramfs-agent/supervise"
	"labswarm/initramfs-agent/writer"
	"labswarm/internal/version"
	"labswarm/swarm/peer"
	"labswarm/swarm/peercert"
)

// session is the state of one boot session, shared by its goroutines. mu is
// never held across I/O.
type session struct {
	cfg    Config
	c      *contact.Client
	ln     net.Listener
	wg     sync.WaitGroup
	cancel context.CancelCauseFunc
	kick   chan struct{} // report now

	powerOff bool           // set before the writing starts, read after run has ended
	pass     *peercert.Pass // set before the swarm node is made

	testing sync.Mutex // held during a test of the memory
	cleared bool       // the memory passed, or it is too late to ask; under testing

	mu        sync.Mutex
	handed    bool // the listener belongs to the swarm node
	state     api.State
	why       string // what is waited for
	done      int64  // bytes of the phase
	total     int64
	commence  bool
	proof     readback.Proof
	final     finalise.Outcome
	proven    bool
	orderID   string
	fence     uint64
	disk      api.Disk
	plan      *writer.Plan
	pieces    int
	node      *peer.Node
	written   func() int // cells written in this boot
	pool      int        // piece buffers of node
	link      int        // speed of the interface booted from, Mb/s; 0 = unknown
	accused   []api.Accu
	assigned  api.Assignment
	rev       uint64
	planned   bool          // rev is the number of the last assignment of this server
	released  chan struct{} // closed by the first assignment with Release
	isRelease bool
	job       uint64
	suspect   bool          // the planner's word: test the memory
	doubted   chan struct{} // suspect has become true
	tested    string        // for reports: how the test went
	frames    string        // what the server says about compressed cells: on, off, or "" = decide by link and disk
}

func newSession(cfg Config, c *contact.Client, ln net.Listener) *session {
	return &session{cfg: cfg, c: c, ln: ln, kick: make(chan struct{}, 1), released: make(chan struct{}), doubted: make(chan struct{}, 1)}
}

// goSafe runs f beside the session; a panic in it ends the session.
func (s *session) goSafe(f func() error) {
	s.wg.Go(func() {
		if err := supervise.Protect(f); err != nil {
			s.cancel(err)
		}
	})
}

func (s *session) listenerDone() {
	s.mu.Lock()
	handed := s.handed
	s.mu.Unlock()
	if !handed {
		if err := s.ln.Close(); err != nil {
			s.cfg.Log.Debug("close listener", "err", err)
		}
	}
}

// port is where other hosts reach this one.
func (s *session) port() int {
	a, err := netip.ParseAddrPort(s.ln.Addr().String())
	if err != nil {
		return api.PeerPort
	}
	return int(a.Port())
}

func (s *session) enrolled(rep api.EnrolReply) {
	s.mu.Lock()
	s.job, s.frames = rep.Job, rep.Frames
	s.mu.Unlock()
	s.cfg.Log.Info("enrolled", "host", rep.Host, "room", rep.Room, "job", rep.Job, "image", rep.Image, "status", rep.Status)
	s.cfg.Screen.Update(func(v *screen.View) {
		v.Host, v.Room, v.Image, v.Job = rep.Host, rep.Room, rep.Image, rep.Job
		v.Seat, v.Language = rep.Seat, rep.Language
		v.Server, v.Version = s.cfg.Server.Addr().String(), version.String()
	})
	s.detail("waiting for the order")
}

// setState enters a phase and reports it at once.
func (s *session) setState(st api.State, why string) {
	s.mu.Lock()
	s.state, s.why, s.done, s.total = st, why, 0, 0
	committed, verified := s.commence, s.proven
	s.mu.Unlock()
	s.cfg.Log.Info("state", "state", string(st), "why", why)
	s.cfg.Screen.Update(func(v *screen.View) {
		v.State, v.Detail, v.Done, v.Total, v.RateBps = st, why, 0, 0, 0
		v.Committed, v.Verified = committed, verified
	})
	s.report()
}

// report asks the progress loop to speak now.
func (s *session) report() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// detail says what is waited for.
func (s *session) detail(why string) {
	s.mu.Lock()
	s.why = why
	s.mu.Unlock()
	s.cfg.Screen.Update(func(v *screen.View) { v.Detail = why })
}

// waits says to the server what is waited for; the screen counts for itself.
func (s *session) waits(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = why
}

// phase is the measure of the present phase, in bytes.
func (s *session) phase(done, total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done, s.total = max(done, s.done), total
}

// problem turns the screen into the failure page.
func (s *session) problem(code, text string) {
	s.cfg.Screen.Update(func(v *screen.View) {
		v.Code, v.Problem = report.ReadOut(code, s.c.BootID), text
		v.Committed, v.Verified = s.committed(), s.verified()
	})
}

func (s *session) committed() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.commence }
func (s *session) verified() bool  { s.mu.Lock(); defer s.mu.Unlock(); return s.proven }

// facts are what an order is compared with.
func (s *session) facts(id order.DiskID) order.Facts {
	return s.factsOf(s.cfg.Source.Collect(nil, nil), id)
}

func (s *session) factsOf(e api.Evidence, id order.DiskID) order.Facts {
	f := order.Facts{Keys: s.cfg.Pins.ServerKeys, BootID: s.c.BootID, Nonce: s.c.Nonce, UUID: e.UUID,
		UUIDSwap: swap(e.UUID), Serial: e.Serial, Disk: id, ReceivedAt: bootenv.Uptime()}
	for _, n := range e.NICs {
		f.MACs = append(f.MACs, n.MAC)
	}
	return f
}

// base is what every result carries.
func (s *session) base() api.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := api.Result{BootID: s.c.BootID, OrderID: s.orderID, Fence: s.fence, Disk: s.disk, AgentRSSBytes: bootenv.RSSBytes(),
		Warnings: s.final.Warnings, HostKeys: s.final.HostKeys}
	if s.plan != nil && s.commence {
		r.CellsKept, r.CellsZeroed = s.plan.Counts.CellsKeep, s.plan.Counts.CellsZero
	}
	if s.written != nil {
		r.CellsWritten = s.written()
	}
	if s.node != nil {
		st := s.node.Stats()
		r.BytesFromSeed, r.BytesFromPeers, r.BytesUploaded, r.HashFailures = st.BytesFromServer, st.BytesFromPeers, st.BytesUploaded, st.HashFailures
	}
	return r
}
