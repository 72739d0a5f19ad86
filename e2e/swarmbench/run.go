package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"labswarm/internal/testnet"
)

// run is one contender's run in a room.
type run struct {
	room    *room
	env     env
	scheme  scheme
	opts    options
	seed    []*proc
	hosts   map[int]*proc
	gone    int // the host that was killed or cut off, 0 = none
	start   time.Time
	stopped bool
}

// proc is a running child and what it has said.
type proc struct {
	*testnet.Process
	cmd     *exec.Cmd
	log     *os.File
	started time.Time

	mu     sync.Mutex
	part   []byte
	words  map[string]time.Time // first time a line began with this word
	note   doneNote
	parent string
	rss    int64 // bytes, peak
}

// Write takes in the child's output; called by os/exec.
func (p *proc) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.part = append(p.part, b...)
	for {
		line, rest, ok := bytes.Cut(p.part, []byte("\n"))
		if !ok {
			if len(p.part) > 1<<16 {
				p.part = nil // a progress bar, no line of ours
			}
			return len(b), nil
		}
		p.part = rest
		word, arg, _ := strings.Cut(string(line), " ")
		if _, known := p.words[word]; !known {
			p.words[word] = time.Now()
		}
		switch word {
		case lineDone:
			_ = json.Unmarshal([]byte(arg), &p.note) // some say nothing more
		case lineParent:
			p.parent = strings.Trim(arg, `"`)
		}
	}
}

func (p *proc) said(word string) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, ok := p.words[word]
	return t, ok
}

// watch notes the peak memory; after the child's end it changes nothing.
func (p *proc) watch() {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid))
	if err != nil {
		return
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	f := strings.Fields(rest)
	if len(f) == 0 {
		return
	}
	if kib, err := strconv.ParseInt(f[0], 10, 64); err == nil {
		p.mu.Lock()
		p.rss = max(p.rss, kib<<10)
		p.mu.Unlock()
	}
}

// launch starts a child in host i's namespace.
func (r *run) launch(i int, c child) (*proc, error) {
	log, err := os.CreateTemp(r.env.dir, fmt.Sprintf("log-%s-%d-", r.scheme.name, i))
	if err != nil {
		return nil, err
	}
	p := &proc{cmd: r.room.command(i, c.name, c.args...), log: log, words: map[string]time.Time{}, started: time.Now()}
	p.cmd.Stdout, p.cmd.Stderr = p, log
	if p.Process, err = testnet.Start(p.cmd); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return p, nil
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
		word, from := c.ready, p
		if word == "PEER" { // the tracker says that the seed has announced itself
			from = r.seed[0]
		}
		for end := time.Now().Add(time.Minute); ; {
			if _, ok := from.said(word); ok || word == "" {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-p.Done():
				return fmt.Errorf("seed process %d ended: %w: %s", k, p.Err(), p.tail())
			case <-time.After(10 * time.Millisecond):
			}
			if time.Now().After(end) {
				return fmt.Errorf("seed process %d is not ready after a minute: %s", k, p.tail())
			}
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

// tail is the end of what the child wrote to its standard error.
func (p *proc) tail() string {
	b, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-600):]))
}

// startHost starts host i.
func (r *run) startHost(i int) error {
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
	if p == nil {
		return t, false, nil
	}
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

// await runs the disturbances and waits until every host that can is done.
func (r *run) await(ctx context.Context) error {
	ideal := r.opts.ideal()
	timeout := r.start.Add(time.Minute + time.Duration(r.env.n+4)*ideal)
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
		for i := 1; i <= r.env.n; i++ {
			if done[i] || i == r.gone {
				continue
			}
			_, ok, err := r.finished(i)
			if err != nil {
				return err
			}
			done[i] = ok
		}
		left := 0
		for i := 1; i <= r.env.n; i++ {
			if !done[i] && i != r.gone {
				left++
			}
		}
		if left == 0 {
			r.watchAll()
			return nil
		}
		if time.Now().After(timeout) {
			return fmt.Errorf("%d of %d hosts not done after %.0f s", left, r.env.n, time.Since(r.start).Seconds())
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

func (r *run) watchAll() {
	for _, p := range r.seed {
		p.watch()
	}
	for _, p := range r.hosts {
		p.watch()
	}
}

// stop ends all children, once. With profiles wanted they are asked first.
func (r *run) stop() error {
	if r.stopped {
		return nil
	}
	r.stopped = true
	var errs []error
	all := append([]*proc(nil), r.seed...)
	for _, p := range r.hosts {
		all = append(all, p)
	}
	if r.env.pprof != "" {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		for _, p := range all {
			errs = append(errs, p.Signal(syscall.SIGTERM))
		}
		for _, p := range all {
			errs = append(errs, p.Stop(ctx))
		}
	}
	for _, p := range all {
		errs = append(errs, p.Signal(syscall.SIGKILL))
	}
	for _, p := range all {
		errs = append(errs, p.Kill(), p.log.Close())
	}
	return errors.Join(errs...)
}

// measure runs one contender and fills its row.
func (r *run) measure(ctx context.Context) (out row, err error) {
	out = row{Scheme: r.scheme.name, N: r.env.n, Mbit: r.opts.mbit, Bytes: r.env.payload.bytes, Cells: r.env.payload.cells, Disturbance: r.opts.disturbance()}
	r.hosts = map[int]*proc{}
	for i := 1; i <= r.env.n; i++ {
		if err := os.MkdirAll(r.env.outDir(i), 0o700); err != nil {
			return out, err
		}
	}
	defer func() { err = errors.Join(err, os.RemoveAll(filepath.Join(r.env.dir, "out"))) }()
	s, err := r.transfer(ctx)
	if err != nil {
		return out, err
	}
	for i := 1; i <= r.env.n; i++ {
		if i == r.gone {
			continue
		}
		name := filepath.Join(r.env.outDir(i), payloadName)
		if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) {
			name += ".part" // the stock client renames late
		}
		if err := sameFile(r.env.payload.file(), name); err != nil {
			return out, fmt.Errorf("host %d: %w", i, err)
		}
	}
	out.fill(s)
	return out, nil
}

// transfer is the measured part.
func (r *run) transfer(ctx context.Context) (s sample, err error) {
	defer func() { err = errors.Join(err, r.stop()) }()
	if err := r.startSeed(ctx); err != nil {
		return s, err
	}
	sent, err := r.room.sent(ctx, 0)
	if err != nil {
		return s, err
	}
	before, err := readClock()
	if err != nil {
		return s, err
	}
	r.start = time.Now()
	for i := 1; i <= r.env.n; i++ {
		if !r.opts.isLate(i, r.env.n) {
			if err := r.startHost(i); err != nil {
				return s, err
			}
		}
	}
	if err := r.await(ctx); err != nil {
		return s, err
	}
	after, err := readClock()
	if err != nil {
		return s, err
	}
	s.idle = after.idleSince(before)
	if s.sent, err = r.room.sent(ctx, 0); err != nil {
		return s, err
	}
	s.sent -= sent
	if err := r.stop(); err != nil {
		return s, err
	}
	r.collect(&s)
	return s, nil
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
		s.rss = max(s.rss, p.rss)
		t, ok := p.said(lineDone)
		switch {
		case !ok || i == r.gone:
			continue
		case r.opts.isLate(i, r.env.n):
			s.late = append(s.late, t.Sub(p.started))
		case i == r.opts.slowHost():
			s.slow = append(s.slow, t.Sub(r.start))
		default:
			s.took = append(s.took, t.Sub(r.start))
		}
		s.received += p.note.Received
		s.switches += p.note.Switches
		known = known && p.note.Received > 0
	}
	if !known {
		s.received = 0
	}
}

// used is the processor time of a child that has ended.
func (p *proc) used() time.Duration {
	st := p.cmd.ProcessState
	if st == nil {
		return 0
	}
	return st.UserTime() + st.SystemTime()
}
