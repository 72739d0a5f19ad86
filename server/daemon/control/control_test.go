package control

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/server/decide"
	"labswarm/server/netboot"
	"labswarm/server/store"
)

// oneImage is an image store with one image.
type oneImage struct{}

func (oneImage) Find(name, _ string) (ImageInfo, error) {
	if name != "deb" {
		return ImageInfo{}, fmt.Errorf("no image %s", name)
	}
	return ImageInfo{Image: api.Image{Name: "deb", Version: "1", MinBytes: 1 << 30, DiskBytes: 1 << 30, Cells: 100, CellBytes: 1 << 20, BytesShipped: 100 << 20,
		InfoHash: strings.Repeat("ab", 20), Digest: "digest"}, Sector: 512, Readback: "right"}, nil
}
func (oneImage) File(string, string, string) ([]byte, error) { return nil, nil }
func (oneImage) List() ([]api.Image, error)                  { return nil, nil }

// quietSwarms counts what the engine asks of swarms.
type quietSwarms struct {
	served, stopped int
	sent            int64
	last            HostReport
}

func (q *quietSwarms) Serve(string, string) error      { q.served++; return nil }
func (q *quietSwarms) Stop(string)                     { q.stopped++ }
func (q *quietSwarms) Report(_ string, r HostReport)   { q.last = r }
func (q *quietSwarms) Expect(string, int)              {}
func (q *quietSwarms) Leave(string, string)            {}
func (q *quietSwarms) Sent(string) (image, wire int64) { return q.sent, q.sent / 3 }
func (q *quietSwarms) Assignment(string, string) (api.Assignment, bool) {
	return api.Assignment{}, false
}
func (q *quietSwarms) Subscribe(string, string) (<-chan api.Assignment, func()) {
	return make(chan api.Assignment), func() {}
}

// bench is an engine in a time bubble: hours pass in milliseconds.
type bench struct {
	*Engine
	t      *testing.T
	swarms *quietSwarms
	wol    Waker
	key    ed25519.PrivateKey
	store  store.Store
	dir    string
	stop   context.CancelFunc
	done   chan error
}

func newBench(t *testing.T, st store.Store) *bench {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, swarms: &quietSwarms{}, key: key, store: st, dir: t.TempDir()}
	b.start()
	return b
}

func (b *bench) start() {
	b.t.Helper()
	e, err := New(b.t.Context(), Config{Store: b.store, Key: b.key, Images: oneImage{}, Swarms: b.swarms, BootStyle: "chain",
		StateDir: b.dir, SnapshotDir: b.dir, Waker: b.wol, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.Engine, b.stop, b.done = e, cancel, make(chan error, 1)
	go func() { b.done <- e.Run(ctx) }()
}

func (b *bench) end() {
	b.stop()
	if err := <-b.done; err != nil {
		b.t.Errorf("Run = %v", err)
	}
}

func (b *bench) lab(hosts ...string) api.Job {
	b.t.Helper()
	for i, h := range hosts {
		if _, err := b.PutHost(b.t.Context(), api.Host{Name: h, Room: "r1", MAC: fmt.Sprintf("52:54:00:00:00:%02x", i+1)}); err != nil {
			b.t.Fatal(err)
		}
	}
	return b.create(api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1", ExpiresInS: 3600})
}

// create plans a job and agrees to it.
func (b *bench) create(req api.JobCreate) api.Job {
	b.t.Helper()
	plan, err := b.PlanJob(b.t.Context(), &req)
	if err != nil {
		b.t.Fatal(err)
	}
	req.PlanDigest, req.ConfirmHosts = plan.PlanDigest, plan.Erase
	j, err := b.CreateJob(b.t.Context(), &req, "")
	if err != nil {
		b.t.Fatal(err)
	}
	return j
}

func (b *bench) slot(i int) api.Slot {
	b.t.Helper()
	j, err := b.Job(b.t.Context(), 1)
	if err != nil {
		b.t.Fatal(err)
	}
	return j.Slots[i]
}

func (b *bench) want(i int, st api.State) {
	b.t.Helper()
	if s := b.slot(i); s.State != st {
		b.t.Fatalf("%s is %s (%s) at %s; want %s", s.Host, s.State, s.Error, time.Now().Format(time.TimeOnly), st)
	}
}

func (b *bench) boot(i int) decide.Action {
	return b.DecideBoot(b.t.Context(), netboot.Request{Proto: decide.ProtoProxy, MAC: fmt.Sprintf("52:54:00:00:00:%02x", i+1)}).Decision.Action
}

// committed brings host a1 of a new job behind the point of no return.
func (b *bench) committed() (cert string, req *api.EnrolRequest) {
	b.t.Helper()
	b.lab("a1")
	cert, req = b.agent(0, 1)
	b.progress(cert, req, api.StateChecking, 1)
	b.commence(cert, req)
	return cert, req
}

// agent enrols host i under a boot number and returns its certificate id.
func (b *bench) agent(i, boot int) (cert string, req *api.EnrolRequest) {
	b.t.Helper()
	cert = fmt.Sprintf("cert-%d-%d", i, boot)
	req = &api.EnrolRequest{BootID: fmt.Sprintf("%032x", boot), Nonce: strings.Repeat("0", 32), PeerPort: 7441, Evidence: api.Evidence{
		NICs: []api.NIC{{MAC: fmt.Sprintf("52:54:00:00:00:%02x", i+1), SpeedMbps: 1000, Boot: true}}, Disks: []api.Disk{{Serial: "S", Bytes: 2 << 30, Sector: 512, Bus: "sata"}}}}
	rep, err := b.Enrol(b.t.Context(), cert, b.key.Public().(ed25519.PublicKey), netip.MustParseAddr("10.0.0.5"), req)
	if err != nil || rep.Status != api.EnrolOK {
		b.t.Fatalf("enrol = %+v, %v", rep, err)
	}
	return cert, req
}

func (b *bench) commence(cert string, req *api.EnrolRequest) (fence uint64, o order.Order) {
	b.t.Helper()
	raw, err := b.Order(b.t.Context(), cert)
	if err != nil {
		b.t.Fatal(err)
	}
	decode(b.t, raw, &o)
	d := req.Evidence.Disks[0]
	cr := &api.CommenceRequest{OrderID: o.ID, BootID: req.BootID, Disk: d, PlanDigest: order.PlanDigest(o.ID, diskID(d), 0, 0, 0, 0)}
	raw, err = b.Commence(b.t.Context(), cert, cr)
	if err != nil {
		b.t.Fatal(err)
	}
	var c order.Commence
	decode(b.t, raw, &c)
	return c.Fence, o
}

// decode opens an envelope without verifying it; verification has its own tests.
func decode(t *testing.T, raw json.RawMessage, into any) {
	t.Helper()
	var env struct{ Payload []byte }
	if err := json.Unmarshal(raw, &env); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(env.Payload, into); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) progress(cert string, req *api.EnrolRequest, st api.State, done int64) {
	b.t.Helper()
	if _, err := b.Progress(b.t.Context(), cert, netip.MustParseAddr("10.0.0.5"), &api.Progress{BootID: req.BootID, State: st, PhaseDone: done, PhaseTotal: 100}); err != nil {
		b.t.Fatal(err)
	}
}

func TestNobodyComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		defer b.end()
		b.lab("a1", "a2")
		if b.boot(0) != decide.Agent {
			t.Fatal("an armed host does not boot the agent")
		}
		b.want(0, api.StateBooting)
		time.Sleep(5*time.Minute + 2*time.Second)
		b.want(0, api.StateArmed)
		time.Sleep(time.Hour)
		b.want(0, api.StateNoShow)
		b.want(1, api.StateNoShow)
		j, err := b.Job(t.Context(), 1)
		if err != nil || j.Result != "failed" || b.swarms.stopped != 1 {
			t.Errorf("job ended %q, %v; swarm stopped %d times", j.Result, err, b.swarms.stopped)
		}
		// Next morning the PC boots its own disk.
		if a := b.boot(1); a != decide.Local {
			t.Errorf("next morning: %s; want local", a)
		}
	})
}

func TestStalledWriterIsHeldAndResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		defer b.end()
		cert, req := b.committed()
		for i := range 120 { // alive, but nothing moves
			b.progress(cert, req, api.StateWriting, 7)
			if i == 75 && !hasEvent(t, b, "slot_stalled") {
				t.Error("two minutes of standstill raised no alarm")
			}
			time.Sleep(2 * time.Second)
		}
		b.want(0, api.StateWriting)
		if s := b.slot(0); s.SilentS != 0 {
			t.Errorf("a host that reports counts as silent for %d s", s.SilentS)
		}
		time.Sleep(30 * time.Second)
		if s := b.slot(0); s.SilentS < 25 {
			t.Errorf("silent for %d s; want about 30", s.SilentS)
		}
		time.Sleep(12 * time.Minute)
		b.want(0, api.StateHeld)
		if b.boot(0) != decide.Agent { // switched off and on: resumes
			t.Error("a held, half-written host does not boot the agent")
		}
		b.want(0, api.StateBooting)
		cert2, req2 := b.agent(0, 2)
		fence, o := b.commence(cert2, req2)
		ack, err := b.Result(t.Context(), cert2, &api.Result{BootID: req2.BootID, OrderID: o.ID, Fence: fence, OK: true, Readback: "right"})
		if err != nil || ack.State != api.StateDone {
			t.Fatalf("result = %+v, %v", ack, err)
		}
		time.Sleep(2 * time.Minute) // its agent is gone without a word
		b.want(0, api.StateRebooting)
		time.Sleep(11 * time.Minute)
		if s := b.slot(0); s.State != api.StateDone || !s.Unseen {
			t.Errorf("unseen host: %+v", s)
		}
		if j, err := b.Job(t.Context(), 1); err != nil || j.Result != "ok" || j.EtaS != 0 || j.Percent != 100 {
			t.Errorf("job: %+v, %v", j, err)
		}
	})
}

func hasEvent(t *testing.T, b *bench, code string) bool {
	t.Helper()
	events, err := b.EventsSince(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Code == code {
			return true
		}
	}
	return false
}

// TestFramesPolicyReachesTheHost: on and off are told, auto leaves it to the host.
func TestFramesPolicyReachesTheHost(t *testing.T) {
	for policy, want := range map[string]string{"": "", "auto": "", "on": "on", "off": "off"} {
		b := newBench(t, store.NewMem())
		b.cfg.Frames = policy
		b.lab("a1")
		rep, err := b.Enrol(t.Context(), "c", b.key.Public().(ed25519.PublicKey), netip.MustParseAddr("10.0.0.5"), &api.EnrolRequest{BootID: strings.Repeat("1", 32), Nonce: strings.Repeat("0", 32),
			PeerPort: 7441, Evidence: api.Evidence{NICs: []api.NIC{{MAC: "52:54:00:00:00:01", Boot: true}}, Disks: []api.Disk{{Serial: "S", Bytes: 2 << 30, Sector: 512, Bus: "sata"}}}})
		if err != nil || rep.Status != api.EnrolOK || rep.Frames != want {
			t.Errorf("--frames %q: enrol = %+v, %v; want frames %q", policy, rep, err, want)
		}
		b.end()
	}
}

func TestSeedFiguresSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		b.swarms.sent = 1000 // of an earlier job of this version
		b.lab("a1")
		b.swarms.sent += 500
		sent := func() int64 {
			j, err := b.Job(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			if j.SeedWire < (j.SeedSent-2)/3 || j.SeedWire > j.SeedSent/3+1 {
				t.Errorf("%d bytes on the wire for %d of the image; want a third", j.SeedWire, j.SeedSent)
			}
			return j.SeedSent
		}
		if n := sent(); n != 500 {
			t.Errorf("sent %d; want 500", n)
		}
		time.Sleep(6 * time.Second)
		b.end()
		b.swarms.sent = 0 // a new process counts from nothing
		b.start()
		defer b.end()
		b.swarms.sent = 70
		if n := sent(); n != 570 {
			t.Errorf("sent %d after a restart; want 570", n)
		}
		if _, err := b.CancelJob(t.Context(), 1, "test"); err != nil {
			t.Fatal(err)
		}
		b.swarms.sent = 9999
		if n := sent(); n != 570 {
			t.Errorf("sent %d after the job's end; want 570", n)
		}
	})
}

// hanging is a store whose disk does not answer.
type hanging struct {
	store.Store
	stuck chan struct{}
}

func (h *hanging) View(ctx context.Context, fn func(store.Tx) error) error {
	if h.stuck != nil {
		<-h.stuck
	}
	return h.Store.View(ctx, fn)
}

func TestStoreThatHangsMeansLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &hanging{Store: store.NewMem()}
		b := newBench(t, st)
		b.lab("a1")
		b.end() // its chores would hang too
		st.stuck = make(chan struct{})
		for range 2 * maxAsking { // firmware that asks on and on
			start := time.Now()
			if a := b.boot(0); a != decide.Local {
				t.Fatalf("%s; want local", a)
			}
			if d := time.Since(start); d > decideLimit {
				t.Fatalf("answered after %s", d)
			}
		}
		close(st.stuck)
		synctest.Wait()
		st.stuck = nil
		if a := b.boot(0); a != decide.Agent {
			t.Errorf("%s once the store is well; want agent", a)
		}
	})
}

func TestWindowEndSparesTheUntouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		defer b.end()
		b.lab("a1", "a2")
		late, lateReq := b.agent(0, 1)
		writer, writerReq := b.agent(1, 1)
		b.progress(writer, writerReq, api.StateChecking, 1)
		fence, o := b.commence(writer, writerReq)
		for i := range int64(1900) {
			b.progress(late, lateReq, api.StateEnrolled, i)
			b.progress(writer, writerReq, api.StateWriting, i)
			time.Sleep(2 * time.Second)
		}
		b.want(0, api.StateSkipped)
		b.want(1, api.StateWriting)
		if got := b.Commands(t.Context(), late); len(got) != 1 || got[0] != api.CommandCancel {
			t.Errorf("commands for the skipped host: %v", got)
		}
		if _, err := b.Result(t.Context(), writer, &api.Result{BootID: writerReq.BootID, OrderID: o.ID, Fence: fence, OK: true, Readback: "right"}); err != nil {
			t.Error(err)
		}
		b.want(1, api.StateDone)
	})
}

// TestHostFactsReachTheSwarm: the planner hears of room, link, brake and
// accusations.
func TestHostFactsReachTheSwarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		defer b.end()
		cert, req := b.committed()
		p := &api.Progress{BootID: req.BootID, State: api.StateWriting, CellsTotal: 100, CellsHave: 7, Front: 7, InSwarm: true,
			Brake: api.BrakeDisk, WaitingForPeers: true, Parent: "server", AccusedHosts: []api.Accu{{Host: "a2", Piece: 3}}}
		if _, err := b.Progress(t.Context(), cert, netip.MustParseAddr("10.0.0.5"), p); err != nil {
			t.Fatal(err)
		}
		want := HostReport{Host: "a1", Room: "r1", Addr: netip.MustParseAddrPort("10.0.0.5:7441"), Have: 7, Front: 7, Parent: "server",
			LinkMbps: 1000, Brake: api.BrakeDisk, Waiting: true, Accused: []string{"a2"}}
		if !reflect.DeepEqual(b.swarms.last, want) {
			t.Errorf("the swarm hears %+v; want %+v", b.swarms.last, want)
		}
	})
}

func TestBootLink(t *testing.T) {
	slow, boot := api.NIC{SpeedMbps: 100}, api.NIC{SpeedMbps: 1000, Boot: true}
	for _, tt := range []struct {
		nics []api.NIC
		want int
	}{{nil, 0}, {[]api.NIC{slow}, 100}, {[]api.NIC{slow, boot}, 1000}, {[]api.NIC{slow, slow}, 0}, {[]api.NIC{{SpeedMbps: -1, Boot: true}}, 0}} {
		if got := bootLink(api.Evidence{NICs: tt.nics}); got != tt.want {
			t.Errorf("bootLink(%+v) = %d; want %d", tt.nics, got, tt.want)
		}
	}
}
