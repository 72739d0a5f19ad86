package daemon

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/images/metainfo"
	"labswarm/server/decide"
	"labswarm/swarm/peer"
	"labswarm/swarm/peercert"
)

// ramDisk is a host's disk.
type ramDisk struct {
	mu     sync.Mutex
	pieces map[int]bool
}

func (d *ramDisk) Have(int) bool               { return false }
func (d *ramDisk) ReadPiece(int, []byte) error { return nil }
func (d *ramDisk) WritePiece(i int, _ []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pieces[i] = true
	return nil
}

// pass is the agent's way into the swarm, as its order gives it.
func (a *agent) pass() *peercert.Pass {
	a.s.t.Helper()
	p, err := peercert.NewPass(a.o.Swarm.Authority, a.o.Swarm.Cert, a.key)
	if err != nil {
		a.s.t.Fatal(err)
	}
	return p
}

// fetch asks the server for the image with a pass (nil: without TLS): true when
// every piece came, false when the server refused.
func (a *agent) fetch(pass *peercert.Pass) bool {
	t := a.s.t
	t.Helper()
	status, raw := a.call("GET", api.RouteImage+"image.torrent", nil)
	if status != http.StatusOK {
		t.Fatalf("torrent: %d", status)
	}
	tor, err := metainfo.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	st := &ramDisk{pieces: map[int]bool{}}
	cfg := peer.Config{InfoHash: tor.InfoHash, PeerID: [20]byte{9}, Pieces: len(tor.Hashes), PieceLen: tor.PieceLength,
		Hash: func(i int) [20]byte { return tor.Hashes[i] }, Storage: st}
	if pass != nil {
		cfg.Pass = func() (*peercert.Pass, error) { return pass, nil }
	}
	n, err := peer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	n.SetSources(peer.Assignment{Parent: peer.Peer{ID: "server", Server: true, Addr: netip.AddrPortFrom(a.s.srv.ip, a.s.srv.seedPort)}})
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		switch s := n.Stats(); {
		case s.Have == s.Pieces:
			return true
		case len(s.Rejected) > 0:
			if len(st.pieces) > 0 {
				t.Errorf("refused after %d pieces", len(st.pieces))
			}
			return false
		}
	}
	t.Fatal("neither served nor refused")
	return false
}

// TestSwarmCertificates follows a certificate from the enrolment to the end of
// its job: it opens the seed for this host, this boot and this job, also after
// a restart of the server, and for nobody and nothing else.
func TestSwarmCertificates(t *testing.T) {
	s := newSite(t)
	h, h2 := s.host("a1"), s.host("a2")
	job := func(host string) api.Job {
		j, err := s.cli.CreateJob(t.Context(), api.JobCreate{Image: s.image, Hosts: []string{host}, Confirm: s.image})
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	job("a1")
	a, cleared := s.deploy(h)
	if id := a.pass().ID(); id.Host != "a1" || id.Job != a.o.Job || id.Boot != a.boot || id.Seed {
		t.Errorf("the order's certificate says %+v", id)
	}
	if !a.fetch(a.pass()) {
		t.Fatal("a member is refused")
	}
	if a.fetch(nil) {
		t.Error("a host without TLS is served")
	}
	if _, err := peercert.NewPass(a.o.Swarm.Authority, a.o.Swarm.Cert, ed25519Key(t)); err == nil {
		t.Error("the certificate passes with another key")
	}
	s.restart()
	if !a.fetch(a.pass()) {
		t.Fatal("a member is refused after a restart of the server")
	}

	// Forged by somebody who knows the whole order but not the server's key.
	ca, err := peercert.NewAuthority(make([]byte, 32), a.pass().InfoHash(), "x")
	if err != nil {
		t.Fatal(err)
	}
	forged, err := ca.NewPass(a.pass().ID())
	if err != nil {
		t.Fatal(err)
	}
	if a.fetch(forged) {
		t.Error("a certificate of a foreign authority is served")
	}

	// The job ends with the host: from then on its certificate is worth nothing.
	old := a.pass()
	var ack api.ResultAck
	a.ok("POST", api.RouteResult, a.goodResult(cleared.Fence()), &ack)
	if !a.fetch(old) {
		t.Error("a host that is done and waits for others is refused")
	}
	a.progress(api.StateRebooting, nil)
	if a.fetch(old) {
		t.Error("a host that has left is served")
	}
	s.boot(h, decide.Local)
	s.wantState("a1", api.StateConfirmed)

	// The next job on the same image is another swarm.
	second := job("a2")
	b, _ := s.deploy(h2)
	if b.o.Job != second.ID {
		t.Fatalf("the order is of job %d, not %d", b.o.Job, second.ID)
	}
	if !b.fetch(b.pass()) {
		t.Error("a member of the second job is refused")
	}
	if b.fetch(old) {
		t.Error("last job's certificate is served")
	}
	if string(b.o.Swarm.Authority) == string(a.o.Swarm.Authority) {
		t.Error("two jobs, one after the other, have the same authority")
	}
}

// TestJobsAtOnceShareASwarm: hosts of two live jobs on one image may be each
// other's sources, so they have one authority; the certificates differ.
func TestJobsAtOnceShareASwarm(t *testing.T) {
	s := newSite(t)
	h1, h2 := s.host("a1"), s.host("a2")
	for _, name := range []string{"a1", "a2"} {
		if _, err := s.cli.CreateJob(t.Context(), api.JobCreate{Image: s.image, Hosts: []string{name}, Confirm: s.image}); err != nil {
			t.Fatal(err)
		}
	}
	a, _ := s.deploy(h1)
	s.restart() // the second order comes from another process
	b, _ := s.deploy(h2)
	if string(a.o.Swarm.Authority) != string(b.o.Swarm.Authority) {
		t.Error("two live jobs on one image have two authorities")
	}
	if a.pass().ID().Job == b.pass().ID().Job {
		t.Error("the certificates name the same job")
	}
	for _, x := range []*agent{a, b} {
		if !x.fetch(x.pass()) {
			t.Errorf("%s is refused", x.host.Name)
		}
	}
}
