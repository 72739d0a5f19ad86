package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"labswarm/internal/testnet"
)

// workSuffix ends the name of the work directory.
const workSuffix = "bench"

// bench runs everything and leaves nothing behind but the report, which is
// written after every row.
func bench(ctx context.Context, o options, w io.Writer) (err error) {
	if err := needs(); err != nil {
		return err
	}
	e := env{}
	if e.self, err = os.Executable(); err != nil {
		return err
	}
	if e.pprof, err = wantDir(o.pprof); err != nil {
		return err
	}
	if e.logs, err = wantDir(o.logs); err != nil {
		return err
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
	if err := prepare(ctx, &e, o.scenarios); err != nil {
		return err
	}
	rep := report{Machine: machine(), Date: time.Now().Format("2006-01-02 15:04"), Command: "swarmbench " + strings.Join(os.Args[1:], " ")}
	p := newProgress(w, o.scenarios)
	for _, sc := range o.scenarios {
		if err := oneScenario(ctx, sc, &e, &rep, p, o.out); err != nil {
			return errors.Join(err, rep.print(w))
		}
	}
	return rep.print(w)
}

// wantDir makes a directory that was asked for, and returns its absolute path.
func wantDir(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return filepath.Abs(dir)
}

// prepare writes the contenders' scripts and builds the stock client.
func prepare(ctx context.Context, e *env, list []scenario) error {
	if err := writeScripts(e.dir); err != nil {
		return err
	}
	if !slices.ContainsFunc(list, func(sc scenario) bool { return slices.Contains(sc.schemes, "anacrolix") }) {
		return nil
	}
	e.stock = filepath.Join(e.dir, "stock")
	return command(ctx, "", "go", "build", "-o", e.stock, "labswarm/e2e/swarmbench/stock")
}

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

// oneScenario runs a scenario's contenders on one payload.
func oneScenario(ctx context.Context, sc scenario, e *env, rep *report, p *progress, out string) (err error) {
	var made error
	if e.payload.cells == 0 || !samePayload(e.sc, sc) {
		p.say("making %d MiB of %s bytes in cells of %d KiB", sc.mib, sc.data, sc.cellKiB)
		e.payload, made = newPayload(ctx, e.dir, sc, announceURL())
	}
	e.sc, e.n, e.late = sc, sc.n, sc.lateHosts()
	for _, name := range sc.schemes {
		s := schemes()[slices.IndexFunc(schemes(), func(s scheme) bool { return s.name == name })]
		e.zip, e.tls = s.zip, s.tls
		p.begin(sc, s)
		r, err := newRow(sc, s, e.payload), made
		if err == nil {
			err = one(ctx, *e, s, &r)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.Note = "FAILED: " + strings.ReplaceAll(strings.ReplaceAll(err.Error(), "\n", " "), "|", "/")
			if s.ours {
				r.OK = new(bool)
			}
		}
		rep.Rows = append(rep.Rows, r)
		p.end(r)
		if err := rep.write(out); err != nil {
			return err
		}
	}
	if made != nil {
		e.payload = payload{}
	}
	return nil
}

// samePayload says that b can run with a's payload.
func samePayload(a, b scenario) bool {
	return a.mib == b.mib && a.cellKiB == b.cellKiB && a.data == b.data && a.fresh == b.fresh && (a.wantsFrames() || !b.wantsFrames())
}

// one runs one contender in a fresh room.
func one(ctx context.Context, e env, s scheme, out *row) (err error) {
	if out.Note = s.missing(); out.Note != "" {
		return nil
	}
	if s.early && e.late > 0 {
		out.Note = "not run: nobody can join late"
		return nil
	}
	room, err := newRoom(ctx, e.sc)
	defer func() { err = errors.Join(err, room.close()) }()
	if err != nil {
		return err
	}
	r := &run{room: room, env: e, scheme: s, sc: e.sc}
	return r.measure(ctx, out)
}

// progress tells on one line a step what runs and how long it will take.
type progress struct {
	w          io.Writer
	step, of   int
	expected   float64 // seconds, of the steps to come
	began      time.Time
	this       float64 // seconds expected of the present step
	ran, spent float64 // expected and real seconds of the steps so far
}

func newProgress(w io.Writer, list []scenario) *progress {
	p := &progress{w: w}
	for _, sc := range list {
		for _, s := range schemes() {
			if slices.Contains(sc.schemes, s.name) {
				p.of++
				p.expected += s.expect(sc)
			}
		}
	}
	return p
}

// expect is how many seconds a step will take, room and comparison included.
func (s scheme) expect(sc scenario) float64 {
	pace := s.pace
	if s.star {
		pace *= float64(sc.n)
	}
	sec := pace * sc.ideal().Seconds()
	if sc.mbit == 0 {
		sec = 5
	}
	if sc.disturbance == disturbPartition {
		sec += partitionTime.Seconds()
	}
	return sec + 3 + 0.3*float64(sc.n)
}

// say prints a line; a terminal that is gone is no reason to stop measuring.
func (p *progress) say(format string, a ...any) {
	_, _ = fmt.Fprintf(p.w, "%s "+format+"\n", append([]any{time.Now().Format("15:04:05")}, a...)...)
}

func (p *progress) begin(sc scenario, s scheme) {
	p.step++
	p.this, p.began = s.expect(sc), time.Now()
	left := p.expected
	if p.ran > 30 { // learnt from what has run
		left *= p.spent / p.ran
	}
	p.say("[%d/%d] %s, %s: about %.0f s; %v left for all", p.step, p.of, sc.name, s.name, p.this, time.Duration(left*float64(time.Second)).Round(10*time.Second))
}

func (p *progress) end(r row) {
	p.expected -= p.this
	p.ran += p.this
	p.spent += time.Since(p.began).Seconds()
	p.say("[%d/%d] ratio %s (limit %s) %s; %s s; %s", p.step, p.of, show(r.Ratio, 3), r.limitText(), r.verdict(), show(r.Seconds, 1), r.remark())
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
	kernel, _ := exec.Command("uname", "-r").Output() //nolint:noctx // ends at once
	return fmt.Sprintf("%d cores %s, kernel %s, %s, load %s before the run", runtime.NumCPU(), model, strings.TrimSpace(string(kernel)), runtime.Version(), load)
}
