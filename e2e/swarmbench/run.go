package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// run is one contender's run in a room.
type run struct {
	room    *room
	env     env
	scheme  scheme
	sc      scenario
	seed    []*proc
	hosts   map[int]*proc
	gone    int // the host that was killed or cut off, 0 = none
	start   time.Time
	stopped bool
}

// gateTime is how long the programs may take to load, all of them together.
func (r *run) gateTime() time.Duration { return time.Minute + time.Duration(r.sc.n)*time.Second }

// until waits for a word of p, said by the process from.
func (r *run) until(ctx context.Context, what string, p, from *proc, word string) error {
	for end := time.Now().Add(r.gateTime()); ; {
		if _, ok := from.said(word); ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.Done():
			return fmt.Errorf("%s ended: %w: %s", what, p.Err(), p.tail())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is not ready after %v: %s", what, r.gateTime(), p.tail())
		}
	}
}

// startSeed starts the seed's processes and waits until hosts may come.
func (r *run) startSeed(ctx context.Context) error {
	children, err := r.scheme.seed(r.env)
	if err != nil {
		return err
	}
	for k, c := range children {
		p, err := r.launch(0, c)
		if err != nil {
			return err
		}
		r.seed = append(r.seed, p)
		what := fmt.Sprintf("seed process %d", k)
		if err := r.until(ctx, what, p, p, lineGate); err != nil {
			return err
		}
		if err := p.let(); err != nil {
			return err
		}
		from := p
		if c.ready == linePeer { // the tracker says that the seed has announced itself
			from = r.seed[0]
		}
		if c.ready == "" {
			continue
		}
		if err := r.until(ctx, what, p, from, c.ready); err != nil {
			return err
		}
	}
	return pause(ctx, 300*time.Millisecond)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// loadHosts starts the programs of all hosts, so that loading them, which real
// PCs do on processors of their own, is over when the clock starts.
func (r *run) loadHosts(ctx context.Context) error {
	for i := 1; i <= r.env.n; i++ {
		if err := r.loadHost(i); err != nil {
			return err
		}
	}
	for i := 1; i <= r.env.n; i++ {
		if err := r.until(ctx, fmt.Sprintf("host %d", i), r.hosts[i], r.hosts[i], lineGate); err != nil {
			return err
		}
	}
	return nil
}

// loadHost starts the program of host i.
func (r *run) loadHost(i int) error {
	c, err := r.scheme.host(r.env, i)
	if err != nil {
		return err
	}
	r.hosts[i], err = r.launch(i, c)
	return err
}

// finished returns when host i was done, ok = false while it is not.
func (r *run) finished(i int) (t time.Time, ok bool, err error) {
	p := r.hosts[i]
	if t, ok := p.said(lineDone); ok {
		return t, true, nil
	}
	select {
	case <-p.Done():
		if p.Err() != nil || !r.scheme.exitDone {
			return t, false, fmt.Errorf("host %d ended before it was done: %w: %s", i, p.Err(), p.tail())
		}
		p.mu.Lock()
		p.words[lineDone] = time.Now()
		p.mu.Unlock()
	default:
	}
	return t, false, nil
}

// timeout is generous: a contender that is so slow has failed.
func (r *run) timeout() time.Duration {
	paces := time.Duration(8)
	if r.scheme.star {
		paces += 2 * time.Duration(r.env.n)
	}
	return time.Minute + paces*r.sc.ideal()
}

// await runs the disturbances and waits until every host that can is done.
func (r *run) await(ctx context.Context) error {
	timeout := r.start.Add(r.timeout())
	acts := r.disturbances()
	done := map[int]bool{}
	watched := time.Now()
	for {
		for len(acts) > 0 && time.Since(r.start) >= acts[0].at {
			if err := acts[0].do(ctx); err != nil {
				return err
			}
			acts = acts[1:]
		}
		left, err := r.unfinished(done)
		if err != nil || left == 0 {
			return err
		}
		if time.Now().After(timeout) {
			return fmt.Errorf("gave up: %d of %d hosts not done after %.0f s", left, r.env.n, time.Since(r.start).Seconds())
		}
		if time.Since(watched) > 300*time.Millisecond {
			r.watchAll()
			watched = time.Now()
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// unfinished counts the hosts that the measurement waits for; done remembers the
// others. A slow host is not waited for.
func (r *run) unfinished(done map[int]bool) (left int, err error) {
	for i := 1; i <= r.env.n; i++ {
		if done[i] || i == r.gone || r.sc.isBad(i) {
			continue
		}
		if _, done[i], err = r.finished(i); err != nil {
			return 0, err
		}
		if !done[i] && i != r.sc.slowHost() {
			left++
		}
	}
	return left, nil
}

// hurry gives a slow host its link's whole rate, when everything is measured, and
// waits for it: its content is compared as well.
func (r *run) hurry(ctx context.Context) error {
	i := r.sc.slowHost()
	if i == 0 {
		return nil
	}
	if err := r.room.unshape(ctx, i); err != nil {
		return err
	}
	return r.until(ctx, "the slow host, given a fast link", r.hosts[i], r.hosts[i], lineDone)
}

func (r *run) watchAll() {
	for _, p := range r.all() {
		p.watch()
	}
}

func (r *run) all() []*proc {
	all := append([]*proc(nil), r.seed...)
	for _, p := range r.hosts {
		all = append(all, p)
	}
	return all
}

// stop ends all children, once. With profiles wanted they are asked first.
func (r *run) stop() error {
	if r.stopped {
		return nil
	}
	r.stopped = true
	all := r.all()
	errs := make([]error, 2*len(all))
	if r.env.pprof != "" {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for k, p := range all {
			wg.Go(func() { errs[len(all)+k] = p.Stop(ctx) })
		}
		wg.Wait()
	}
	for _, p := range all {
		errs = append(errs, p.Signal(syscall.SIGKILL))
	}
	for k, p := range all {
		errs[k] = p.end()
	}
	return errors.Join(errs...)
}
