// Package feed keeps the console's picture of the server up to date: it reads
// the full state, follows the event stream, and hands out a new snapshot at
// most four times a second.
//
// It draws nothing and holds no business rule. tui/app runs it.
package feed

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/snapshot"
)

// Source is the part of api/client.Client that the feed needs. Events reads
// one connection, returns when it breaks, and calls its functions on the
// caller's goroutine.
type Source interface {
	Server(ctx context.Context) (api.ServerInfo, error)
	Rooms(ctx context.Context) ([]api.Room, error)
	Hosts(ctx context.Context) ([]api.Host, error)
	Jobs(ctx context.Context) ([]api.Job, error)
	Events(ctx context.Context, since uint64, onLog func(api.Event), onTick func(api.Tick)) error
}

// The pace of the feed.
const (
	publishEvery = 250 * time.Millisecond // at most four pictures a second
	fetchEvery   = time.Second            // between two readings of the full state
	fetchLimit   = 10 * time.Second       // for one reading
	pauseMin     = 500 * time.Millisecond // before the first reconnection
	pauseMax     = 10 * time.Second
	jobsKept     = 200 // as many as the server lists
)

// errRefresh ends a connection because a person asked for a fresh one.
var errRefresh = errors.New("refresh asked for")

// Feed is made by New and used from any goroutine.
type Feed struct {
	src     Source
	send    func(*snapshot.Snapshot)
	dirty   chan struct{} // there is something to publish; capacity 1, more are dropped
	refresh chan struct{} // a person wants it now; capacity 1, more are dropped

	mu    sync.Mutex
	facts snapshot.Facts
	past  history
	built *snapshot.Snapshot // of facts; nil: to be built
	link  snapshot.Link
	cause string
	heard time.Time
	full  bool

	// Used by the reading goroutine only.
	since   uint64    // last log event seen; client.Recent: none yet
	stale   bool      // hosts, rooms or jobs changed since they were read
	fetched time.Time // when they were read
}

// New returns a feed. send is called from one goroutine of Run, and may block.
func New(src Source, send func(*snapshot.Snapshot)) *Feed {
	// The log can hold a million old events; the full state needs none of them.
	return &Feed{src: src, send: send, since: client.Recent, dirty: make(chan struct{}, 1), refresh: make(chan struct{}, 1)}
}

// Refresh asks for the full state now; while the server is away it also ends
// the pause before the next try.
func (f *Feed) Refresh() {
	select {
	case f.refresh <- struct{}{}:
	default:
	}
}

// Run reads until ctx ends; its two goroutines end with it. It returns nil.
func (f *Feed) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { f.read(ctx); return nil })
	g.Go(func() error { f.publish(ctx); return nil })
	return g.Wait()
}

// read connects again and again. The pause doubles while the server stays
// away, and is short again after a connection that brought something.
func (f *Feed) read(ctx context.Context) {
	pause := pauseMin
	for ctx.Err() == nil {
		before := f.lastHeard()
		err := f.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errRefresh) {
			continue
		}
		if f.lastHeard() != before {
			pause = pauseMin
		}
		f.lost(err)
		select {
		case <-ctx.Done():
			return
		case <-f.refresh:
		case <-time.After(pause):
		}
		pause = min(2*pause, pauseMax)
	}
}

// session reads the full state and follows the stream until it breaks.
func (f *Feed) session(ctx context.Context) error {
	if err := f.fetch(ctx); err != nil {
		return err
	}
	// What changed between this reading and the beginning of the stream would
	// be missed: the first tick reads once more.
	f.stale, f.fetched = true, time.Time{}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-f.refresh:
			cancel(errRefresh)
		}
	})
	var failed error
	err := f.src.Events(ctx, f.since, func(e api.Event) {
		if f.since == client.Recent || e.Seq > f.since {
			f.since = e.Seq
		}
		f.stale = true
		f.change(func() { f.past.add(e) })
	}, func(t api.Tick) {
		f.tick(t)
		if f.stale && time.Since(f.fetched) >= fetchEvery {
			if failed = f.fetch(ctx); failed != nil {
				cancel(failed)
			}
		}
	})
	if cause := context.Cause(ctx); errors.Is(cause, errRefresh) {
		return errRefresh
	}
	if failed != nil {
		return failed
	}
	return err
}

// fetch reads the full state.
func (f *Feed) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	var n snapshot.Facts
	var err error
	if n.Server, err = f.src.Server(ctx); err != nil {
		return fmt.Errorf("read server: %w", err)
	}
	if n.Rooms, err = f.src.Rooms(ctx); err != nil {
		return fmt.Errorf("read rooms: %w", err)
	}
	if n.Hosts, err = f.src.Hosts(ctx); err != nil {
		return fmt.Errorf("read hosts: %w", err)
	}
	if n.Jobs, err = f.src.Jobs(ctx); err != nil {
		return fmt.Errorf("read jobs: %w", err)
	}
	n.Jobs = n.Jobs[:min(len(n.Jobs), jobsKept)]
	f.stale, f.fetched = false, time.Now()
	f.change(func() {
		if !f.full || !reflect.DeepEqual(f.facts, n) {
			f.facts, f.built = n, nil
		}
		f.full = true
	})
	return nil
}

// tick folds the jobs of a tick into the list: known ones are replaced, new
// ones are newer than all others.
func (f *Feed) tick(t api.Tick) {
	f.change(func() {
		f.past.sample(t.Jobs, time.Now())
		jobs := make([]api.Job, 0, len(f.facts.Jobs)+1)
		at := make(map[uint64]int, len(t.Jobs))
		for i := range t.Jobs {
			at[t.Jobs[i].ID] = i
		}
		changed := false
		for i := range f.facts.Jobs {
			j := f.facts.Jobs[i]
			if k, ok := at[j.ID]; ok {
				changed = changed || !reflect.DeepEqual(j, t.Jobs[k])
				j = t.Jobs[k]
				delete(at, j.ID)
			}
			jobs = append(jobs, j)
		}
		for i := len(t.Jobs) - 1; i >= 0; i-- {
			if _, unseen := at[t.Jobs[i].ID]; unseen {
				jobs = append([]api.Job{t.Jobs[i]}, jobs...)
				changed = true
			}
		}
		if changed {
			f.facts.Jobs, f.built = jobs[:min(len(jobs), jobsKept)], nil
		}
	})
}

// change notes that the server said something.
func (f *Feed) change(fold func()) {
	f.mu.Lock()
	fold()
	f.link, f.cause, f.heard = snapshot.Live, "", time.Now()
	f.mu.Unlock()
	f.wake()
}

func (f *Feed) lost(err error) {
	f.mu.Lock()
	f.link, f.cause = snapshot.Lost, snapshot.Clean(fmt.Sprint(err))
	f.mu.Unlock()
	f.wake()
}

func (f *Feed) lastHeard() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heard
}

func (f *Feed) wake() {
	select {
	case f.dirty <- struct{}{}:
	default: // a picture is due already and will hold this too
	}
}

// publish sends pictures, with a pause after each.
func (f *Feed) publish(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.dirty:
		}
		f.send(f.picture())
		select {
		case <-ctx.Done():
			return
		case <-time.After(publishEvery):
		}
	}
}

// picture copies the joined facts: only what changed is joined again. Two
// pictures of the same facts share their Rooms.
func (f *Feed) picture() *snapshot.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.built == nil {
		f.built = snapshot.Build(f.facts)
	}
	s := *f.built
	s.Log, s.Rates = f.past.log, f.past.rates
	s.Link, s.Cause, s.Heard, s.Full = f.link, f.cause, f.heard, f.full
	return &s
}
