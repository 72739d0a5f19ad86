package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMain lets the test program be its own helper, as the bench is.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == helperWord {
		main()
		return
	}
	os.Exit(m.Run())
}

func secs(s ...float64) (out []time.Duration) {
	for _, x := range s {
		out = append(out, time.Duration(x*float64(time.Second)))
	}
	return out
}

func TestFill(t *testing.T) {
	const size = 100_000_000 // 8 s at 100 Mbit/s
	r := row{Scheme: "ours", N: 4, Mbit: 100, Bytes: size, Cells: 100}
	r.fill(sample{took: secs(8, 12), late: secs(10), slow: secs(80), sent: size * 2, cpu: 4 * time.Second,
		rss: 3 << 20, seedRSS: 5 << 20, received: 5 * size, switches: 7, idle: 0.19})
	want := map[string]float64{"ratio": 1.5, "mean": 1.25, "late": 1.25, "slow": 10, "copies": 2, "dup": 0.25, "rss": 3, "seed rss": 5,
		"seconds": 12, "cpu": 4 / (4e8 / (1 << 30))}
	got := map[string]float64{"ratio": *r.Ratio, "mean": *r.MeanRatio, "late": *r.LateRatio, "slow": *r.SlowRatio, "copies": *r.SeedCopies,
		"dup": *r.Duplicates, "rss": *r.RSSMiB, "seed rss": *r.SeedRSSMiB, "seconds": *r.Seconds, "cpu": *r.CPUPerGiB}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !r.Invalid || r.Switches != 7 {
		t.Errorf("invalid %v, switches %d; want true at idle 0.19, and 7", r.Invalid, r.Switches)
	}
	if text := r.remark(); strings.Contains(text, "LIMIT") || !strings.HasPrefix(text, "INVALID") {
		t.Errorf("remark %q; want INVALID first, and no verdict on an invalid row", text)
	}
}

func TestFillUnknown(t *testing.T) {
	r := row{Scheme: "aria2", N: 1, Bytes: 1 << 20, Cells: 4} // unshaped, says nothing of duplicates
	r.fill(sample{took: secs(1), idle: 0})
	if r.Ratio != nil || r.Duplicates != nil || r.Invalid {
		t.Errorf("ratio %v, duplicates %v, invalid %v; want none of them", r.Ratio, r.Duplicates, r.Invalid)
	}
	if *r.MBps < 1.04 || *r.MBps > 1.05 {
		t.Errorf("MB/s %v; want 1.049", *r.MBps)
	}
}

func TestAboveLimit(t *testing.T) {
	for _, c := range []struct {
		ratio       float64
		disturbance string
		above       bool
	}{{1.089, "", false}, {1.091, "", true}, {1.129, "kill", false}, {1.131, "kill", true}} {
		r := row{Scheme: "ours", N: 10, Mbit: 100, Bytes: 1, Cells: 1000, Ratio: &c.ratio, Disturbance: c.disturbance}
		if got := strings.Contains(r.remark(), "ABOVE LIMIT"); got != c.above {
			t.Errorf("%s ratio %v: above limit %v; want %v", c.disturbance, c.ratio, got, c.above)
		}
	}
}

func TestReportFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bench", "swarm.json")
	if err := (report{Rows: []row{{Scheme: "udpcast", N: 4, Note: "not installed"}}}).write(file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Rows []map[string]any }
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"scheme", "n", "mbit", "bytes", "cells", "ratio", "mean_ratio", "seed_copies", "cpu_s_per_gib",
		"rss_mib", "duplicates", "idle", "invalid"} {
		if _, ok := got.Rows[0][key]; !ok {
			t.Errorf("row lacks %q", key)
		}
	}
	if got.Rows[0]["ratio"] != nil {
		t.Errorf("ratio %v of a row that was not run; want null", got.Rows[0]["ratio"])
	}
}

func TestPrint(t *testing.T) {
	var b bytes.Buffer
	rep := report{Machine: "m", Date: "d", Command: "c", Rows: []row{
		{Scheme: "ours", N: 16, Mbit: 100, Bytes: 64 << 20, Cells: 256, Ratio: ptr(1.1), Duplicates: ptr(0.001)},
		{Scheme: "http", N: 16, Bytes: 64 << 20, Cells: 256, Note: "FAILED: x"}}}
	if err := rep.print(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	columns := strings.Count(lines[len(lines)-1], "|")
	for _, l := range lines[3:] {
		if strings.Count(l, "|") != columns {
			t.Errorf("line %q has not %d bars", l, columns)
		}
	}
	for _, want := range []string{"1.143", "0.10", "FAILED: x"} { // limit, duplicates in percent, note
		if !strings.Contains(b.String(), want) {
			t.Errorf("table lacks %q:\n%s", want, b.String())
		}
	}
}

func TestClock(t *testing.T) {
	a, err := parseClock("cpu  10 0 10 70 10 0 0 0 0 0")
	if err != nil {
		t.Fatal(err)
	}
	b, err := parseClock("cpu  40 0 30 100 20 5 5 0 0 0")
	if err != nil {
		t.Fatal(err)
	}
	if got := b.idleSince(a); got != 0.4 {
		t.Errorf("idle %v; want 40 of 100 ticks", got)
	}
	for _, bad := range []string{"", "cpu 1 2", "cpu0 1 2 3 4 5 6 7 8", "cpu a b c d e f g h"} {
		if _, err := parseClock(bad); err == nil {
			t.Errorf("parseClock(%q) gave no error", bad)
		}
	}
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"--n", "1,3", "--mbit", "50", "--mib", "10", "--cell-kib", "64", "--schemes", "ours,http"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{1, 3}, o.n); d != "" || o.ideal() != time.Duration(10<<20)*8*20*time.Nanosecond {
		t.Errorf("n %v, ideal %v", o.n, o.ideal())
	}
	for _, bad := range [][]string{{"--n", "0"}, {"--n", ""}, {"--schemes", "nobody"}, {"--mib", "0"}, {"--mib", "1", "--cell-kib", "1000"},
		{"--mbit", "0", "--kill"}, {"--n", "1", "--late"}, {"rest"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("parse(%q) gave no error", bad)
		}
	}
}

func TestLate(t *testing.T) {
	o := options{late: true}
	n := 0
	for i := 1; i <= 16; i++ {
		if o.isLate(i, 16) {
			n++
		}
	}
	if n != 4 || o.lateHosts(16) != 4 || o.lateHosts(2) != 1 || !o.isLate(2, 2) || o.isLate(1, 2) {
		t.Errorf("%d of 16 are late; want a quarter, at least one", n)
	}
}

func TestPayload(t *testing.T) {
	dir := t.TempDir()
	p, err := newPayload(dir, 256<<10, 32<<10, "http://10.0.0.1:1/announce")
	if err != nil {
		t.Fatal(err)
	}
	tor, err := readTorrent(p.torrent)
	if err != nil {
		t.Fatal(err)
	}
	if len(tor.Hashes) != 8 || tor.Length() != p.bytes {
		t.Errorf("torrent of %d pieces and %d bytes; want 8 and %d", len(tor.Hashes), tor.Length(), p.bytes)
	}
	raw, err := os.ReadFile(p.file())
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other")
	for _, c := range []struct {
		name string
		data []byte
		same bool
	}{{"a copy", raw, true}, {"one short", raw[:len(raw)-1], false}, {"one long", append(bytes.Clone(raw), 0), false},
		{"one byte wrong", append(append(bytes.Clone(raw[:1000]), raw[1000]^1), raw[1001:]...), false}} {
		if err := os.WriteFile(other, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := sameFile(p.file(), other); (err == nil) != c.same {
			t.Errorf("%s: sameFile = %v", c.name, err)
		}
	}
}

// TestVictim wants a host that feeds another one killed, not the tail.
func TestVictim(t *testing.T) {
	r := &run{env: env{n: 5}, hosts: map[int]*proc{}}
	for i, parent := range map[int]string{1: "server", 2: "h001", 3: "h005", 4: "server", 5: "h004"} {
		r.hosts[i] = &proc{parent: parent}
	}
	if v := r.victim(); v != 4 {
		t.Errorf("victim %d; want 4, the parent nearest to the middle", v)
	}
	for _, p := range r.hosts {
		p.parent = ""
	}
	if v := r.victim(); v != 3 {
		t.Errorf("victim %d; want 3, the middle, when nobody tells", v)
	}
}

// TestLines feeds a child's output in pieces.
func TestLines(t *testing.T) {
	p := &proc{words: map[string]time.Time{}}
	for _, s := range []string{"REA", "DY\nPARENT \"h001\"\nDO", "NE {\"received\":5,\"switches\":1}\n"} {
		if _, err := p.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	_, ready := p.said(lineReady)
	_, done := p.said(lineDone)
	if !ready || !done || p.parent != "h001" || p.note != (doneNote{5, 1}) {
		t.Errorf("ready %v, done %v, parent %q, note %+v", ready, done, p.parent, p.note)
	}
}
