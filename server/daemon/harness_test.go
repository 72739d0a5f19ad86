package daemon

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/api/order"
	"labswarm/images/library"
	"labswarm/server/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a state folder with one image, and the server that runs on it. All
// parts are the real ones; only netboot is left out, because it needs root.
type site struct {
	t     testing.TB
	dir   string
	image string
	disk  []byte // the image's source disk

	codec   string        // of imports, "" = the usual
	admin   string        // --admin-listen at the next start
	plain   bool          // --plain-peers at the next start
	rate    int64         // --seed-rate at the next start, bytes per second
	quiet   time.Duration // patience with agents of the next start, 0 = the usual
	look    time.Duration // keeper.Config.Look of the next start, 0 = the usual
	metrics string        // --metrics-listen of the next start
	beside  bool          // agents run on this machine from the next start on

	srv  *server
	stop context.CancelFunc
	done chan error
	cli  *client.Client
}

// newSite imports a small MBR disk whose one partition nobody can read, so
// that every byte of it counts, and starts the server.
func newSite(t testing.TB) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "lsw") //nolint:usetesting // short: a socket path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := &site{t: t, dir: dir, image: "tiny"}
	s.importImage()
	s.start()
	t.Cleanup(s.end)
	return s
}

const (
	diskSize = 6 << 20
	sector   = 512
)

func (s *site) importImage() {
	s.t.Helper()
	s.disk = make([]byte, diskSize)
	if _, err := rand.Read(s.disk[1<<20 : 4<<20]); err != nil { // the rest of the partition stays zero
		s.t.Fatal(err)
	}
	e := s.disk[446:]
	e[4] = 0x83
	binary.LittleEndian.PutUint32(e[8:], (1<<20)/sector)
	binary.LittleEndian.PutUint32(e[12:], (5<<20)/sector)
	copy(s.disk[440:], []byte{1, 2, 3, 4})
	s.disk[510], s.disk[511] = 0x55, 0xaa
	file := filepath.Join(s.dir, "tiny.raw")
	if err := os.WriteFile(file, s.disk, 0o600); err != nil {
		s.t.Fatal(err)
	}
	v, err := s.cmdline().Import(s.t.Context(), library.ImportOptions{Name: s.image, File: file, Cell: 256 << 10, Codec: s.codec})
	if err != nil {
		s.t.Fatalf("import: %v", err)
	}
	if err := v.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// start opens everything but netboot and runs it.
func (s *site) start() {
	s.t.Helper()
	cfg := config.Default()
	cfg.StateDir, cfg.Interface = s.dir, "lo"
	cfg.AgentPort, cfg.PeerPort, cfg.TrackerPort, cfg.PlainPeers, cfg.SeedRateBps = 0, 0, 0, s.plain, s.rate
	cfg.AdminListen = s.admin
	cfg.MetricsListen = s.metrics
	if s.srv != nil { // a restarted server has its old ports
		cfg.AgentPort, cfg.PeerPort = s.srv.cfg.AgentPort, s.srv.cfg.PeerPort
	}
	if err := cfg.Fill(); err != nil {
		s.t.Fatal(err)
	}
	srv := &server{cfg: cfg, log: slog.New(slog.NewTextHandler(io.Discard, nil)), ip: netip.MustParseAddr("127.0.0.1"), lab: netip.MustParsePrefix("127.0.0.1/8"), begun: time.Now(), quiet: s.quiet, look: s.look, beside: s.beside}
	rec, err := srv.openState()
	if err == nil {
		err = srv.openSwarm(s.t.Context(), rec)
	}
	if err == nil {
		err = srv.openMonitor(s.t.Context())
	}
	if err == nil {
		err = srv.openAdmin(s.t.Context())
	}
	if err != nil {
		s.t.Fatalf("start: %v", errors.Join(err, srv.close()))
	}
	srv.cfg.AgentPort, srv.cfg.PeerPort = int(portOf(srv.agents)), int(srv.seedPort)
	s.srv = srv
	ctx, cancel := context.WithCancel(context.Background()) // ended by end, after the test's own context
	s.stop, s.done = cancel, make(chan error, 1)
	go func() { s.done <- errors.Join(srv.run(ctx), srv.close()) }()
	s.cli = client.New(filepath.Join(s.dir, "labswarm.sock"))
}

// end stops the server and waits.
func (s *site) end() {
	if s.stop == nil {
		return
	}
	s.cli.Close()
	s.stop()
	s.stop = nil
	if err := <-s.done; err != nil {
		s.t.Errorf("server ended with %v", err)
	}
}

func (s *site) restart() {
	s.t.Helper()
	s.end()
	s.start()
}

// host adds a host of room r1.
func (s *site) host(name string) api.Host {
	s.t.Helper()
	n := name[len(name)-1]
	h, err := s.cli.PutHost(s.t.Context(), api.Host{Name: name, Room: "r1", MAC: "52:54:00:00:00:" + hex.EncodeToString([]byte{n}), UUID: "00112233-4455-6677-8899-aabbccddee" + hex.EncodeToString([]byte{n})})
	if err != nil {
		s.t.Fatalf("add host: %v", err)
	}
	return h
}

func (s *site) createJob() api.Job {
	s.t.Helper()
	j, err := s.cli.CreateJob(s.t.Context(), api.JobCreate{Image: s.image, Room: "r1", Confirm: "r1"})
	if err != nil {
		s.t.Fatalf("create job: %v", err)
	}
	return j
}

// slot returns a host's slot of the newest job.
func (s *site) slot(host string) api.Slot {
	s.t.Helper()
	jobs, err := s.cli.Jobs(s.t.Context())
	if err != nil || len(jobs) == 0 {
		s.t.Fatalf("jobs: %v, %v", jobs, err)
	}
	for _, sl := range jobs[0].Slots {
		if sl.Host == host {
			return sl
		}
	}
	s.t.Fatalf("no slot of %s", host)
	return api.Slot{}
}

func (s *site) wantState(host string, want api.State) api.Slot {
	s.t.Helper()
	sl := s.slot(host)
	if sl.State != want {
		s.t.Fatalf("%s is %s (%s %s); want %s", host, sl.State, sl.Code, sl.Error, want)
	}
	return sl
}

// agent speaks the real protocol over real TLS, and verifies what it gets with
// the real rules; it has no disk.
type agent struct {
	s      *site
	http   *http.Client
	key    crypto.Signer
	host   api.Host
	boot   string
	nonce  string
	ev     api.Evidence
	v      *order.Verified
	o      order.Order
	digest string
	port   int // where it serves, as it says
}

func newAgent(s *site, h api.Host) *agent {
	s.t.Helper()
	key := ed25519Key(s.t)
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{clientCert(s.t, key)},
		InsecureSkipVerify: true, //nolint:gosec // the pinned key is compared below
		VerifyConnection: func(cs tls.ConnectionState) error {
			if k, ok := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey); !ok || !k.Equal(s.srv.keys.ServerPublic()) {
				return errors.New("not the pinned key")
			}
			return nil
		}}
	a := &agent{s: s, key: key, host: h, boot: rand16(s.t), nonce: rand16(s.t), port: 7441, http: &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}, Timeout: 20 * time.Second}}
	a.ev = api.Evidence{UUID: h.UUID, Serial: "SYS-" + h.Name, NICs: []api.NIC{{Name: "eth0", MAC: h.MAC, Bus: "virtio", Boot: true}}, Firmware: "uefi",
		Disks: []api.Disk{{Name: "vda", Serial: "DISK-" + h.Name, Model: "Q", Bus: "virtio", Bytes: 8 << 20, Sector: sector}}}
	s.t.Cleanup(a.http.CloseIdleConnections)
	return a
}

func ed25519Key(t testing.TB) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func clientCert(t testing.TB, key crypto.Signer) tls.Certificate {
	t.Helper()
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0)} // long expired
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func rand16(t testing.TB) string {
	t.Helper()
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b[:])
}

// call sends one request and returns status and body.
func (a *agent) call(method, route string, body any) (int, []byte) {
	a.s.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		a.s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(a.s.t.Context(), method, "https://"+a.s.srv.agents.Addr().String()+route, bytes.NewReader(raw))
	if err != nil {
		a.s.t.Fatal(err)
	}
	req.Header.Set("X-Idempotency-Key", "1") // net/http repeats it when a kept connection died with a restarted server, as the real agent does
	res, err := a.http.Do(req)
	if err != nil {
		a.s.t.Fatalf("%s: %v", route, err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		a.s.t.Fatal(err)
	}
	return res.StatusCode, out
}

// ok is call that must succeed.
func (a *agent) ok(method, route string, body, into any) {
	a.s.t.Helper()
	status, raw := a.call(method, route, body)
	if status != http.StatusOK {
		a.s.t.Fatalf("%s %s = %d %s", method, route, status, raw)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		a.s.t.Fatalf("%s %s: %v in %s", method, route, err, raw)
	}
}

// refused is call that must fail with a code.
func (a *agent) refused(method, route string, body any, code string) {
	a.s.t.Helper()
	status, raw := a.call(method, route, body)
	var p api.Problem
	if err := json.Unmarshal(raw, &p); err != nil || status < 400 || p.Code != code {
		a.s.t.Errorf("%s %s = %d %s; want code %s", method, route, status, raw, code)
	}
}

func (a *agent) enrol() api.EnrolReply {
	a.s.t.Helper()
	var rep api.EnrolReply
	a.ok("POST", api.RouteEnrol, api.EnrolRequest{BootID: a.boot, Nonce: a.nonce, PeerPort: a.port, Version: "test", Evidence: a.ev}, &rep)
	return rep
}

func (a *agent) diskID() order.DiskID {
	d := a.ev.Disks[0]
	return order.DiskID{WWN: d.WWN, Serial: d.Serial, Model: d.Model, Bytes: d.Bytes, Sector: d.Sector, Bus: d.Bus}
}

// order fetches the order and applies every rule of the real agent to it.
func (a *agent) order() {
	a.s.t.Helper()
	var env order.Envelope
	a.ok("GET", api.RouteOrder, nil, &env)
	status, man := a.call("GET", api.RouteImage+"manifest.json", nil)
	if status != http.StatusOK {
		a.s.t.Fatalf("manifest: %d %s", status, man)
	}
	a.digest = sha256Hex(man)
	v, err := order.Verify(&env, order.Facts{Keys: []ed25519.PublicKey{a.s.srv.keys.ServerPublic()}, BootID: a.boot, Nonce: a.nonce,
		UUID: a.ev.UUID, MACs: []string{a.host.MAC}, Serial: a.ev.Serial, Disk: a.diskID()}, a.digest)
	if err != nil {
		a.s.t.Fatalf("the agent refuses the order: %v", err)
	}
	a.v, a.o = v, v.Order()
}

func (a *agent) plan() api.CommenceRequest {
	p := api.PlanCounts{CellsWrite: 12, CellsKeep: 1, CellsZero: 8, BytesWrite: 12 << 18}
	return api.CommenceRequest{OrderID: a.o.ID, BootID: a.boot, Plan: p, Disk: a.ev.Disks[0],
		PlanDigest: order.PlanDigest(a.o.ID, a.diskID(), p.CellsWrite, p.CellsKeep, p.CellsZero, p.BytesWrite)}
}

// commence asks for the point of no return and clears the order with it.
func (a *agent) commence() order.Cleared {
	a.s.t.Helper()
	var env order.Envelope
	a.ok("POST", api.RouteCommence, a.plan(), &env)
	c, err := a.v.Clear(&env, a.plan().PlanDigest, 0)
	if err != nil {
		a.s.t.Fatalf("the agent refuses the commence: %v", err)
	}
	return c
}

func (a *agent) progress(st api.State, fn func(*api.Progress)) api.ProgressReply {
	a.s.t.Helper()
	p := api.Progress{BootID: a.boot, State: st, CellsTotal: 13}
	if fn != nil {
		fn(&p)
	}
	var rep api.ProgressReply
	a.ok("POST", api.RouteProgress, p, &rep)
	return rep
}

func (a *agent) goodResult(fence uint64) api.Result {
	j, err := a.s.srv.engine.Job(a.s.t.Context(), a.o.Job)
	if err != nil {
		a.s.t.Fatal(err)
	}
	info, err := newImages(a.s.lib()).Find(j.Image, j.Version)
	if err != nil {
		a.s.t.Fatal(err)
	}
	return api.Result{BootID: a.boot, OrderID: a.o.ID, Fence: fence, OK: true, Disk: a.ev.Disks[0], Readback: info.Readback, CellsWritten: 12, CellsKept: 1, BytesFromSeed: 12 << 18}
}

func (s *site) imageKeys() []ed25519.PublicKey { return []ed25519.PublicKey{s.srv.keys.ImagePublic()} }

func (s *site) lib() *library.Library {
	s.t.Helper()
	lib, err := library.Open(filepath.Join(s.dir, "images"), nil, s.imageKeys())
	if err != nil {
		s.t.Fatal(err)
	}
	return lib
}
