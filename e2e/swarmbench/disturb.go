package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// act is something that happens at a time after the start.
type act struct {
	at time.Duration
	do func(context.Context) error
}

// disturbances are the acts of the scenario, in order of time.
func (r *run) disturbances() []act {
	ideal := r.sc.ideal()
	if r.env.zip { // half time of what travels
		ideal = time.Duration(float64(ideal) * r.env.payload.frames)
	}
	switch r.sc.disturbance {
	case disturbLate:
		return []act{{ideal * 3 / 10, func(context.Context) error {
			for i := 1; i <= r.env.n; i++ {
				if r.sc.isLate(i) {
					if err := r.hosts[i].let(); err != nil {
						return err
					}
				}
			}
			return nil
		}}}
	case disturbKill, disturbCut:
		return []act{{ideal / 2, func(ctx context.Context) error {
			r.gone = r.victim()
			if r.sc.disturbance == disturbCut {
				return r.room.cut(ctx, r.gone)
			}
			r.hosts[r.gone].watch()
			return r.hosts[r.gone].Signal(syscall.SIGKILL)
		}}}
	case disturbPartition:
		at := ideal / 3
		return []act{{at, func(ctx context.Context) error { return r.room.connect(ctx, false) }},
			{at + partitionTime, func(ctx context.Context) error { return r.room.connect(ctx, true) }}}
	}
	return nil
}

// victim is the host in the middle that somebody fetches from, as far as the
// contender's hosts tell whom they fetch from.
func (r *run) victim() int {
	middle := (r.env.n + 1) / 2
	feeds := map[int]bool{}
	for i, p := range r.hosts {
		p.mu.Lock()
		parent, ok := strings.CutPrefix(p.parent, "h")
		p.mu.Unlock()
		if k, err := strconv.Atoi(parent); ok && err == nil && k != i && !r.sc.isLate(k) {
			feeds[k] = true
		}
	}
	best := middle
	for d := range r.env.n {
		for _, k := range []int{middle - d, middle + d} {
			if feeds[k] {
				return k
			}
		}
	}
	return best
}

// startBad lets the hosts with wrong bytes begin and waits until the tracker
// knows them: they must be somebody's source.
func (r *run) startBad(ctx context.Context) error {
	for i := 1; i <= r.sc.bad; i++ {
		if err := r.hosts[i].let(); err != nil {
			return err
		}
		if err := r.until(ctx, fmt.Sprintf("bad host %d", i), r.hosts[i], r.hosts[i], lineParent); err != nil {
			return err
		}
	}
	return nil
}

// revoked is how long after the first word against it a bad host still fed
// anybody: from the first accusation by anyone to the last byte taken by anyone,
// the longest of the bad hosts that were found out. Negative: nobody was.
func (r *run) revoked() time.Duration {
	longest := -time.Second
	for k := 1; k <= r.sc.bad; k++ {
		name := hostID(k)
		var first, last time.Time
		for i, p := range r.hosts {
			if r.sc.isBad(i) {
				continue
			}
			p.mu.Lock()
			if t, ok := p.accused[name]; ok && (first.IsZero() || t.Before(first)) {
				first = t
			}
			if t := p.last[name]; t.After(last) {
				last = t
			}
			p.mu.Unlock()
		}
		if !first.IsZero() {
			longest = max(longest, last.Sub(first))
		}
	}
	return longest
}

// clock is /proc/stat's first line, in ticks of 10 ms (USER_HZ, fixed on Linux).
type clock struct{ idle, total int64 }

func readClock() (clock, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return clock{}, fmt.Errorf("read processor times: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return parseClock(line)
}

// parseClock reads "cpu user nice system idle iowait irq softirq steal ..." (proc(5)).
func parseClock(line string) (clock, error) {
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return clock{}, fmt.Errorf("read processor times: unexpected line %q", line)
	}
	var c clock
	for k, v := range f[1:9] {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return c, fmt.Errorf("read processor times: %w", err)
		}
		c.total += n
		if k == 3 || k == 4 {
			c.idle += n
		}
	}
	return c, nil
}

// idleSince is the idle share between two readings, 1 when no time has passed.
func (c clock) idleSince(before clock) float64 {
	if c.total <= before.total {
		return 1
	}
	return float64(c.idle-before.idle) / float64(c.total-before.total)
}

// busySince is the processor time spent between two readings, by anybody.
func (c clock) busySince(before clock) time.Duration {
	return time.Duration((c.total-before.total)-(c.idle-before.idle)) * 10 * time.Millisecond
}
