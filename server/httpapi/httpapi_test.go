package httpapi_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"labswarm/api"
	"labswarm/server/access"
	"labswarm/server/daemon/control"
	"labswarm/server/daemon/relays"
	"labswarm/server/httpapi"
	"labswarm/server/inventory"
	"labswarm/server/power"
	"labswarm/server/store"
	"labswarm/tracker/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noImages and noSwarms are a server without images.
type noImages struct{}

func (noImages) Find(string, string) (control.ImageInfo, error) {
	return control.ImageInfo{}, &inventory.NotFoundError{Kind: "image", Name: "x"}
}

// oneImage is a server with the image deb/1.
type oneImage struct{ noImages }

func (o oneImage) Find(name, version string) (control.ImageInfo, error) {
	if name != "deb" {
		return o.noImages.Find(name, version)
	}
	return control.ImageInfo{Image: api.Image{Name: "deb", Version: "1", MinBytes: 1 << 30, DiskBytes: 1 << 30, Cells: 100, CellBytes: 1 << 20, BytesShipped: 100 << 20,
		InfoHash: strings.Repeat("ab", 20), Digest: "digest"}, Sector: 512, Readback: "right"}, nil
}

// wakes counts the batches of magic packets.
type wakes struct{ n atomic.Int32 }

func (w *wakes) Wake(context.Context, []power.Target) error { w.n.Add(1); return nil }

func (noImages) File(string, string, string) ([]byte, error) { return nil, nil }
func (noImages) List() ([]api.Image, error)                  { return nil, nil }
func (noImages) Latest(string) (string, error)               { return "", nil }

type noSwarms struct{}

func (noSwarms) Serve(string, string) error                       { return nil }
func (noSwarms) Stop(string)                                      {}
func (noSwarms) Report(string, control.HostReport)                {}
func (noSwarms) Expect(string, int)                               {}
func (noSwarms) Leave(string, string)                             {}
func (noSwarms) Sent(string) (image, wire int64)                  { return 0, 0 }
func (noSwarms) Assignment(string, string) (api.Assignment, bool) { return api.Assignment{}, false }
func (noSwarms) Subscribe(string, string) (<-chan api.Assignment, func()) {
	return make(chan api.Assignment), func() {}
}

func (noSwarms) Lend(string, string) error         { return nil }
func (noSwarms) Return(string)                     {}
func (noSwarms) SetRelays(string, []registry.Seed) {}
func (noSwarms) Seed() api.PeerRef                 { return api.PeerRef{} }

// book is one with a relay whose token is returned.
func book(t testing.TB, e *control.Engine) (*relays.Book, string) {
	t.Helper()
	b, err := relays.New(t.Context(), relays.Config{Store: store.NewMem(), Images: noImages{}, Swarms: noSwarms{}, Jobs: e, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := b.Add(t.Context(), "annex")
	if err != nil {
		t.Fatal(err)
	}
	return b, tok.Token
}

type admin struct {
	*control.Engine
	httpapi.ImageService  // no test asks it
	httpapi.OpsService    // nor this
	httpapi.ReportService // nor this
	httpapi.AccessService
}

func (admin) Server(context.Context) (api.ServerInfo, error) { return api.ServerInfo{}, nil }
func (admin) Report(context.Context, uint64) (any, error)    { return nil, nil }
func (admin) Relays(context.Context) ([]api.Relay, error)    { return nil, nil }
func (admin) AddRelay(context.Context, string) (api.RelayToken, error) {
	return api.RelayToken{}, nil
}
func (admin) RemoveRelay(context.Context, string) error { return nil }

// root may do everything.
var root = access.Caller{Who: "the test", Role: api.RoleAdmin, Socket: true}

func engine(t testing.TB) *control.Engine { return engineOn(t, store.NewMem(), oneImage{}) }

func engineOn(t testing.TB, s store.Store, images control.Images) *control.Engine {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	e, err := control.New(context.Background(), control.Config{Store: s, Key: key, Images: images, Swarms: noSwarms{}, Waker: &wakes{}, CanEnrol: func() bool { return true },
		StateDir: t.TempDir(), SnapshotDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.PutHost(context.Background(), api.Host{Name: "a1", Room: "r1", MAC: "52:54:00:00:00:01"}); err != nil {
		t.Fatal(err)
	}
	return e
}

func clientState(t testing.TB) *tls.ConnectionState {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
}

// FuzzRequests sends anything to every POST route of both listeners: no
// panic, no internal error, and never an order.
func FuzzRequests(f *testing.F) {
	routes := []string{api.RouteEnrol, api.RouteCommence, api.RouteProgress, api.RouteResult, api.RouteLog, api.RouteHosts, api.RouteJobs, api.RouteRelayReport, api.RoutePlans}
	seed := func(route int, v any) {
		raw, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(route, raw)
	}
	id := strings.Repeat("a", 32)
	seed(0, api.EnrolRequest{BootID: id, Nonce: id, Evidence: api.Evidence{NICs: []api.NIC{{MAC: "52:54:00:00:00:01"}}, Disks: []api.Disk{{Bytes: 1}}}})
	seed(1, api.CommenceRequest{OrderID: id, BootID: id})
	seed(2, api.Progress{BootID: id, State: api.StateWriting})
	seed(3, api.Result{BootID: id, OK: true})
	seed(4, api.LogRequest{Text: "x"})
	seed(5, api.Host{Name: "a2", Room: "r", MAC: "52:54:00:00:00:02"})
	seed(6, api.JobCreate{Image: "i", Room: "r1", Confirm: "r1"})
	seed(7, api.RelayReport{Instance: id, PeerPort: 1, Wants: []string{"i"}, Images: []api.RelayImage{{Name: "i", Version: "2026-01-01.1", Pieces: 1}}})
	seed(8, api.JobCreate{Image: "i", Hosts: []string{"a"}, JobPolicy: api.JobPolicy{MaxFailures: "10%", Canary: 1, MaxOverrunS: 1 << 62}})
	f.Add(0, []byte(`{"boot_id":1}{`))
	e := engine(f)
	log := slog.New(slog.DiscardHandler)
	listener := httpapi.NewAgent(e, tls.Certificate{}, log)
	relayBook, token := book(f, e)
	listener.AddRelays(relayBook)
	agents := listener.Handler()
	admins := httpapi.NewAdmin(admin{e, nil, nil, nil, nil}, log).Handler(root)
	state := clientState(f)
	f.Fuzz(func(t *testing.T, route int, body []byte) {
		if route < 0 || route >= len(routes) {
			return
		}
		if route == 0 { // past the rate limit
			var enrol api.EnrolRequest
			if json.Unmarshal(body, &enrol) == nil {
				if rep, err := e.Enrol(t.Context(), "cert", make(ed25519.PublicKey, ed25519.PublicKeySize), netip.Addr{}, &enrol); err == nil && rep.Status != api.EnrolGoLocal {
					t.Errorf("%s = %+v without a job", body, rep)
				}
			}
		}
		req := httptest.NewRequestWithContext(t.Context(), "POST", routes[route], bytes.NewReader(body))
		req.Header.Set("Idempotency-Key", "k")
		req.Header.Set("Authorization", "Bearer "+token)
		req.TLS = state
		h := agents
		if route == 5 || route == 6 || route == 8 {
			h = admins
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		if rec.Code >= 500 {
			t.Errorf("%s %q = %d %s", routes[route], body, rec.Code, rec.Body)
		}
		if strings.Contains(rec.Body.String(), `"sig"`) {
			t.Errorf("%s %q gave out a signature", routes[route], body)
		}
	})
}

func TestRoutesAreDisjoint(t *testing.T) {
	e := engine(t)
	log := slog.New(slog.DiscardHandler)
	listener := httpapi.NewAgent(e, tls.Certificate{}, log)
	relayBook, _ := book(t, e)
	listener.AddRelays(relayBook)
	agents := listener.Handler()
	admins := httpapi.NewAdmin(admin{e, nil, nil, nil, nil}, log).Handler(root)
	state := clientState(t)
	try := func(h http.Handler, method, route string) int {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		req := httptest.NewRequestWithContext(ctx, method, route, strings.NewReader("{}"))
		req.TLS = state
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		return rec.Code
	}
	for _, r := range []string{api.RouteServer, api.RouteRooms, api.RouteHosts, api.RouteImages, api.RouteJobs, api.RoutePlans, api.RouteSchedules, api.RouteCalendars, api.RouteRelays, api.RouteAdminEv} {
		for _, m := range []string{"GET", "POST", "DELETE"} {
			if code := try(agents, m, r); code != http.StatusNotFound {
				t.Errorf("agent listener: %s %s = %d; want 404", m, r, code)
			}
		}
	}
	for _, r := range []string{api.RouteEnrol, api.RouteOrder, api.RouteImage + "manifest.json", api.RouteCommence, api.RouteProgress, api.RouteEvents, api.RouteResult, api.RouteLog, api.RouteRelayReport, api.RouteRelayImage + "a/1/manifest.json"} {
		for _, m := range []string{"GET", "POST"} {
			if code := try(admins, m, r); code != http.StatusNotFound {
				t.Errorf("admin socket: %s %s = %d; want 404", m, r, code)
			}
		}
	}
}

func TestEnrolIsLimitedPerSource(t *testing.T) {
	h := httpapi.NewAgent(engine(t), tls.Certificate{}, slog.New(slog.DiscardHandler)).Handler()
	state := clientState(t)
	codes := map[int]int{}
	for range 30 {
		req := httptest.NewRequestWithContext(t.Context(), "POST", api.RouteEnrol, strings.NewReader("{}"))
		req.TLS, req.RemoteAddr = state, "10.0.0.9:1"
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		codes[rec.Code]++
	}
	if codes[http.StatusTooManyRequests] < 20 || codes[http.StatusUnprocessableEntity] < 5 {
		t.Errorf("30 enrolments at once: %v; want 5 or a few more let through, the rest 429", codes)
	}
	req := httptest.NewRequestWithContext(t.Context(), "POST", api.RouteEnrol, strings.NewReader("{}"))
	req.TLS, req.RemoteAddr = state, "10.0.0.10:1"
	rec := httptest.NewRecorder()
	if h.ServeHTTP(rec, req); rec.Code == http.StatusTooManyRequests {
		t.Error("another source pays for the first")
	}
}
