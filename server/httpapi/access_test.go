package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/server/access"
	"labswarm/server/daemon/control"
	"labswarm/server/httpapi"
	"labswarm/server/store"
)

// desk is the admin API over a real engine, with its books.
type desk struct {
	t     testing.TB
	book  *access.Book
	e     *control.Engine
	admin *httpapi.Admin
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	book, err := access.Open(t.Context(), store.NewMem(), log)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{t: t, book: book, e: engineOn(t, book.Store(), oneImage{})}
	d.admin = httpapi.NewAdmin(admin{Engine: d.e, AccessService: book}, log)
	d.admin.Use(book, access.Peers{})
	return d
}

// ask sends one request as c; header is NAME, VALUE pairs.
func (d *desk) ask(c access.Caller, method, path, body string, header ...string) *httptest.ResponseRecorder {
	d.t.Helper()
	req := httptest.NewRequestWithContext(d.t.Context(), method, path, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	d.admin.Handler(c).ServeHTTP(rec, req)
	return rec
}

func codeOf(rec *httptest.ResponseRecorder) string {
	var p api.Problem
	if rec.Code < 400 || rec.Header().Get("Content-Type") != "application/problem+json" || json.Unmarshal(rec.Body.Bytes(), &p) != nil {
		return ""
	}
	return p.Code
}

func (d *desk) audit() []api.AuditRecord {
	d.t.Helper()
	p, err := d.book.Audit(d.t.Context(), 0, 10_000)
	if err != nil {
		d.t.Fatal(err)
	}
	if end, err := api.CheckAudit(p.Base, p.Records); err != nil || end != p.Head {
		d.t.Errorf("audit chain: %v, %v", end, err)
	}
	return p.Records
}

// TestRoleMatrix sends every route of the table as everybody. What the row says
// is what happens, in both directions, and each refusal is in the audit log.
func TestRoleMatrix(t *testing.T) {
	d := newDesk(t)
	refused := 0
	for _, rt := range d.admin.Table() {
		for _, c := range []struct {
			access.Caller
			may bool
		}{
			{access.Caller{Who: "viewer", Role: api.RoleViewer}, rt.Role == api.RoleViewer},
			{access.Caller{Who: "viewer here", Role: api.RoleViewer, Socket: true}, rt.Role == api.RoleViewer},
			{access.Caller{Who: "operator", Role: api.RoleOperator}, rt.Role <= api.RoleOperator && !rt.SocketOnly},
			{access.Caller{Who: "admin", Role: api.RoleAdmin}, !rt.SocketOnly},
			{root, true},
		} {
			path := strings.NewReplacer("{id}", "7", "{name}", "nobody").Replace(rt.Path)
			rec := d.ask(c.Caller, rt.Method, path, "{}", "Idempotency-Key", fmt.Sprint(c.Who, rt.Method, path))
			if got := codeOf(rec) != api.CodeNotAllowed; got != c.may {
				t.Errorf("%s %s as %s = %d %s; want let in %v", rt.Method, path, c.Who, rec.Code, rec.Body, c.may)
			}
			if !c.may {
				refused++
				if rec.Code != http.StatusForbidden {
					t.Errorf("%s %s as %s = %d; want 403", rt.Method, path, c.Who, rec.Code)
				}
			}
		}
	}
	logged := 0
	for _, r := range d.audit() {
		if r.Code == api.CodeNotAllowed && r.Status == http.StatusForbidden && r.Text != "" {
			logged++
		}
	}
	if refused < 10 || logged != refused {
		t.Errorf("%d refusals, %d in the audit log; want all", refused, logged)
	}
}

// TestOperatorOfOneRoom: a route that says which rooms it touches is open to
// the operator of these; one that does not say is closed.
func TestOperatorOfOneRoom(t *testing.T) {
	d := newDesk(t)
	if _, err := d.e.PutHost(t.Context(), api.Host{Name: "b1", Room: "r2", MAC: "52:54:00:00:00:02"}); err != nil {
		t.Fatal(err)
	}
	op := access.Caller{Who: "op", Role: api.RoleOperator, Rooms: []string{"r1"}}
	for body, may := range map[string]bool{
		`{"image":"x","room":"r1","confirm":"r1"}`:                 true,
		`{"image":"x","room":"r2","confirm":"r2"}`:                 false,
		`{"image":"x","hosts":["a1"],"confirm":"x"}`:               true,
		`{"image":"x","hosts":["b1"],"confirm":"x"}`:               false,
		`{"image":"x","hosts":["a1","B1"],"confirm":"x"}`:          false,
		`{"image":"x","room":"r1","hosts":["b1"],"confirm":"r1"}`:  false,
		`{"image":"x","room":"r1","ROOM":"r2","confirm":"r2"}`:     false,
		`{"image":"x","confirm":"x"}`:                              false,
		`{"image":"x","room":"r2","confirm":"r2","dry_run":true}`:  false,
		`{"image":"x","room":"r1","confirm":"r1","dry_run":false}`: true,
	} {
		rec := d.ask(op, "POST", api.RouteJobs, body, "Idempotency-Key", body)
		if got := codeOf(rec) != api.CodeNotAllowed; got != may || rec.Code < 400 {
			t.Errorf("%s = %d %s; want let in %v (and then: no such image)", body, rec.Code, rec.Body, may)
		}
	}
	if rec := d.ask(op, "POST", api.RouteJobs+"/99/cancel", "", "Idempotency-Key", "c"); rec.Code != http.StatusNotFound {
		t.Errorf("cancel of an unknown job = %d", rec.Code)
	}
	if rec := d.ask(op, "GET", api.RouteHosts, ""); rec.Code != http.StatusOK {
		t.Errorf("an operator of a room sees nothing: %d", rec.Code)
	}
}

func TestIdempotencyOfEveryPost(t *testing.T) {
	d := newDesk(t)
	for _, rt := range d.admin.Table() {
		if rt.Method != "POST" || rt.Asks([]byte("{}")) {
			continue
		}
		path := strings.NewReplacer("{id}", "7", "{name}", "x").Replace(rt.Path)
		if rec := d.ask(root, "POST", path, "{}"); codeOf(rec) != api.CodeUsage || !strings.Contains(rec.Body.String(), "Idempotency-Key") {
			t.Errorf("POST %s without a key = %d %s", path, rec.Code, rec.Body)
		}
	}
	if n := len(d.audit()); n != 0 {
		t.Errorf("%d audit records of calls that were not understood", n)
	}
	const body = `{"name":"a2","room":"r1","mac":"52:54:00:00:00:07"}`
	var wg sync.WaitGroup
	answers := make([]string, 10)
	for i := range answers {
		wg.Go(func() {
			rec := d.ask(root, "POST", api.RouteHosts, body, "Idempotency-Key", "k")
			if rec.Code != http.StatusOK {
				t.Errorf("%d %s", rec.Code, rec.Body)
			}
			answers[i] = rec.Header().Get("ETag") + rec.Body.String()
		})
	}
	wg.Wait()
	for _, a := range answers {
		if a != answers[0] {
			t.Errorf("two answers to one request:\n%s\n%s", answers[0], a)
		}
	}
	saved := 0
	events, err := d.e.EventsSince(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Code == "host_saved" && e.Host == "a2" {
			saved++
		}
	}
	if saved != 1 {
		t.Errorf("10 equal posts at once saved the host %d times", saved)
	}
	if rec := d.ask(root, "POST", api.RouteHosts, strings.Replace(body, "r1", "r2", 1), "Idempotency-Key", "k"); rec.Code != http.StatusUnprocessableEntity || codeOf(rec) != api.CodeIdempotency {
		t.Errorf("same key, other body = %d %s", rec.Code, rec.Body)
	}
	// The word of one caller is not the word of another.
	if rec := d.ask(access.Caller{Who: "token t1", Role: api.RoleAdmin}, "POST", api.RouteHosts, strings.Replace(body, "a2", "a3", 1), "Idempotency-Key", "k"); codeOf(rec) == api.CodeIdempotency {
		t.Error("two callers share their keys")
	}
}

func TestEditOfWhatWasReadMeanwhile(t *testing.T) {
	d := newDesk(t)
	path := api.RouteHosts + "/a1"
	tag := d.ask(root, "GET", path, "").Header().Get("ETag")
	post := func(room, match, key string) *httptest.ResponseRecorder {
		return d.ask(root, "POST", api.RouteHosts, `{"name":"a1","room":"`+room+`","mac":"52:54:00:00:00:01"}`, "Idempotency-Key", key, "If-Match", match)
	}
	first := post("r2", tag, "1")
	if first.Code != http.StatusOK || first.Header().Get("ETag") == tag {
		t.Fatalf("edit = %d %s, ETag %s", first.Code, first.Body, first.Header().Get("ETag"))
	}
	if rec := post("r3", tag, "2"); rec.Code != http.StatusPreconditionFailed || codeOf(rec) != api.CodePrecondition {
		t.Errorf("edit with the old ETag = %d %s", rec.Code, rec.Body)
	}
	if rec := post("r3", first.Header().Get("ETag"), "3"); rec.Code != http.StatusOK {
		t.Errorf("edit with the new ETag = %d %s", rec.Code, rec.Body)
	}
	if rec := d.ask(root, "DELETE", path, "", "If-Match", tag); rec.Code != http.StatusPreconditionFailed {
		t.Errorf("removal with the old ETag = %d %s", rec.Code, rec.Body)
	}
	if rec := d.ask(root, "DELETE", path, ""); rec.Code != http.StatusNoContent {
		t.Errorf("removal without one = %d %s", rec.Code, rec.Body)
	}
	r := d.audit()
	if last := r[len(r)-1]; last.Status != 204 || last.After == last.Before || len(last.Changed) == 0 || last.Who != root.Who || last.Body == "" {
		t.Errorf("audit record of the removal: %+v", last)
	}
}

// TestNobodyWithoutADoor: a request that no listener has named a caller for is
// let in nowhere.
func TestNobodyWithoutADoor(t *testing.T) {
	d := newDesk(t)
	for _, rt := range d.admin.Table() {
		rec := httptest.NewRecorder()
		d.admin.Bare().ServeHTTP(rec, httptest.NewRequestWithContext(context.Background(), rt.Method, rt.Path, strings.NewReader("{}")))
		if rec.Code != http.StatusUnauthorized && rec.Code != http.StatusTooManyRequests {
			t.Errorf("%s %s = %d %s", rt.Method, rt.Path, rec.Code, rec.Body)
		}
	}
}

// TestLaggingReaderIsCut: a reader that takes longer than allowed for one event
// hears so, and its connection ends.
func TestLaggingReaderIsCut(t *testing.T) {
	d := newDesk(t)
	for name, tt := range map[string]struct {
		lag  time.Duration
		want string
	}{"too slow": {0, "event: lagged"}, "fast enough": {time.Minute, "event: log"}} {
		d.admin.SetLag(tt.lag)
		srv := httptest.NewServer(d.admin.Handler(root))
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+api.RouteAdminEv+"?since=0", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		sc, found := bufio.NewScanner(res.Body), false
		for sc.Scan() && !found {
			found = sc.Text() == tt.want
		}
		if !found {
			t.Errorf("%s: the stream ended without %q", name, tt.want)
		}
		if tt.lag == 0 { // and then it ends by itself
			for sc.Scan() {
			}
			if err := sc.Err(); err != nil {
				t.Error(err)
			}
		}
		cancel()
		res.Body.Close()
		srv.Close()
	}
}
