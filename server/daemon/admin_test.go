package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/server/report"
	"labswarm/server/store"
)

// raw sends one request over the socket. key "" = a new one, "-" = none.
func (s *site) raw(method, path, key, body string) (int, []byte) {
	s.t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.dir, "labswarm.sock"))
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if key == "" {
		key = rand16(s.t)
	}
	if key != "-" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, out
}

// problem wants an error of a status and code.
func (s *site) problem(method, path, key, body string, status int, code string) {
	s.t.Helper()
	got, raw := s.raw(method, path, key, body)
	var p api.Problem
	if err := json.Unmarshal(raw, &p); err != nil || got != status || p.Code != code || p.Status != status || p.Detail == "" {
		s.t.Errorf("%s %s %s = %d %s; want %d %s", method, path, body, got, raw, status, code)
	}
}

func TestAdminInventory(t *testing.T) {
	s := newSite(t)
	info, err := s.cli.Server(t.Context())
	if err != nil || !info.Ready || info.KeyID == "" || info.Address != "127.0.0.1" {
		t.Errorf("server = %+v, %v", info, err)
	}
	st, err := os.Stat(filepath.Join(s.dir, "labswarm.sock"))
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("socket mode %v, %v; want 0660", st.Mode(), err)
	}
	s.host("a1")
	s.host("a2")
	rooms, err := s.cli.Rooms(t.Context())
	if err != nil || len(rooms) != 1 || len(rooms[0].Hosts) != 2 {
		t.Errorf("rooms = %v, %v", rooms, err)
	}
	images, err := s.cli.Images(t.Context())
	if err != nil || len(images) != 1 || images[0].Name != "tiny" || images[0].Cells == 0 || images[0].Digest == "" || len(images[0].Partitions) != 1 {
		t.Errorf("images = %+v, %v", images, err)
	}
	s.problem("POST", api.RouteHosts, "", `{"name":"a3","room":"r1","mac":"52:54:00:00:00:31"}`, 409, api.CodeConflict) // a1's MAC
	s.problem("POST", api.RouteHosts, "", `{"name":"a 3","room":"r1","mac":"52:54:00:00:00:77"}`, 422, api.CodeUsage)
	s.problem("POST", api.RouteHosts, "", `{"name":"a3","unknown":1}`, 400, api.CodeUsage)
	s.problem("POST", api.RouteHosts, "", `{"name":"a3"} {}`, 400, api.CodeUsage)
	s.problem("GET", api.RouteHosts+"/nobody", "", "", 404, api.CodeNotFound)
	s.problem("DELETE", api.RouteHosts+"/nobody", "", "", 404, api.CodeNotFound)
	s.problem("GET", api.RouteJobs+"/99", "", "", 404, api.CodeNotFound)
	s.problem("GET", api.RouteJobs+"/x", "", "", 404, api.CodeNotFound)
	s.problem("GET", "/v1/nothing", "", "", 404, api.CodeNotFound)
	s.problem("GET", api.RouteEnrol, "", "", 404, api.CodeNotFound) // no agent route here
	if err := s.cli.RemoveHost(t.Context(), "a2"); err != nil {
		t.Error(err)
	}
}

func TestAdminJobRules(t *testing.T) {
	s := newSite(t)
	s.host("a1")
	s.host("a2")
	create := func(body string, status int, code string) {
		t.Helper()
		s.problem("POST", api.RouteJobs, "key-"+body, body, status, code)
	}
	create(`{"image":"tiny","room":"r1"}`, 422, api.CodeConfirm)
	create(`{"image":"tiny","room":"r1","confirm":"tiny"}`, 422, api.CodeConfirm)
	create(`{"image":"tiny","hosts":["a1"],"confirm":"r1"}`, 422, api.CodeConfirm)
	create(`{"image":"tiny","confirm":"tiny"}`, 422, api.CodeUsage)
	create(`{"image":"none","room":"r1","confirm":"r1"}`, 404, api.CodeNotFound)
	create(`{"image":"tiny","room":"r9","confirm":"r9"}`, 404, api.CodeNotFound)
	create(`{"image":"tiny","hosts":["a1","b7"],"confirm":"tiny"}`, 404, api.CodeNotFound)
	create(`{"image":"tiny","room":"r1","confirm":"r1","after":"dance"}`, 422, api.CodeUsage)
	create(`{"image":"tiny","room":"r1","confirm":"r1","expires_in_s":99999999}`, 422, api.CodeUsage)
	s.problem("POST", api.RouteJobs, "-", `{"image":"tiny","room":"r1","confirm":"r1"}`, 400, api.CodeUsage) // no key

	plan, err := s.cli.PlanJob(t.Context(), api.JobCreate{Image: "tiny", Room: "r1"})
	if err != nil || len(plan.Hosts) != 2 || plan.Hosts[0].Verdict != "go" || plan.Version == "" || plan.Bytes == 0 {
		t.Errorf("plan = %+v, %v", plan, err)
	}
	if jobs, err := s.cli.Jobs(t.Context()); err != nil || len(jobs) != 0 {
		t.Fatalf("refusals and a dry run left jobs: %v, %v", jobs, err)
	}

	const bare = `{"image":"tiny","room":"r1","confirm":"r1"}`
	create(bare, 422, api.CodeConfirm) // no plan
	body := fmt.Sprintf(`{"image":"tiny","room":"r1","confirm":"r1","plan_digest":%q,"confirm_hosts":%d}`, plan.PlanDigest, plan.Erase)
	s.problem("POST", api.RouteJobs, "count", strings.Replace(body, `:2}`, `:1}`, 1), 422, api.CodeConfirm)
	s.problem("POST", api.RouteJobs, "digest", strings.Replace(body, plan.PlanDigest, plan.PlanDigest[1:], 1), 409, api.CodePlanStale)
	status, first := s.raw("POST", api.RouteJobs, "k1", body)
	if status != http.StatusCreated {
		t.Fatalf("create = %d %s", status, first)
	}
	var a, b api.Job
	_, again := s.raw("POST", api.RouteJobs, "k1", body)
	if err := errors.Join(json.Unmarshal(first, &a), json.Unmarshal(again, &b)); err != nil || a.ID == 0 || a.ID != b.ID {
		t.Errorf("same key made jobs %d and %d, %v", a.ID, b.ID, err)
	}
	s.problem("POST", api.RouteJobs, "k1", `{"image":"tiny","hosts":["a1"],"confirm":"tiny"}`, 422, api.CodeIdempotency)
	s.problem("POST", api.RouteJobs, "k2", body, 409, api.CodeHostBusy)
	s.problem("POST", api.RouteJobs, "k3", `{"image":"tiny","hosts":["a1"],"confirm":"tiny"}`, 409, api.CodeHostBusy)
	plan, err = s.cli.PlanJob(t.Context(), api.JobCreate{Image: "tiny", Hosts: []string{"a1"}})
	if err != nil || plan.Hosts[0].Verdict != "refuse" {
		t.Errorf("plan with a live job = %+v, %v", plan, err)
	}
	s.problem("DELETE", api.RouteHosts+"/a1", "", "", 409, api.CodeHostBusy)
	s.problem("POST", api.RouteHosts, "", `{"name":"a1","room":"r1","mac":"52:54:00:00:00:99"}`, 409, api.CodeHostBusy)

	j, err := s.cli.CancelJob(t.Context(), a.ID)
	if err != nil || j.Result != "cancelled" || j.Ended.IsZero() {
		t.Errorf("cancel = %+v, %v", j, err)
	}
	if _, err := s.cli.CancelJob(t.Context(), a.ID); err != nil {
		t.Errorf("second cancel = %v; want no error", err)
	}
	if j := s.createJob(); j.ID == a.ID {
		t.Error("the same job again")
	}
	var rep report.Report
	_, raw := s.raw("GET", api.RouteJobs+"/1/report", "", "")
	if err := json.Unmarshal(raw, &rep); err != nil || len(rep.Hosts) != 2 || rep.Result != "cancelled" || len(rep.Hosts[0].Timeline) == 0 {
		t.Errorf("report = %s, %v", raw, err)
	}
}

func TestExcludedHosts(t *testing.T) {
	s := newSite(t)
	s.host("a1")
	if _, err := s.cli.PutHost(t.Context(), api.Host{Name: "a2", Room: "r1", MAC: "52:54:00:00:00:32", Exclude: true}); err != nil {
		t.Fatal(err)
	}
	s.problem("POST", api.RouteJobs, "k", `{"image":"tiny","hosts":["a2"],"confirm":"tiny"}`, 409, api.CodeConflict)
	s.createJob()
	s.wantState("a1", api.StateArmed)
	s.wantState("a2", api.StateSkipped)
}

func TestEventsResume(t *testing.T) {
	s := newSite(t)
	s.host("a1")
	s.createJob()
	read := func(since uint64, n int) (seqs []uint64, ticks int) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := s.cli.Events(ctx, since, func(e api.Event) {
			seqs = append(seqs, e.Seq)
			if len(seqs) >= n && ticks > 0 {
				cancel()
			}
		}, func(tick api.Tick) {
			if ticks++; len(seqs) >= n {
				cancel()
			}
			if len(tick.Jobs) != 1 || len(tick.Jobs[0].Slots) != 1 {
				t.Errorf("tick = %+v", tick)
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("events since %d: %v; have %v", since, err, seqs)
		}
		return seqs, ticks
	}
	all, ticks := read(0, 3) // host saved, slot armed, job created
	for i, seq := range all {
		if seq != uint64(i+1) {
			t.Fatalf("events %v: not the numbers 1, 2, 3", all)
		}
	}
	if ticks == 0 {
		t.Error("no tick came")
	}
	s.restart()
	if rest, _ := read(all[1], 1); rest[0] != all[2] {
		t.Errorf("resumed after %d with %v", all[1], rest)
	}
}

func TestSlowReaderCostsNothing(t *testing.T) {
	s := newSite(t)
	s.host("a1")
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", filepath.Join(s.dir, "labswarm.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET "+api.RouteAdminEv+"?since=0 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	// It never reads. Meanwhile everything else goes on.
	for range 50 {
		s.host("a1")
	}
	if h, err := s.cli.Hosts(t.Context()); err != nil || len(h) != 1 {
		t.Errorf("hosts = %v, %v", h, err)
	}
}

func TestRestoredStoreHoldsLiveJobs(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	a, cleared := s.deploy(h)
	s.end()
	db := filepath.Join(s.dir, "labswarm.db")
	// A snapshot from now (the engine makes them itself every ten minutes).
	st, _, err := store.Open(db, s.srv.snapshots())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.SaveSnapshot(t.Context(), st, s.srv.snapshots(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	copy(raw[2*4096:], bytes.Repeat([]byte{0xA5, 0x5A, 0x17}, 4096))
	if err := os.WriteFile(db, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.wantState("a1", api.StateHeld)
	if rep := a.progress(api.StateWriting, nil); len(rep.Commands) != 0 {
		t.Errorf("progress = %+v", rep)
	}
	s.wantState("a1", api.StateHeld)
	// Its disk is proven all the same when it finishes.
	var ack api.ResultAck
	a.ok("POST", api.RouteResult, a.goodResult(cleared.Fence()), &ack)
	s.wantState("a1", api.StateDone)
}

func TestSecondServerIsRefused(t *testing.T) {
	s := newSite(t)
	err := Run(t.Context(), Config{StateDir: s.dir, Interface: "lo", DHCP: "off", BootStyle: "chain", ProxyStyle: "offer"}, s.srv.log)
	var e *Error
	if !errors.As(err, &e) || e.ExitCode() != ExitLocked || !strings.Contains(err.Error(), "pid") {
		t.Errorf("second server = %v; want exit code 11 and the holder", err)
	}
	err = Run(t.Context(), Config{}, s.srv.log)
	var code interface{ ExitCode() int }
	if !errors.As(err, &code) || code.ExitCode() != ExitConfig {
		t.Errorf("empty configuration = %v; want exit code 78", err)
	}
	dir := t.TempDir()
	err = Run(t.Context(), Config{StateDir: dir, Interface: "nope0", DHCP: "off", BootStyle: "chain", ProxyStyle: "offer"}, s.srv.log)
	if err == nil || !strings.Contains(err.Error(), "nope0") || !strings.Contains(err.Error(), "lo") {
		t.Errorf("missing interface = %v; want its name and the ones there are", err)
	}
	err = Run(t.Context(), Config{StateDir: dir, Interface: "lo", DHCP: "off", BootStyle: "chain", ProxyStyle: "offer"}, s.srv.log)
	if !errors.As(err, &code) || code.ExitCode() != ExitConfig {
		t.Errorf("no boot files = %v; want exit code 78", err)
	}
}
