package peer

import (
	"context"
	"crypto/sha1"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"labswarm/swarm/frame"
)

// hostEnv makes the test program a host that fetches from the address it names.
const hostEnv = "LABSWARM_TEST_HOST"

const memoryPieces, memoryPiece = 400, 1 << 20

// memoryTorrent is one piece, many times: compressible by half.
func memoryTorrent() (piece []byte, sum [20]byte) {
	piece = make([]byte, memoryPiece)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range piece[:memoryPiece/2] {
		piece[i] = byte(r.Uint32())
	}
	return piece, sha1.Sum(piece)
}

// hostAlone fetches everything as the agent of a PC with 2 GiB does (package
// deploy, budget) and prints the peak of its resident memory in KiB.
func hostAlone(from string) error {
	addr, form, _ := strings.Cut(from, "/")
	_, sum := memoryTorrent()
	cfg := Config{InfoHash: [20]byte{1}, PeerID: [20]byte{2}, Pieces: memoryPieces, PieceLen: memoryPiece,
		Hash: func(int) [20]byte { return sum }, Storage: &nullStore{}}
	if form == "frames" {
		cfg.PoolBuffers, cfg.FrameCacheBytes = 44, 68<<20
	} else {
		cfg.NoFrames = true
	}
	n, err := New(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	n.SetSources(Assignment{Parent: Peer{Addr: netip.MustParseAddrPort(addr), Server: true}})
	select {
	case <-n.Done():
	case err := <-ended:
		return err
	}
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			fmt.Printf("%d %d\n", kib, n.Stats().FramesReceived)
		}
	}
	cancel()
	return <-ended
}

// TestHostMemory: a host's resident memory stays within the bars of the design,
// 96 MiB plain and 160 MiB compressed, manifest and the rest of the agent (some
// 30 MiB) included.
func TestHostMemory(t *testing.T) {
	if raceDetector {
		t.Log("not under the race detector, whose shadow memory counts too")
		return
	}
	piece, sum := memoryTorrent()
	e, err := frame.NewEncoder(memoryPiece)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seed, err := New(Config{InfoHash: [20]byte{1}, PeerID: [20]byte{3}, Pieces: memoryPieces, PieceLen: memoryPiece, Seed: true, Listener: l,
		Hash: func(int) [20]byte { return sum }, Storage: &framedNull{nullStore{piece: piece, have: true}, e.Encode(nil, piece)}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- seed.Run(ctx) }()
	for form, limit := range map[string]int{"plain": 96 - 20, "frames": 160 - 20} { // MiB; 10 of the 30 are in this program too
		ctx, done := context.WithTimeout(t.Context(), deadline)
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), hostEnv+"="+l.Addr().String()+"/"+form)
		out, err := cmd.Output()
		done()
		var kib, frames int
		if _, serr := fmt.Sscan(string(out), &kib, &frames); err != nil || serr != nil {
			t.Fatalf("%s: %v, printed %q", form, err, out)
		}
		t.Logf("%s: %d MiB at the peak, %d frames", form, kib>>10, frames)
		if kib>>10 > limit {
			t.Errorf("%s: %d MiB of resident memory; want at most %d", form, kib>>10, limit)
		}
		if (form == "frames") != (frames == memoryPieces) {
			t.Errorf("%s: %d pieces came as frames", form, frames)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
