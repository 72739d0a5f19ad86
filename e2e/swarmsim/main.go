// Command swarmsim plays the swarm under a virtual clock (package tracker/sim):
// random disturbed swarms, of which every one must keep the invariants, and the
// table of makespan against the number of hosts. make sim calls it.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"labswarm/tracker/sim"
)

type options struct {
	seeds, from, hosts int
	one                int64
	name               string
	table              string
	cells, workers     int
	out                string
}

func main() {
	var o options
	flag.IntVar(&o.seeds, "seeds", 1000, "random swarms to play")
	flag.IntVar(&o.from, "from", 0, "first of their seed numbers")
	flag.IntVar(&o.hosts, "hosts", 60, "most hosts of a random swarm")
	flag.Int64Var(&o.one, "seed", -1, "play this one seed number with a log, and nothing else")
	flag.StringVar(&o.name, "scenario", "random", "of --seed: random, or quiet, disturbed, rooms, slow, slow-known, slow-head or partition with --hosts hosts and --cells pieces")
	flag.StringVar(&o.table, "n", "1,2,4,8,16,32,64,128,300,500,1000,2000", "numbers of hosts for the table")
	flag.IntVar(&o.cells, "cells", 10_000, "pieces of the image in the table")
	flag.IntVar(&o.workers, "workers", 2, "swarms played side by side")
	flag.StringVar(&o.out, "out", "build/sim", "folder for sim.json and sim.svg")
	flag.Parse()
	debug.SetGCPercent(400) // many small events, little that stays
	if err := run(o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "swarmsim:", err)
		os.Exit(1)
	}
}

func run(o options, w io.Writer) error {
	if o.one >= 0 {
		return replay(o, w)
	}
	failed, err := random(o, w)
	if err != nil {
		return err
	}
	t, err := table(o, w)
	if err != nil {
		return err
	}
	t.Seeds, t.Failed = o.seeds, failed
	t.print(w)
	if err := t.save(o.out); err != nil {
		return err
	}
	sayf(w, "\nwritten: %s/sim.json, %s/sim.svg\n", o.out, o.out)
	if n := len(failed) + t.broken(); n > 0 {
		return fmt.Errorf("%d swarms broke an invariant", n)
	}
	return nil
}

// replay plays one swarm and shows what happens in it.
func replay(o options, w io.Writer) error {
	sc := sim.Random(uint64(o.one), o.hosts)
	switch o.name {
	case "random":
	case "quiet":
		sc = sim.Quiet(o.hosts, o.cells)
	case "disturbed":
		sc = sim.Disturbed(o.hosts, o.cells, uint64(o.one), false)
	case "rooms":
		sc = sim.Disturbed(o.hosts, o.cells, uint64(o.one), true)
	default:
		if sc = sim.Bench(o.name, o.hosts, o.cells); sc == nil {
			return fmt.Errorf("no scenario %q: see --help", o.name)
		}
	}
	sayf(w, "%v\n", sc)
	for i, h := range sc.Hosts {
		sayf(w, "  h%04d %+v\n", i, h)
	}
	r, err := sim.Run(sc, w)
	if err != nil {
		return err
	}
	sayf(w, "%+v\n", *r)
	if len(r.Broken) > 0 {
		return fmt.Errorf("seed %d broke an invariant: %s", o.one, r.Broken[0])
	}
	return nil
}

// numbers parses "1,2,4".
func numbers(list string) ([]int, error) {
	var out []int
	for f := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(f))
		if err != nil || n < 1 || n > 4000 {
			return nil, fmt.Errorf("number of hosts %q: want 1 to 4000", f)
		}
		out = append(out, n)
	}
	return out, nil
}

// sayf prints for people; a closed terminal is no reason to stop.
func sayf(w io.Writer, format string, a ...any) { _, _ = fmt.Fprintf(w, format, a...) }
