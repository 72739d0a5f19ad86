package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"labswarm/tracker/sim"
)

// row is one line of the table.
type row struct {
	Scheme     string   `json:"scheme"`
	N          int      `json:"n"`
	Cells      int      `json:"cells"`
	Done       int      `json:"done"`
	Seconds    float64  `json:"makespan_s"`
	Ratio      float64  `json:"ratio"`       // payload only: hosts of usual speed over S / payload rate
	WireRatio  float64  `json:"wire_ratio"`  // the same with headers on the cable, to compare with measured ones
	Limit      float64  `json:"limit"`       // 1.08 + N / cells, for wire_ratio
	AllRatio   float64  `json:"all_ratio"`   // of the last host of all, however slow
	SeedCopies float64  `json:"seed_copies"` // sent by the seed
	Uplink     float64  `json:"uplink"`      // copies over the busiest uplink in one direction
	Switches   int      `json:"switches"`
	Broken     []string `json:"broken,omitempty"`
}

type report struct {
	Cells    int       `json:"cells"`
	Overhead float64   `json:"overhead"`
	Seeds    int       `json:"seeds"`
	Failed   []failure `json:"failed"`
	Rows     []row     `json:"rows"`
}

func newRow(sc *sim.Scenario, r *sim.Result) row {
	n := len(sc.Hosts)
	return row{
		Scheme: sc.Name, N: n, Cells: sc.Cells, Done: r.Done, Seconds: r.Makespan.Seconds(),
		Ratio: r.Early, WireRatio: r.Early * sim.Overhead, Limit: 1.08 + float64(n)/float64(sc.Cells), AllRatio: r.Ratio,
		SeedCopies: r.SeedCopies, Uplink: r.Uplink, Switches: r.Switches, Broken: r.Broken,
	}
}

func (t *report) sort() {
	slices.SortFunc(t.Rows, func(a, b row) int {
		order := []string{"quiet", sim.DisturbedName, sim.RoomsName}
		return cmp.Or(cmp.Compare(slices.Index(order, a.Scheme), slices.Index(order, b.Scheme)), cmp.Compare(a.N, b.N))
	})
}

func (t *report) broken() (n int) {
	for _, r := range t.Rows {
		if len(r.Broken) > 0 {
			n++
		}
	}
	return n
}

// print shows the table and the plot.
func (t *report) print(w io.Writer) {
	sayf(w, "\n%d random swarms, %d failed\n\n", t.Seeds, len(t.Failed))
	sayf(w, "ratio: hosts of usual speed, over S / payload rate (no headers, floor 1); on the wire: times %.3f\n", t.Overhead)
	sayf(w, "%-18s %5s %6s %9s %7s %8s %7s %7s %7s %9s\n", "scheme", "N", "cells", "makespan", "ratio", "on wire", "limit", "seed", "uplink", "switches")
	for _, r := range t.Rows {
		note := ""
		if r.WireRatio > r.Limit {
			note = "  over the limit"
		}
		for _, b := range r.Broken {
			note += "  " + b
		}
		sayf(w, "%-18s %5d %6d %7.1f s %7.3f %8.3f %7.3f %7.3f %7.3f %9d%s\n",
			r.Scheme, r.N, r.Cells, r.Seconds, r.Ratio, r.WireRatio, r.Limit, r.SeedCopies, r.Uplink, r.Switches, note)
	}
	sayf(w, "\n%s", t.ascii())
}

// The plot: N on a logarithmic axis, ratio on the wire from 1.04 upwards.
const (
	plotW, plotH = 72, 16
	lowest       = 1.04
)

func (t *report) bounds() (mostN, mostRatio float64) {
	mostN, mostRatio = 2, 1.1
	for _, r := range t.Rows {
		mostN = max(mostN, float64(r.N))
		mostRatio = max(mostRatio, r.Limit, min(r.WireRatio, 2*r.Limit))
	}
	return mostN, mostRatio
}

// ascii plots the rows: o quiet, x disturbed, - the limit.
func (t *report) ascii() string {
	mostN, mostRatio := t.bounds()
	grid := make([][]rune, plotH+1)
	for i := range grid {
		grid[i] = []rune(strings.Repeat(" ", plotW+1))
	}
	put := func(n int, ratio float64, c rune) {
		x := int(math.Log(float64(n))/math.Log(mostN)*plotW + 0.5)
		y := plotH - int((min(ratio, mostRatio)-lowest)/(mostRatio-lowest)*plotH+0.5)
		if y >= 0 && y <= plotH && (grid[y][x] == ' ' || grid[y][x] == '-') {
			grid[y][x] = c
		}
	}
	for _, r := range t.Rows {
		put(r.N, r.Limit, '-')
	}
	for _, r := range t.Rows {
		put(r.N, r.WireRatio, mark(r))
	}
	var b strings.Builder
	for i, line := range grid {
		fmt.Fprintf(&b, "%6.3f |%s\n", mostRatio-(mostRatio-lowest)*float64(i)/plotH, strings.TrimRight(string(line), " "))
	}
	fmt.Fprintf(&b, "       +%s\n        N = 1 to %.0f, logarithmic;  o quiet  x 1 %% die, 5 %% slow  r same in rooms  - limit 1.08 + N/cells\n", strings.Repeat("-", plotW), mostN)
	return b.String()
}

func mark(r row) rune {
	switch r.Scheme {
	case "quiet":
		return 'o'
	case sim.DisturbedName:
		return 'x'
	}
	return 'r'
}

// save writes sim.json and sim.svg.
func (t *report) save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder %s: %w", dir, err)
	}
	raw, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	for name, b := range map[string][]byte{"sim.json": append(raw, '\n'), "sim.svg": []byte(t.svg())} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

// svg draws the same plot.
func (t *report) svg() string {
	const w, h, left, bottom = 720, 360, 60, 40
	mostN, mostRatio := t.bounds()
	x := func(n int) float64 { return left + math.Log(float64(n))/math.Log(mostN)*(w-left-20) }
	y := func(r float64) float64 {
		return h - bottom - (min(r, mostRatio)-lowest)/(mostRatio-lowest)*(h-bottom-30)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", w, h)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/><text x="%d" y="18">time of the last host / (image / link rate), %d cells; blue quiet, red 1 %% die and 5 %% slow, orange same in rooms, grey limit 1.08 + N/cells</text>`+"\n", w, h, left, t.Cells)
	for i := range 5 {
		r := lowest + (mostRatio-lowest)*float64(i)/4
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="8" y="%.1f">%.3f</text>`+"\n", left, w-20, y(r), y(r), y(r)+4, r)
	}
	line := func(scheme, colour string, value func(r row) float64) {
		var pts []string
		for _, r := range t.Rows {
			if r.Scheme != scheme {
				continue
			}
			pts = append(pts, fmt.Sprintf("%.1f,%.1f", x(r.N), y(value(r))))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`, x(r.N), y(value(r)), colour)
			if scheme == "quiet" {
				fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`, x(r.N), h-bottom+18, r.N)
			}
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(pts, " "), colour)
	}
	line("quiet", "#aaa", func(r row) float64 { return r.Limit })
	line("quiet", "#1f5fbf", func(r row) float64 { return r.WireRatio })
	line(sim.DisturbedName, "#c03030", func(r row) float64 { return r.WireRatio })
	line(sim.RoomsName, "#e09030", func(r row) float64 { return r.WireRatio })
	b.WriteString("</svg>\n")
	return b.String()
}
