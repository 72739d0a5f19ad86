package daemon

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/images/library"
	"labswarm/server/daemon/relays"
	"labswarm/server/decide"
	"labswarm/swarm/peer"
	"labswarm/swarm/peercert"
)

// rot flips a bit of a piece in disk.raw and one in its compressed form: the store has it in no form any more.
func rot(t *testing.T, v *library.Version, pieces ...int) {
	t.Helper()
	m := v.Manifest()
	zst := filepath.Join(v.Dir(), "frames.zst")
	raw, err := os.ReadFile(zst)
	if err != nil {
		t.Fatal(err)
	}
	cell := make([]byte, m.Cell)
	for _, p := range pieces {
		if err := v.ReadPiece(p, cell); err != nil {
			t.Fatal(err)
		}
		used := slices.IndexFunc(cell, func(b byte) bool { return b != 0 })
		flip(t, filepath.Join(v.Dir(), "disk.raw"), m.CellOf(p)*m.Cell+int64(used))
		// Random content is stored as it is inside its frame.
		at := bytes.Index(raw, cell[used:used+64])
		if at < 0 {
			t.Fatalf("piece %d is not in frames.zst as it is", p)
		}
		flip(t, zst, int64(at)+32)
	}
}

// waitImage waits until the server says of the newest version what ok wants.
func (s *site) waitImage(what, version string, ok func(api.ImageState) bool) api.ImageState {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		st := s.state(version)
		if ok(st) {
			return st
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s: %+v", what, st)
		}
	}
}

// imageEvents are the codes of what was told about images, in order.
func (s *site) imageEvents() (codes []string) {
	s.t.Helper()
	list, err := s.srv.engine.EventsSince(s.t.Context(), 0, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range list {
		if strings.HasPrefix(e.Code, "image_") {
			codes = append(codes, e.Code)
		}
	}
	return codes
}

// sound fails unless every cell and compressed cell in the store is right.
func (s *site) sound() {
	s.t.Helper()
	v, err := s.lib().Get(s.image, "")
	if err != nil {
		s.t.Fatal(err)
	}
	defer v.Close()
	if res, err := v.Verify(s.t.Context(), nil); err != nil || !res.OK() || !res.FramesOK() {
		s.t.Errorf("the store: %+v, %v; want all right", res, err)
	}
}

// TestHealsFromRelay: what a scrub finds damaged in both forms comes back from a relay, in that scrub. Without one the
// version stays in quarantine, and is healed as soon as a relay is there.
func TestHealsFromRelay(t *testing.T) {
	s := newSite(t)
	s.look = 20 * time.Millisecond
	s.restart()
	r := newSecond(s, "annex")
	r.start()
	s.waitRelay("serves", serves(1))
	v, err := s.lib().Get(s.image, "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	rot(t, v, 4, 9)
	if err := s.srv.keeper.Scrub(t.Context(), s.image, v.Version(), nil); err != nil {
		t.Fatal(err)
	}
	st := s.state(v.Version())
	if st.Quarantine != "" || len(st.Bad) > 0 || !strings.Contains(st.Outcome, "2 cells were fetched back from annex") {
		t.Errorf("state = %+v; want it healed", st)
	}
	if got := strings.Join(s.imageEvents(), " "); got != "image_damaged image_cells_fetched image_mended" {
		t.Errorf("events: %s", got)
	}
	s.sound()

	// Nobody is there: the state says so, and what can be done.
	r.end()
	for len(s.srv.relays.Holders(v.InfoHash())) > 0 {
		if err := s.cli.RemoveRelay(t.Context(), "annex"); err != nil {
			t.Fatal(err)
		}
	}
	v2, err := s.lib().Get(s.image, "") // the frames were made anew
	if err != nil {
		t.Fatal(err)
	}
	defer v2.Close()
	rot(t, v2, 7)
	if err := s.srv.keeper.Scrub(t.Context(), s.image, v.Version(), nil); err != nil {
		t.Fatal(err)
	}
	st = s.state(v.Version())
	if len(st.Bad) != 1 || st.Bad[0] != v.Manifest().CellOf(7) || !strings.Contains(st.Quarantine, "nobody who is there holds this image") || !strings.Contains(st.Quarantine, "--force=unchanged") {
		t.Errorf("state = %+v; want cell %d named, and advice", st, v.Manifest().CellOf(7))
	}
	back := newSecond(s, "back")
	back.cfg.StateDir = r.cfg.StateDir
	back.start()
	s.waitImage("healed when a relay comes", v.Version(), func(st api.ImageState) bool { return st.Quarantine == "" && len(st.Bad) == 0 })
	s.sound()
}

// held is a host's disk that is complete from the start.
type held struct{ *target }

func (held) Have(int) bool { return true }

// holder takes a host into the running job and has it serve what is on its disk, as the agent does.
func (s *site) holder(h api.Host, v *library.Version, d *target) *agent {
	t := s.t
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.boot(h, decide.Agent)
	s.srv.engine.InitramfsFetched(h.MAC)
	a := newAgent(s, h)
	a.port = int(portOf(ln))
	a.enrol()
	a.order()
	a.progress(api.StateChecking, nil)
	a.commence()
	m := v.Manifest()
	n, err := peer.New(peer.Config{InfoHash: v.InfoHash(), PeerID: [20]byte([]byte("-LS0001-serves." + h.Name + "...")), Pieces: m.Pieces(), PieceLen: m.Cell, Listener: ln,
		Hash: func(i int) [20]byte { return v.Torrent().Hashes[i] }, Storage: held{d}, Pass: func() (*peercert.Pass, error) { return a.pass(), nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	a.progress(api.StateVerifying, func(p *api.Progress) { p.InSwarm, p.CellsHave, p.CellsTotal = true, m.Pieces(), m.Pieces() })
	return a
}

// TestHealsFromHostsOfARunningJob: the seed meets a damaged cell while it serves a job, and gets it back from a host of
// that job, in which the host that waits for it gets it. A host whose own system has changed the cell is asked in vain.
// The quarantine ends after the job, when every cell was read.
func TestHealsFromHostsOfARunningJob(t *testing.T) {
	s := newSite(t)
	s.look = 20 * time.Millisecond
	s.restart()
	h1, h2, h3 := s.host("a1"), s.host("a2"), s.host("a3")
	s.createJob()
	v, err := s.lib().Get(s.image, "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	m := v.Manifest()
	disk := func() *target {
		d := &target{cell: m.Cell, data: make([]byte, int64(m.Pieces())*m.Cell)}
		for i := range m.Pieces() {
			if err := v.ReadPiece(i, d.at(i)); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	const one, own = 5, 8 // pieces
	personal, whole := disk(), disk()
	personal.at(own)[100] ^= 1 // its host name, say
	s.holder(h1, v, personal)
	rot(t, v, one, own)

	// A third host fetches from the server, and from nobody else.
	a3, _ := s.deploy(h3)
	d := &counted{target: target{cell: m.Cell, data: make([]byte, int64(m.Pieces())*m.Cell)}, got: map[int]bool{}}
	n, err := peer.New(peer.Config{InfoHash: v.InfoHash(), PeerID: [20]byte([]byte("-LS0001-waits.host..")), Pieces: m.Pieces(), PieceLen: m.Cell,
		Hash: func(i int) [20]byte { return v.Torrent().Hashes[i] }, Storage: d, Pass: func() (*peercert.Pass, error) { return a3.pass(), nil }})
	if err != nil {
		t.Fatal(err)
	}
	n.SetSources(peer.Assignment{Parent: peer.Peer{Addr: netip.AddrPortFrom(s.srv.ip, s.srv.seedPort), ID: relays.ServerName, Server: true}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()

	st := s.waitImage("one cell is back from a1, the other not", v.Version(), func(st api.ImageState) bool {
		return slices.Equal(st.Bad, []int64{m.CellOf(own)}) && strings.Contains(st.Healing, "a1: it does not have them")
	})
	if st.Quarantine == "" || !st.Checked.IsZero() {
		t.Errorf("state = %+v; want quarantine, and no scrub while the job runs", st)
	}
	s.holder(h2, v, whole)
	st = s.waitImage("the other one is back from a2", v.Version(), func(st api.ImageState) bool { return len(st.Bad) == 0 })
	if st.Quarantine == "" || !strings.Contains(st.Healing, "fetched back from a2") || !strings.Contains(st.Healing, "when no job runs") {
		t.Errorf("state = %+v; want quarantine until every cell was read", st)
	}
	select {
	case <-n.Done():
	case <-ctx.Done():
		t.Errorf("the host that waits for the cells does not get them: %+v", n.Stats())
	}
	if f := n.Stats().HashFailures; f > 0 {
		t.Errorf("%d wrong cells were sent", f)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := s.cli.PlanJob(t.Context(), api.JobCreate{Image: s.image, Room: "r1"}); err == nil || !strings.Contains(err.Error(), "quarantine") {
		t.Errorf("a new job = %v; want a refusal", err)
	}
	if got := strings.Join(s.imageEvents(), " "); got != "image_damaged image_cells_fetched image_cells_fetched" {
		t.Errorf("events: %s", got)
	}
}

// TestHealOverTheSocket: the command line's way: damaged cells are named, and only what is damaged is touched.
func TestHealOverTheSocket(t *testing.T) {
	s := newSite(t)
	v, err := s.lib().Get(s.image, "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	m, digest := v.Manifest(), v.Digest()
	req := api.ImageHeal{Name: s.image, Version: v.Version(), Digest: fmt.Sprintf("%x", digest), Cells: []int64{m.CellOf(2), m.CellOf(3), m.CellOf(6)}}
	flip(t, filepath.Join(v.Dir(), "disk.raw"), m.CellOf(2)*m.Cell+77) // its compressed form is right
	rot(t, v, 6)
	h, err := s.cli.HealImage(t.Context(), req)
	if err != nil || h.Made != 1 || h.Fetched != 0 || !slices.Equal(h.Left, []int64{m.CellOf(6)}) || !strings.Contains(h.Note, "nobody who is there") {
		t.Errorf("heal = %+v, %v; want cell %d made again and cell %d left", h, err, m.CellOf(2), m.CellOf(6))
	}
	bad := req
	bad.Digest = "00"
	if _, err := s.cli.HealImage(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "another image") {
		t.Errorf("heal of other content = %v", err)
	}
	bad = req
	bad.Cells = []int64{1 << 40}
	if _, err := s.cli.HealImage(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "repair cell 1099511627776") {
		t.Errorf("a cell beyond the disk = %v", err)
	}
}
