// Command swarmbench measures who brings an image to N hosts fastest: labswarm's
// data plane and planner beside other people's programs, in one run, on one
// machine, in network namespaces with shaped links (swarm.md section 7).
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
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"labswarm/internal/testnet"
)

// helperWord as first argument makes this program a child of itself.
const helperWord = "swarmbench-helper"

var bg = context.Background()

// options are the flags.
type options struct {
	n       []int
	mbit    float64
	mib     int
	cellKiB int
	schemes []string // empty: all
	kill    bool
	cut     bool
	late    bool
	slow    bool
	pprof   string
	out     string
	tmp     string
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
	return bench(ctx, o, w)
}

func parse(args []string) (options, error) {
	var o options
	var ns, names string
	f := flag.NewFlagSet("swarmbench", flag.ContinueOnError)
	f.StringVar(&ns, "n", "4,16", "numbers of hosts, one table row each and scheme")
	f.Float64Var(&o.mbit, "mbit", 100, "rate of every link in Mbit/s, 0 = unshaped")
	f.IntVar(&o.mib, "mib", 64, "payload in MiB")
	f.IntVar(&o.cellKiB, "cell-kib", 256, "cell (piece) in KiB")
	f.StringVar(&names, "schemes", "", "contenders, comma-separated; empty = all")
	f.BoolVar(&o.kill, "kill", false, "SIGKILL one host in the middle at half time")
	f.BoolVar(&o.cut, "cut", false, "cut one host's link at half time")
	f.BoolVar(&o.late, "late", false, "a quarter of the hosts joins after 30 % of the ideal time")
	f.BoolVar(&o.slow, "slow", false, "the middle host's link has a tenth of the rate")
	f.StringVar(&o.pprof, "pprof", "", "directory for CPU profiles of our seed and hosts")
	f.StringVar(&o.out, "out", "build/bench/swarm.json", "report")
	f.StringVar(&o.tmp, "tmp", "/dev/shm", "tmpfs for payload and outputs")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("argument %q is not known", f.Arg(0))
	}
	for s := range strings.SplitSeq(ns, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 2000 {
			return o, fmt.Errorf("--n %q: want numbers from 1 to 2000", ns)
		}
		o.n = append(o.n, n)
	}
	if names != "" {
		o.schemes = strings.Split(names, ",")
	}
	for _, s := range o.schemes {
		if !slices.ContainsFunc(schemes(), func(x scheme) bool { return x.name == s }) {
			return o, fmt.Errorf("--schemes: %q is not known", s)
		}
	}
	if o.mbit < 0 || o.mib < 1 || o.cellKiB < 16 || o.mib<<10%o.cellKiB != 0 {
		return o, errors.New("--mbit, --mib and --cell-kib must be positive, and the payload whole cells")
	}
	if (o.kill || o.cut || o.slow || o.late) && (o.mbit == 0 || o.n[0] < 2) {
		return o, errors.New("disturbances need shaped links and at least 2 hosts")
	}
	return o, nil
}

// ideal is payload over link rate; a second when unshaped.
func (o options) ideal() time.Duration {
	if o.mbit == 0 {
		return time.Second
	}
	return time.Duration(float64(o.mib<<20) * 8 / (o.mbit * 1e6) * float64(time.Second))
}

// isLate says that host i of n is among the last quarter and that quarter is late.
func (o options) isLate(i, n int) bool { return o.late && i > n-max(1, n/4) }

// lateHosts is how many of n hosts come late.
func (o options) lateHosts(n int) int {
	if !o.late {
		return 0
	}
	return max(1, n/4)
}

// slowHost is the host with the slow link, 0 = none. It is the second: in a
// chain by joining order nearly everybody is behind it.
func (o options) slowHost() int {
	if o.slow {
		return 2
	}
	return 0
}

func (o options) disturbance() string {
	var d []string
	for _, x := range []struct {
		on   bool
		name string
	}{{o.kill, "kill"}, {o.cut, "cut"}, {o.late, "late"}, {o.slow, "slow"}} {
		if x.on {
			d = append(d, x.name)
		}
	}
	return strings.Join(d, "+")
}

// bench runs everything and leaves nothing behind but the report.
func bench(ctx context.Context, o options, w io.Writer) (err error) {
	if err := needs(); err != nil {
		return err
	}
	e := env{pprof: o.pprof, late: 0}
	if e.self, err = os.Executable(); err != nil {
		return err
	}
	if e.pprof != "" {
		if err := os.MkdirAll(e.pprof, 0o755); err != nil {
			return err
		}
		if e.pprof, err = filepath.Abs(e.pprof); err != nil {
			return err
		}
	}
	if err := sweep(ctx, o.tmp); err != nil {
		return err
	}
	own, err := testnet.OwnName(workSuffix)
	if err != nil {
		return err
	}
	e.dir = filepath.Join(o.tmp, own)
	if err := os.Mkdir(e.dir, 0o700); err != nil {
		return fmt.Errorf("make work directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(e.dir)) }()
	if err := writeScripts(e.dir); err != nil {
		return err
	}
	if e.payload, err = newPayload(e.dir, int64(o.mib)<<20, int64(o.cellKiB)<<10, announceURL()); err != nil {
		return err
	}
	rep := report{Machine: machine(), Date: time.Now().Format("2006-01-02 15:04"), Command: "swarmbench " + strings.Join(os.Args[1:], " ")}
	for _, n := range o.n {
		rows, err := oneRoom(ctx, o, e, n, w)
		rep.Rows = append(rep.Rows, rows...)
		if err != nil {
			return errors.Join(err, rep.print(w))
		}
	}
	return errors.Join(rep.print(w), rep.write(o.out))
}

// workSuffix ends the name of the work directory.
const workSuffix = "bench"

// sweep removes what a bench that was killed left behind: namespaces, and work
// directories, which lie in memory.
func sweep(ctx context.Context, tmp string) error {
	if err := testnet.Sweep(ctx); err != nil {
		return err
	}
	dirs, err := filepath.Glob(filepath.Join(tmp, "labswarm-*-"+workSuffix))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if testnet.Stale(filepath.Base(d)) {
			if err := os.RemoveAll(d); err != nil {
				return err
			}
		}
	}
	return nil
}

// oneRoom runs all contenders with n hosts.
func oneRoom(ctx context.Context, o options, e env, n int, w io.Writer) (rows []row, err error) {
	e.n, e.late = n, o.lateHosts(n)
	for _, s := range schemes() {
		if len(o.schemes) > 0 && !slices.Contains(o.schemes, s.name) {
			continue
		}
		r, err := one(ctx, o, e, s)
		if ctx.Err() != nil {
			return rows, ctx.Err()
		}
		if err != nil {
			r.Note = "FAILED: " + strings.ReplaceAll(strings.ReplaceAll(err.Error(), "\n", " "), "|", "/")
		}
		rows = append(rows, r)
		if _, err := fmt.Fprintln(w, strings.Join(r.cells(), "  ")); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// one runs one contender in a fresh room.
func one(ctx context.Context, o options, e env, s scheme) (out row, err error) {
	out = row{Scheme: s.name, N: e.n, Mbit: o.mbit, Bytes: e.payload.bytes, Cells: e.payload.cells, Disturbance: o.disturbance()}
	if out.Note = s.missing(); out.Note != "" {
		return out, nil
	}
	if s.early && o.late {
		out.Note = "not run: nobody can join late"
		return out, nil
	}
	room, err := newRoom(ctx, e.n, o.mbit, o.slowHost())
	defer func() { err = errors.Join(err, room.close()) }()
	if err != nil {
		return out, err
	}
	r := &run{room: room, env: e, scheme: s, opts: o}
	return r.measure(ctx)
}

// machine is what the figures were measured on.
func machine() string {
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(b), "model name"); ok {
			line, _, _ := strings.Cut(rest, "\n")
			model = strings.TrimLeft(line, "\t :")
		}
	}
	load := "?"
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ = strings.Cut(string(b), " ")
	}
	return fmt.Sprintf("%d cores %s, load %s before the run", runtime.NumCPU(), model, load)
}
