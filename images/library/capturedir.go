package library

import (
	"context"
	"crypto/sha1" // pieces of a BitTorrent v1 file are SHA-1
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"labswarm/images/manifest"
	"labswarm/images/mask"
)

func (l *Library) capturePath(id uint64) string {
	return filepath.Join(l.dir, capturePrefix+strconv.FormatUint(id, 10))
}

// digest names the draft and how it is cut.
func (c *Capture) digest() (string, error) {
	used, err := manifest.EncodeUsed(c.draft.Used)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(used)
	return fmt.Sprintf("labswarm capture 1 %s %d %d %d %x\n", c.opt.Name, c.draft.Size, c.draft.Sector, c.cell, sum), nil
}

// open opens the folder's files, empty ones when the draft is new.
func (c *Capture) open() error {
	want, err := c.digest()
	if err != nil {
		return err
	}
	path := func(name string) string { return filepath.Join(c.tmp.dir, name) }
	old, err := os.ReadFile(path(captureDraft))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(old) != want {
		ents, err := os.ReadDir(c.tmp.dir)
		if err != nil {
			return err
		}
		for _, e := range ents {
			if err := os.RemoveAll(path(e.Name())); err != nil {
				return err
			}
		}
		if err := writeSynced(path(captureDraft), []byte(want)); err != nil {
			return err
		}
	}
	c.fw = &frameWriter{cell: c.cell, early: map[int64][]byte{}, moved: make(chan struct{})}
	for _, f := range []struct {
		name string
		to   **os.File
	}{{rawFile, &c.raw}, {captureLog, &c.log}, {framesFile, &c.fw.f}} {
		if *f.to, err = os.OpenFile(path(f.name), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return err
		}
	}
	return c.raw.Truncate(c.draft.Size)
}

// replay finds how far an earlier process came: up to the first cell that is not on the disk as the log has it.
func (c *Capture) replay(ctx context.Context, progress func(Progress)) error {
	st, err := c.log.Stat()
	if err != nil {
		return err
	}
	n := min(int(st.Size()/recordLen), c.total)
	if progress == nil {
		progress = func(Progress) {}
	}
	rep := newReporter("check", int64(n)*c.cell, progress)
	var raw [recordLen]byte
	for range n {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := c.log.ReadAt(raw[:], int64(c.next)*recordLen); err != nil {
			return err
		}
		rec, ok := parseRecord(raw)
		if g, more := c.at.cell(); !ok || !more || !c.holds(rec, g) {
			break
		}
		c.keep(rec)
		rep.add(c.cell)
	}
	return c.cut()
}

// cut drops everything behind what is known to be right.
func (c *Capture) cut() error {
	end := c.draft.Size
	if g, ok := c.at.cell(); ok {
		end = g * c.cell
	}
	err := c.raw.Truncate(min(end, c.draft.Size))
	if err == nil {
		err = c.raw.Truncate(c.draft.Size)
	}
	return errors.Join(err, c.log.Truncate(int64(c.next)*recordLen), c.fw.f.Truncate(c.fw.off))
}

// holds tells whether disk.raw and the frame store hold what a record says of cell g.
func (c *Capture) holds(rec captureRecord, g int64) bool {
	if c.read(g) != nil {
		return false
	}
	if rec.frame == 0 {
		return mask.IsZero(c.buf)
	}
	b := make([]byte, rec.frame)
	if _, err := c.fw.f.ReadAt(b, c.fw.off); err != nil || crc32.Checksum(b, castagnoli()) != rec.crc {
		return false
	}
	return sha256.Sum256(c.buf) == rec.sum256 && sha1.Sum(c.buf) == rec.sum1
}

// read reads cell g from disk.raw, masked.
func (c *Capture) read(g int64) error {
	return readMasked(c.raw, c.mask, c.buf, g*c.cell, c.draft.Size)
}

// readMasked fills buf with the cell at off of a disk of size bytes.
func readMasked(raw *os.File, m *mask.Masker, buf []byte, off, size int64) error {
	n := min(int64(len(buf)), size-off)
	if _, err := raw.ReadAt(buf[:n], off); err != nil {
		return fmt.Errorf("read %q at byte %d: %w", raw.Name(), off, err)
	}
	m.Mask(buf, off)
	return nil
}

// PendingCaptures lists the IDs of captures of which a part is here.
func (l *Library) PendingCaptures() ([]uint64, error) {
	dirs, err := listDirs(l.dir, func(s string) bool { return strings.HasPrefix(s, capturePrefix) })
	if err != nil {
		return nil, fmt.Errorf("list captures: %w", err)
	}
	var out []uint64
	for _, d := range dirs {
		if id, err := strconv.ParseUint(strings.TrimPrefix(d, capturePrefix), 10, 64); err == nil {
			out = append(out, id)
		}
	}
	return out, nil
}

// DropCapture removes what has arrived of a capture that has ended. No Capture of it may be open.
func (l *Library) DropCapture(id uint64) error {
	if _, err := os.Stat(l.capturePath(id)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	tmp, err := l.holdDir(l.capturePath(id))
	if err == nil {
		err = tmp.discard()
	}
	if err != nil {
		return fmt.Errorf("drop capture %d: %w", id, err)
	}
	return nil
}

// holdDir makes or finds a folder and takes the lock that says that somebody is at work.
func (l *Library) holdDir(dir string) (*temp, error) {
	unlock, err := l.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	hold, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := flock(hold, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrBusy
		}
		return nil, errors.Join(err, hold.Close())
	}
	return &temp{dir, hold}, nil
}
