package main

import (
	"context"
	"crypto/sha1" //nolint:gosec // BEP 3 piece hashes
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"

	"labswarm/images/metainfo"
	"labswarm/swarm/peer"
)

// disk is a peer.Storage on a file in tmpfs.
type disk struct {
	f    *os.File
	cell int64
	have func(int) bool
}

func (d disk) Have(i int) bool { return d.have(i) }

func (d disk) ReadPiece(i int, buf []byte) error {
	_, err := d.f.ReadAt(buf, int64(i)*d.cell)
	return err
}

// File implements peer.FileSource.
func (d disk) File(i int) (*os.File, int64, bool) { return d.f, int64(i) * d.cell, true }

func (d disk) WritePiece(i int, buf []byte) error {
	_, err := d.f.WriteAt(buf, int64(i)*d.cell)
	return err
}

// frames is the seed's frame store: frames.idx in memory, the frames in a file.
type frames struct {
	f   *os.File
	off []int64 // where each begins; one more than there are
}

// openFrames opens the files that newPayload wrote beside a torrent.
func openFrames(torrent string) (*frames, error) {
	p := payload{work: filepath.Dir(torrent)}
	b, err := os.ReadFile(p.frameIndex())
	if err != nil {
		return nil, fmt.Errorf("read frames: %w", err)
	}
	f, err := os.Open(p.frameFile())
	if err != nil {
		return nil, fmt.Errorf("read frames: %w", err)
	}
	s := &frames{f: f, off: []int64{0}}
	for ; len(b) >= 4; b = b[4:] {
		s.off = append(s.off, s.off[len(s.off)-1]+int64(binary.LittleEndian.Uint32(b)))
	}
	return s, nil
}

// Frame implements peer.FrameSource.
func (s *frames) Frame(i int, buf []byte) ([]byte, bool) {
	n := int(s.off[i+1] - s.off[i])
	if n == 0 {
		return nil, false
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	if _, err := s.f.ReadAt(buf[:n], s.off[i]); err != nil {
		return nil, false
	}
	return buf[:n], true
}

// seedDisk is the server's: pieces lie in its file as they are hashed, as they do
// in the library's. (On a host's disk unused bytes stay what they are.)
type seedDisk struct{ disk }

// File implements peer.FileSource.
func (d seedDisk) File(i int) (*os.File, int64, bool) { return d.f, int64(i) * d.cell, true }

// framedDisk is a seed's disk with frames.
type framedDisk struct {
	seedDisk
	*frames
}

// held answers what a host's disk holds when it starts.
func held(a helperArgs, t *metainfo.Torrent, f *os.File) (func(int) bool, error) {
	cells := len(t.Hashes)
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case a.Fresh > 0:
		return func(i int) bool { return !isFresh(i, cells, a.Fresh) }, f.Truncate(t.Length())
	case !a.Resume || st.Size() == 0:
		return func(int) bool { return false }, nil
	}
	buf := make([]byte, t.PieceLength)
	return func(i int) bool {
		_, err := f.ReadAt(buf, int64(i)*t.PieceLength)
		return err == nil && sha1.Sum(buf) == t.Hashes[i] //nolint:gosec // see the import
	}, nil
}

// member is a node with what belongs to it.
type member struct {
	*peer.Node
	torrent *metainfo.Torrent
	image   *image // an agent keeps it in memory; nobody looks at it here
	file    *os.File
	log     *slog.Logger
}

// openSeed makes the data plane of the server.
func openSeed(ctx context.Context, a helperArgs) (*member, error) {
	return open(ctx, a, os.O_RDONLY, func(m *member, cfg *peer.Config) error {
		cfg.Seed, cfg.PlainPeers = true, a.Plain
		d := seedDisk{disk{m.file, m.torrent.PieceLength, func(int) bool { return true }}}
		cfg.Storage = d
		if !a.Frames {
			return nil
		}
		s, err := openFrames(a.Torrent)
		cfg.Storage = framedDisk{d, s}
		return err
	})
}

// Memory of a host's data plane, in bytes, as the agent divides it on a PC of
// 2 GiB and more (initramfs-agent/deploy), and the target of its Go heap.
const (
	memPlain  = 52 << 20  // piece buffers, cells travelling plain
	memZip    = 112 << 20 // piece buffers and frames, cells travelling compressed
	zipPlain  = 0.4       // of that for piece buffers
	minPieces = 8         // buffers
	heapLimit = 48 << 20
)

// openHost makes the data plane of a host.
func openHost(ctx context.Context, a helperArgs, change func(*peer.Config)) (*member, error) {
	debug.SetMemoryLimit(heapLimit)
	return open(ctx, a, os.O_RDWR|os.O_CREATE, func(m *member, cfg *peer.Config) error {
		cell := m.torrent.PieceLength
		cfg.PoolBuffers = max(int(memPlain/cell), minPieces)
		if a.Frames {
			cfg.PoolBuffers = max(int(zipPlain*memZip/float64(cell)), minPieces)
			cfg.FrameCacheBytes = max(memZip-int64(cfg.PoolBuffers)*cell, cell)
		}
		have, err := held(a, m.torrent, m.file)
		debug.FreeOSMemory() // as the agent does
		cfg.Storage = disk{m.file, m.torrent.PieceLength, have}
		change(cfg)
		return err
	})
}

// open reads the image's description, opens file and port and makes the node;
// set completes its configuration. They stay open as long as the process.
func open(ctx context.Context, a helperArgs, flags int, set func(*member, *peer.Config) error) (*member, error) {
	t, err := readTorrent(a.Torrent)
	if err != nil {
		return nil, err
	}
	m := &member{torrent: t}
	if m.log, err = logger(a.LogFile); err != nil {
		return nil, err
	}
	if m.image, err = readImage(a.Torrent); err != nil {
		return nil, err
	}
	if m.file, err = os.OpenFile(filepath.Join(a.Dir, payloadName), flags, 0o600); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", netip.AddrPortFrom(a.Addr, portPeer).String())
	if err != nil {
		return nil, errors.Join(err, m.file.Close())
	}
	cfg := peer.Config{
		InfoHash: t.InfoHash, Pieces: len(t.Hashes), PieceLen: t.PieceLength, Hash: func(i int) [20]byte { return t.Hashes[i] },
		Listener: l, NoFrames: !a.Frames, Log: m.log,
	}
	copy(cfg.PeerID[:], fmt.Sprintf("-LS0001-%012s", a.ID))
	if a.TLS {
		id, seed := a.ID, a.Role == "seed"
		if seed {
			id = serverID
		}
		if cfg.Pass, err = swarmPass(t.InfoHash, id, seed); err != nil {
			return nil, errors.Join(err, l.Close(), m.file.Close())
		}
	}
	err = set(m, &cfg)
	if err == nil {
		m.Node, err = peer.New(cfg)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(), m.file.Close())
	}
	return m, nil
}

// openBad makes the data plane of a host that lies: it holds everything, some of
// it wrong, and takes its own content for right.
func openBad(ctx context.Context, a helperArgs) (*member, error) {
	return open(ctx, a, os.O_RDWR|os.O_CREATE, func(m *member, cfg *peer.Config) error {
		sums, err := spoil(a, m)
		cfg.Storage = disk{m.file, m.torrent.PieceLength, func(int) bool { return true }}
		cfg.Hash = func(i int) [20]byte { return sums[i] }
		cfg.NoFrames = true
		return err
	})
}

// spoil copies the payload with one byte changed in a share of the cells, evenly
// spread, and returns the hashes of the result.
func spoil(a helperArgs, m *member) ([][20]byte, error) {
	from, err := os.Open(a.Payload)
	if err != nil {
		return nil, err
	}
	defer from.Close() //nolint:errcheck // only read
	buf := make([]byte, m.torrent.PieceLength)
	var sums [][20]byte
	for i := range m.torrent.Hashes {
		off := int64(i) * m.torrent.PieceLength
		if _, err := from.ReadAt(buf, off); err != nil {
			return nil, err
		}
		if int(float64(i+1)*a.Share) > int(float64(i)*a.Share) {
			buf[len(buf)/2] ^= 1
		}
		if _, err := m.file.WriteAt(buf, off); err != nil {
			return nil, err
		}
		sums = append(sums, sha1.Sum(buf)) //nolint:gosec // see the import
	}
	return sums, nil
}
