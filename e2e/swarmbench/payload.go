package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/anacrolix/torrent/bencode"

	"labswarm/images/metainfo"
)

const payloadName = "payload" // the file's and the torrent's name

// payload is what is distributed: random bytes, so that nothing compresses.
type payload struct {
	dir     string // of the seed's copy
	torrent string // file with an announce address, for everybody
	bytes   int64
	cell    int64
	cells   int
}

func (p payload) file() string { return filepath.Join(p.dir, payloadName) }

// newPayload writes payload and torrent below dir. Nothing of it stays in this
// process's memory: a child's peak memory would count it.
func newPayload(dir string, size, cell int64, announce string) (payload, error) {
	p := payload{dir: filepath.Join(dir, "seed"), torrent: filepath.Join(dir, "bench.torrent"), bytes: size, cell: cell, cells: int(size / cell)}
	if cell < 16<<10 || size%cell != 0 || p.cells < 1 {
		return p, fmt.Errorf("payload of %d bytes does not divide into cells of %d bytes", size, cell)
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return p, fmt.Errorf("make payload: %w", err)
	}
	f, err := os.Create(p.file())
	if err != nil {
		return p, fmt.Errorf("make payload: %w", err)
	}
	sums := make([][20]byte, p.cells)
	buf := make([]byte, cell)
	for i := range sums {
		if _, err = rand.Read(buf); err == nil {
			sums[i] = sha1.Sum(buf)
			_, err = f.Write(buf)
		}
		if err != nil {
			return p, errors.Join(fmt.Errorf("write payload: %w", err), f.Close())
		}
	}
	if err := f.Close(); err != nil {
		return p, fmt.Errorf("write payload: %w", err)
	}
	raw, _, err := metainfo.Build(payloadName, cell, sums)
	if err != nil {
		return p, fmt.Errorf("make torrent: %w", err)
	}
	if raw, err = withAnnounce(raw, announce); err != nil {
		return p, err
	}
	if err := os.WriteFile(p.torrent, raw, 0o600); err != nil {
		return p, fmt.Errorf("write torrent: %w", err)
	}
	return p, nil
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

// readTorrent is the inverse: our own reader takes only what the library wrote.
func readTorrent(file string) (*metainfo.Torrent, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read torrent: %w", err)
	}
	var top map[string]bencode.Bytes
	if err := bencode.Unmarshal(raw, &top); err != nil {
		return nil, fmt.Errorf("read torrent %q: %w", file, err)
	}
	delete(top, "announce")
	if raw, err = bencode.Marshal(top); err != nil {
		return nil, fmt.Errorf("read torrent %q: %w", file, err)
	}
	return metainfo.Parse(raw)
}

// sameFile reports where two files differ, nil when they do not.
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
	const step = 1 << 20
	ba, bb := make([]byte, step), make([]byte, step)
	for off := int64(0); ; off += step {
		na, ea := io.ReadFull(fa, ba)
		nb, eb := io.ReadFull(fb, bb)
		if na != nb || !bytes.Equal(ba[:na], bb[:nb]) {
			return fmt.Errorf("%s differs from the payload within the MiB at byte %d", b, off)
		}
		for _, err := range []error{ea, eb} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return err
			}
		}
		if ea != nil || eb != nil {
			return nil
		}
	}
}
