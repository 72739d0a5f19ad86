package contact

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"labswarm/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server starts a TLS server with a certificate that is long expired.
func server(t *testing.T, h http.Handler) (netip.AddrPort, ed25519.PublicKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1000, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String()), pub
}

func client(t *testing.T, addr netip.AddrPort, pin ed25519.PublicKey) *Client {
	t.Helper()
	c, err := New(addr, pin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestPin(t *testing.T) {
	calls := 0
	addr, pub := server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		if len(r.TLS.PeerCertificates) != 1 {
			t.Error("the client sent no certificate")
		}
		if err := json.NewEncoder(w).Encode(api.EnrolReply{Status: api.EnrolOK, Host: "a01"}); err != nil {
			t.Error(err)
		}
	}))
	rep, err := client(t, addr, pub).Enrol(t.Context(), api.EnrolRequest{})
	if err != nil || rep.Host != "a01" {
		t.Fatalf("Enrol with the pinned key = %+v, %v", rep, err)
	}
	other, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, addr, other).Enrol(t.Context(), api.EnrolRequest{}); !WrongKey(err) || Temporary(err) {
		t.Errorf("Enrol with another key = %v; want the pin error, final", err)
	}
	if calls != 1 {
		t.Errorf("%d requests reached the handler; want 1", calls)
	}
}

func TestAnswers(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.RouteOrder, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3")
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST "+api.RouteCommence, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		if _, err := w.Write([]byte(`{"code":"stale_fence","detail":"gone"}`)); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("GET "+api.RouteImage+"manifest.json", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := w.Write([]byte(strings.Repeat("x", 100))); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("POST "+api.RouteProgress, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	addr, pub := server(t, mux)
	c := client(t, addr, pub)
	if env, wait, err := c.Order(t.Context()); env != nil || err != nil || wait != 3*time.Second {
		t.Errorf("Order = %v, %v, %v; want none, 3s", env, wait, err)
	}
	var p *api.Problem
	if _, err := c.Commence(t.Context(), api.CommenceRequest{}); !errors.As(err, &p) || p.Code != api.CodeStaleFence || p.Status != 409 || Temporary(err) {
		t.Errorf("Commence = %v; want stale_fence, final", err)
	}
	if _, err := c.Progress(t.Context(), api.Progress{}); !Temporary(err) {
		t.Errorf("Progress = %v; want a temporary error", err)
	}
	if b, err := c.File(t.Context(), "manifest.json", 100); err != nil || len(b) != 100 {
		t.Errorf("File = %d bytes, %v", len(b), err)
	}
	if _, err := c.File(t.Context(), "manifest.json", 99); err == nil {
		t.Error("a file longer than its limit was accepted")
	}
	if _, err := c.File(t.Context(), "nosuch", 99); !errors.As(err, &p) || p.Status != 404 {
		t.Errorf("missing file = %v; want 404", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Progress(ctx, api.Progress{}); Temporary(err) {
		t.Errorf("a cancelled call counts as temporary: %v", err)
	}
}

func TestParseEvents(t *testing.T) {
	const text = ": comment\n\nevent: assign\ndata: {\"kind\":\"assign\",\"assignment\":{\"rev\":3}}\n\n" +
		"data: not json\n\ndata: {\"kind\":\"command\",\ndata: \"command\":\"cancel\"}\n\ndata: {\"kind\":\"cut"
	var got []api.AgentEvent
	err := parseEvents(strings.NewReader(text), func() {}, func(e api.AgentEvent) { got = append(got, e) })
	if err == nil || len(got) != 2 || got[0].Assignment.Rev != 3 || got[1].Command != api.CommandCancel {
		t.Errorf("parseEvents = %+v, %v", got, err)
	}
}

func TestBackoff(t *testing.T) {
	for n, want := range []time.Duration{1, 2, 4, 8, 15, 15, 15} {
		for range 50 {
			if d := Backoff(n); d < want*time.Second*79/100 || d > want*time.Second*121/100 {
				t.Errorf("Backoff(%d) = %v; want %ds +-20%%", n, d, want)
			}
		}
	}
}

func FuzzParseEvents(f *testing.F) {
	f.Add("data: {\"kind\":\"assign\"}\n\n")
	f.Fuzz(func(_ *testing.T, text string) {
		_ = parseEvents(strings.NewReader(text), func() {}, func(api.AgentEvent) {})
	})
}

func FuzzProblem(f *testing.F) {
	f.Add(409, []byte(`{"code":"not_now"}`))
	f.Fuzz(func(t *testing.T, status int, raw []byte) {
		if p := problem(status, raw); p.Status != status || p.Code == "" {
			t.Errorf("problem = %+v", p)
		}
	})
}
