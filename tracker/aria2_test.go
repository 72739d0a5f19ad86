//go:build integration

package tracker_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"

	"labswarm/internal/testreq"
	"labswarm/swarm/peer"
	"labswarm/tracker"
	"labswarm/tracker/registry"
)

// TestAria2 lets a standard client find our seed through the announce and
// download from it.
func TestAria2(t *testing.T) {
	aria2 := testreq.Tool(t, "aria2c", "aria2")
	src := &ram{data: make([]byte, livePieces*livePieceLen)}
	if _, err := rand.Read(src.data); err != nil {
		t.Fatal(err)
	}
	private := true
	info := metainfo.Info{Name: "lab", PieceLength: livePieceLen, Length: int64(len(src.data)), Private: &private}
	l := &lab{t: t}
	for i := range livePieces {
		l.hashes[i] = sha1.Sum(src.at(i))
		info.Pieces = append(info.Pieces, l.hashes[i][:]...)
	}
	var mi metainfo.MetaInfo
	var err error
	if mi.InfoBytes, err = bencode.Marshal(info); err != nil {
		t.Fatal(err)
	}
	l.ih = mi.HashInfoBytes()
	seed, web := l.serve(src)
	mi.Announce = "http://" + web + "/announce"

	dir := t.TempDir()
	var b bytes.Buffer
	if err := mi.Write(&b); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "lab.torrent")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, aria2, "--no-conf", "--dir="+dir, "--seed-time=0", "--file-allocation=none",
		"--enable-dht=false", "--enable-dht6=false", "--enable-peer-exchange=false", "--bt-enable-lpd=false",
		"--bt-exclude-tracker=", "--console-log-level=warn", "--summary-interval=0", file).CombinedOutput()
	if err != nil {
		t.Fatalf("aria2c: %v\n%s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(dir, "lab"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, src.data) {
		t.Error("the file aria2c wrote differs from the source")
	}
	if up := seed.Stats().BytesUploaded; up < int64(len(src.data)) {
		t.Errorf("our seed sent %d bytes; want all %d", up, len(src.data))
	}
}

// serve runs a seed open to plain clients and the announce server until the
// test ends; web is the latter's address.
func (l *lab) serve(src *ram) (seed *peer.Node, web string) {
	l.t.Helper()
	var ls [2]net.Listener
	for i := range ls {
		var err error
		if ls[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			l.t.Fatal(err)
		}
	}
	cfg := l.config(src, ls[0])
	cfg.Seed, cfg.PlainPeers, cfg.PeerID = true, true, [20]byte([]byte("-LS0001-seed........"))
	seed, err := peer.New(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	tr := tracker.New(nil)
	if err := tr.AddSwarm(tracker.SwarmSpec{InfoHash: l.ih, Name: "aria2", Pieces: livePieces,
		Seeds: []registry.Seed{{Addr: ls[0].Addr().(*net.TCPAddr).AddrPort()}}}); err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv := &http.Server{Handler: tr.Handler(), ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 2)
	go func() { ended <- seed.Run(ctx) }()
	go func() { ended <- srv.Serve(ls[1]) }()
	l.t.Cleanup(func() {
		cancel()
		if err := srv.Close(); err != nil {
			l.t.Error(err)
		}
		for range ls {
			if err := <-ended; err != nil && !errors.Is(err, http.ErrServerClosed) {
				l.t.Error(err)
			}
		}
	})
	return seed, ls[1].Addr().String()
}
