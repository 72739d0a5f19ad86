package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

// contender returns a scheme by name.
func contender(t *testing.T, name string) scheme {
	t.Helper()
	i := slices.IndexFunc(schemes(), func(s scheme) bool { return s.name == name })
	if i < 0 {
		t.Fatalf("no contender %q", name)
	}
	return schemes()[i]
}

// TestLimits states the figures.
func TestLimits(t *testing.T) {
	base := plain("x", 16, 100, 256, 256) // 21.47 s
	rooms := base
	rooms.rooms = 2
	zip := base
	zip.data = dataUsr
	for _, c := range []struct {
		what   string
		sc     scenario
		scheme string
		want   float64
	}{
		{"quiet", base, "ours", 1.0956}, {"100 hosts", plain("x", 100, 15, 64, 64), "ours", 1.1777},
		{"rooms", rooms, "ours", 1.1456}, {"killed", base.with(disturbKill), "ours", 1.1356}, {"cut", base.with(disturbCut), "ours", 1.1756},
		{"slow, known", base.with(disturbSlowKnown), "ours", 1.0956}, {"slow, unknown", base.with(disturbSlow), "ours", 1.0956 + 2.5/21.475},
		{"late", base.with(disturbLate), "ours", 1.0956}, {"partition", base.with(disturbPartition), "ours", 1.0956 + 25/21.475},
		{"frames of 0.31", zip, "ours-z", 0.378}, {"a rival", base, "libtorrent", 0}, {"unshaped", plain("x", 1, 0, 1024, 1024), "ours", 0},
	} {
		if got := ratioLimit(c.sc, contender(t, c.scheme), 0.31); math.Abs(got-c.want) > 0.0006 {
			t.Errorf("%s: limit %.4f; want %.4f", c.what, got, c.want)
		}
	}
}

// TestJudge wants a row refused for each single figure that misses.
func TestJudge(t *testing.T) {
	good := func() row {
		return row{Scheme: "ours", Ratio: ptr(1.09), SeedCopies: ptr(1.01), Duplicates: ptr(0.001), CPUPerGiB: ptr(3.9), RSSMiB: ptr(90), MBps: ptr(11), Others: ptr(0.01), Seconds: ptr(3.2)}
	}
	sc := plain("x", 16, 100, 256, 256, "ours")
	for _, c := range []struct {
		what string
		mod  func(*row, *scenario, *sample)
		want string
	}{
		{"good", func(*row, *scenario, *sample) {}, "ok"},
		{"slow", func(r *row, _ *scenario, _ *sample) { r.Ratio = ptr(1.1) }, "NOT ok"},
		{"copies", func(r *row, _ *scenario, _ *sample) { r.SeedCopies = ptr(1.03) }, "NOT ok"},
		{"duplicates", func(r *row, _ *scenario, _ *sample) { r.Duplicates = ptr(0.006) }, "NOT ok"},
		{"processor", func(r *row, _ *scenario, _ *sample) { r.CPUPerGiB = ptr(4.1) }, "NOT ok"},
		{"memory", func(r *row, _ *scenario, _ *sample) { r.RSSMiB = ptr(97) }, "NOT ok"},
		{"uplink", func(r *row, sc *scenario, _ *sample) { sc.rooms, r.UplinkIn, r.UplinkOut = 2, ptr(1.01), ptr(1.04) }, "NOT ok"},
		{"late hosts", func(r *row, sc *scenario, _ *sample) { sc.disturbance, r.LateRatio = disturbLate, ptr(1.11) }, "NOT ok"},
		{"poison", func(_ *row, sc *scenario, m *sample) { sc.bad, m.revoked = 1, 3*time.Second }, "NOT ok"},
		{"nobody found out", func(_ *row, sc *scenario, m *sample) { sc.bad, m.revoked = 1, -1 }, "NOT ok"},
		{"no idle time", func(_ *row, _ *scenario, m *sample) { m.idle = 0.19 }, "INVALID"},
		{"memory, on a busy machine", func(r *row, sc *scenario, m *sample) { sc.fresh, m.idle, r.RSSMiB = 256, 0, ptr(97) }, "NOT ok"},
		{"unshaped", func(r *row, sc *scenario, _ *sample) { sc.mbit, sc.n, sc.mib, r.MBps = 0, 1, 1024, ptr(901) }, "ok"},
		{"unshaped, slow", func(r *row, sc *scenario, _ *sample) { sc.mbit, sc.n, sc.mib, r.MBps = 0, 1, 1024, ptr(899) }, "NOT ok"},
		{"unshaped, shared", func(r *row, sc *scenario, _ *sample) { sc.mbit, sc.n, sc.mib, r.Others = 0, 1, 1024, ptr(0.2) }, "INVALID"},
	} {
		r, sc, m := good(), sc, sample{idle: 0.5, wall: 100, revoked: -1}
		c.mod(&r, &sc, &m)
		r.judge(sc, contender(t, "ours"), 0, m)
		if got := r.verdict(); got != c.want {
			t.Errorf("%s: %s (%s); want %s", c.what, got, r.missed(), c.want)
		}
	}
	r := good()
	r.judge(sc, contender(t, "aria2"), 0, sample{idle: 0.5})
	if r.verdict() != "-" {
		t.Errorf("a rival is judged %s; want no verdict", r.verdict())
	}
}
