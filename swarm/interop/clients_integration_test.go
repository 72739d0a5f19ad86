//go:build integration

package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"

	"labswarm/internal/testnet"
	"labswarm/internal/testreq"
)

// clientPort is where every standard client listens.
const clientPort = 6881

// standard is somebody else's BitTorrent client. Both commands say "DONE" on
// their standard output when they hold everything, and stay as a source.
type standard struct {
	name string
	// need skips the test when the client is not installed.
	need func(t *testing.T)
	// command runs it on h: it keeps its files in dir. With an empty tracker it
	// holds everything already.
	command func(t *testing.T, h *testnet.Host, torrent, dir, tracker string) *exec.Cmd
}

// debianPython has Debian's modules; another python3 may stand before it in PATH.
const debianPython = "/usr/bin/python3"

func standards() []standard {
	return []standard{
		{"aria2c", func(t *testing.T) { testreq.Tool(t, "aria2c", "aria2") }, aria2},
		{"libtorrent", func(t *testing.T) {
			testreq.File(t, debianPython, "apt-get install python3")
			testreq.File(t, "/usr/share/doc/python3-libtorrent", "apt-get install python3-libtorrent")
		}, libtorrent},
		{"anacrolix", func(*testing.T) {}, anacrolix},
	}
}

func aria2(t *testing.T, h *testnet.Host, torrent, dir, tracker string) *exec.Cmd {
	hook := filepath.Join(t.TempDir(), "done.sh")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\necho DONE\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	args := []string{"--no-conf", "--dir=" + dir, "--seed-ratio=0.0", "--file-allocation=none", fmt.Sprintf("--listen-port=%d", clientPort),
		"--enable-dht=false", "--enable-dht6=false", "--enable-peer-exchange=false", "--bt-enable-lpd=false", "--disable-ipv6=true",
		"--console-log-level=warn", "--summary-interval=0", "--on-bt-download-complete=" + hook}
	if tracker == "" {
		args = append(args, "--check-integrity=true")
	} else {
		args = append(args, "--bt-tracker="+tracker)
	}
	return h.Command(t.Context(), "aria2c", append(args, torrent)...)
}

func libtorrent(t *testing.T, h *testnet.Host, torrent, dir, tracker string) *exec.Cmd {
	if tracker == "" {
		tracker = "seed"
	}
	return h.Command(t.Context(), debianPython, "testdata/lt.py", torrent, dir, h.IP, tracker)
}

func anacrolix(t *testing.T, h *testnet.Host, torrent, dir, tracker string) *exec.Cmd {
	return role(t, h, roleArgs{Role: "anacrolix", Torrent: torrent, Dir: dir, Addr: h.IP, Tracker: tracker})
}

// stockRole is the stock anacrolix/torrent Client in this process.
func stockRole(ctx context.Context, a roleArgs) error {
	mi, err := metainfo.LoadFromFile(a.Torrent)
	if err != nil {
		return err
	}
	cfg := torrent.NewDefaultClientConfig()
	cfg.Seed, cfg.ListenPort = true, clientPort
	cfg.NoDHT, cfg.DisablePEX, cfg.DisableUTP, cfg.DisableIPv6 = true, true, true, true
	cfg.NoDefaultPortForwarding, cfg.DisableWebseeds, cfg.DisableWebtorrent = true, true, true
	cfg.ListenHost = func(string) string { return a.Addr }
	cfg.DefaultStorage = storage.NewFileOpts(storage.NewFileClientOpts{ClientBaseDir: a.Dir, PieceCompletion: storage.NewMapPieceCompletion()})
	cl, err := torrent.NewClient(cfg)
	if err != nil {
		return err
	}
	defer cl.Close()
	tt, err := cl.AddTorrent(mi)
	if err != nil {
		return err
	}
	if a.Tracker == "" {
		if err := tt.VerifyDataContext(ctx); err != nil {
			return err
		}
	} else {
		tt.AddTrackers([][]string{{a.Tracker}})
		tt.DownloadAll()
	}
	for tt.BytesMissing() > 0 {
		if err := pause(ctx); err != nil {
			return err
		}
	}
	fmt.Println("DONE")
	<-ctx.Done()
	return nil
}
