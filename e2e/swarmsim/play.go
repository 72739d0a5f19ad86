package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"labswarm/tracker/sim"
)

// failure is a random swarm that broke an invariant.
type failure struct {
	Seed   uint64   `json:"seed"`
	What   string   `json:"swarm"`
	Broken []string `json:"broken"`
}

// spread calls do(i) for i from 0 to n-1, some at a time, and stops at the first
// error.
func spread(n, workers int, do func(i int) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	next := 0
	for range max(workers, 1) {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				stop := i >= n || first != nil
				mu.Unlock()
				if stop {
					return
				}
				if err := do(i); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return first
}

// random plays the seeds and reports progress every tenth of them.
func random(o options, w io.Writer) ([]failure, error) {
	var mu sync.Mutex
	var failed []failure
	done, begin := 0, time.Now()
	kinds := map[bool]int{}
	took := map[bool]*figures{true: {}, false: {}}
	err := spread(o.seeds, o.workers, func(i int) error {
		sc := sim.Random(uint64(o.from+i), o.hosts)
		r, err := sim.Run(sc, nil)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		kinds[sc.Quiet()]++
		took[sc.Quiet()].add(sc.Seed, r.Early)
		if len(r.Broken) > 0 {
			failed = append(failed, failure{sc.Seed, sc.String(), r.Broken})
			sayf(w, "FAILED %v\n       %s\n       replay: make sim SIM=\"--seed %d --hosts %d\"\n", sc, r.Broken[0], sc.Seed, o.hosts)
		}
		done++
		if step := max(o.seeds/10, 1); done%step == 0 {
			spent := time.Since(begin)
			left := spent / time.Duration(done) * time.Duration(o.seeds-done)
			sayf(w, "%4d of %d random swarms, %d quiet, %d failed; %.0f s, about %.0f s to go\n",
				done, o.seeds, kinds[true], len(failed), spent.Seconds(), left.Seconds())
		}
		return nil
	})
	sayf(w, "time of hosts of usual speed, over S / payload rate: quiet %v; disturbed %v\n", took[true], took[false])
	return failed, err
}

// figures are ratios of random swarms.
type figures struct {
	n          int
	sum, worst float64
	seed       uint64 // of the worst
}

func (f *figures) add(seed uint64, ratio float64) {
	f.n++
	f.sum += ratio
	if ratio > f.worst {
		f.worst, f.seed = ratio, seed
	}
}

func (f *figures) String() string {
	return fmt.Sprintf("%.4f in the mean, at worst %.3f (seed %d)", f.sum/float64(max(f.n, 1)), f.worst, f.seed)
}

// table plays the rows, the longest first.
func table(o options, w io.Writer) (*report, error) {
	ns, err := numbers(o.table)
	if err != nil {
		return nil, err
	}
	t := &report{Cells: o.cells, Rows: make([]row, 0, 2*len(ns)), Overhead: sim.Overhead}
	var todo []*sim.Scenario
	for i := range ns {
		n := ns[len(ns)-1-i]
		todo = append(todo, sim.Quiet(n, o.cells))
	}
	for _, n := range ns {
		if n >= 20 && n <= 300 {
			todo = append(todo, sim.Disturbed(n, o.cells, uint64(n), false), sim.Disturbed(n, o.cells, uint64(n), true))
		}
	}
	var mu sync.Mutex
	begin := time.Now()
	var all, sofar float64
	for _, sc := range todo {
		all += float64(len(sc.Hosts))
	}
	err = spread(len(todo), o.workers, func(i int) error {
		sc := todo[i]
		r, err := sim.Run(sc, nil)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		t.Rows = append(t.Rows, newRow(sc, r))
		sofar += float64(len(sc.Hosts))
		spent := time.Since(begin)
		sayf(w, "N=%d, %s: ratio %.3f; %.0f s, about %.0f s to go\n", len(sc.Hosts), sc.Name, r.Early,
			spent.Seconds(), spent.Seconds()*(all-sofar)/sofar)
		return nil
	})
	t.sort()
	return t, err
}
