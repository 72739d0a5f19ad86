package main

import (
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // BEP 3 piece hashes
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/anacrolix/torrent/bencode"

	"labswarm/images/metainfo"
	"labswarm/swarm/frame"
)

const payloadName = "payload" // the file's and the torrent's name

// payload is what is distributed.
type payload struct {
	dir    string // of the seed's copy
	work   string // of all files about it
	bytes  int64  // of the file
	cell   int64
	cells  int
	frames float64 // length of all frames over the length of their cells
}

func (p payload) file() string { return filepath.Join(p.dir, payloadName) }

// torrent is for standard clients: it has an announce address.
func (p payload) torrent() string { return filepath.Join(p.work, "bench.torrent") }

// Ours take image.torrent, manifest.json and the side files, as an agent does.
func (p payload) imageTorrent() string { return filepath.Join(p.work, "image.torrent") }

// Frames are one file with their lengths beside it: 4 bytes a cell, 0 = it does
// not shrink.
func (p payload) frameFile() string  { return filepath.Join(p.work, "frames") }
func (p payload) frameIndex() string { return filepath.Join(p.work, "frames.idx") }

// newPayload writes the payload of a scenario, its torrents, its manifest and
// its frames below dir, in place of an earlier one.
func newPayload(ctx context.Context, dir string, sc scenario, announce string) (payload, error) {
	cell := int64(sc.cellKiB) << 10
	p := payload{work: filepath.Join(dir, "payload"), bytes: int64(sc.mib) << 20, cell: cell, cells: sc.cells()}
	p.dir = filepath.Join(p.work, "seed")
	if err := errors.Join(os.RemoveAll(p.work), os.MkdirAll(p.dir, 0o700)); err != nil {
		return p, fmt.Errorf("make payload: %w", err)
	}
	if err := p.writeData(ctx, sc); err != nil {
		return p, fmt.Errorf("make payload of %s bytes: %w", sc.data, err)
	}
	sums, err := p.scan(sc)
	if err != nil {
		return p, fmt.Errorf("read payload: %w", err)
	}
	raw, infoHash, err := metainfo.Build(payloadName, cell, sums)
	if err != nil {
		return p, fmt.Errorf("make torrent: %w", err)
	}
	if err := os.WriteFile(p.imageTorrent(), raw, 0o600); err != nil {
		return p, fmt.Errorf("write torrent: %w", err)
	}
	if raw, err = withAnnounce(raw, announce); err != nil {
		return p, err
	}
	if err := os.WriteFile(p.torrent(), raw, 0o600); err != nil {
		return p, fmt.Errorf("write torrent: %w", err)
	}
	return p, p.writeManifest(infoHash)
}

// writeData writes the file.
func (p payload) writeData(ctx context.Context, sc scenario) error {
	if sc.data == dataUsr {
		return usrImage(ctx, p.file(), filepath.Join(p.work, "tree"), p.bytes)
	}
	f, err := os.Create(p.file())
	if err != nil {
		return err
	}
	buf := make([]byte, p.cell)
	err = f.Truncate(p.bytes)
	for i := 0; i < p.cells && err == nil; i++ {
		part := buf
		if sc.data == dataSparse {
			if !isFresh(i, p.cells, sc.fresh) {
				continue
			}
			part = buf[:p.cell/2]
		}
		if _, err = rand.Read(part); err == nil {
			_, err = f.WriteAt(buf, int64(i)*p.cell)
		}
	}
	return errors.Join(err, f.Close())
}

// isFresh says that cell i is among the fresh ones, which lie evenly spread.
func isFresh(i, cells, fresh int) bool { return i%(cells/fresh) == 0 }

// scan hashes the cells and makes their frames.
func (p *payload) scan(sc scenario) (sums [][20]byte, err error) {
	f, err := os.Open(p.file())
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	w, err := newFrameFile(*p)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, p.cell)
	zero := sha1.Sum(buf) //nolint:gosec // see the import
	for i := range p.cells {
		if sc.data == dataSparse && !isFresh(i, p.cells, sc.fresh) {
			sums, w.index = append(sums, zero), append(w.index, 0, 0, 0, 0)
			continue
		}
		if _, err = f.ReadAt(buf, int64(i)*p.cell); err != nil {
			return nil, errors.Join(err, w.f.Close())
		}
		sums = append(sums, sha1.Sum(buf)) //nolint:gosec // see the import
		if sc.wantsFrames() {
			w.add(buf)
		}
	}
	p.frames, err = w.close()
	return sums, err
}

// frameFile writes frames.
type frameFile struct {
	p           payload
	f           *os.File
	enc         *frame.Encoder
	buf         []byte
	index       []byte
	plain, sent int64
	err         error
}

func newFrameFile(p payload) (*frameFile, error) {
	enc, err := frame.NewEncoder(int(p.cell))
	if err != nil {
		return nil, err
	}
	f, err := os.Create(p.frameFile())
	return &frameFile{p: p, f: f, enc: enc}, err
}

func (w *frameFile) add(cell []byte) {
	w.buf = w.enc.Encode(w.buf[:0], cell)
	n := len(w.buf)
	w.plain += int64(len(cell))
	if !frame.Worth(n, len(cell)) {
		n = 0
		w.sent += int64(len(cell))
	}
	w.sent += int64(n)
	w.index = binary.LittleEndian.AppendUint32(w.index, uint32(n))
	if w.err == nil {
		_, w.err = w.f.Write(w.buf[:n])
	}
}

// close returns the frames' share of their cells, 0 without frames.
func (w *frameFile) close() (share float64, err error) {
	if w.plain > 0 {
		share = float64(w.sent) / float64(w.plain)
	}
	return share, errors.Join(w.err, w.f.Close(), os.WriteFile(w.p.frameIndex(), w.index, 0o600))
}

// withAnnounce adds a tracker's address, which image.torrent never has.
func withAnnounce(torrent []byte, url string) ([]byte, error) {
	var top map[string]bencode.Bytes
	if err := bencode.Unmarshal(torrent, &top); err != nil {
		return nil, fmt.Errorf("read torrent: %w", err)
	}
	b, err := bencode.Marshal(url)
	if err != nil {
		return nil, fmt.Errorf("make torrent: %w", err)
	}
	top["announce"] = b
	return bencode.Marshal(top)
}

// readTorrent reads image.torrent.
func readTorrent(file string) (*metainfo.Torrent, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read torrent: %w", err)
	}
	return metainfo.Parse(raw)
}

// sameFile reports where two files differ, nil when they do not. Where both have
// a hole nothing is read: the largest payloads are nearly all holes.
func sameFile(a, b string) error {
	fa, err := os.Open(a)
	if err != nil {
		return err
	}
	defer fa.Close() //nolint:errcheck // only read
	fb, err := os.Open(b)
	if err != nil {
		return err
	}
	defer fb.Close() //nolint:errcheck // only read
	sa, err := fa.Stat()
	if err != nil {
		return err
	}
	sb, err := fb.Stat()
	if err != nil {
		return err
	}
	if sa.Size() != sb.Size() {
		return fmt.Errorf("%s has %d bytes; the payload has %d", b, sb.Size(), sa.Size())
	}
	const step = 1 << 20
	ba, bb := make([]byte, step), make([]byte, step)
	for off := int64(0); off < sa.Size(); off += step {
		if off, err = nextData(fa, fb, off, sa.Size()); err != nil || off >= sa.Size() {
			return err
		}
		n := int(min(step, sa.Size()-off))
		if err := errors.Join(readFull(fa, ba[:n], off), readFull(fb, bb[:n], off)); err != nil {
			return err
		}
		if string(ba[:n]) != string(bb[:n]) {
			return fmt.Errorf("%s differs from the payload within the MiB at byte %d", b, off)
		}
	}
	return nil
}

func readFull(f *os.File, b []byte, off int64) error {
	if _, err := f.ReadAt(b, off); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
