//go:build integration

package daemon

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillServerChild$") // ended by kill
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
