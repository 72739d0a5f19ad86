package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"labswarm/swarm/peercert"
	"labswarm/swarm/sched"
	"labswarm/swarm/window"
	"labswarm/swarm/wire"
)

// Node is one member of one swarm. Its methods are safe for concurrent use.
//
// Locking: mu guards everything below it and is never held across I/O or a
// callback. The pool has its own lock, taken under mu but never the other way.
type Node struct {
	cfg   Config
	log   *slog.Logger
	block int // bytes per request among our own kind
	pool  *pool

	wake     chan struct{} // asks the loop for a turn now
	hashq    chan *fetch   // complete, to be hashed; as long as fetching has buffers
	writeq   chan *fetch   // the same pieces in the order of arrival, to be written once hashed
	uploads  chan struct{} // one token per buffer an upload holds
	prefetch chan upload   // requests of a child to read ahead for; full = not read ahead
	frames   *frameCache   // has its own lock; nil before Run
	vouched  *vouched      // has its own lock
	checkers []*checker    // of the pieces in hashq

	doubts int // times Config.Doubt was asked; of writeLoop

	limiter atomic.Pointer[rate.Limiter] // nil: no cap

	mu        sync.Mutex
	started   bool
	ctx       context.Context //nolint:containedctx // of Run: it bounds what connections do, and they come and go
	stop      context.CancelCauseFunc
	wg        sync.WaitGroup // connections and dials; grows only while ctx lives
	have      *window.Set
	noServe   map[int]bool // pieces the storage could not give back
	done      chan struct{}
	child     *sched.Child   // decides what to fetch from whom; shares have
	fetches   map[int]*fetch // being received, hashed or written
	early     sched.Early    // those of them that children know of
	conns     map[*conn]struct{}
	children  int
	same      map[peercert.ID]int // children by certificate
	loading   map[int]chan struct{}
	fatal     error
	queued    int // pieces in hashq, writeq or between
	framesGot int // pieces that came as frames
	rxServer  int64
	rxBy      map[string]int64
	tx        int64 // plain bytes sent
	txWire    int64
	hashFails int
	readFails int
}

// New checks cfg and asks the storage, piece by piece, what is already there.
func New(cfg Config) (*Node, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, log: cfg.Log, block: wire.BlockSize(cfg.PieceLen),
		wake: make(chan struct{}, 1), hashq: make(chan *fetch, cfg.PoolBuffers), writeq: make(chan *fetch, cfg.PoolBuffers),
		uploads: make(chan struct{}, cfg.PoolBuffers-cfg.PoolBuffers/2), prefetch: make(chan upload, 4),
		have: window.NewSet(cfg.Pieces), noServe: map[int]bool{}, done: make(chan struct{}),
		fetches: map[int]*fetch{}, conns: map[*conn]struct{}{}, same: map[peercert.ID]int{}, vouched: newVouched(),
		loading: map[int]chan struct{}{}, rxBy: map[string]int64{},
	}
	n.limiter.Store(cfg.Limiter)
	n.child = sched.NewChild(n, n.have, cfg.PieceLen)
	if cfg.Seed {
		n.have.Fill()
	} else {
		for i := range cfg.Pieces {
			if cfg.Storage.Have(i) {
				n.have.Add(i)
			}
		}
	}
	if n.have.Full() {
		close(n.done)
	}
	return n, nil
}

// Run fetches, writes and serves until ctx ends, then closes everything it
// opened and returns nil. It returns earlier only with a *StorageError or a
// *CorruptError (or what Config.Doubt made of it), or when the listener breaks. A Node runs once.
func (n *Node) Run(ctx context.Context) error {
	if err := n.begin(ctx); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(n.ctx)
	g.Go(func() error { return n.loop(gctx) })
	for _, k := range n.checkers {
		g.Go(func() error { return k.run(gctx) })
	}
	g.Go(func() error { return n.writeLoop(gctx) })
	g.Go(func() error { return n.prefetchLoop(gctx) })
	if n.cfg.Listener != nil {
		m := NewMux(n.cfg.Listener, n.log)
		if err := m.Add(n); err != nil {
			n.fail(err)
		}
		g.Go(func() error { return m.Run(gctx) })
	}
	g.Go(func() error { // any end closes the connections
		<-gctx.Done()
		n.closeConns()
		return nil
	})
	err := g.Wait()
	n.closeConns()
	n.wg.Wait()
	n.closeCheckers()
	if cerr := errors.Join(n.pool.close(), n.frames.close()); err == nil {
		err = cerr
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fatal != nil {
		return n.fatal
	}
	return err
}

// begin claims the one run and makes what lives as long as it.
func (n *Node) begin(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.started {
		return errors.New("run swarm node: it has run already")
	}
	p, err := newPool(n.cfg.PoolBuffers, n.cfg.PieceLen, n.cfg.CacheBytes)
	if err != nil {
		return err
	}
	frames, err := newFrameCache(n.cfg.FrameCacheBytes)
	if err != nil {
		return errors.Join(err, p.close())
	}
	if err := n.newCheckers(); err != nil {
		return errors.Join(err, p.close(), frames.close())
	}
	n.frames = frames
	n.pool, n.started = p, true
	n.ctx, n.stop = context.WithCancelCause(ctx)
	return nil
}

// fail ends the node with err.
func (n *Node) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fatal == nil {
		n.fatal = err
		n.log.Error("swarm node stops", "err", err)
	}
	n.stop(err)
}

// closeConns makes every connection end; nothing new starts once ctx is over.
func (n *Node) closeConns() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stop(nil)
	for c := range n.conns {
		c.close(errRetired)
	}
}

// goLocked starts f as part of Run, unless that is ending. mu is held.
func (n *Node) goLocked(f func()) bool {
	if n.ctx == nil || n.ctx.Err() != nil {
		return false
	}
	n.wg.Go(f)
	return true
}

// kick asks the loop for a turn.
func (n *Node) kick() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// SetSources replaces the sources. The node goes to the new parent at once,
// unless it has just left that one by itself; pieces half received from the
// old one are finished first. Sources that stay keep their connection. May be
// called before Run and after a Node is done.
func (n *Node) SetSources(a Assignment) {
	var list []sched.Peer
	for _, p := range a.list() {
		list = append(list, sched.Peer(p))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.child.SetSources(list, time.Now()) {
		n.kick()
	}
}

// SetLink tells the speed of this computer's network interface, Mb/s; 0 =
// unknown. A node that receives at that speed blames no source for being slow.
func (n *Node) SetLink(mbps int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.child.SetLink(mbps)
}

// Stats returns a snapshot of the figures.
func (n *Node) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.child.Figures()
	s := Stats{
		Pieces: n.cfg.Pieces, Have: n.have.Count(), Front: n.have.Front(),
		BytesFromServer: n.rxServer, BytesFromPeers: f.Rx - n.rxServer, BytesUploaded: n.tx,
		WireReceived: f.RxWire, WireUploaded: n.txWire, FramesReceived: n.framesGot,
		BySource: map[string]int64{}, RateBps: f.RateBps, Parent: n.child.Parent(), Rejected: n.child.Rejected(),
		HashFailures: n.hashFails, ReadFailures: n.readFails, Switches: f.Switches, SwitchReason: f.SwitchWhy,
		Queue: n.queued, InFlight: f.InFlight - n.queued, Children: n.children,
	}
	for k, v := range n.rxBy {
		s.BySource[k] = v
	}
	return s
}

// Done returns a channel that is closed when all pieces are written. After a
// Drop there is a new one: ask again.
func (n *Node) Done() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.done
}

// WriteErr returns the *StorageError that ended the node, nil if none did.
func (n *Node) WriteErr() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var se *StorageError
	if errors.As(n.fatal, &se) {
		return se
	}
	return nil
}

// Drop says that the storage found a piece wrong after it was written: it is
// fetched again, and no longer served meanwhile. Nothing happens when the
// piece is not held, and for a seed, which has nobody to fetch it from: there
// the piece is only not served any more.
func (n *Node) Drop(piece int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if piece < 0 || piece >= n.cfg.Pieces {
		return
	}
	if n.pool != nil {
		n.pool.drop(piece)
	}
	if n.frames != nil {
		n.frames.drop(piece)
	}
	if n.cfg.Seed {
		n.noServe[piece] = true
		return
	}
	full := n.have.Full()
	if n.have.Remove(piece) && full {
		n.done = make(chan struct{})
	}
	n.kick()
}

// Restore says that a piece which could not be read, or was dropped by a seed, is
// right in the storage again: it is served again, and whoever is connected is told
// so. A piece that is not held stays as it is.
func (n *Node) Restore(piece int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.noServe[piece] || !n.have.Has(piece) {
		return
	}
	delete(n.noServe, piece)
	for c := range n.conns {
		wire.PutHave(&c.ctrl, piece) // who was refused it asks again
		c.push()
	}
}

// NewLimiter returns a cap in bytes per second, above 0, that lets a tenth of a
// second through at once, and one block at least.
func NewLimiter(bps int64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(bps), max(wire.MaxBlock, int(min(bps/10, 64<<20))))
}

// SetUploadLimit caps what this node sends to all its children together, in bytes
// per second, in place of Config.Limiter; 0 = no cap. It holds from the next
// block on.
func (n *Node) SetUploadLimit(bps int64) {
	old := n.limiter.Load()
	switch {
	case bps <= 0 && old != nil:
		n.limiter.Store(nil)
	case bps > 0 && (old == nil || old.Limit() != rate.Limit(bps)):
		n.limiter.Store(NewLimiter(bps))
	}
}

// InfoHash is the swarm this node belongs to.
func (n *Node) InfoHash() [20]byte { return n.cfg.InfoHash }

// accept takes over an incoming connection whose handshake said hs, or refuses
// it with the reason; then the caller closes it.
func (n *Node) accept(nc net.Conn, hs wire.Handshake) error {
	addr := remoteAddr(nc)
	if !n.allows(nc) {
		return fmt.Errorf("peer %v is not allowed in this swarm", addr)
	}
	if hs.PeerID == n.cfg.PeerID {
		return errors.New("connection to myself")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.children >= n.cfg.MaxPeers {
		return fmt.Errorf("%d peers connected already", n.children)
	}
	if err := n.book(owner(nc)); err != nil {
		return err
	}
	ok := n.goLocked(func() {
		err := n.greet(nc)
		if err == nil {
			err = n.runConn(nc, hs, nil, addr.String())
		}
		n.log.Debug("peer gone", "peer", addr.String(), "err", err)
		if cerr := nc.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
			n.log.Debug("close connection", "peer", addr.String(), "err", cerr)
		}
		n.mu.Lock()
		n.children--
		n.unbook(owner(nc))
		n.mu.Unlock()
	})
	if !ok {
		n.unbook(owner(nc))
		return errors.New("the swarm is not running")
	}
	n.children++
	return nil
}

// greet sends our handshake.
func (n *Node) greet(nc net.Conn) error {
	if err := nc.SetWriteDeadline(time.Now().Add(handshakeTime)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	if _, err := nc.Write(wire.NewHandshake(n.cfg.InfoHash, n.cfg.PeerID).Append(nil)); err != nil {
		return fmt.Errorf("send handshake: %w", err)
	}
	return nil
}
