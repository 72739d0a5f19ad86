package peer

import (
	"context"
	"crypto/sha1"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"labswarm/swarm/frame"
	"labswarm/swarm/peercert"
)

// nullStore gives one constant piece and takes everything: it leaves out the
// disk, so that the figure is that of the data plane.
type nullStore struct {
	piece []byte
	have  bool
}

func (s *nullStore) Have(int) bool                     { return s.have }
func (s *nullStore) ReadPiece(_ int, buf []byte) error { copy(buf, s.piece); return nil }
func (s *nullStore) WritePiece(int, []byte) error      { return nil }

// BenchmarkChain moves 256 MiB in cells of 1 MiB through chains of one and
// three hosts on loopback, unshaped, plain and as frames of half the size, with
// and without TLS. MB/s is per host; cpu-s/GiB is of the whole process per GiB delivered;
// wire is the part of the bytes that travelled.
func BenchmarkChain(b *testing.B) {
	for _, hosts := range []int{1, 3} {
		for _, form := range []string{"plain", "frames"} {
			for _, over := range []string{"tcp", "tls"} {
				b.Run(fmt.Sprintf("1to%d/%s/%s", hosts, form, over), func(b *testing.B) { benchChain(b, hosts, form == "frames", over == "tls") })
			}
		}
	}
}

// framedNull is a nullStore with a frame.
type framedNull struct {
	nullStore
	frame []byte
}

func (s *framedNull) Frame(int, []byte) ([]byte, bool) { return s.frame, s.frame != nil }

func benchChain(b *testing.B, hosts int, framed, overTLS bool) {
	const pieces, pieceLen = 256, 1 << 20
	b.SetBytes(pieces * pieceLen)
	data := make([]byte, pieceLen)
	var f []byte
	if framed { // text of random words, as compressible as a system's files
		r := rand.New(rand.NewPCG(1, 2))
		for i := 0; i < len(data); {
			i += copy(data[i:], fmt.Sprintf("%x ", r.Uint32N(1<<14)))
		}
		e, err := frame.NewEncoder(pieceLen)
		if err != nil {
			b.Fatal(err)
		}
		f = e.Encode(nil, data)
	}
	ca, err := peercert.NewAuthority(make([]byte, 32), [20]byte{1}, "bench")
	if err != nil {
		b.Fatal(err)
	}
	wire := int64(0)
	sum := sha1.Sum(data)
	cpu := cpuTime(b)
	for range b.N {
		b.StopTimer()
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, hosts+1)
		var up []Peer
		var nodes []*Node
		for i := range hosts + 1 {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			cfg := Config{InfoHash: [20]byte{1}, PeerID: [20]byte{2, byte(i)}, Pieces: pieces, PieceLen: pieceLen,
				Hash: func(int) [20]byte { return sum }, Storage: &framedNull{nullStore{piece: data, have: i == 0}, f}, Listener: l, Seed: i == 0}
			id := peercert.ID{Host: nodeName(i), Seed: i == 0}
			if overTLS {
				p, err := ca.NewPass(id)
				if err != nil {
					b.Fatal(err)
				}
				cfg.Pass = func() (*peercert.Pass, error) { return p, nil }
			}
			n, err := New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			go func() { ended <- n.Run(ctx) }()
			if i > 0 {
				n.SetSources(Assignment{Parent: up[0], Fallbacks: up[1:]})
			}
			nodes = append(nodes, n)
			up = append([]Peer{{Addr: l.Addr().(*net.TCPAddr).AddrPort(), ID: id.Host, Server: i == 0}}, up...)
		}
		b.StartTimer()
		for _, n := range nodes {
			<-n.Done()
		}
		b.StopTimer()
		wire = nodes[hosts].Stats().WireReceived
		cancel()
		for range nodes {
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
	used := (cpuTime(b) - cpu).Seconds()
	b.ReportMetric(float64(wire)/(pieces*pieceLen), "wire")
	b.ReportMetric(used/(float64(b.N)*float64(hosts)*pieces*pieceLen/(1<<30)), "cpu-s/GiB")
}

// cpuTime is the processor time of this process so far.
func cpuTime(b *testing.B) time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
