package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/api/client"
)

// remoteSite is a site whose admin API answers on the network, too.
func remoteSite(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	s.admin = "127.0.0.1:0"
	s.restart()
	return s
}

// token makes one over the socket and returns a client that uses it.
func (s *site) token(req api.TokenAdd) (api.TokenMade, *client.Client) {
	s.t.Helper()
	made, err := s.cli.AddToken(s.t.Context(), req)
	if err != nil || made.Listen == "" || made.Fingerprint == "" {
		s.t.Fatalf("token = %+v, %v", made, err)
	}
	c := client.NewRemote(client.Remote{Addr: made.Listen, Token: made.Secret, Fingerprint: made.Fingerprint})
	s.t.Cleanup(c.Close)
	return made, c
}

func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	var p *api.Problem
	if !errors.As(err, &p) || p.Code != code {
		t.Errorf("%s = %v; want %s", what, err, code)
	}
}

func TestAdminOverTLS(t *testing.T) {
	s := remoteSite(t)
	s.host("a1")
	viewer, look := s.token(api.TokenAdd{Name: "v", Role: "viewer"})
	_, work := s.token(api.TokenAdd{Name: "o", Role: "operator", Rooms: []string{"r1"}})
	_, boss := s.token(api.TokenAdd{Name: "a", Role: "admin"})

	if h, err := look.Hosts(t.Context()); err != nil || len(h) != 1 {
		t.Errorf("hosts of a viewer = %v, %v", h, err)
	}
	_, err := look.CreateJob(t.Context(), api.JobCreate{Image: "tiny", Room: "r1", Confirm: "r1"})
	wantCode(t, "job of a viewer", err, api.CodeNotAllowed)
	j, err := work.CreateJob(t.Context(), api.JobCreate{Image: "tiny", Room: "r1", Confirm: "r1"})
	if err != nil {
		t.Fatalf("job of an operator = %v", err)
	}
	_, err = work.PutHost(t.Context(), api.Host{Name: "a2", Room: "r1", MAC: "52:54:00:00:00:42"})
	wantCode(t, "host of an operator", err, api.CodeNotAllowed)
	if _, err := boss.PutHost(t.Context(), api.Host{Name: "b1", Room: "r2", MAC: "52:54:00:00:00:42"}); err != nil {
		t.Error(err)
	}
	_, err = work.CreateJob(t.Context(), api.JobCreate{Image: "tiny", Room: "r2", Confirm: "r2"})
	wantCode(t, "job in another room", err, api.CodeNotAllowed)
	if _, err := work.CancelJob(t.Context(), j.ID); err != nil {
		t.Error(err)
	}
	_, err = boss.AddToken(t.Context(), api.TokenAdd{Name: "x", Role: "admin"})
	wantCode(t, "token over the network", err, api.CodeNotAllowed)

	// The key is the same after a restart, and another one is refused before the token leaves.
	s.admin = viewer.Listen
	s.restart()
	if _, err := look.Hosts(t.Context()); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	var wrong *client.WrongKeyError
	other := client.NewRemote(client.Remote{Addr: viewer.Listen, Token: viewer.Secret, Fingerprint: "SHA256:other"})
	defer other.Close()
	if _, err := other.Hosts(t.Context()); !errors.As(err, &wrong) || wrong.Got != viewer.Fingerprint || !strings.Contains(err.Error(), "ANOTHER KEY") {
		t.Errorf("another key = %v", err)
	}
	if err := other.Follow(t.Context(), 0, nil, nil, nil); !errors.As(err, &wrong) {
		t.Errorf("follow with another key = %v; want its end", err)
	}
	if st, err := os.Stat(filepath.Join(s.dir, "keys", "admin.key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("admin key: %v, %v", st, err)
	}
	page, err := s.cli.Audit(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if end, err := api.CheckAudit(page.Base, page.Records); err != nil || end != page.Head {
		t.Errorf("audit chain: %v, %v", end, err)
	}
	seen := map[string]int{}
	for _, r := range page.Records {
		seen[r.Who+" "+r.Method+" "+r.Code]++
		if strings.Contains(r.Who+r.Text+r.Path, viewer.Secret[4:]) {
			t.Error("a secret is in the audit log")
		}
	}
	for _, want := range []string{"token t1 (v) POST not_allowed", "token t2 (o) POST ", "token t2 (o) POST not_allowed", "token t3 (a) POST not_allowed"} {
		if seen[want] == 0 {
			t.Errorf("no audit record %q in %v", want, seen)
		}
	}
}

// TestOldTLSAndNoToken: without a token nothing is told, not even which routes
// there are; the agent listener takes no token.
func TestOldTLSAndNoToken(t *testing.T) {
	s := remoteSite(t)
	made, c := s.token(api.TokenAdd{Name: "a", Role: "admin"})
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer tr.CloseIdleConnections()
	ask := func(addr, path, token string) int {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := tr.RoundTrip(req)
		if err != nil {
			return 0
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	for _, path := range []string{api.RouteHosts, "/v1/nothing", api.RouteEnrol} {
		if got := ask(made.Listen, path, ""); got != http.StatusUnauthorized {
			t.Errorf("GET %s without a token = %d; want 401", path, got)
		}
	}
	if got := ask(made.Listen, api.RouteHosts, made.Secret[:len(made.Secret)-1]+"A"); got != http.StatusUnauthorized && got != http.StatusOK {
		t.Errorf("GET with a wrong token = %d; want 401", got)
	}
	if got := ask(made.Listen, api.RouteEnrol, made.Secret); got != http.StatusNotFound {
		t.Errorf("agent route on the admin listener = %d; want 404", got)
	}
	limited := 0
	for range 20 {
		if ask(made.Listen, api.RouteHosts, "") == http.StatusTooManyRequests {
			limited++
		}
	}
	if limited == 0 {
		t.Error("20 requests without a token at once, none was limited")
	}
	if _, err := c.Hosts(t.Context()); err != nil {
		t.Errorf("the holder of a token pays for others at his address: %v", err)
	}
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}}).DialContext(t.Context(), "tcp", made.Listen)
	if err == nil {
		conn.Close()
		t.Error("TLS 1.2 was accepted")
	}
	// The agent listener, with a client certificate and an admin's token.
	a := newAgent(s, s.host("a1"))
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+s.srv.agents.Addr().String()+api.RouteHosts, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+made.Secret)
	res, err := a.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusNotFound {
		t.Errorf("admin route on the agent listener = %d; want 404", res.StatusCode)
	}
}

// TestRevokedWhileReading: an open event stream ends with its token.
func TestRevokedWhileReading(t *testing.T) {
	s := remoteSite(t)
	_, keeps := s.token(api.TokenAdd{Name: "keeps", Role: "viewer"})
	made, c := s.token(api.TokenAdd{Name: "loses", Role: "viewer"})
	ended := make(chan error, 2)
	ticks := make(chan bool, 1000)
	for _, c := range []*client.Client{c, keeps} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { ended <- c.Events(ctx, 0, nil, func(api.Tick) { ticks <- true }) }()
	}
	<-ticks
	<-ticks
	begun := time.Now()
	if err := s.cli.RemoveToken(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	err := <-ended
	t.Logf("the stream ended %s after the token: %v", time.Since(begun).Round(time.Millisecond), err)
	_, err = c.Hosts(t.Context())
	wantCode(t, "a request with the revoked token", err, api.CodeBadToken)
	err = c.Follow(t.Context(), 0, nil, nil, nil)
	wantCode(t, "following with it", err, api.CodeBadToken)
	for len(ticks) > 0 {
		<-ticks
	}
	<-ticks // the other one goes on
	if len(ended) != 0 {
		t.Error("another token's stream ended, too")
	}
}

// TestResumeThroughDrops: a viewer follows the log through connections that
// are cut again and again, and sees each event once, in order.
func TestResumeThroughDrops(t *testing.T) {
	s := remoteSite(t)
	made, _ := s.token(api.TokenAdd{Name: "v", Role: "viewer"})
	// A wire that breaks after some bytes, each time later.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var drops atomic.Int64
	go func() {
		for n := int64(4000); ; n += 3000 {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := net.Dial("tcp", made.Listen)
				if err != nil {
					return
				}
				defer out.Close()
				go func() { _, _ = io.Copy(out, in) }() // ends with the connections
				if _, err := io.CopyN(in, out, n); err == nil {
					drops.Add(1)
				}
			}()
		}
	}()
	c := client.NewRemote(client.Remote{Addr: l.Addr().String(), Token: made.Secret, Fingerprint: made.Fingerprint})
	defer c.Close()
	const want = 60
	for range want {
		s.host("a1")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var seqs []uint64
	err = c.Follow(ctx, 0, func(e api.Event) {
		if seqs = append(seqs, e.Seq); len(seqs) == want {
			cancel()
		}
	}, nil, nil)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("follow = %v after %d events", err, len(seqs))
	}
	for i, n := range seqs {
		if n != uint64(i+1) {
			t.Fatalf("events %v: not 1 to %d, each once", seqs, want)
		}
	}
	if drops.Load() < 2 {
		t.Errorf("the connection broke %d times only", drops.Load())
	}
}

// TestEqualJobsAtOnce: one key, sent many times at once, over two connections
// of one caller: one job.
func TestEqualJobsAtOnce(t *testing.T) {
	s := newSite(t)
	s.host("a1")
	plan, err := s.cli.PlanJob(t.Context(), api.JobCreate{Image: "tiny", Room: "r1"})
	if err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"image":"tiny","room":"r1","confirm":"r1","plan_digest":%q,"confirm_hosts":%d}`, plan.PlanDigest, plan.Erase)
	type reply struct {
		status int
		body   string
	}
	got := make(chan reply, 8)
	for range cap(got) {
		go func() {
			status, raw := s.raw("POST", api.RouteJobs, "one", body)
			got <- reply{status, string(raw)}
		}()
	}
	first := <-got
	for range cap(got) - 1 {
		if r := <-got; r != first || r.status != http.StatusCreated {
			t.Errorf("answers differ: %d %s, %d %s", first.status, first.body, r.status, r.body)
		}
	}
	if jobs, err := s.cli.Jobs(t.Context()); err != nil || len(jobs) != 1 {
		t.Errorf("%d jobs, %v; want one", len(jobs), err)
	}
	s.restart() // the answer is in the store
	if status, raw := s.raw("POST", api.RouteJobs, "one", body); (reply{status, string(raw)}) != first {
		t.Errorf("after a restart: %d %s; want the kept answer", status, raw)
	}
}
