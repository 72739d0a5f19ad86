package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// measure runs one contender and fills its row.
func (r *run) measure(ctx context.Context, out *row) (err error) {
	r.hosts = map[int]*proc{}
	defer func() { err = errors.Join(err, os.RemoveAll(filepath.Join(r.env.dir, "out"))) }()
	for i := 1; i <= r.env.n; i++ {
		if err := os.MkdirAll(r.env.outDir(i), 0o700); err != nil {
			return err
		}
	}
	s, err := r.transfer(ctx)
	if err != nil {
		return err
	}
	for i := 1; i <= r.env.n; i++ {
		if i == r.gone || r.sc.isBad(i) {
			continue
		}
		name := filepath.Join(r.env.outDir(i), payloadName)
		if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) {
			name += ".part" // the stock client renames late
		}
		if err := sameFile(r.env.payload.file(), name); err != nil {
			return fmt.Errorf("host %d: %w", i, err)
		}
	}
	out.fill(s)
	out.judge(r.sc, r.scheme, r.env.payload.frames, s)
	return nil
}

// transfer is the measured part.
func (r *run) transfer(ctx context.Context) (s sample, err error) {
	defer func() { err = errors.Join(err, r.stop()) }()
	if err := r.startSeed(ctx); err != nil {
		return s, err
	}
	if err := r.loadHosts(ctx); err != nil {
		return s, err
	}
	if err := r.startBad(ctx); err != nil {
		return s, err
	}
	before, err := r.counters(ctx)
	if err != nil {
		return s, err
	}
	r.start = time.Now()
	if err := r.letHosts(ctx); err != nil {
		return s, err
	}
	if err := r.await(ctx); err != nil {
		return s, err
	}
	r.watchAll()
	after, err := r.counters(ctx)
	if err != nil {
		return s, err
	}
	s.idle = after.clock.idleSince(before.clock)
	s.sent = after.sent - before.sent
	for k := range s.crossed {
		s.crossed[k] = after.crossed[k] - before.crossed[k]
	}
	r.slowShare(&s)
	if err := r.hurry(ctx); err != nil {
		return s, err
	}
	if err := r.stop(); err != nil {
		return s, err
	}
	r.collect(&s)
	s.others = after.clock.busySince(before.clock) - s.cpu - (after.self - before.self)
	s.wall = after.clock.total - before.clock.total
	return s, nil
}

// letHosts lets everybody begin who is not late. A slow host gets its place in
// the order of joining: chance would decide what the row shows.
func (r *run) letHosts(ctx context.Context) error {
	const apart = 100 * time.Millisecond
	for i := 1; i <= r.env.n; i++ {
		if r.sc.isLate(i) || r.sc.isBad(i) {
			continue
		}
		if err := r.hosts[i].let(); err != nil {
			return err
		}
		if i <= r.sc.slowHost() {
			if err := pause(ctx, apart); err != nil {
				return err
			}
		}
	}
	return nil
}

// counters are read before and after the transfer.
type counters struct {
	clock   clock
	sent    int64
	crossed [2]int64
	self    time.Duration // processor time of the bench itself
}

func (r *run) counters(ctx context.Context) (c counters, err error) {
	if c.sent, err = r.room.sent(ctx, 0); err != nil {
		return c, err
	}
	if c.crossed, err = r.room.crossed(ctx); err != nil {
		return c, err
	}
	if c.self, err = cpuClock(os.Getpid()); err != nil {
		return c, err
	}
	c.clock, err = readClock()
	return c, err
}

// slowShare notes how far the slow host is, as it said last.
func (r *run) slowShare(s *sample) {
	if p := r.hosts[r.sc.slowHost()]; p != nil {
		p.mu.Lock()
		s.slowHave = float64(p.have) / float64(r.env.payload.cells)
		p.mu.Unlock()
	}
}

// collect reads the children's figures after their end.
func (r *run) collect(s *sample) {
	known := true
	for _, p := range r.seed {
		s.cpu += p.used()
		s.seedRSS = max(s.seedRSS, p.rss)
	}
	for i, p := range r.hosts {
		s.cpu += p.used()
		if !r.sc.isBad(i) {
			s.rss = max(s.rss, p.rss)
		}
		t, ok := p.said(lineDone)
		switch {
		case !ok || i == r.gone || r.sc.isBad(i):
			continue
		case r.sc.isLate(i):
			s.late = append(s.late, t.Sub(p.started))
		case i == r.sc.slowHost():
			s.slow = 1
		default:
			s.took = append(s.took, t.Sub(r.start))
		}
		s.received += p.note.Received
		s.switches += p.note.Switches
		s.failures += p.note.Failures
		known = known && p.note.Received > 0
	}
	if !known {
		s.received = 0
	}
	s.revoked = r.revoked()
}
