//go:build integration

package daemon

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/internal/testnet"
	"labswarm/internal/testreq"
	"labswarm/server/config"
)

// killBar is bar R1: jobs of many hosts, the real agent on each, against a server process that is killed again and
// again. The server is only looked at from outside, as PCs and admins do.
type killBar struct {
	t       *testing.T
	s       *site // images, keys and the admin's client; its server runs in the child
	key     ed25519.PublicKey
	env     []string          // of the server process
	ports   [4]int            // agents, peers, TFTP, HTTP
	life    int               // of a server process before its kill, at most, milliseconds
	between func(*killBar)    // after each death of the server: the power cut
	hosts   []*killHost       // of the room
	others  []api.Host        // of the inventory, in no job
	disks   map[string][]byte // of the images

	mu       sync.Mutex
	last     [3]time.Time // commence, result, own system: of the host that was last
	proc     *testnet.Process
	log      *os.File
	findings []string
	tally    killTally
}

// killTally is what build/bench/kill.json holds.
type killTally struct {
	Hosts         int     `json:"hosts"`
	Jobs          int     `json:"jobs"`
	Kills         int     `json:"kills"`
	StartKills    int     `json:"kills_before_ready"` // of Kills
	Commences     int     `json:"commences"`          // granted, as the agents saw them
	Done          int     `json:"hosts_done"`         // with the right content on the disk
	Resumes       int     `json:"resumes"`
	HostsLost     int     `json:"hosts_lost"`
	SecondWipes   int     `json:"second_wipes"`
	LostCommits   int     `json:"acknowledged_transitions_lost"`
	WrongBoots    int     `json:"wrong_boot_decisions"`
	BootQuestions int     `json:"boot_questions_answered"`
	Agents        int     `json:"boots_answered_agent"`
	Seconds       float64 `json:"seconds"`
	Seed          uint64  `json:"seed"`
}

// find notes a broken promise; which counts it.
func (k *killBar) find(which *int, format string, a ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	*which++
	k.findings = append(k.findings, fmt.Sprintf(format, a...))
}

func (k *killBar) broken() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.findings)
}

func (k *killBar) mark(i int) {
	k.mu.Lock()
	k.last[i] = time.Now()
	k.mu.Unlock()
}

func (k *killBar) count(what *int) {
	k.mu.Lock()
	*what++
	k.mu.Unlock()
}

// killServerChild is the server process of the bar: everything but DHCP, whose ports no test may take.
func killServerChild(t *testing.T, dir string) {
	var p [4]int
	if _, err := fmt.Sscan(os.Getenv("KILLBAR_PORTS"), &p[0], &p[1], &p[2], &p[3]); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.StateDir, cfg.Interface, cfg.DHCP, cfg.AnswerRS = dir, "lo", "off", false
	cfg.AgentPort, cfg.PeerPort, cfg.TFTPPort, cfg.BootHTTPPort = p[0], p[1], p[2], p[3]
	cfg.KeepFree = 0
	if err := cfg.Fill(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	srv := &server{cfg: cfg, log: slog.New(slog.NewTextHandler(os.Stderr, nil)), begun: time.Now(), beside: true}
	err := srv.open(ctx)
	if err == nil && os.Getenv("KILLBAR_NOSYNC") != "" {
		srv.store.Careless()
	}
	if err == nil {
		err = srv.run(ctx)
	}
	if err := errors.Join(err, srv.close()); err != nil {
		fmt.Fprintln(os.Stderr, "the server ends:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// TestKillServerChild is no test: it is the server process.
func TestKillServerChild(t *testing.T) {
	if dir := os.Getenv("KILLBAR_DIR"); dir != "" {
		killServerChild(t, dir)
	}
}

// newKillBar makes images, hosts and disks. Disks lie in RAM where there is a RAM file system.
func newKillBar(t *testing.T, hosts int, dir string, env ...string) *killBar {
	t.Helper()
	testreq.Root(t)
	testreq.Tool(t, "losetup", "mount")
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		t.Setenv("TMPDIR", "/dev/shm")
	}
	k := &killBar{t: t, s: &site{t: t, dir: dir, codec: "none"}, env: env, life: 700, disks: map[string][]byte{}}
	for _, name := range []string{"red", "blue"} {
		k.s.image = name
		k.s.importImage()
		k.disks[name] = k.s.disk
	}
	keys, err := config.LoadKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	k.key = keys.ServerPublic()
	k.s.srv = &server{keys: keys}
	boot := filepath.Join(dir, "boot")
	if err := os.MkdirAll(boot, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"shimx64.efi", "grubx64.efi", "undionly.kpxe", "snponly.efi", "ipxe.efi", "vmlinuz", "initrd.img"} {
		if err := os.WriteFile(filepath.Join(boot, f), []byte("content of "+f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k.freePorts()
	if k.log, err = os.Create(filepath.Join(t.TempDir(), "server.log")); err != nil {
		t.Fatal(err)
	}
	k.s.cli = client.New(filepath.Join(dir, "labswarm.sock"))
	t.Cleanup(func() {
		k.kill()
		k.s.cli.Close()
		if err := k.log.Close(); err != nil {
			t.Error(err)
		}
	})
	syscall.Sync()
	if err := k.start(); err != nil {
		t.Fatal(err)
	}
	if !k.ready() {
		t.Fatalf("the server does not get ready:\n%s", k.said())
	}
	for i := range hosts + 5 {
		h := api.Host{Name: fmt.Sprintf("pc%03d", i), Room: "r1", MAC: fmt.Sprintf("52:54:00:00:01:%02x", i), UUID: fmt.Sprintf("00112233-4455-6677-8899-aabbccdd01%02x", i)}
		if i >= hosts {
			h.Room = "r2"
		}
		h, err := k.s.cli.PutHost(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		if i >= hosts {
			k.others = append(k.others, h)
			continue
		}
		k.hosts = append(k.hosts, newKillHost(k, h, i, agenttest.NewSparseLoop(t, diskSize)))
	}
	k.tally.Hosts = hosts
	return k
}

func (k *killBar) freePorts() {
	k.t.Helper()
	for i := range k.ports {
		l, err := new(net.ListenConfig).Listen(k.t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			k.t.Fatal(err)
		}
		k.ports[i] = int(portOf(l))
		defer func() { _ = l.Close() }() // all at once, so that they differ
	}
}

// start starts the server process; it does not wait until it is ready.
func (k *killBar) start() error {
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillServerChild$") //nolint:noctx // killed by kill
	cmd.Env = append(append(os.Environ(), "KILLBAR_DIR="+k.s.dir, fmt.Sprintf("KILLBAR_PORTS=%d %d %d %d", k.ports[0], k.ports[1], k.ports[2], k.ports[3])), k.env...)
	cmd.Stdout, cmd.Stderr = k.log, k.log
	p, err := testnet.Start(cmd)
	k.mu.Lock()
	k.proc = p
	k.mu.Unlock()
	return err
}

// kill is SIGKILL; it returns when the process is gone.
func (k *killBar) kill() {
	k.mu.Lock()
	p := k.proc
	k.proc = nil
	k.mu.Unlock()
	if p == nil {
		return
	}
	if err := p.Kill(); err != nil {
		k.t.Error(err)
	}
}

// ready waits until the server answers; false when it ends by itself or takes a minute.
func (k *killBar) ready() bool {
	k.mu.Lock()
	p := k.proc
	k.mu.Unlock()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if info, err := k.s.cli.Server(k.t.Context()); err == nil && info.Ready {
			return true
		}
		select {
		case <-p.Done():
			return false
		case <-k.t.Context().Done():
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
	return false
}

// answers reports whether the server answers now.
func (k *killBar) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err := k.s.cli.Server(ctx)
	return err == nil
}

func (k *killBar) said() string {
	b, err := os.ReadFile(k.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4000):])
}

// run makes jobs until the server has been killed often enough, or a promise is broken.
func (k *killBar) run(kills int, seed uint64) {
	k.t.Helper()
	begun := time.Now()
	rng := rand.New(rand.NewPCG(seed, 1))
	k.tally.Seed = seed
	for k.tally.Kills < kills && len(k.broken()) == 0 {
		from := time.Now()
		k.job(rng, kills)
		k.tally.Jobs++
		k.t.Logf("job %d: %d kills so far, %.0f s; in this job the last commence after %.1f s, result %.1f s, own system %.1f s", k.tally.Jobs, k.tally.Kills,
			time.Since(begun).Seconds(), k.last[0].Sub(from).Seconds(), k.last[1].Sub(from).Seconds(), k.last[2].Sub(from).Seconds())
	}
	k.tally.Seconds = time.Since(begun).Seconds()
}

// killJobLimit bounds one job; the machine is shared.
const killJobLimit = 4 * time.Minute

// job reimages the room once, with the server being killed meanwhile.
func (k *killBar) job(rng *rand.Rand, kills int) {
	image := []string{"red", "blue"}[k.tally.Jobs%2]
	j, err := k.s.cli.CreateJob(k.t.Context(), api.JobCreate{Image: image, Room: "r1", Confirm: "r1", Personalise: "off"})
	if err != nil {
		k.find(&k.tally.LostCommits, "create job: %v", err) // after a lost commit: hosts or images are gone
		return
	}
	ctx, cancel := context.WithTimeout(k.t.Context(), killJobLimit)
	defer cancel()
	var room, strangers sync.WaitGroup
	for _, h := range k.hosts {
		h.begin(j.ID, k.disks[image])
		room.Go(func() { h.play(ctx) })
	}
	sctx, stop := context.WithCancel(ctx)
	for i, h := range k.others {
		strangers.Go(func() { k.stranger(sctx, h, i) })
	}
	over := make(chan struct{})
	go func() { room.Wait(); close(over) }()
	k.killer(ctx, cancel, over, rng, kills, j.ID)
	cancel2 := time.AfterFunc(killJobLimit, cancel)
	<-over
	cancel2.Stop()
	stop()
	strangers.Wait()
	k.judge(j.ID)
}

// killer kills until the room is ready, or often enough. An error of the server's own ends the job.
func (k *killBar) killer(ctx context.Context, cancel context.CancelFunc, over chan struct{}, rng *rand.Rand, kills int, id uint64) {
	for k.tally.Kills < kills && len(k.broken()) == 0 {
		select {
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(rng.IntN(k.life)) * time.Millisecond): // of the server's life, its start included unless it was waited for
		}
		early := !k.answers(ctx)
		before := k.promised()
		k.kill()
		k.tally.Kills++
		if early {
			k.tally.StartKills++
		}
		if k.between != nil {
			k.between(k)
		}
		if err := k.start(); err != nil {
			k.t.Error(err)
			cancel()
			return
		}
		if rng.IntN(3) == 0 {
			continue // the next kill may hit it while it starts
		}
		if !k.ready() {
			k.find(&k.tally.LostCommits, "after kill %d the server does not start again:\n%s", k.tally.Kills, k.said())
			cancel()
			return
		}
		if !k.kept(ctx, id, before) {
			cancel()
			return
		}
	}
	if len(k.broken()) > 0 {
		cancel()
	}
}

// promised is what the server has acknowledged to hosts so far.
func (k *killBar) promised() map[string]api.State {
	out := map[string]api.State{}
	for _, h := range k.hosts {
		h.mu.Lock()
		switch {
		case h.acked:
			out[h.host.Name] = api.StateDone
		case h.granted:
			out[h.host.Name] = api.StateWriting
		}
		h.mu.Unlock()
	}
	return out
}

// kept compares a restarted server with what it had acknowledged.
func (k *killBar) kept(ctx context.Context, id uint64, promised map[string]api.State) bool {
	j, err := k.s.cli.Job(ctx, id)
	if err != nil {
		if ctx.Err() != nil {
			return true
		}
		k.find(&k.tally.LostCommits, "job %d after a restart: %v", id, err)
		return false
	}
	ok := true
	for _, sl := range j.Slots {
		p, has := promised[sl.Host]
		if has && (!sl.PONR || (p == api.StateDone && !sl.State.Good())) {
			k.find(&k.tally.LostCommits, "%s was acknowledged as %s; after kill %d it is %s, point of no return %v", sl.Host, p, k.tally.Kills, sl.State, sl.PONR)
			ok = false
		}
	}
	return ok
}

// judge looks at a job after its end.
func (k *killBar) judge(id uint64) {
	if len(k.broken()) > 0 {
		return
	}
	if !k.ready() {
		k.find(&k.tally.LostCommits, "at the job's end the server does not answer:\n%s", k.said())
		return
	}
	j, err := k.s.cli.Job(k.t.Context(), id)
	for end := time.Now().Add(2 * time.Minute); err == nil && j.Result == "" && time.Now().Before(end); j, err = k.s.cli.Job(k.t.Context(), id) {
		k.again(j)
		time.Sleep(500 * time.Millisecond)
	}
	if err != nil || j.Result != "ok" || len(j.Slots) != len(k.hosts) {
		k.find(&k.tally.HostsLost, "job %d ends with %q, %d slots: %v", id, j.Result, len(j.Slots), err)
		for _, sl := range j.Slots {
			if sl.State != api.StateConfirmed {
				k.t.Logf("%s: %+v", sl.Host, sl)
			}
		}
	}
	slots := map[string]api.Slot{}
	for _, sl := range j.Slots {
		slots[sl.Host] = sl
	}
	for _, h := range k.hosts {
		h.judge(slots[h.host.Name])
	}
}

// again restarts PCs whose own system the server has not seen: the agent's farewell fell into a kill, and a boot so
// soon after its last word proves nothing. In a school that is the next lesson.
func (k *killBar) again(j api.Job) {
	for _, sl := range j.Slots {
		if sl.State == api.StateConfirmed {
			continue
		}
		for _, h := range k.hosts {
			if h.host.Name != sl.Host {
				continue
			}
			if agent, _ := k.boot(k.t.Context(), h.http, h.host); agent {
				k.find(&k.tally.WrongBoots, "%s is done and was told to boot the agent", sl.Host)
			}
		}
	}
}

// TestServerKilledAgainAndAgain is bar R1, short; KILLBAR_KILLS makes it long.
func TestServerKilledAgainAndAgain(t *testing.T) {
	kills, hosts := 25, 50
	if v := os.Getenv("KILLBAR_KILLS"); v != "" {
		var err error
		if kills, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	k := newKillBar(t, hosts, killDir(t))
	if kills < 100 {
		k.life = 1000 // shorter lives push more agents into their longest pauses
	}
	seed := uint64(time.Now().UnixNano())
	k.run(kills, seed)
	raw, err := json.MarshalIndent(k.tally, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", raw)
	if out := os.Getenv("KILLBAR_OUT"); out != "" {
		if err := os.WriteFile(out, append(raw, '\n'), 0o600); err != nil {
			t.Error(err)
		}
	}
	for _, f := range k.broken() {
		t.Error(f)
	}
	if k.tally.Commences < hosts || k.tally.Done < hosts {
		t.Errorf("%d commences and %d hosts done prove nothing", k.tally.Commences, k.tally.Done)
	}
}

// killDir is a state folder whose path is short: a socket's has 107 bytes.
func killDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lsk") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
