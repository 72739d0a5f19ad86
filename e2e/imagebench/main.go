// Command imagebench measures the image store on this machine: import, image verify, the agent's check of a disk beside dd
// and the speed of hashing, the used map of a large NTFS, and the memory of each. Each step runs in a process of its own, of
// which Linux tells the peak. It is no part of the product and writes nowhere but to its own folder under --tmp and its
// report. Root is needed for the rows with a loop device only. Called by `make bench-images`.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"labswarm/internal/version"
)

const mib = 1 << 20

// row is one line of the table.
type row struct {
	What    string  `json:"what"`
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes,omitempty"`    // worked on
	MBps    float64 `json:"mb_per_s,omitempty"` // 10^6 bytes per second
	RSSKiB  int64   `json:"peak_rss_kib,omitempty"`
	ToReach string  `json:"to_reach,omitempty"`
	Note    string  `json:"note,omitempty"` // why there is no figure, or what it depends on
}

// report is build/bench/images.json.
type report struct {
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
	Cores   int       `json:"cores"`
	Rows    []row     `json:"rows"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := start(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "imagebench:", err)
		os.Exit(1)
	}
}

// start is main, or a child's main.
func start(ctx context.Context, args []string, w io.Writer) error {
	if len(args) > 1 && args[0] == childWord {
		return child(ctx, args[1], args[2:])
	}
	fs := flag.NewFlagSet("imagebench", flag.ContinueOnError)
	size := fs.Int64("mib", 512, "data of the disk that is imported, MiB")
	huge := fs.Int64("ntfs-gib", 256, "size of the sparse NTFS, GiB")
	out := fs.String("out", "", "JSON report, `FILE`")
	tmp := fs.String("tmp", "", "folder for disks, needs three times --mib; default: the system's")
	if err := fs.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(*tmp, "imagebench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // says nothing about the figures
	b := &bench{ctx: ctx, w: w, dir: dir, report: report{Version: version.String(), Time: time.Now().UTC(), Cores: runtime.NumCPU()}}
	if err := b.run(*size*mib, *huge<<30); err != nil {
		return err
	}
	if *out == "" {
		return nil
	}
	raw, err := json.MarshalIndent(b.report, "", "\t")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(*out), 0o755)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(*out, append(raw, '\n'), 0o644)
}

// bench makes disks in dir and prints a row after each step.
type bench struct {
	ctx    context.Context //nolint:containedctx // of main
	w      io.Writer
	dir    string
	report report
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) add(r row) error {
	if r.Bytes > 0 && r.Seconds > 0 {
		r.MBps = float64(r.Bytes) / 1e6 / r.Seconds
	}
	b.report.Rows = append(b.report.Rows, r)
	line := fmt.Sprintf("%-58s %8.2f s", r.What, r.Seconds)
	if r.MBps > 0 {
		line += fmt.Sprintf(" %8.0f MB/s", r.MBps)
	}
	if r.RSSKiB > 0 {
		line += fmt.Sprintf(" %6d MiB peak", r.RSSKiB>>10)
	}
	if r.ToReach != "" {
		line += "  to reach: " + r.ToReach
	}
	if r.Note != "" {
		line += "  (" + r.Note + ")"
	}
	_, err := fmt.Fprintln(b.w, line)
	return err
}

// child runs a step in a process of its own.
func (b *bench) child(r row, op string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(b.ctx, self, append([]string{childWord, op}, args...)...)
	cmd.Stderr = os.Stderr
	raw, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", r.What, err)
	}
	var d done
	if err := json.Unmarshal(raw, &d); err != nil {
		return fmt.Errorf("%s: read its answer %q: %w", r.What, raw, err)
	}
	r.Seconds, r.Bytes = d.Seconds, d.Bytes
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.RSSKiB = u.Maxrss
	}
	return b.add(r)
}

// tool runs another program.
func (b *bench) tool(name string, args ...string) (string, error) {
	out, err := exec.CommandContext(b.ctx, name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return string(out), nil
}
