package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/images/library"
	"labswarm/server/config"
	"labswarm/server/daemon/relays"
	"labswarm/server/decide"
	"labswarm/swarm/peer"
	"labswarm/swarm/peercert"
)

// another makes one more version, as `labswarm image import` does beside the server.
func (s *site) another() string {
	s.t.Helper()
	if _, err := rand.Read(s.disk[1<<20 : 1<<20+4096]); err != nil {
		s.t.Fatal(err)
	}
	file := filepath.Join(s.dir, "next.raw")
	if err := os.WriteFile(file, s.disk, 0o600); err != nil {
		s.t.Fatal(err)
	}
	v, err := s.cmdline().Import(s.t.Context(), library.ImportOptions{Name: s.image, File: file, Codec: s.codec})
	if err != nil {
		s.t.Fatal(err)
	}
	defer v.Close()
	return v.Version()
}

// cmdline is the library as the command line opens it.
func (s *site) cmdline() *library.Library {
	s.t.Helper()
	keys, err := config.LoadKeys(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	lib, err := library.Open(filepath.Join(s.dir, "images"), keys.Image, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return lib
}

// state returns what the server knows of a version.
func (s *site) state(version string) api.ImageState {
	s.t.Helper()
	list, err := s.cli.ImageStates(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, st := range list {
		if st.Version == version {
			return st
		}
	}
	s.t.Fatalf("version %s is not in %+v", version, list)
	return api.ImageState{}
}

// rm removes a version over the socket and returns the refusal, "" = removed.
func (s *site) rm(version string, force bool) string {
	s.t.Helper()
	err := s.cli.RemoveImage(s.t.Context(), api.ImageRemove{Name: s.image, Version: version, Force: force})
	var p *api.Problem
	if err != nil && !errors.As(err, &p) {
		s.t.Fatal(err)
	}
	if err == nil {
		return ""
	}
	return p.Detail
}

// given has host a1 written with a version, and ends the job.
func (s *site) given(version string) {
	s.t.Helper()
	hosts, err := s.cli.Hosts(s.t.Context())
	if err != nil || len(hosts) == 0 {
		s.t.Fatal(hosts, err)
	}
	j, err := s.cli.CreateJob(s.t.Context(), api.JobCreate{Image: s.image, Version: version, Room: "r1", Confirm: "r1"})
	if err != nil {
		s.t.Fatalf("create job: %v", err)
	}
	if why := s.rm(version, true); !strings.Contains(why, "has not ended") || !strings.Contains(why, "being served") {
		s.t.Errorf("rm of a version that a job deploys: %q", why)
	}
	a, cleared := s.deploy(hosts[0])
	s.finish(a, cleared)
	if j, err = s.cli.Job(s.t.Context(), j.ID); err != nil || j.Ended.IsZero() {
		s.t.Fatalf("job %d has not ended: %+v, %v", j.ID, j.Slots, err)
	}
}

// finish has the agent report success and its PC boot again, which ends the job of one host.
func (s *site) finish(a *agent, c order.Cleared) {
	s.t.Helper()
	var ack api.ResultAck
	a.ok("POST", api.RouteResult, a.goodResult(c.Fence()), &ack)
	a.progress(api.StateRebooting, nil)
	s.restart()
	s.boot(a.host, decide.Local)
	s.wantState(a.host.Name, api.StateConfirmed)
	s.restart() // forgets that this boot is answered
}

// TestWhoNeedsAVersion: jobs, rooms, pins and the newest of a name protect a version; what nobody needs is garbage.
func TestWhoNeedsAVersion(t *testing.T) {
	s := newSite(t)
	s.host("a1")
	first, err := s.lib().Latest(s.image)
	if err != nil {
		t.Fatal(err)
	}
	s.given(first)
	if why := s.rm(first, false); !strings.Contains(why, "room r1 was given it last (job 1)") || !strings.Contains(why, "newest of tiny") {
		t.Errorf("rm of what a room has: %q", why)
	}
	second := s.another()
	s.given(second) // the server sees what the command line imported
	third, fourth := s.another(), s.another()
	s.given(third)
	s.given(second)
	for v, want := range map[string]string{first: "", second: "given it last (job 4)", third: "before its present one (job 3)", fourth: ""} {
		if got := strings.Join(s.state(v).Refs, "; "); got == "" != (want == "") || !strings.Contains(got, want) {
			t.Errorf("version %s is needed by %q; want %q", v, got, want)
		}
	}
	garbage := func(keep int) string {
		t.Helper()
		list, err := s.cli.ImageGarbage(t.Context(), keep)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, g := range list {
			out = append(out, g.Version)
		}
		return strings.Join(out, " ")
	}
	if got := garbage(1); got != first {
		t.Errorf("garbage: %q; want %q", got, first)
	}
	if got := garbage(4); got != "" {
		t.Errorf("garbage with four to keep: %q", got)
	}
	if err := s.cli.PinImage(t.Context(), api.ImagePin{Name: s.image, Version: first, Pinned: true}); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{".tmp-1", ".trash-1"} { // of a crash
		if err := os.MkdirAll(filepath.Join(s.dir, "images", left, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.restart() // pins survive, what a crash left does not
	if left, err := filepath.Glob(filepath.Join(s.dir, "images", ".t*")); err != nil || left != nil {
		t.Errorf("the start left %q", left)
	}
	if got := garbage(1); got != "" || !strings.Contains(s.rm(first, true), "pinned") {
		t.Errorf("garbage: %q though it is pinned", got)
	}
	if err := s.cli.PinImage(t.Context(), api.ImagePin{Name: s.image, Version: first}); err != nil {
		t.Fatal(err)
	}
	if why := s.rm(first, false); why != "" {
		t.Errorf("rm of what nobody needs: %q", why)
	}
	if why := s.rm(first, false); !strings.Contains(why, "no such image") {
		t.Errorf("second rm: %q", why)
	}
	for _, bad := range []string{"..", "2026-11-01.1/../..", "2026-11-01.١", ""} {
		if why := s.rm(bad, true); why == "" {
			t.Errorf("rm of version %q was taken", bad)
		}
	}
	// What the command line removed is gone for the server too, though it had it in RAM.
	if _, err := s.cli.PlanJob(t.Context(), api.JobCreate{Image: s.image, Version: third, Room: "r1"}); err != nil {
		t.Fatal(err)
	}
	if err := s.cmdline().Remove(s.image, third); err != nil {
		t.Fatal(err)
	}
	s.problem("POST", api.RouteJobs, "gone", `{"image":"tiny/`+third+`","room":"r1","confirm":"r1"}`, 404, api.CodeNotFound)
	s.problem("POST", api.RouteJobs, "gone2", `{"image":"tiny/`+first+`","room":"r1","confirm":"r1"}`, 404, api.CodeNotFound)
}

// counted is a target that counts what it was given.
type counted struct {
	target
	mu  sync.Mutex
	got map[int]bool
}

func (c *counted) WritePiece(i int, buf []byte) error {
	c.mu.Lock()
	c.got[i] = true
	c.mu.Unlock()
	return c.target.WritePiece(i, buf)
}

func (c *counted) pieces() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.got)
}

// flip harms bytes of a file in place.
func flip(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10 // one bit
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// TestRottenCellNeverLeaves: a bit flips in disk.raw and in frames.zst while the server serves them. Hosts get every other
// cell and no wrong one; the version goes into quarantine; no new job may use it; a repair ends that.
func TestRottenCellNeverLeaves(t *testing.T) {
	s := newSite(t)
	s.look = 20 * time.Millisecond
	s.restart()
	h := s.host("a1")
	s.createJob()
	a, cleared := s.deploy(h)
	v, err := s.lib().Get(s.image, "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	m := v.Manifest()
	const both, frame = 4, 6 // pieces
	raw, zst := filepath.Join(v.Dir(), "disk.raw"), filepath.Join(v.Dir(), "frames.zst")
	good, err := os.ReadFile(zst)
	if err != nil {
		t.Fatal(err)
	}
	// Piece 0 is the partition table; the frames of the others are random content, one as long as the other.
	per := v.FrameBytes() / int64(m.Pieces()-1)
	for _, piece := range []int64{both, frame} {
		flip(t, zst, (piece-1)*per+per/2)
	}
	flip(t, raw, m.CellOf(both)*m.Cell+1000)

	d := &counted{target: target{cell: m.Cell, data: make([]byte, int64(m.Pieces())*m.Cell)}, got: map[int]bool{}}
	n, err := peer.New(peer.Config{InfoHash: v.InfoHash(), PeerID: [20]byte([]byte("-LS0001-rotten.host.")), Pieces: m.Pieces(), PieceLen: m.Cell,
		Hash: func(i int) [20]byte { return v.Torrent().Hashes[i] }, Storage: d, Pass: func() (*peercert.Pass, error) { return a.pass(), nil }})
	if err != nil {
		t.Fatal(err)
	}
	n.SetSources(peer.Assignment{Parent: peer.Peer{Addr: netip.AddrPortFrom(s.srv.ip, s.srv.seedPort), ID: relays.ServerName, Server: true}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	for (d.pieces() < m.Pieces()-1 || s.state(v.Version()).Quarantine == "") && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
	}
	st := n.Stats()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if d.got[both] || d.pieces() != m.Pieces()-1 || st.HashFailures != 0 {
		t.Errorf("%d of %d pieces came, the rotten one: %v, wrong ones: %d; want all but one and none wrong", d.pieces(), m.Pieces(), d.got[both], st.HashFailures)
	}
	q := s.state(v.Version())
	if !strings.Contains(q.Quarantine, "damaged") || !q.Checked.IsZero() {
		t.Fatalf("state = %+v; want quarantine, and no scrub while the job runs", q)
	}
	s.problem("POST", api.RouteJobs, "q", `{"image":"tiny","room":"r1","confirm":"r1"}`, 409, api.CodeConflict)
	if _, err := s.cli.PlanJob(t.Context(), api.JobCreate{Image: s.image, Room: "r1"}); err == nil || !strings.Contains(err.Error(), "quarantine") {
		t.Errorf("dry run = %v; want the reason", err)
	}
	// The job ends: the scrub runs at once and finds both forms of one cell damaged.
	s.finish(a, cleared)
	wait := func(what string, ok func(api.ImageState) bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(s.state(v.Version())); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %+v", what, s.state(v.Version()))
			}
		}
	}
	wait("scrubbed, still damaged", func(st api.ImageState) bool {
		return !st.Checked.IsZero() && strings.Contains(st.Quarantine, "1 cells are damaged") && strings.Contains(st.Outcome, "import the disk again")
	})
	s.problem("POST", api.RouteJobs, "q2", `{"image":"tiny","room":"r1","confirm":"r1"}`, 409, api.CodeConflict)
	// The frames come back from a backup: now the cell can be made again.
	if err := os.WriteFile(zst, good, 0o600); err != nil {
		t.Fatal(err)
	}
	s.srv.keeper.Suspect(s.image, v.Version(), "look again")
	wait("mended", func(st api.ImageState) bool { return !st.Checked.IsZero() && st.Quarantine == "" })
	var codes []string
	events, err := s.srv.engine.EventsSince(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if strings.HasPrefix(e.Code, "image_") {
			codes = append(codes, e.Code)
		}
	}
	if got := strings.Join(codes, " "); !strings.HasPrefix(got, "image_damaged ") || !strings.HasSuffix(got, " image_mended") {
		t.Errorf("events: %s", got)
	}
	s.createJob()
}
