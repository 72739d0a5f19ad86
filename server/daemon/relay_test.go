package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/images/library"
	"labswarm/server/daemon/relays"
	"labswarm/server/relay"
)

// second is a relay of a site: the real one, in this process.
type second struct {
	s    *site
	cfg  relay.Config
	stop context.CancelFunc
	done chan error
}

// newSecond adds a relay to the server; start runs it.
func newSecond(s *site, name string) *second {
	s.t.Helper()
	tok, err := s.cli.AddRelay(s.t.Context(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	pin, err := relay.ReadPin(tok.ServerKey)
	if err != nil {
		s.t.Fatal(err)
	}
	r := &second{s: s, cfg: relay.Config{Server: tok.Server, Pin: pin, Token: tok.Token, StateDir: s.t.TempDir(), Images: []string{s.image},
		Room: "r1", LinkMbps: 1000, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Log: slog.New(slog.DiscardHandler)}}
	if testing.Verbose() {
		r.cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return r
}

func (r *second) start() {
	ctx, cancel := context.WithCancel(context.Background()) // ended by end
	r.stop, r.done = cancel, make(chan error, 1)
	go func() { r.done <- relay.Run(ctx, r.cfg) }()
	r.s.t.Cleanup(r.end)
}

func (r *second) end() {
	if r.stop == nil {
		return
	}
	r.stop()
	r.stop = nil
	if err := <-r.done; err != nil {
		r.s.t.Errorf("relay ended with %v", err)
	}
}

// lib is the relay's copies.
func (r *second) lib() *library.Library {
	r.s.t.Helper()
	lib, err := library.Open(filepath.Join(r.cfg.StateDir, "images"), nil, r.s.imageKeys())
	if err != nil {
		r.s.t.Fatal(err)
	}
	return lib
}

// view is what the admin sees of the only relay.
func (s *site) relayView() api.Relay {
	s.t.Helper()
	list, err := s.cli.Relays(s.t.Context())
	if err != nil || len(list) != 1 {
		s.t.Fatalf("relays: %+v, %v", list, err)
	}
	return list[0]
}

// waitRelay waits until the relay is as wanted.
func (s *site) waitRelay(what string, ok func(api.Relay) bool) api.Relay {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		v := s.relayView()
		if ok(v) {
			return v
		}
		if time.Now().After(end) {
			s.t.Fatalf("timed out waiting until the relay %s: %+v", what, v)
		}
	}
}

// serves reports whether a relay serves all of its n images.
func serves(n int) func(api.Relay) bool {
	return func(v api.Relay) bool {
		for _, m := range v.Images {
			if !m.Serving || m.Have != m.Pieces {
				return false
			}
		}
		return v.Alive && len(v.Images) == n
	}
}

// TestRelayCopiesAndJoinsThePlan: what lies on the relay is what lies on the
// server, and a host of a job hears of it.
func TestRelayCopiesAndJoinsThePlan(t *testing.T) {
	s := newSite(t)
	r := newSecond(s, "annex")
	r.start()
	v := s.waitRelay("serves", serves(1))
	if v.Room != "r1" || v.LinkMbps != 1000 || v.Images[0].Received < v.Images[0].Sent {
		t.Errorf("relay as the admin sees it: %+v", v)
	}
	for _, f := range []string{"disk.raw", "manifest.json", "manifest.sig", "image.torrent", "frames.zst"} {
		rel := filepath.Join("images", s.image, v.Images[0].Version, f)
		a, err1 := os.ReadFile(filepath.Join(s.dir, rel))
		b, err2 := os.ReadFile(filepath.Join(r.cfg.StateDir, rel))
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs from the server's (%v)", f, err)
		}
	}
	h := s.host("a1")
	s.createJob()
	a, _ := s.deploy(h)
	named := func() bool {
		rep := a.progress(api.StateWriting, func(p *api.Progress) { p.InSwarm = true })
		if rep.Assignment == nil {
			return false
		}
		for _, p := range append([]api.PeerRef{rep.Assignment.Parent}, rep.Assignment.Fallbacks...) {
			if p.HostID == "annex" && p.Addr == v.Addr && !p.Server {
				return true
			}
		}
		return false
	}
	if !named() {
		t.Error("the host's assignment does not name the relay")
	}
	if err := s.cli.RemoveRelay(t.Context(), "annex"); err != nil {
		t.Fatal(err)
	}
	if named() {
		t.Error("a removed relay is still in the plan")
	}
	var no *relay.Refused
	if err := <-r.done; !errors.As(err, &no) {
		t.Errorf("a removed relay ended with %v; want *Refused", err)
	}
	r.stop = nil
}

// TestRelayFollowsVersionsAndGoesOn: a new version replaces the old one, and a
// relay that starts again fetches nothing twice.
func TestRelayFollowsVersionsAndGoesOn(t *testing.T) {
	s := newSite(t)
	r := newSecond(s, "annex")
	r.start()
	first := s.waitRelay("serves", serves(1)).Images[0]
	s.importImage() // random content: another version
	second := s.waitRelay("serves the new version alone", func(v api.Relay) bool {
		return serves(1)(v) && v.Images[0].Version != first.Version
	}).Images[0]
	list, err := r.lib().List()
	if err != nil || len(list) != 1 || list[0].Version != second.Version {
		t.Errorf("copies on the relay: %+v, %v; want the new one alone", list, err)
	}
	r.end()
	r.start()
	again := s.waitRelay("serves after its restart", func(v api.Relay) bool { return serves(1)(v) && v.Images[0].Received == 0 })
	if again.Images[0].Version != second.Version {
		t.Errorf("after the restart: %+v", again)
	}
	s.restart() // the server's own restart
	s.waitRelay("is back", serves(1))
}

// TestRelayGoesOnInTheMiddle: cells that were there when the process died are
// not fetched again, and a damaged one is.
func TestRelayGoesOnInTheMiddle(t *testing.T) {
	s := newSite(t)
	src, err := s.lib().Get(s.image, "")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	r := newSecond(s, "annex")
	lib, err := library.OpenCopies(filepath.Join(r.cfg.StateDir, "images"), s.imageKeys())
	if err != nil {
		t.Fatal(err)
	}
	in, err := lib.Receive(t.Context(), src.Name(), src.Version(), library.Files{Manifest: src.ManifestJSON(), Sig: src.Sig(),
		Torrent: src.TorrentBytes(), Used: src.UsedBin(), Hashes: src.HashesBin()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, buf := src.Manifest(), make([]byte, src.Manifest().Cell)
	const there = 5
	for i := range there {
		if err := src.ReadPiece(i, buf); err != nil {
			t.Fatal(err)
		}
		if i == 3 {
			buf[17] ^= 1
		}
		if err := in.WritePiece(i, buf); err != nil {
			t.Fatal(err)
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	r.start()
	v := s.waitRelay("serves", serves(1))
	if want := int64(m.Pieces()-there+1) * m.Cell; v.Images[0].Received != want {
		t.Errorf("the relay fetched %d bytes; want %d: all but the %d right cells", v.Images[0].Received, want, there-1)
	}
}

// TestRelayIsRefused: a wrong token or a wrong key ends the relay with a
// sentence, and not one byte of an image has moved.
func TestRelayIsRefused(t *testing.T) {
	s := newSite(t)
	good := newSecond(s, "annex")
	for name, change := range map[string]func(*relay.Config){
		"wrong token":       func(c *relay.Config) { c.Token = "lsr-" + strings.Repeat("A", 43) },
		"no token's form":   func(c *relay.Config) { c.Token = "x" },
		"wrong server key":  func(c *relay.Config) { c.Pin = sha256.Sum256([]byte("another")) },
		"removed since":     func(*relay.Config) {},
		"used by a machine": func(*relay.Config) {},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good.cfg
			cfg.StateDir = t.TempDir()
			switch name {
			case "removed since":
				tok, err := s.cli.AddRelay(t.Context(), "gone")
				if err != nil {
					t.Fatal(err)
				}
				cfg.Token = tok.Token
				if err := s.cli.RemoveRelay(t.Context(), "gone"); err != nil {
					t.Fatal(err)
				}
			case "used by a machine":
				good.start()
				s.waitRelay("serves", serves(1))
				defer good.end()
			}
			change(&cfg)
			err := relay.Run(t.Context(), cfg)
			var no *relay.Refused
			if !errors.As(err, &no) || no.ExitCode() != 12 {
				t.Fatalf("Run = %v; want *Refused with exit code 12", err)
			}
			if left, err := filepath.Glob(filepath.Join(cfg.StateDir, "images", "*")); err != nil || len(left) > 0 {
				t.Errorf("a refused relay holds %v, %v", left, err)
			}
		})
	}
}

// TestRelayRoutes: what the routes of relays refuse.
func TestRelayRoutes(t *testing.T) {
	s := newSite(t)
	tok, err := s.cli.AddRelay(t.Context(), "annex")
	if err != nil {
		t.Fatal(err)
	}
	a := newAgent(s, s.host("a1"))
	do := func(method, route, token, body string) int {
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+s.srv.agents.Addr().String()+route, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := a.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	id := strings.Repeat("0a", 16)
	fine := `{"instance":"` + id + `","version":"","peer_port":7441,"wants":["tiny"],"images":[]}`
	ver := ""
	if list, err := s.cli.Images(t.Context()); err != nil || len(list) != 1 {
		t.Fatal(list, err)
	} else {
		ver = list[0].Version
	}
	file := api.RouteRelayImage + "tiny/" + ver + "/manifest.json"
	for _, tt := range []struct {
		method, route, token, body string
		want                       int
	}{
		{"POST", api.RouteRelayReport, "", fine, 401},
		{"POST", api.RouteRelayReport, tok.Token + "x", fine, 401},
		{"POST", api.RouteRelayReport, strings.Repeat("x", 1000), fine, 401},
		{"GET", file, "", "", 401},
		{"GET", file, tok.Token, "", 404}, // it never asked for this image
		{"POST", api.RouteRelayReport, tok.Token, `{"instance":"x"}`, 422},
		{"POST", api.RouteRelayReport, tok.Token, strings.Replace(fine, "7441", "70000", 1), 422},
		{"POST", api.RouteRelayReport, tok.Token, strings.Replace(fine, `"tiny"`, `"../etc"`, 1), 422},
		{"POST", api.RouteRelayReport, tok.Token, strings.Replace(fine, `"images":[]`, `"images":[{"name":"tiny","version":"2026-01-01.1","pieces":1,"have":2}]`, 1), 422},
		{"POST", api.RouteRelayReport, tok.Token, `{"x":"` + strings.Repeat("x", 200<<10) + `"}`, 413},
		{"POST", api.RouteRelayReport, tok.Token, fine, 200},
		{"POST", api.RouteRelayReport, tok.Token, strings.Replace(fine, id, strings.Repeat("0b", 16), 1), 409},
		{"GET", file, tok.Token, "", 200},
		{"GET", api.RouteRelayImage + "tiny/" + ver + "/disk.raw", tok.Token, "", 404},
		{"GET", api.RouteRelayImage + "tiny/2020-01-01.1/manifest.json", tok.Token, "", 404},
	} {
		if got := do(tt.method, tt.route, tt.token, tt.body); got != tt.want {
			t.Errorf("%s %s %.60s = %d; want %d", tt.method, tt.route, tt.body, got, tt.want)
		}
	}
	// A relay that claims an image without the server's info-hash is not in the plan.
	claim := strings.Replace(fine, `"images":[]`, `"images":[{"name":"tiny","version":"`+ver+`","infohash":"00","pieces":13,"have":13,"serving":true}]`, 1)
	if got := do("POST", api.RouteRelayReport, tok.Token, claim); got != 200 {
		t.Fatalf("claim = %d", got)
	}
	h := s.host("a2")
	s.createJob()
	b, _ := s.deploy(h)
	if rep := b.progress(api.StateWriting, func(p *api.Progress) { p.InSwarm = true }); rep.Assignment == nil || len(rep.Assignment.Fallbacks) > 0 {
		t.Errorf("assignment = %+v; want the server alone", rep.Assignment)
	}
}

// TestRelayNames: names are one space with hosts, and tokens are not kept.
func TestRelayNames(t *testing.T) {
	s := newSite(t)
	s.host("a1")
	for name, status := range map[string]int{"a1": 409, "server": 422, "Annex": 422, "": 422, "annex": 0} {
		_, err := s.cli.AddRelay(t.Context(), name)
		var p *api.Problem
		if status == 0 && err != nil || status != 0 && (!errors.As(err, &p) || p.Status != status) {
			t.Errorf("add relay %q = %v; want status %d", name, err, status)
		}
	}
	if _, err := s.cli.AddRelay(t.Context(), "annex"); err == nil {
		t.Error("the same name twice")
	}
	if _, err := s.cli.PutHost(t.Context(), api.Host{Name: "annex", Room: "r1", MAC: "52:54:00:00:00:99"}); err == nil {
		t.Error("a host with a relay's name")
	}
	tok, err := s.cli.AddRelay(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	s.restart() // the record survives
	raw, err := os.ReadFile(filepath.Join(s.dir, "labswarm.db"))
	if err != nil || bytes.Contains(raw, []byte(tok.Token)) || bytes.Contains(raw, []byte(tok.Token[4:])) {
		t.Errorf("the token stands in the store (%v)", err)
	}
	if list, err := s.cli.Relays(t.Context()); err != nil || len(list) != 2 || list[0].Name != "annex" || list[1].Alive {
		t.Errorf("relays after a restart: %+v, %v", list, err)
	}
	if tok.ServerKey != relays.Fingerprint(s.srv.keys.ServerPublic()) {
		t.Errorf("server key %q", tok.ServerKey)
	}
	if err := s.cli.RemoveRelay(t.Context(), "nobody"); err == nil {
		t.Error("a relay that is not there was removed")
	}
}
