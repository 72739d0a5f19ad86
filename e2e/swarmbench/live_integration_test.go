//go:build integration

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"labswarm/internal/testnet"
	"labswarm/internal/testreq"
)

// mine are the namespaces and work directories of this process.
func mine(t *testing.T, tmp string) (out []string) {
	t.Helper()
	name, err := testnet.OwnName("")
	if err != nil {
		t.Fatal(err)
	}
	spaces, err := filepath.Glob("/run/netns/" + name + "*")
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob(filepath.Join(tmp, "labswarm-*-"+workSuffix))
	if err != nil {
		t.Fatal(err)
	}
	return append(spaces, dirs...)
}

// TestTwoHosts runs ours, as plain as can be and as the product does it, and
// HTTP with two hosts: every byte arrives (the bench compares), the seed sends
// ours about once and HTTP's twice, nothing is left.
func TestTwoHosts(t *testing.T) {
	testreq.Root(t)
	testreq.Tool(t, "tc", "iproute2")
	dir := t.TempDir()
	o, err := parse([]string{"--n", "2", "--mib", "8", "--schemes", "ours,ours-tls-z,http", "--tmp", dir, "--out", filepath.Join(dir, "swarm.json")})
	if err != nil {
		t.Fatal(err)
	}
	rows := benched(t, o, 3)
	for k, atMost := range []float64{1.5, 1.5, 2.2} { // copies; a loaded machine may make a host switch
		r := rows[k]
		if r.Ratio == nil || r.SeedCopies == nil || *r.Ratio < 1 || *r.SeedCopies < 1 || *r.SeedCopies > atMost {
			t.Errorf("%s: ratio %s, seed copies %s (at most %v), note %q", r.Scheme, show(r.Ratio, 3), show(r.SeedCopies, 3), atMost, r.Note)
		}
	}
	if left := mine(t, dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// benched runs a bench and returns the rows of its report, as many as wanted.
func benched(t *testing.T, o options, want int) []row {
	t.Helper()
	var table bytes.Buffer
	if err := bench(t.Context(), o, &table); err != nil {
		t.Fatal(err)
	}
	t.Log(table.String())
	b, err := os.ReadFile(o.out)
	if err != nil {
		t.Fatal(err)
	}
	var rep report
	if err := json.Unmarshal(b, &rep); err != nil {
		t.Fatal(err)
	}
	if len(rep.Rows) != want {
		t.Fatalf("%d rows; want %d", len(rep.Rows), want)
	}
	return rep.Rows
}

// TestPoison: hosts that serve wrong bytes, few or nearly all. The bench compares
// every byte on every disk; here the bad ones must also have been asked and
// found out. How fast is the bench's figure, no matter of pass or fail here.
func TestPoison(t *testing.T) {
	testreq.Root(t)
	testreq.Tool(t, "tc", "iproute2")
	dir := t.TempDir()
	o, err := parse([]string{"--tmp", dir, "--out", filepath.Join(dir, "swarm.json"), "poison"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range o.scenarios {
		o.scenarios[i].mib = 32 // enough for five wrong cells of a hundred and more each
	}
	rows := benched(t, o, 2)
	for _, r := range rows {
		if r.Ratio == nil {
			t.Errorf("%s: %s", r.Scenario, r.Note)
			continue
		}
		if r.Failures == 0 || r.Revoked == nil {
			t.Errorf("%s: %d wrong pieces came, revoked after %s s; want some, found out", r.Scenario, r.Failures, show(r.Revoked, 2))
			continue
		}
		if *r.Revoked > 20 { // 2 s is the bench's figure; this one only a hang reaches
			t.Errorf("%s: bad hosts were asked for %s s after the first word against them", r.Scenario, show(r.Revoked, 2))
		}
	}
}

// TestInterrupt sends SIGINT in the middle of a transfer.
func TestInterrupt(t *testing.T) {
	testreq.Root(t)
	testreq.Tool(t, "tc", "iproute2")
	dir := t.TempDir()
	bin := filepath.Join(dir, "swarmbench")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), bin, "--n", "2", "--mib", "64", "--schemes", "ours", "--tmp", dir, "--out", filepath.Join(dir, "x.json"))
	p, err := testnet.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	await(t, dir)
	if err := p.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(time.Minute):
		t.Fatal("still running a minute after SIGINT")
	}
	if left := mine(t, dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	spaces, err := filepath.Glob("/run/netns/labswarm-" + strconv.Itoa(p.Pid) + "-*")
	if err != nil {
		t.Fatal(err)
	}
	if len(spaces) > 0 {
		t.Errorf("namespaces left behind: %q", spaces)
	}
}

// TestKilled sends SIGKILL: the children die with the bench, and the next one
// removes namespaces and work directory.
func TestKilled(t *testing.T) {
	testreq.Root(t)
	testreq.Tool(t, "tc", "iproute2")
	dir := t.TempDir()
	bin := filepath.Join(dir, "swarmbench")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	p, err := testnet.Start(exec.CommandContext(t.Context(), bin, "--n", "2", "--mib", "64", "--schemes", "ours", "--tmp", dir, "--out", filepath.Join(dir, "x.json")))
	if err != nil {
		t.Fatal(err)
	}
	await(t, dir)
	spaces, err := filepath.Glob("/run/netns/labswarm-" + strconv.Itoa(p.Pid) + "-*")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if len(spaces) != 4 {
		t.Errorf("%d namespaces in the transfer; want seed, bridge and two hosts", len(spaces))
	}
	if err := sweep(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	for _, s := range spaces {
		if _, err := os.Stat(s); err == nil {
			t.Errorf("namespace left behind: %s", s)
		}
	}
	if left := mine(t, dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// await waits until a transfer to two hosts has begun.
func await(t *testing.T, dir string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		outputs, err := filepath.Glob(filepath.Join(dir, "labswarm-*-"+workSuffix+"/out/*/"+payloadName))
		if err != nil {
			t.Fatal(err)
		}
		if len(outputs) == 2 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("no transfer within a minute")
		}
	}
}
