// Command swarmbench measures who brings an image to N hosts fastest: labswarm's
// data plane and planner beside other people's programs, in one run, on one
// machine, in network namespaces with shaped links (swarm.md section 7).
//
//	swarmbench [flags] PRESET...   what --list names
//	swarmbench --n 4 --mib 64 ...  one scenario of one's own
//
// It is no part of the product and writes nowhere but to /dev/shm and its report.
// It needs root. Called by `make bench-swarm` and `make bench-engine`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// helperWord as first argument makes this program a child of itself.
const helperWord = "swarmbench-helper"

var bg = context.Background()

// options are what the command line says.
type options struct {
	scenarios []scenario
	list      bool
	pprof     string
	logs      string
	out       string
	tmp       string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := start(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "swarmbench:", err)
		os.Exit(1)
	}
}

// start is main or, for a helper, a child's main.
func start(ctx context.Context, args []string, w io.Writer) error {
	if len(args) == 2 && args[0] == helperWord {
		return helper(ctx, args[1])
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.list {
		return printList(w)
	}
	return bench(ctx, o, w)
}

// printList prints presets and contenders.
func printList(w io.Writer) error {
	var b strings.Builder
	b.WriteString("presets:\n")
	for _, p := range presets() {
		fmt.Fprintf(&b, "  %-10s %s\n", p.name, p.about)
	}
	b.WriteString("contenders:\n")
	for _, s := range schemes() {
		fmt.Fprintf(&b, "  %-17s %s\n", s.name, s.about)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func parse(args []string) (options, error) {
	var o options
	var ns, names string
	sc := scenario{rooms: 1}
	f := flag.NewFlagSet("swarmbench", flag.ContinueOnError)
	f.BoolVar(&o.list, "list", false, "print presets and contenders")
	f.StringVar(&names, "schemes", "", "only these contenders, comma-separated")
	f.StringVar(&o.pprof, "pprof", "", "directory for CPU profiles of our seed and hosts")
	f.StringVar(&o.logs, "logs", "", "directory for what our seed and hosts log")
	f.StringVar(&o.out, "out", "build/bench/swarm.json", "report")
	f.StringVar(&o.tmp, "tmp", "/dev/shm", "tmpfs for payload and outputs")
	f.StringVar(&ns, "n", "4", "own scenario: numbers of hosts")
	f.Float64Var(&sc.mbit, "mbit", 100, "own scenario: rate of every link in Mbit/s, 0 = unshaped")
	f.IntVar(&sc.mib, "mib", 64, "own scenario: payload in MiB")
	f.IntVar(&sc.cellKiB, "cell-kib", 256, "own scenario: cell (piece) in KiB")
	f.StringVar(&sc.data, "data", dataRandom, "own scenario: random, or usr for an ext4 image of /usr")
	f.IntVar(&sc.rooms, "rooms", 1, "own scenario: 1, or 2 with an uplink of link rate")
	f.StringVar(&sc.disturbance, "disturb", "", "own scenario: kill, cut, late, slow, slow-head, slow-known or partition")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	own := false
	f.Visit(func(f *flag.Flag) { own = own || strings.HasPrefix(f.Usage, "own scenario") })
	var err error
	switch {
	case own && f.NArg() > 0:
		return o, errors.New("name presets, or describe a scenario of your own with flags, not both")
	case f.NArg() > 0:
		o.scenarios, err = choose(f.Args())
	default:
		o.scenarios, err = ownScenarios(sc, ns)
	}
	if err == nil && names != "" {
		o.scenarios, err = only(o.scenarios, strings.Split(names, ","), own || f.NArg() == 0)
	}
	for _, sc := range o.scenarios {
		err = errors.Join(err, sc.check())
	}
	return o, err
}

// ownScenarios are what the flags describe, one for each number of hosts, with
// everybody who can run it.
func ownScenarios(sc scenario, ns string) (out []scenario, err error) {
	if !slices.Contains([]string{dataRandom, dataUsr}, sc.data) || sc.rooms < 1 || sc.rooms > 2 {
		return nil, fmt.Errorf("--data %s --rooms %d: want random or usr, and 1 or 2", sc.data, sc.rooms)
	}
	if !slices.Contains([]string{"", disturbKill, disturbCut, disturbLate, disturbSlow, disturbSlowHead, disturbSlowKnown, disturbPartition}, sc.disturbance) {
		return nil, fmt.Errorf("--disturb %q is not known", sc.disturbance)
	}
	if sc.disturbance == disturbPartition {
		sc.rooms = 2
	}
	for _, s := range schemes() {
		sc.schemes = append(sc.schemes, s.name)
	}
	for s := range strings.SplitSeq(ns, ",") {
		if sc.n, err = strconv.Atoi(s); err != nil {
			return nil, fmt.Errorf("--n %q: want numbers", ns)
		}
		sc.name = strings.TrimSpace(fmt.Sprintf("n%d %s", sc.n, sc.disturbance))
		out = append(out, sc)
	}
	return out, nil
}

// only keeps the named contenders; those a preset does not have are added to a
// scenario of one's own only.
func only(list []scenario, names []string, add bool) (out []scenario, err error) {
	for _, s := range names {
		if !slices.ContainsFunc(schemes(), func(x scheme) bool { return x.name == s }) {
			return nil, fmt.Errorf("--schemes: %q is not known", s)
		}
	}
	for _, sc := range list {
		var keep []string
		for _, s := range names {
			if add || slices.Contains(sc.schemes, s) {
				keep = append(keep, s)
			}
		}
		if sc.schemes = keep; len(keep) > 0 {
			out = append(out, sc)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("none of %s is in the chosen presets", strings.Join(names, ", "))
	}
	return out, nil
}
