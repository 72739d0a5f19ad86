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

// row is one line of the table. Figures that were not or could not be measured
// are null.
type row struct {
	Scenario   string   `json:"scenario"`
	Scheme     string   `json:"scheme"`
	N          int      `json:"n"`
	Mbit       float64  `json:"mbit"`          // 0: unshaped
	Bytes      int64    `json:"bytes"`         // that travel to each host, plain
	Cells      int      `json:"cells"`         // of the torrent
	Ratio      *float64 `json:"ratio"`         // last host's time over payload / link rate
	MeanRatio  *float64 `json:"mean_ratio"`    // the same, mean of the hosts
	SeedCopies *float64 `json:"seed_copies"`   // bytes on the seed's wire over the payload (or its frames)
	CPUPerGiB  *float64 `json:"cpu_s_per_gib"` // of all processes per GiB delivered
	RSSMiB     *float64 `json:"rss_mib"`       // peak of the largest host
	Duplicates *float64 `json:"duplicates"`    // payload received more than once, share of the payload
	Idle       *float64 `json:"idle"`          // of this machine's processors, mean of the run

	Limit   *float64 `json:"limit"` // of the ratio; null: none
	OK      *bool    `json:"ok"`    // all checks; null: there are none, or the row is invalid
	Invalid bool     `json:"invalid"`
	Checks  []check  `json:"checks,omitempty"`

	Data        string   `json:"data"`
	Frames      *float64 `json:"frames,omitempty"` // length of the frames over that of their cells
	Disturbance string   `json:"disturbance,omitempty"`
	LateRatio   *float64 `json:"late_ratio,omitempty"` // of late hosts, after their own start
	SlowHave    *float64 `json:"slow_have,omitempty"`  // share that the slow host held when the others were done
	UplinkIn    *float64 `json:"uplink_in,omitempty"`  // bytes into the second room over the payload
	UplinkOut   *float64 `json:"uplink_out,omitempty"` // bytes out of it
	Revoked     *float64 `json:"revoked_s,omitempty"`  // from the first accusation to the last byte from that host
	Failures    int      `json:"hash_failures,omitempty"`
	Others      *float64 `json:"others"` // share of the processors that others took
	Seconds     *float64 `json:"seconds"`
	MBps        *float64 `json:"mb_per_s"` // payload per host and second
	SeedRSSMiB  *float64 `json:"seed_rss_mib"`
	Switches    int      `json:"switches,omitempty"`
	Note        string   `json:"note,omitempty"`
}

// newRow is a row without figures.
func newRow(sc scenario, s scheme, p payload) row {
	r := row{Scenario: sc.name, Scheme: s.name, N: sc.n, Mbit: sc.mbit, Bytes: sc.bytes(), Cells: sc.cells(), Data: sc.data, Disturbance: sc.disturbance}
	if s.zip && p.frames > 0 {
		r.Frames = &p.frames
	}
	return r
}

// sample is what was measured of one run.
type sample struct {
	took     []time.Duration // since their own start, of hosts that are neither late nor slow
	late     []time.Duration
	slow     int           // hosts, not measured
	slowHave float64       // share of the cells it held when the others were done, as it said last
	sent     int64         // by the seed
	crossed  [2]int64      // over the uplink: into the second room, out of it
	cpu      time.Duration // of all processes, since they were let through
	others   time.Duration // of anybody else meanwhile
	wall     int64         // ticks of all processors
	rss      int64         // bytes, largest host
	seedRSS  int64
	received int64 // payload bytes, all hosts; 0 = not known
	switches int
	failures int           // pieces with a wrong hash
	revoked  time.Duration // see run.revoked
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
		if s.slow > 0 {
			r.SlowHave = &s.slowHave
		}
	}
	delivered := float64(r.Bytes) * (float64(len(s.took)+len(s.late)) + s.slowHave)
	travels := float64(r.Bytes)
	if r.Frames != nil {
		travels *= *r.Frames
	}
	r.SeedCopies = ptr(float64(s.sent) / travels)
	if s.crossed != [2]int64{} {
		r.UplinkIn, r.UplinkOut = ptr(float64(s.crossed[0])/travels), ptr(float64(s.crossed[1])/travels)
	}
	if delivered > 0 {
		r.CPUPerGiB = ptr(s.cpu.Seconds() / (delivered / (1 << 30)))
		if s.received > 0 && s.slow == 0 {
			r.Duplicates = ptr(max(0, float64(s.received)/delivered-1))
		}
	}
	if s.wall > 0 {
		r.Others = ptr(max(0, s.others.Seconds()) / (float64(s.wall) / 100))
	}
	if s.failures > 0 && s.revoked >= 0 {
		r.Revoked = ptr(s.revoked.Seconds())
	}
	r.RSSMiB, r.SeedRSSMiB = ptr(float64(s.rss)/(1<<20)), ptr(float64(s.seedRSS)/(1<<20))
	r.Idle, r.Switches, r.Failures = ptr(s.idle), s.switches, s.failures
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
	head := []string{"scenario", "scheme", "N", "Mbit/s", "MiB", "cells", "ratio", "mean", "limit", "ok", "seed copies", "CPU s/GiB", "RSS MiB", "dup %", "idle", "s", "MB/s", "note"}
	line(head...)
	line(strings.Split(strings.Repeat("---,", len(head)-1)+"---", ",")...)
	for _, x := range r.Rows {
		line(x.cells()...)
	}
	return tw.Flush()
}

// cells are r's table cells.
func (r row) cells() []string {
	rate := "-"
	if r.Mbit > 0 {
		rate = fmt.Sprintf("%g", r.Mbit)
	}
	dup := r.Duplicates
	if dup != nil {
		dup = ptr(*dup * 100)
	}
	return []string{r.Scenario, r.Scheme, fmt.Sprint(r.N), rate, fmt.Sprint(r.Bytes >> 20), fmt.Sprint(r.Cells),
		show(r.Ratio, 3), show(r.MeanRatio, 3), r.limitText(), r.verdict(), show(r.SeedCopies, 3), show(r.CPUPerGiB, 2), show(r.RSSMiB, 0),
		show(dup, 2), show(r.Idle, 2), show(r.Seconds, 1), show(r.MBps, 1), r.remark()}
}

// remark is the last column: what makes the row special, the worst first.
func (r row) remark() string {
	var out []string
	add := func(f *float64, format string) {
		if f != nil {
			out = append(out, fmt.Sprintf(format, *f))
		}
	}
	if r.Invalid && r.Mbit > 0 {
		out = append(out, "CPU-bound")
	} else if r.Invalid {
		add(r.Others, "others took %.2f of the processors")
	}
	if r.Note != "" {
		out = append(out, r.Note)
	}
	if m := r.missed(); m != "" {
		out = append(out, m)
	}
	if r.Data != dataRandom {
		out = append(out, r.Data)
	}
	add(r.Frames, "frames %.3f")
	add(r.LateRatio, "late hosts %.3f")
	add(r.SlowHave, "slow host held %.2f of it")
	add(r.UplinkIn, "uplink in %.3f")
	add(r.UplinkOut, "out %.3f")
	add(r.Revoked, "revoked after %.2f s")
	if r.Failures > 0 {
		out = append(out, fmt.Sprintf("%d wrong pieces thrown away", r.Failures))
	}
	if r.Switches > 0 {
		out = append(out, fmt.Sprintf("%d switches", r.Switches))
	}
	return strings.Join(out, "; ")
}

func show(f *float64, digits int) string {
	if f == nil {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, *f)
}
