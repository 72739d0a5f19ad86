package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
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
	r.fill(sample{took: secs(8, 12), late: secs(10), slow: 1, slowHave: 0.5, sent: size * 2, cpu: 4 * time.Second, crossed: [2]int64{size, size / 2},
		others: 2 * time.Second, wall: 2000, rss: 3 << 20, seedRSS: 5 << 20, received: 5 * size, switches: 7, idle: 0.19, revoked: -1})
	want := map[string]float64{"ratio": 1.5, "mean": 1.25, "late": 1.25, "slow": 0.5, "copies": 2, "rss": 3, "seed rss": 5,
		"seconds": 12, "cpu": 4 / (3.5e8 / (1 << 30)), "in": 1, "out": 0.5, "others": 0.1}
	got := map[string]float64{"ratio": *r.Ratio, "mean": *r.MeanRatio, "late": *r.LateRatio, "slow": *r.SlowHave, "copies": *r.SeedCopies,
		"rss": *r.RSSMiB, "seed rss": *r.SeedRSSMiB, "seconds": *r.Seconds, "cpu": *r.CPUPerGiB,
		"in": *r.UplinkIn, "out": *r.UplinkOut, "others": *r.Others}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if r.Switches != 7 || r.Revoked != nil || r.Duplicates != nil {
		t.Errorf("switches %d, revoked %v, duplicates %v; want 7 and nothing", r.Switches, r.Revoked, r.Duplicates)
	}
	r.fill(sample{took: secs(8, 12), received: 5 * size / 2})
	if *r.Duplicates != 0.25 {
		t.Errorf("duplicates %v; want a quarter", *r.Duplicates)
	}
}

// TestFillFrames: copies are counted in what travels.
func TestFillFrames(t *testing.T) {
	r := row{Scheme: "ours-z", N: 1, Mbit: 100, Bytes: 100, Cells: 4, Frames: ptr(0.25)}
	r.fill(sample{took: secs(1), sent: 50})
	if *r.SeedCopies != 2 {
		t.Errorf("seed copies %v; want 2", *r.SeedCopies)
	}
}

func TestFillUnknown(t *testing.T) {
	r := row{Scheme: "aria2", N: 1, Bytes: 1 << 20, Cells: 4} // unshaped, says nothing of duplicates
	r.fill(sample{took: secs(1), idle: 0})
	if r.Ratio != nil || r.Duplicates != nil {
		t.Errorf("ratio %v, duplicates %v; want none of them", r.Ratio, r.Duplicates)
	}
	if *r.MBps < 1.04 || *r.MBps > 1.05 {
		t.Errorf("MB/s %v; want 1.049", *r.MBps)
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
		"rss_mib", "duplicates", "idle", "limit", "ok", "invalid"} {
		if _, ok := got.Rows[0][key]; !ok {
			t.Errorf("row lacks %q", key)
		}
	}
	if got.Rows[0]["ratio"] != nil || got.Rows[0]["ok"] != nil {
		t.Errorf("ratio %v, ok %v of a row that was not run; want null", got.Rows[0]["ratio"], got.Rows[0]["ok"])
	}
}

func TestPrint(t *testing.T) {
	var b bytes.Buffer
	rep := report{Machine: "m", Date: "d", Command: "c", Rows: []row{
		{Scheme: "ours", N: 16, Mbit: 100, Bytes: 64 << 20, Cells: 256, Ratio: ptr(1.1), Limit: ptr(1.143), Duplicates: ptr(0.001)},
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
	if len(o.scenarios) != 2 || o.scenarios[1].n != 3 || o.scenarios[0].ideal() != time.Duration(10<<20)*8*20*time.Nanosecond {
		t.Errorf("scenarios %+v", o.scenarios)
	}
	for _, bad := range [][]string{{"--n", "0"}, {"--n", ""}, {"--schemes", "nobody"}, {"--mib", "0"}, {"--mib", "1", "--cell-kib", "1000"},
		{"--mbit", "0", "--disturb", "kill"}, {"--n", "1", "--disturb", "late"}, {"nothing"}, {"--n", "2", "raw"}, {"--disturb", "fire"},
		{"--schemes", "aria2", "frames"}, {"--data", "music"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("parse(%q) gave no error", bad)
		}
	}
}

// TestPresets: every preset can run, and the standard one has the list.
func TestPresets(t *testing.T) {
	for _, p := range presets() {
		if _, err := parse([]string{p.name}); err != nil {
			t.Errorf("preset %s: %v", p.name, err)
		}
	}
	list, err := choose([]string{"standard"})
	if err != nil {
		t.Fatal(err)
	}
	with := map[string][]string{}
	for _, sc := range list {
		if with[sc.name] != nil {
			t.Errorf("scenario %s stands twice in the list", sc.name)
		}
		with[sc.name] = sc.schemes
	}
	for name, schemes := range map[string][]string{
		"raw n1": {"ours"}, "raw n2": {"ours"}, "raw n8": {"ours"}, "raw n16": {"ours", "libtorrent", "libtorrent-tuned", "aria2", "anacrolix", "udpcast"},
		"raw n4": {"ours", "udpcast", "http"}, "raw n100": {"ours"}, "frames n16": {"ours-z"}, "2 rooms": {"ours"}, "kill": {"ours"}, "cut": {"ours"},
		"slow": {"ours"}, "slow-head": {"ours"}, "slow-known": {"ours"}, "late": {"ours"}, "partition": {"ours"}, "1 of 4 bad at 1 %": {"ours"}, "5 of 6 bad at 100 %": {"ours"},
		"memory 262144 cells": {"ours", "ours-z"},
	} {
		for _, s := range schemes {
			if !slices.Contains(with[name], s) {
				t.Errorf("standard: %s lacks %s", name, s)
			}
		}
	}
}

func TestLate(t *testing.T) {
	sc := scenario{n: 16, disturbance: disturbLate}
	n := 0
	for i := 1; i <= 16; i++ {
		if sc.isLate(i) {
			n++
		}
	}
	two := scenario{n: 2, disturbance: disturbLate}
	if n != 4 || sc.lateHosts() != 4 || two.lateHosts() != 1 || !two.isLate(2) || two.isLate(1) {
		t.Errorf("%d of 16 are late; want a quarter, at least one", n)
	}
}

func TestRooms(t *testing.T) {
	sc := scenario{n: 16, rooms: 2}
	in := map[int]int{}
	for i := 1; i <= 16; i++ {
		in[sc.roomOf(i)]++
	}
	if in[0] != 8 || in[1] != 8 || sc.roomOf(0) != 0 || sc.roomOf(16) != 1 {
		t.Errorf("hosts per room %v; want 8 and 8", in)
	}
}

func TestPayload(t *testing.T) {
	dir := t.TempDir()
	p, err := newPayload(t.Context(), dir, plain("x", 1, 0, 2, 256, "ours"), "http://10.0.0.1:1/announce")
	if err != nil {
		t.Fatal(err)
	}
	tor, err := readTorrent(p.imageTorrent())
	if err != nil {
		t.Fatal(err)
	}
	if im, err := readImage(p.imageTorrent()); err != nil || im == nil || im.manifest.Pieces() != 8 {
		t.Errorf("manifest %+v, %v; want one of 8 pieces", im, err)
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
	r := &run{env: env{n: 5}, sc: scenario{n: 5}, hosts: map[int]*proc{}}
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
	p := &proc{words: map[string]time.Time{}, accused: map[string]time.Time{}, last: map[string]time.Time{}}
	for _, s := range []string{"REA", "DY\nPARENT \"h001\"\nACCUSE \"h007\"\nFROM \"h008\"\nDO", "NE {\"received\":5,\"switches\":1}\n"} {
		if _, err := p.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	_, ready := p.said(lineReady)
	_, done := p.said(lineDone)
	if !ready || !done || p.parent != "h001" || p.note != (doneNote{5, 1, 0}) {
		t.Errorf("ready %v, done %v, parent %q, note %+v", ready, done, p.parent, p.note)
	}
	if p.accused["h007"].IsZero() || p.last["h008"].IsZero() {
		t.Errorf("accused %v, from %v; want h007 and h008", p.accused, p.last)
	}
}

// TestSparse: the largest manifest's payload costs what its fresh cells cost,
// and a difference in a hole is found.
func TestSparse(t *testing.T) {
	sc := memory()[1]
	p, err := newPayload(t.Context(), t.TempDir(), sc, announceURL())
	if err != nil {
		t.Fatal(err)
	}
	if p.cells != 262144 || p.frames < 0.45 || p.frames > 0.55 {
		t.Errorf("%d cells, frames %.3f; want 262144 of which the fresh ones shrink by half", p.cells, p.frames)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(other, p.bytes); err != nil {
		t.Fatal(err)
	}
	if err := sameFile(p.file(), other); err == nil {
		t.Error("an empty file counts as a copy")
	}
	if err := sameFile(p.file(), p.file()); err != nil {
		t.Error(err)
	}
}

// TestSpoil: a bad host's copy differs in the share of the cells it was told.
func TestSpoil(t *testing.T) {
	dir := t.TempDir()
	p, err := newPayload(t.Context(), dir, plain("x", 1, 0, 4, 16, "ours"), announceURL())
	if err != nil {
		t.Fatal(err)
	}
	tor, err := readTorrent(p.imageTorrent())
	if err != nil {
		t.Fatal(err)
	}
	for share, want := range map[float64]int{0.01: 2, 1: 256} {
		f, err := os.Create(filepath.Join(dir, "copy"))
		if err != nil {
			t.Fatal(err)
		}
		sums, err := spoil(helperArgs{Payload: p.file(), Share: share}, &member{torrent: tor, file: f})
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		wrong := 0
		for i := range sums {
			if sums[i] != tor.Hashes[i] {
				wrong++
			}
		}
		if wrong != want {
			t.Errorf("share %v: %d of 256 cells are wrong; want %d", share, wrong, want)
		}
	}
}
