//go:build integration

package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/images/metainfo"
	"labswarm/internal/testnet"
	"labswarm/server/config"
	"labswarm/server/daemon"
	"labswarm/swarm/peer"
	"labswarm/tracker"
	"labswarm/tracker/registry"
)

// roleArgs makes this test binary a server, a host or a client: a namespace
// holds whole processes.
type roleArgs struct {
	Role    string
	Torrent string // image.torrent
	Dir     string // where files lie; the state folder of "serve"
	Addr    string // own address
	Tracker string // announce URL
	Source  string // address and port of the one source of "host"
	Seed    string // address and port that "tracker" tells everybody
}

const roleEnv = "LABSWARM_INTEROP_ROLE"

// role prepares a command that plays a role on h.
func role(t *testing.T, h *testnet.Host, a roleArgs) *exec.Cmd {
	t.Helper()
	raw, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.Command(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+string(raw))
	return cmd
}

func TestMain(m *testing.M) {
	text := os.Getenv(roleEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	var a roleArgs
	err := json.Unmarshal([]byte(text), &a)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	play := map[string]func(context.Context, roleArgs) error{"serve": serveRole, "host": hostRole, "tracker": trackerRole, "anacrolix": stockRole}[a.Role]
	if err == nil && play == nil {
		err = fmt.Errorf("no role %q", a.Role)
	}
	if err == nil {
		err = play(ctx, a)
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, a.Role+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(20 * time.Millisecond):
		return nil
	}
}

func logger() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }

// serveRole is `labswarm serve --plain-peers`.
func serveRole(ctx context.Context, a roleArgs) error {
	cfg := config.Default()
	cfg.StateDir, cfg.Interface, cfg.PlainPeers = a.Dir, testnet.Bridge, true
	return daemon.Run(ctx, cfg, logger())
}

// file is a peer.Storage on one file, laid out as a standard client does.
type file struct {
	f    *os.File
	cell int64
}

func (d file) Have(int) bool { return false }

func (d file) ReadPiece(i int, buf []byte) error {
	_, err := d.f.ReadAt(buf, int64(i)*d.cell)
	return err
}

func (d file) WritePiece(i int, buf []byte) error {
	_, err := d.f.WriteAt(buf, int64(i)*d.cell)
	return err
}

// hostRole is the data plane of one of our hosts, open to plain clients, with
// one source. It says DONE and where its bytes came from.
func hostRole(ctx context.Context, a roleArgs) (err error) {
	raw, err := os.ReadFile(a.Torrent)
	if err != nil {
		return err
	}
	t, err := metainfo.Parse(raw)
	if err != nil {
		return err
	}
	f, err := os.Create(a.Dir + "/" + t.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	l, err := net.Listen("tcp", net.JoinHostPort(a.Addr, strconv.Itoa(api.PeerPort)))
	if err != nil {
		return err
	}
	n, err := peer.New(peer.Config{
		InfoHash: t.InfoHash, PeerID: [20]byte([]byte("-LS0001-interop.host")), Pieces: len(t.Hashes), PieceLen: t.PieceLength,
		Hash:    func(i int) [20]byte { return t.Hashes[i] },
		Storage: file{f, t.PieceLength}, Listener: l, PlainPeers: true, Log: logger(),
	})
	if err != nil {
		return err
	}
	source, err := netip.ParseAddrPort(a.Source)
	if err != nil {
		return err
	}
	n.SetSources(peer.Assignment{Parent: peer.Peer{Addr: source, ID: "source"}})
	go func() {
		select {
		case <-n.Done():
			s := n.Stats()
			fmt.Printf("DONE %d %d\n", s.BySource["source"], s.HashFailures)
		case <-ctx.Done():
		}
	}()
	return n.Run(ctx)
}

// trackerRole is our tracker with one host in the place of the seed, so that a
// client can find nobody else.
func trackerRole(ctx context.Context, a roleArgs) error {
	raw, err := os.ReadFile(a.Torrent)
	if err != nil {
		return err
	}
	t, err := metainfo.Parse(raw)
	if err != nil {
		return err
	}
	seed, err := netip.ParseAddrPort(a.Seed)
	if err != nil {
		return err
	}
	tr := tracker.New(logger())
	if err := tr.AddSwarm(tracker.SwarmSpec{InfoHash: t.InfoHash, Name: "one host", Pieces: len(t.Hashes),
		Seeds: []registry.Seed{{ID: "host", Addr: seed}}}); err != nil {
		return err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(a.Addr, strconv.Itoa(api.PlainTrackerPort)))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: tr.Handler(), ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	fmt.Println("DONE")
	return srv.Serve(l)
}
