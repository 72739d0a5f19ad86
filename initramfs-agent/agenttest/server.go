package agenttest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // BEP 3
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/swarm/peer"
	"labswarm/swarm/peercert"
)

// Server is the other side of the agent API for one host: it signs real orders
// and commences and serves the image with a real swarm node. What a test wants
// otherwise it says in the hooks.
type Server struct {
	Addr     netip.AddrPort
	Key      ed25519.PublicKey
	Image    *Image
	Evidence api.Evidence // of the last enrolment
	Results  []api.Result
	States   []api.State // as they were reported, without repetitions
	Logs     []string

	Enrol    func(api.EnrolRequest) api.EnrolReply       // nil: ok
	Order    func(*order.Order)                          // changes the order before it is signed
	Commence func(n int, c *order.Commence) *api.Problem // changes or refuses the n-th commence
	Progress func(api.Progress) api.ProgressReply        // nil: the seed as parent, release when done
	Read     func(piece int)                             // before the seed reads a piece
	Lie      func(piece int) bool                        // the seed sends one byte of it wrong, always
	Silent   bool                                        // answers nothing but 503

	t     testing.TB
	key   ed25519.PrivateKey
	ca    *peercert.Authority
	boot  ed25519.PublicKey // of the agent's TLS certificate
	seed  string
	mu    sync.Mutex
	req   api.EnrolRequest
	order *order.Order
	tries int
	fence uint64
	rev   uint64
}

// NewServer starts the server on 127.0.0.1.
func NewServer(t testing.TB, im *Image) *Server {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, Image: im, Key: pub, key: key, fence: 100}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+api.RouteEnrol, s.enrol)
	mux.HandleFunc("GET "+api.RouteOrder, s.sendOrder)
	mux.HandleFunc("GET "+api.RouteImage+"{file}", s.file)
	mux.HandleFunc("POST "+api.RouteCommence, s.commence)
	mux.HandleFunc("POST "+api.RouteProgress, s.progress)
	mux.HandleFunc("POST "+api.RouteResult, s.result)
	mux.HandleFunc("POST "+api.RouteLog, s.log)
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		silent := s.Silent
		s.mu.Unlock()
		if silent {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	h.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	h.StartTLS()
	t.Cleanup(h.Close)
	s.Addr = netip.MustParseAddrPort(h.Listener.Addr().String())
	s.startSeed()
	return s
}

// memory is the seed's storage.
type memory struct{ s *Server }

func (m memory) Have(int) bool                { return true }
func (m memory) WritePiece(int, []byte) error { return nil }
func (m memory) ReadPiece(piece int, buf []byte) error {
	if m.s.Read != nil {
		m.s.Read(piece)
	}
	copy(buf, m.s.sent(piece))
	return nil
}

// sent is a piece as the seed sends it.
func (s *Server) sent(piece int) []byte {
	b := s.Image.Piece(piece)
	if s.Lie != nil && s.Lie(piece) {
		b[0] ^= 0x40
	}
	return b
}

// hash is what the seed believes a piece to be: it does not notice its own lies.
func (s *Server) hash(piece int) [20]byte {
	if s.Lie != nil && s.Lie(piece) {
		return sha1.Sum(s.sent(piece)) //nolint:gosec // BEP 3
	}
	return s.Image.Bundle.PieceHash(piece)
}

func (s *Server) startSeed() {
	b := s.Image.Bundle
	var err error
	if s.ca, err = peercert.NewAuthority(s.key.Seed(), b.Torrent.InfoHash, "test"); err != nil {
		s.t.Fatal(err)
	}
	pass, err := s.ca.NewPass(peercert.ID{Host: "server", Seed: true})
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(s.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.seed = l.Addr().String()
	cfg := peer.Config{InfoHash: b.Torrent.InfoHash, Pieces: b.Manifest.Pieces(), PieceLen: b.Manifest.Cell, Hash: s.hash,
		Storage: memory{s}, Listener: l, Seed: true, CacheBytes: 1 << 20, Pass: func() (*peercert.Pass, error) { return pass, nil }}
	copy(cfg.PeerID[:], "-LS0100-seedseedseed")
	n, err := peer.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("seed: %v", err)
		}
	})
}

func (s *Server) read(r *http.Request, into any) {
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<20)).Decode(into); err != nil {
		s.t.Errorf("decode %s: %v", r.URL.Path, err)
	}
}

func (s *Server) write(w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.t.Logf("answer: %v", err) // the agent was ended by the test
	}
}

func (s *Server) refuse(w http.ResponseWriter, p *api.Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	s.write(w, p)
}

func (s *Server) enrol(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var req api.EnrolRequest
	s.read(r, &req)
	s.req, s.Evidence, s.order = req, req.Evidence, nil
	s.boot, _ = r.TLS.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	rep := api.EnrolReply{Status: api.EnrolOK, Host: "a01", Room: "A", Job: 7, Image: "test/1"}
	if s.Enrol != nil {
		rep = s.Enrol(req)
	}
	s.write(w, rep)
}

// sendOrder names the first disk of the evidence that has no note.
func (s *Server) sendOrder(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.Image.Bundle.Manifest
	o := &order.Order{V: 1, ID: "o-" + s.req.BootID, ServerKeyID: order.KeyID(s.Key), Job: 7, Attempt: 1, FenceEpoch: "e", FenceFloor: s.fence,
		BootID: s.req.BootID, AgentNonce: s.req.Nonce, Scope: "disk", Mode: "delta", After: "reboot", Personalise: order.PersonaliseRequire, ExpiresAfterS: 3600,
		Host:  order.HostID{Name: "a01", Room: "A", UUID: s.req.Evidence.UUID, Serial: s.req.Evidence.Serial},
		Image: order.ImageRef{Name: m.Name, Version: m.Version, ManifestDigest: s.Image.Bundle.Digest, MinDiskBytes: m.Disk.MinSize, Sector: m.Disk.Sector}}
	for _, n := range s.req.Evidence.NICs {
		o.Host.MACs = append(o.Host.MACs, n.MAC)
	}
	for _, d := range s.req.Evidence.Disks {
		if d.Note == "" {
			o.Replace = unread(d.Foreign)
			o.Disk = order.DiskID{WWN: d.WWN, Serial: d.Serial, Model: d.Model, Bytes: d.Bytes, Sector: d.Sector, Bus: d.Bus}
			break
		}
	}
	o.Swarm = order.Swarm{Authority: s.ca.Cert(), Cert: s.Issue(peercert.ID{Host: o.Host.Name, Job: o.Job, Boot: o.BootID})}
	if s.Order != nil {
		s.mu.Unlock() // a test may wait here for another call
		s.Order(o)
		s.mu.Lock()
	}
	env, err := order.Sign(s.key, order.TypeOrder, o)
	if err != nil {
		s.t.Errorf("sign order: %v", err)
	}
	s.order = o
	s.write(w, env)
}

// unread lets disks of tests that have no device node through to the agent's own
// rules. Foreign data is given up by a test's own word only.
func unread(list []api.Mark) (out []api.Mark) {
	for _, m := range list {
		if m.Kind == api.MarkUnreadable {
			out = append(out, m)
		}
	}
	return out
}

// Issue makes a certificate for the swarm over the agent's boot key.
func (s *Server) Issue(id peercert.ID) []byte {
	cert, err := s.ca.Issue(s.boot, id)
	if err != nil {
		s.t.Errorf("issue swarm certificate: %v", err)
	}
	return cert
}

func (s *Server) file(w http.ResponseWriter, r *http.Request) {
	b, ok := s.Image.Files[strings.TrimPrefix(r.URL.Path, api.RouteImage)]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if _, err := w.Write(b); err != nil {
		s.t.Logf("send file: %v", err)
	}
}

func (s *Server) commence(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var req api.CommenceRequest
	s.read(r, &req)
	s.tries++
	s.fence++
	c := &order.Commence{OrderID: req.OrderID, BootID: req.BootID, AgentNonce: s.req.Nonce, FenceEpoch: "e", Fence: s.fence, PlanDigest: req.PlanDigest}
	if s.Commence != nil {
		if p := s.Commence(s.tries, c); p != nil {
			s.refuse(w, p)
			return
		}
	}
	env, err := order.Sign(s.key, order.TypeCommence, c)
	if err != nil {
		s.t.Errorf("sign commence: %v", err)
	}
	s.write(w, env)
}

func (s *Server) progress(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var p api.Progress
	s.read(r, &p)
	if n := len(s.States); n == 0 || s.States[n-1] != p.State {
		s.States = append(s.States, p.State)
	}
	if s.Progress != nil {
		s.write(w, s.Progress(p))
		return
	}
	s.write(w, s.Plan(p))
}

// Plan is the usual answer: the seed as parent, release when done.
func (s *Server) Plan(p api.Progress) api.ProgressReply {
	s.rev++
	return api.ProgressReply{IntervalMs: 200, Assignment: &api.Assignment{Rev: s.rev,
		Parent: api.PeerRef{HostID: "server", Addr: s.seed, Server: true}, Release: p.State == api.StateDone}}
}

func (s *Server) result(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var res api.Result
	s.read(r, &res)
	s.Results = append(s.Results, res)
	st := api.StateDone
	if !res.OK {
		st = api.StateFailed
	}
	s.write(w, api.ResultAck{OK: true, State: st})
}

func (s *Server) log(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var l api.LogRequest
	s.read(r, &l)
	s.Logs = append(s.Logs, l.Text)
	w.WriteHeader(http.StatusNoContent)
}

// SetSilent makes the server answer nothing, or answer again.
func (s *Server) SetSilent(on bool) { s.mu.Lock(); defer s.mu.Unlock(); s.Silent = on }

// Last returns the one result that came, failing the test otherwise.
func (s *Server) Last() api.Result {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.Results) == 0 {
		s.t.Fatal("no result came")
	}
	return s.Results[len(s.Results)-1]
}

// Seen returns the states reported so far.
func (s *Server) Seen() []api.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]api.State(nil), s.States...)
}

// ReadbackDigest is what the server computes from the manifest alone: SHA-256
// over the SHA-256 of every data and zero cell, in cell order.
func ReadbackDigest(im *Image) string {
	m := im.Bundle.Manifest
	zero := sha256.Sum256(make([]byte, m.Cell))
	h := sha256.New()
	for c := range m.GridCells() {
		if p, ok := m.PieceOf(c); ok {
			sum := m.PieceSHA256(p)
			h.Write(sum[:])
		} else if m.IsZero(c) {
			h.Write(zero[:])
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
