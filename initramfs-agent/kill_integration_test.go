//go:build integration

package main

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/internal/testreq"
)

// TestKilledAgentResumes runs the real program on a loop device, kills it in
// mid-write and starts it again.
func TestKilledAgentResumes(t *testing.T) {
	goTool := testreq.Tool(t, "go", "golang-go")
	im := agenttest.New(t, agenttest.Options{Cells: 160})
	s := agenttest.NewServer(t, im)
	l := agenttest.NewLoop(t, make([]byte, len(im.Raw)+3<<20))
	dir := t.TempDir()
	bin := filepath.Join(dir, "labswarm-agent")
	if out, err := exec.CommandContext(t.Context(), goTool, "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	file := func(name string, v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	args := []string{"--server", s.Addr.String(), "--disk", l.Dev, "--allow-loop", "--listen", "127.0.0.1:0",
		"--pins", file("pins.json", map[string][]string{"server_keys": {base64.StdEncoding.EncodeToString(s.Key)}, "image_keys": {base64.StdEncoding.EncodeToString(im.Keys[0])}}),
		"--evidence", file("evidence.json", api.Evidence{UUID: "11111111-2222-3333-4444-555555555509", Serial: "PC-9"})}
	cmd := exec.CommandContext(t.Context(), bin, args...)
	var killed, open atomic.Bool
	half := im.Bundle.Manifest.Pieces() / 2
	s.Read = func(piece int) {
		for piece > half && !open.Load() {
			time.Sleep(10 * time.Millisecond)
		}
	}
	s.Progress = func(p api.Progress) api.ProgressReply {
		if p.State == api.StateWriting && p.CellsHave >= half/2 && killed.CompareAndSwap(false, true) {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
		return s.Plan(p)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	open.Store(true)
	if err == nil || !killed.Load() {
		t.Fatalf("the first run ended with %v, killed: %v", err, killed.Load())
	}
	if out, err := exec.CommandContext(t.Context(), bin, args...).CombinedOutput(); err != nil {
		t.Fatalf("second run: %v\n%s", err, out)
	}
	r := s.Last()
	if !r.OK || r.CellsKept < half/4 || r.Readback != agenttest.ReadbackDigest(im) {
		t.Errorf("result %+v", r)
	}
	if r.AgentRSSBytes > 128<<20 {
		t.Errorf("the agent used %d bytes", r.AgentRSSBytes)
	}
	im.Check(t, l.Content(t))
}
