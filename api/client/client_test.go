package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"labswarm/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a handler on a unix socket, as the daemon does, and returns a
// client of it.
func serve(t *testing.T, h http.Handler) *Client {
	t.Helper()
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	if err := srv.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	srv.Listener = l
	srv.Start()
	c := New(sock)
	t.Cleanup(func() {
		c.Close()
		srv.CloseClientConnections()
		srv.Close()
	})
	return c
}

// seen records one request.
type seen struct{ Method, Path, Body string }

func TestRoutes(t *testing.T) {
	var mu sync.Mutex
	var got seen
	var key string
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		got, key = seen{r.Method, r.URL.EscapedPath(), string(body)}, r.Header.Get("Idempotency-Key")
		mu.Unlock()
		switch {
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		case r.Method == http.MethodGet && (r.URL.Path == "/v1/rooms" || r.URL.Path == "/v1/hosts" || r.URL.Path == "/v1/images" || r.URL.Path == "/v1/jobs"):
			_, _ = io.WriteString(w, "[]")
		default:
			_, _ = io.WriteString(w, "{}")
		}
	}))
	ctx := t.Context()
	one := func(_ any, err error) error { return err }
	for _, tt := range []struct {
		call func() error
		want seen
	}{
		{func() error { return one(c.Server(ctx)) }, seen{"GET", "/v1/server", ""}},
		{func() error { return one(c.Rooms(ctx)) }, seen{"GET", "/v1/rooms", ""}},
		{func() error { return one(c.Hosts(ctx)) }, seen{"GET", "/v1/hosts", ""}},
		{func() error { return one(c.Host(ctx, "a/../b c")) }, seen{"GET", "/v1/hosts/a%2F..%2Fb%20c", ""}},
		{func() error { return c.RemoveHost(ctx, "a1") }, seen{"DELETE", "/v1/hosts/a1", ""}},
		{func() error { return one(c.Images(ctx)) }, seen{"GET", "/v1/images", ""}},
		{func() error { return one(c.Jobs(ctx)) }, seen{"GET", "/v1/jobs", ""}},
		{func() error { return one(c.Job(ctx, 7)) }, seen{"GET", "/v1/jobs/7", ""}},
		{func() error { return one(c.Report(ctx, 7)) }, seen{"GET", "/v1/jobs/7/report", ""}},
		{func() error { return one(c.CancelJob(ctx, 7)) }, seen{"POST", "/v1/jobs/7/cancel", "{}"}},
	} {
		if err := tt.call(); err != nil {
			t.Errorf("%s %s: %v", tt.want.Method, tt.want.Path, err)
		}
		mu.Lock()
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("request (-want +got):\n%s", diff)
		}
		if acts := tt.want.Method != http.MethodGet; acts != (key != "") {
			t.Errorf("%s %s: Idempotency-Key %q; want one only where something is done", tt.want.Method, tt.want.Path, key)
		}
		mu.Unlock()
	}

	if _, err := c.PutHost(ctx, api.Host{Name: "a1", Room: "r", MAC: "02:00:00:00:00:01"}); err != nil {
		t.Error(err)
	}
	var h api.Host
	mu.Lock()
	defer mu.Unlock()
	if err := json.Unmarshal([]byte(got.Body), &h); err != nil || h.Name != "a1" || got.Method != "POST" || got.Path != "/v1/hosts" {
		t.Errorf("PutHost sent %+v (%v)", got, err)
	}
}

// TestDryRunStaysDry: PlanJob must never create a job, CreateJob never only plan.
func TestDryRunStaysDry(t *testing.T) {
	var dry []bool
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var j api.JobCreate
		if err := json.NewDecoder(r.Body).Decode(&j); err != nil {
			t.Error(err)
		}
		dry = append(dry, j.DryRun)
		_, _ = io.WriteString(w, "{}")
	}))
	if _, err := c.PlanJob(t.Context(), api.JobCreate{Image: "x", Room: "r"}); err != nil {
		t.Error(err)
	}
	if _, err := c.CreateJob(t.Context(), api.JobCreate{Image: "x", Room: "r", DryRun: true, JobConfirm: api.JobConfirm{PlanDigest: "p"}}); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]bool{true, false}, dry); diff != "" {
		t.Errorf("dry_run (-want +got):\n%s", diff)
	}
}

// TestLostAnswerIsRepeated cuts the connection after the request came in: the
// second try carries the same key, so that the server makes no second job.
func TestLostAnswerIsRepeated(t *testing.T) {
	var keys []string
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		if len(keys) == 1 {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.Close()
			return
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"id":9}`)
	}))
	j, err := c.CreateJob(t.Context(), api.JobCreate{Image: "x", Room: "r", JobConfirm: api.JobConfirm{PlanDigest: "p"}})
	if err != nil || j.ID != 9 {
		t.Fatalf("CreateJob = %d, %v; want job 9", j.ID, err)
	}
	if len(keys) != 2 || keys[0] == "" || keys[0] != keys[1] {
		t.Errorf("keys of the two tries: %q; want the same one twice", keys)
	}
	if _, err := c.CreateJob(t.Context(), api.JobCreate{Image: "x", Room: "r", JobConfirm: api.JobConfirm{PlanDigest: "p"}}); err != nil {
		t.Fatal(err)
	}
	if keys[2] == keys[1] {
		t.Error("two jobs were asked for with one key: the second would be swallowed")
	}
}

func TestProblem(t *testing.T) {
	want := api.Problem{Status: 409, Title: "conflict", Code: api.CodeHostBusy, Detail: "a1 is in job 3"}
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == api.RouteHosts {
			http.Error(w, "not a problem document", http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(want.Status)
		if err := json.NewEncoder(w).Encode(want); err != nil {
			t.Error(err)
		}
	}))
	_, err := c.CancelJob(t.Context(), 3)
	var p *api.Problem
	if !errors.As(err, &p) {
		t.Fatalf("CancelJob error = %v; want *api.Problem", err)
	}
	if diff := cmp.Diff(want, *p); diff != "" {
		t.Errorf("problem (-want +got):\n%s", diff)
	}
	if _, err := c.Hosts(t.Context()); !errors.As(err, &p) || p.Status != http.StatusBadGateway || !strings.Contains(p.Error(), "not a problem document") {
		t.Errorf("Hosts error = %v; want the status and the text in a problem", err)
	}
}

func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	// The socket file of a killed server stays, and nobody listens.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, sock := range []string{dead, filepath.Join(dir, "missing")} {
		c := New(sock)
		_, err := c.Server(t.Context())
		var away *UnreachableError
		if !errors.As(err, &away) || away.Socket != sock {
			t.Errorf("%s: error = %v; want UnreachableError", sock, err)
			continue
		}
		for _, part := range []string{sock, "labswarm serve", "--state-dir"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not name %q", err, part)
			}
		}
		c.Close()
	}
}

func TestAnswerTooLong(t *testing.T) {
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "["+strings.Repeat(" ", maxAnswer)+"]")
	}))
	if _, err := c.Jobs(t.Context()); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("error = %v; want a refusal by size", err)
	}
}

func TestCancelled(t *testing.T) {
	gone := errors.New("the person left")
	block := make(chan struct{})
	c := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(block)
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-block
		cancel(gone)
	}()
	if _, err := c.Server(ctx); !errors.Is(err, gone) {
		t.Errorf("error = %v; want %v", err, gone)
	}
}

// TestCreateAgreesToAPlan: without a plan CreateJob makes one and names it.
func TestCreateAgreesToAPlan(t *testing.T) {
	var paths []string
	var made api.JobCreate
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		if r.URL.Path == api.RoutePlans {
			_, _ = io.WriteString(w, `{"plan_digest":"seen","erase":7}`)
			return
		}
		if err := json.NewDecoder(r.Body).Decode(&made); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, "{}")
	}))
	if _, err := c.CreateJob(t.Context(), api.JobCreate{Image: "x", Room: "r"}); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{api.RoutePlans, api.RouteJobs}, paths); diff != "" || made.PlanDigest != "seen" || made.ConfirmHosts != 7 {
		t.Errorf("asked for %+v, paths:\n%s", made, diff)
	}
}
