package main

import (
	"fmt"
	"strings"
	"time"
)

// minIdle is the share of processor time that must have stayed idle for a
// shaped row to say something of the network (swarm.md section 7).
const minIdle = 0.2

// maxOthers is the share of processor time that anybody else, the kernel's own
// threads included, may take while an unshaped row is measured.
const maxOthers = 0.15

// check is one figure and what is wanted of it.
type check struct {
	What    string  `json:"what"`
	Value   float64 `json:"value"`
	Limit   float64 `json:"limit"`
	AtLeast bool    `json:"at_least,omitempty"` // the limit is a lower one
	OK      bool    `json:"ok"`
}

func (c check) String() string {
	sign := "<="
	if c.AtLeast {
		sign = ">="
	}
	return fmt.Sprintf("%s %.4g, want %s %.4g", c.What, c.Value, sign, c.Limit)
}

// ratioLimit is what is wanted of the last host's time, in units of payload over
// link rate; 0 = nothing.
func ratioLimit(sc scenario, s scheme, share float64) float64 {
	if !s.ours || sc.mbit == 0 || sc.bad > 0 || sc.fresh > 0 {
		return 0
	}
	fill := float64(sc.n) / float64(sc.cells())
	l := 1.08 + fill
	if s.zip {
		l = 1.12*1.045*share + fill
	}
	seconds := func(x float64) float64 { return x / sc.ideal().Seconds() }
	switch sc.disturbance {
	case disturbKill:
		l += 0.04
	case disturbCut:
		l += 0.08
	case disturbSlow, disturbSlowHead:
		l += seconds(2.5)
	case disturbPartition:
		l += seconds(partitionTime.Seconds() + 5)
	}
	if sc.rooms > 1 && sc.disturbance == "" {
		l += 0.05
	}
	return l
}

// checks compares r with what the issue asks for.
func (r *row) checks(sc scenario, s scheme, m sample) (out []check) {
	if !s.ours {
		return nil
	}
	atMost := func(what string, value *float64, limit float64) {
		if value != nil {
			out = append(out, check{What: what, Value: *value, Limit: limit, OK: *value <= limit})
		}
	}
	if r.Limit != nil {
		atMost("ratio", r.Ratio, *r.Limit)
	}
	if sc.mbit > 0 && sc.disturbance == "" && sc.bad == 0 {
		atMost("seed copies", r.SeedCopies, 1.02)
		atMost("duplicates", r.Duplicates, 0.005)
	}
	if sc.rooms > 1 && sc.disturbance == "" {
		atMost("uplink in", r.UplinkIn, 1.03)
		atMost("uplink out", r.UplinkOut, 1.03)
	}
	atMost("late hosts", r.LateRatio, 1.10)
	if sc.mbit > 0 && sc.bad == 0 {
		atMost("CPU s/GiB", r.CPUPerGiB, 4)
	}
	if s.zip {
		atMost("RSS MiB", r.RSSMiB, 160)
	} else {
		atMost("RSS MiB", r.RSSMiB, 96)
	}
	if sc.bad > 0 {
		out = append(out, check{What: "seconds to revoke", Value: m.revoked.Seconds(), Limit: 2, OK: m.revoked >= 0 && m.revoked <= 2*time.Second})
	}
	return append(out, r.engineChecks(sc, s)...)
}

// engineChecks are the figures wanted of 1 GiB over unshaped links.
func (r *row) engineChecks(sc scenario, s scheme) []check {
	if sc.mbit > 0 || sc.data != dataRandom || r.MBps == nil || sc.mib < 1024 {
		return nil
	}
	switch {
	case sc.n == 1 && !s.zip && !s.tls:
		return []check{{"MB/s", *r.MBps, 900, true, *r.MBps >= 900}}
	case sc.n == 1 && s.zip && s.tls:
		return []check{{"MB/s", *r.MBps, 350, true, *r.MBps >= 350}}
	case sc.n == 3 && !s.zip && !s.tls:
		return []check{{"s", *r.Seconds, 3.3, false, *r.Seconds <= 3.3}}
	}
	return nil
}

// judge fills in limit, checks and verdict.
func (r *row) judge(sc scenario, s scheme, share float64, m sample) {
	switch {
	case sc.bad > 0 || sc.fresh > 0: // bytes, memory and seconds of reaction: busy processors make them no better
	case sc.mbit > 0:
		r.Invalid = m.idle < minIdle
	case m.wall > 0:
		r.Invalid = *r.Others > maxOthers
	}
	if l := ratioLimit(sc, s, share); l > 0 {
		r.Limit = &l
	}
	r.Checks = r.checks(sc, s, m)
	if len(r.Checks) == 0 || r.Invalid {
		return
	}
	ok := true
	for _, c := range r.Checks {
		ok = ok && c.OK
	}
	r.OK = &ok
}

// verdict is the table's word on the row.
func (r row) verdict() string {
	switch {
	case r.Invalid:
		return "INVALID"
	case r.OK == nil:
		return "-"
	case *r.OK:
		return "ok"
	}
	return "NOT ok"
}

// limitText is the limit of the row's leading figure.
func (r row) limitText() string {
	if r.Limit != nil {
		return fmt.Sprintf("%.3f", *r.Limit)
	}
	for _, c := range r.Checks {
		switch c.What {
		case "MB/s", "s", "seconds to revoke":
			_, l, _ := strings.Cut(c.String(), "want ")
			return l + " " + c.What
		}
	}
	return "-"
}

// missed lists what is not as wanted; an invalid row is told as well, it may
// help to find out why.
func (r row) missed() string {
	var out []string
	for _, c := range r.Checks {
		if !c.OK {
			out = append(out, c.String())
		}
	}
	return strings.Join(out, ", ")
}
