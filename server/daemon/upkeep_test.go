package daemon

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"labswarm/api"
)

// TestSystemd plays systemd: READY=1, a status, and the watchdog's sign of life from the job loop.
func TestSystemd(t *testing.T) {
	dir, err := os.MkdirTemp("", "lsd") //nolint:usetesting // short: a socket path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	sock := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: sock, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", sock)
	t.Setenv("WATCHDOG_USEC", "3000000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	newSite(t)
	want := map[string]bool{"READY=1": true, "WATCHDOG=1": true, "STATUS=no job runs": true}
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for len(want) > 0 {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("still missing %v: %v", want, err)
		}
		delete(want, string(buf[:n]))
	}
}

func TestHealth(t *testing.T) {
	s := newSite(t)
	for path, want := range map[string]string{
		api.RouteHealth: "ok\n", api.RouteReady: "ok\n", api.RouteReady + "?verbose": "ok store: readable",
		api.RouteMetrics: "labswarm_build_info{version=",
	} {
		code, body := s.raw("GET", path, "", "")
		if code != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("GET %s = %d %s; want %q", path, code, body, want)
		}
	}
	s.srv.upkeep.beatAt.Store(time.Now().Add(-time.Minute).UnixNano())
	svc := adminService{s.srv.engine, s.srv.keeper, s.srv.book, s.srv}
	// The loop beats again within a second: ask at once, and again if it was quicker.
	for range 20 {
		s.srv.upkeep.beatAt.Store(time.Now().Add(-time.Minute).UnixNano())
		if svc.Alive() != nil && api.Worst(svc.Ready(t.Context())) == api.CheckFail {
			return
		}
	}
	t.Error("a job loop that hangs counts as alive")
}

// TestMonitor: the TCP address has figures and health, and nothing else.
func TestMonitor(t *testing.T) {
	s := newSite(t)
	s.end()
	s.metrics = "127.0.0.1:0"
	s.start()
	base := "http://" + s.srv.monitor.Addr().String()
	get := func(path string) (int, string) {
		t.Helper()
		res, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		raw, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(raw)
	}
	defer http.DefaultClient.CloseIdleConnections()
	if code, body := get("/metrics"); code != http.StatusOK || !strings.Contains(body, "labswarm_store_size_bytes") || !strings.Contains(body, "labswarm_store_commit_seconds_count") {
		t.Errorf("metrics: %d %s", code, body)
	}
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
	for _, path := range []string{api.RouteServer, api.RouteHosts, api.RouteJobs, api.RouteDoctor, "/", "/debug/pprof/"} {
		if code, _ := get(path); code != http.StatusNotFound {
			t.Errorf("%s over TCP: %d; want 404", path, code)
		}
	}
	res, err := http.Post(base+api.RouteSnapshot, "application/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusNotFound {
		t.Errorf("a snapshot over TCP: %d", res.StatusCode)
	}
}

// TestSnapshotAndRestore: a copy by the running server, put back when it is stopped; the start after it holds the live job.
func TestSnapshotAndRestore(t *testing.T) {
	s := newSite(t)
	if _, err := s.cli.PutHost(t.Context(), api.Host{Name: "a1", Room: "r1", MAC: "52:54:00:00:00:01", UUID: "00112233-4455-6677-8899-aabbccddee01"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.cli.CreateJob(t.Context(), api.JobCreate{Image: "tiny", Room: "r1", Confirm: "r1"}); err != nil {
		t.Fatal(err)
	}
	snap, err := s.cli.Snapshot(t.Context())
	if err != nil || snap.Bytes == 0 {
		t.Fatalf("snapshot: %+v, %v", snap, err)
	}
	if _, err := RestoreState(s.dir, snap.Name); err == nil {
		t.Fatal("restored under a running server")
	}
	s.end()
	aside, err := RestoreState(s.dir, snap.Name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(aside); err != nil {
		t.Error(err)
	}
	s.start()
	j, err := s.cli.Job(t.Context(), 1)
	if err != nil || j.Slots[0].State != api.StateHeld {
		t.Errorf("after the restore: %+v, %v", j.Slots, err)
	}
	list, err := Snapshots(s.dir)
	if err != nil || len(list) == 0 || list[0].Name != snap.Name {
		t.Errorf("snapshots: %+v, %v", list, err)
	}
}

func TestStatusLine(t *testing.T) {
	got := statusLine([]api.Job{
		{ID: 118, Slots: []api.Slot{{State: api.StateConfirmed}, {State: api.StateWriting}, {State: api.StateFailed}}},
		{ID: 117, Ended: time.Now()}, {ID: 119},
	})
	if got != "job 118: 1/3 done, job 119: 0/0 done" {
		t.Errorf("status: %q", got)
	}
}
