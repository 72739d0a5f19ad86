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

// disturbances are the acts of the options, in order of time.
func (r *run) disturbances() []act {
	ideal := r.opts.ideal()
	var acts []act
	if r.opts.late {
		acts = append(acts, act{ideal * 3 / 10, func(context.Context) error {
			for i := 1; i <= r.env.n; i++ {
				if r.opts.isLate(i, r.env.n) {
					if err := r.startHost(i); err != nil {
						return err
					}
				}
			}
			return nil
		}})
	}
	if r.opts.kill || r.opts.cut {
		acts = append(acts, act{ideal / 2, func(ctx context.Context) error {
			r.gone = r.victim()
			if r.opts.cut {
				return r.room.cut(ctx, r.gone)
			}
			return r.hosts[r.gone].Signal(syscall.SIGKILL)
		}})
	}
	return acts
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
		if k, err := strconv.Atoi(parent); ok && err == nil && k != i && !r.opts.isLate(k, r.env.n) {
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

// clock is /proc/stat's first line.
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
