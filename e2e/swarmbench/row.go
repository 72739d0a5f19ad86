package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// minIdle is the share of processor time that must have stayed idle for a
// shaped row to say something of the network (swarm.md section 7).
const minIdle = 0.2

// row is one line of the table. Figures that were not or could not be measured
// are null.
type row struct {
	Scheme     string   `json:"scheme"`
	N          int      `json:"n"`
	Mbit       float64  `json:"mbit"` // 0: unshaped
	Bytes      int64    `json:"bytes"`
	Cells      int      `json:"cells"`
	Ratio      *float64 `json:"ratio"`         // last host's time over payload / link rate
	MeanRatio  *float64 `json:"mean_ratio"`    // the same, mean of the hosts
	SeedCopies *float64 `json:"seed_copies"`   // bytes on the seed's wire over the payload
	CPUPerGiB  *float64 `json:"cpu_s_per_gib"` // of all processes per GiB delivered
	RSSMiB     *float64 `json:"rss_mib"`       // peak of the largest host
	Duplicates *float64 `json:"duplicates"`    // payload received more than once, share of the payload
	Idle       *float64 `json:"idle"`          // of this machine's processors, mean of the run

	Disturbance string   `json:"disturbance,omitempty"`
	LateRatio   *float64 `json:"late_ratio,omitempty"` // of late hosts, after their own start
	SlowRatio   *float64 `json:"slow_ratio,omitempty"`
	Seconds     *float64 `json:"seconds"`
	MBps        *float64 `json:"mb_per_s"` // payload per host and second
	SeedRSSMiB  *float64 `json:"seed_rss_mib"`
	Switches    int      `json:"switches,omitempty"`
	Invalid     bool     `json:"invalid"` // CPU-bound: no figure of the network
	Note        string   `json:"note,omitempty"`
}

// limit is what the issue asks of a raw row: 1.08 + N/cells, with the allowance
// of its disturbance.
func limit(n, cells int, disturbance string) float64 {
	l := 1.08 + float64(n)/float64(cells)
	switch disturbance {
	case "kill":
		l += 0.04
	case "cut":
		l += 0.08
	}
	return l
}

// sample is what was measured of one run.
type sample struct {
	took     []time.Duration // since their own start, of hosts that are neither late nor slow
	late     []time.Duration
	slow     []time.Duration
	sent     int64         // by the seed
	cpu      time.Duration // of all processes
	rss      int64         // bytes, largest host
	seedRSS  int64
	received int64 // payload bytes, all hosts; 0 = not known
	switches int
	idle     float64
}

// fill computes r's figures.
func (r *row) fill(s sample) {
	var ideal float64
	if r.Mbit > 0 {
		ideal = float64(r.Bytes) * 8 / (r.Mbit * 1e6)
	}
	longest, mean := stats(s.took)
	r.Seconds = &longest
	if longest > 0 {
		r.MBps = ptr(float64(r.Bytes) / longest / 1e6)
	}
	if ideal > 0 {
		r.Ratio, r.MeanRatio = ptr(longest/ideal), ptr(mean/ideal)
		if len(s.late) > 0 {
			l, _ := stats(s.late)
			r.LateRatio = ptr(l / ideal)
		}
		if len(s.slow) > 0 {
			l, _ := stats(s.slow)
			r.SlowRatio = ptr(l / ideal)
		}
		r.Invalid = s.idle < minIdle
	}
	delivered := float64(r.Bytes) * float64(len(s.took)+len(s.late)+len(s.slow))
	r.SeedCopies = ptr(float64(s.sent) / float64(r.Bytes))
	if delivered > 0 {
		r.CPUPerGiB = ptr(s.cpu.Seconds() / (delivered / (1 << 30)))
		if s.received > 0 {
			r.Duplicates = ptr(max(0, float64(s.received)/delivered-1))
		}
	}
	r.RSSMiB, r.SeedRSSMiB = ptr(float64(s.rss)/(1<<20)), ptr(float64(s.seedRSS)/(1<<20))
	r.Idle, r.Switches = ptr(s.idle), s.switches
}

func ptr(f float64) *float64 { return &f }

// stats returns the longest and the mean, in seconds; 0 for none.
func stats(d []time.Duration) (longest, mean float64) {
	for _, t := range d {
		longest = max(longest, t.Seconds())
		mean += t.Seconds() / float64(len(d))
	}
	return longest, mean
}

// report is the file build/bench/swarm.json.
type report struct {
	Machine string `json:"machine"`
	Date    string `json:"date"`
	Command string `json:"command"`
	Rows    []row  `json:"rows"`
}

// write stores the report, whole or not at all.
func (r report) write(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write %q: %w", file, err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := os.WriteFile(file+".new", append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return os.Rename(file+".new", file)
}

// print writes the table, in Markdown so that it can go into docs/PERFORMANCE.md.
func (r report) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintf(tw, "%s, %s\n%s\n\n", r.Machine, r.Date, r.Command) //nolint:errcheck // Flush reports it
	line := func(cells ...string) {
		fmt.Fprintln(tw, "| "+strings.Join(cells, "\t| ")+"\t|") //nolint:errcheck // Flush reports it
	}
	head := []string{"scheme", "N", "Mbit/s", "MiB", "cells", "ratio", "mean", "limit", "seed copies", "CPU s/GiB", "RSS MiB", "dup %", "idle", "s", "MB/s", "note"}
	line(head...)
	line(strings.Split(strings.Repeat("---,", len(head)-1)+"---", ",")...)
	for _, x := range r.Rows {
		line(x.cells()...)
	}
	return tw.Flush()
}

// cells are r's table cells.
func (r row) cells() []string {
	rate, lim := "-", "-"
	if r.Mbit > 0 {
		rate = fmt.Sprintf("%g", r.Mbit)
	}
	if r.Mbit > 0 && r.Scheme == "ours" {
		lim = fmt.Sprintf("%.3f", limit(r.N, r.Cells, r.Disturbance))
	}
	dup := r.Duplicates
	if dup != nil {
		dup = ptr(*dup * 100)
	}
	return []string{r.Scheme, fmt.Sprint(r.N), rate, fmt.Sprint(r.Bytes >> 20), fmt.Sprint(r.Cells),
		show(r.Ratio, 3), show(r.MeanRatio, 3), lim, show(r.SeedCopies, 3), show(r.CPUPerGiB, 2), show(r.RSSMiB, 0),
		show(dup, 2), show(r.Idle, 2), show(r.Seconds, 1), show(r.MBps, 1), r.remark()}
}

// remark is the last column: what makes the row special, the worst first.
func (r row) remark() string {
	var out []string
	if r.Invalid {
		out = append(out, "INVALID: CPU-bound")
	}
	if r.Note != "" {
		out = append(out, r.Note)
	}
	if r.Disturbance != "" {
		out = append(out, r.Disturbance)
	}
	if r.LateRatio != nil {
		out = append(out, "late hosts "+show(r.LateRatio, 3))
	}
	if r.SlowRatio != nil {
		out = append(out, "slow host "+show(r.SlowRatio, 2))
	}
	if r.Switches > 0 {
		out = append(out, fmt.Sprintf("%d switches", r.Switches))
	}
	if r.Scheme == "ours" && r.Ratio != nil && !r.Invalid && *r.Ratio > limit(r.N, r.Cells, r.Disturbance) {
		out = append(out, "ABOVE LIMIT")
	}
	return strings.Join(out, "; ")
}

func show(f *float64, digits int) string {
	if f == nil {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, *f)
}
