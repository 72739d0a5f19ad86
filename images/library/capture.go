package library

import (
	"context"
	"crypto/sha1" // pieces of a BitTorrent v1 file are SHA-1
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"labswarm/images/manifest"
	"labswarm/images/mask"
	"labswarm/images/survey"
	"labswarm/swarm/frame"
)

// capturePrefix begins the names of folders in which the disk of a terminal arrives: .capture-NUMBER. They outlive the
// process, so that a capture goes on where it was.
const capturePrefix = ".capture-"

const (
	captureLog   = "cells.log" // what has arrived, see captureRecord
	captureDraft = "draft"     // digest of what the terminal said of its disk
	spaceEvery   = 64          // cells between two looks at the free space
	maxTouched   = 1 << 22     // cells with used bytes: bounds what a terminal can make the server count
)

// Draft is what a terminal says of its disk before it sends cells.
type Draft struct {
	Size   int64             // bytes
	Sector int               // logical sector, bytes
	Used   []manifest.Extent // merged
	Smart  string            // what the disk says of its health when it fails
}

// CaptureOptions says what is made of the cells.
type CaptureOptions struct {
	ID     uint64   // names the folder; the same ID goes on where it was
	Name   string   // image name
	Cell   int64    // bytes, 0 as in ImportOptions
	Force  []string // guards to override: survey.Dirty, survey.Hibernated, survey.Loader, survey.Smart
	Base   string   // version whose cells need not be sent; "" = none
	OSHint string
}

// ErrCaptured is wrapped by errors over cells that are not what they should be: the terminal is at fault, or the disk
// was written to while it was read.
var ErrCaptured = errors.New("captured disk")

// Capture is a version that arrives cell by cell, in disk order, from the disk of a terminal. Publish makes a version
// of it. One goroutine calls its methods, but for Next and Close.
type Capture struct {
	lib   *Library
	opt   CaptureOptions
	draft Draft
	cell  int64
	runs  []manifest.Run // cells with used bytes
	total int
	mask  *mask.Masker
	tmp   *temp
	raw   *os.File
	log   *os.File
	fw    *frameWriter
	dec   *frame.Decoder
	enc   *frame.Encoder // made when it is needed
	base  *base          // nil = none
	buf   []byte
	at    cursor // on the next cell

	mu     sync.Mutex
	next   int // ordinal of the next cell
	recs   []captureRecord
	pieces int
}

// Capture begins to receive a disk, or goes on: what an earlier process left is read and hashed, nothing else is
// believed. A draft that differs from the earlier one begins anew. Errors a caller may want to tell apart:
// NoSpaceError, ErrBusy, ErrReadOnly, ErrCaptured.
func (l *Library) Capture(ctx context.Context, o CaptureOptions, d Draft, progress func(Progress)) (*Capture, error) {
	c, err := l.capture(ctx, o, d, progress)
	if err != nil {
		return nil, fmt.Errorf("capture image %s: %w", o.Name, err)
	}
	return c, nil
}

func (l *Library) capture(ctx context.Context, o CaptureOptions, d Draft, progress func(Progress)) (_ *Capture, err error) {
	if l.key == nil {
		return nil, ErrReadOnly
	}
	if err := manifest.CheckName(o.Name); err != nil {
		return nil, err
	}
	if err := checkDraft(d); err != nil {
		return nil, err
	}
	if d.Smart != "" && !slices.Contains(o.Force, survey.Smart) {
		return nil, &GuardError{File: o.Name, Findings: []survey.Finding{{Guard: survey.Smart, Text: manifest.CleanText([]byte(d.Smart))}}}
	}
	c := &Capture{lib: l, opt: o, draft: d, mask: mask.FromUsed(d.Used)}
	newest, err := l.newest(o.Name)
	if err != nil {
		return nil, err
	}
	c.cell, err = cellFor(ImportOptions{Name: o.Name, Cell: o.Cell}, newest, d.Used)
	if newest != nil {
		err = closeInto(err, newest.Close())
	}
	if err != nil {
		return nil, err
	}
	c.runs = manifest.TouchedCells(d.Used, c.cell)
	n := countCells(c.runs)
	if n > maxTouched {
		return nil, fmt.Errorf("%w: %d cells, at most %d", ErrCaptured, n, maxTouched)
	}
	c.total, c.at, c.buf = int(n), cursor{runs: c.runs}, make([]byte, c.cell)
	if c.tmp, err = l.holdDir(l.capturePath(o.ID)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.dec, err = frame.NewDecoder(int(c.cell)); err != nil {
		return nil, err
	}
	if err := c.openBase(); err != nil {
		return nil, err
	}
	if err := c.open(); err != nil {
		return nil, l.noSpace(err, manifest.Sum(d.Used))
	}
	if err := c.replay(ctx, progress); err != nil {
		return nil, err
	}
	return c, c.checkRoom()
}

// checkDraft refuses what no disk can be. The map comes from the network.
func checkDraft(d Draft) error {
	switch {
	case d.Sector != 512 && d.Sector != 4096:
		return fmt.Errorf("%w: sectors of %d bytes", ErrCaptured, d.Sector)
	case d.Size <= 0 || d.Size >= manifest.MaxDisk || d.Size%int64(d.Sector) != 0:
		return fmt.Errorf("%w: %d bytes in sectors of %d", ErrCaptured, d.Size, d.Sector)
	case len(d.Used) == 0 || len(d.Used) > manifest.MaxExtents:
		return fmt.Errorf("%w: %d used extents", ErrCaptured, len(d.Used))
	}
	end := int64(-1)
	for _, e := range d.Used {
		if e.Off <= end || e.Len <= 0 || e.Off%manifest.Unit != 0 || e.Len%manifest.Unit != 0 || e.Off >= d.Size || e.Len > d.Size-e.Off {
			return fmt.Errorf("%w: used extent of %d bytes at %d", ErrCaptured, e.Len, e.Off)
		}
		end = e.End()
	}
	return nil
}

// checkRoom looks whether what is missing fits.
func (c *Capture) checkRoom() error {
	left := int64(c.total-c.next) * c.cell
	return c.lib.checkSpace(min(left, manifest.Sum(c.draft.Used)))
}

// keep takes over a cell that is on the disk.
func (c *Capture) keep(rec captureRecord) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recs = append(c.recs, rec)
	c.next++
	c.at = c.at.after()
	if rec.frame > 0 {
		c.pieces++
		c.fw.entry(rec.frame, rec.crc)
	}
}

// cursor walks over the cells of a run list.
type cursor struct {
	runs []manifest.Run
	off  int64 // within runs[0]
}

// cell is the one the cursor stands on; false behind the last one.
func (c cursor) cell() (int64, bool) {
	if len(c.runs) == 0 {
		return 0, false
	}
	return c.runs[0].First + c.off, true
}

// after is the cursor on the cell that follows.
func (c cursor) after() cursor {
	if c.off++; c.off == c.runs[0].Count {
		c.runs, c.off = c.runs[1:], 0
	}
	return c
}

// Next returns the ordinal of the next cell that Put takes.
func (c *Capture) Next() int { c.mu.Lock(); defer c.mu.Unlock(); return c.next }

// Cells returns how many cells there are to come in all, from ordinal 0.
func (c *Capture) Cells() int { return c.total }

// CellSize returns the cell size in bytes.
func (c *Capture) CellSize() int64 { return c.cell }

// Put takes the next cell: its ordinal among the cells with used bytes, the SHA-256 of its masked content and its zstd
// frame; a zero cell has neither, one that equals the base's has only the hash. Nothing of what comes from the network is believed: the frame is decoded within the
// bounds of a cell, and the content must be masked and have the hash. An error leaves the capture where it was.
func (c *Capture) Put(ord int, sum [32]byte, b []byte) error {
	g, ok := c.at.cell()
	if !ok || ord != c.next {
		return fmt.Errorf("%w: cell %d of %d came, %d was awaited", ErrCaptured, ord, c.total, c.next)
	}
	if ord%spaceEvery == 0 {
		if err := c.lib.checkSpace(spaceEvery * c.cell); err != nil {
			return err
		}
	}
	same := len(b) == 0 && sum != [32]byte{}
	if same {
		var err error
		if b, err = c.fromBase(g, sum); err != nil {
			return err
		}
	}
	rec := captureRecord{frame: len(b), sum256: sum}
	if len(b) > 0 {
		if same { // hashed by fromBase
		} else if err := c.dec.Decode(c.buf, b); err != nil {
			return fmt.Errorf("%w: cell %d: %w", ErrCaptured, g, err)
		}
		off := g * c.cell
		c.mask.Mask(c.buf, off)
		switch {
		case sha256.Sum256(c.buf) != sum:
			return fmt.Errorf("%w: cell %d does not have the hash it was sent with", ErrCaptured, g)
		case mask.IsZero(c.buf):
			return fmt.Errorf("%w: cell %d is all zero but came as data", ErrCaptured, g)
		case c.pieces >= manifest.MaxPieces:
			return fmt.Errorf("%w: more than %d data cells; use a bigger cell", ErrCaptured, manifest.MaxPieces)
		}
		rec.crc, rec.sum1 = crc32.Checksum(b, castagnoli()), sha1.Sum(c.buf)
		if err := c.write(b, off, same); err != nil {
			return c.lib.noSpace(err, int64(c.total-ord)*c.cell)
		}
	}
	raw := rec.bytes()
	if _, err := c.log.WriteAt(raw[:], int64(ord)*recordLen); err != nil {
		return c.lib.noSpace(err, int64(c.total-ord)*c.cell)
	}
	c.keep(rec)
	return nil
}

func (c *Capture) write(b []byte, off int64, same bool) error {
	n := min(c.cell, c.draft.Size-off)
	write := func() error { return writeSparse(c.raw, c.buf[:n], off) }
	if same {
		write = func() error { return c.writeShared(off, n) }
	}
	if err := write(); err != nil {
		return err
	}
	_, err := c.fw.f.WriteAt(b, c.fw.off)
	return err
}

// Publish reads everything back, lets the readers look at what has arrived, which must give the very map that the
// terminal sent, and turns the folder into a version. UnchangedError means that the newest version holds the same. Any
// other error leaves the folder; Close and DropCapture end it.
func (c *Capture) Publish(ctx context.Context, progress func(Progress)) (*Version, error) {
	version, err := c.publish(ctx, progress)
	if err != nil {
		return nil, fmt.Errorf("publish the captured image %s: %w", c.opt.Name, c.lib.noSpace(err, c.cell))
	}
	return c.lib.open(c.opt.Name, version)
}

func (c *Capture) publish(ctx context.Context, progress func(Progress)) (_ string, err error) {
	if c.next != c.total {
		return "", fmt.Errorf("%w: %d of %d cells are here", ErrCaptured, c.next, c.total)
	}
	d, findings, err := survey.Read(c.raw, c.draft.Size, c.draft.Sector, survey.Options{Force: c.opt.Force, NeedLoader: true})
	switch {
	case err != nil:
		return "", fmt.Errorf("%w cannot be read as a disk any more: %w", ErrCaptured, err)
	case len(findings) > 0:
		return "", &GuardError{File: c.opt.Name, Findings: findings}
	case !slices.Equal(d.Used, c.draft.Used):
		return "", fmt.Errorf("%w: its filesystems use other bytes than the terminal said: it was written to while it was read", ErrCaptured)
	}
	if c.draft.Smart != "" {
		d.Force(survey.Finding{Guard: survey.Smart, Text: manifest.CleanText([]byte(c.draft.Smart))})
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	if err := c.verify(ctx, progress); err != nil {
		return "", err
	}
	j := &importJob{lib: c.lib, opt: ImportOptions{Name: c.opt.Name, OSHint: c.opt.OSHint, Codec: CodecZstd, Progress: progress, Warn: func(string) {}},
		plan: diskPlan(d), cell: c.cell, frames: c.fw}
	newest, err := c.lib.newest(c.opt.Name)
	if err != nil {
		return "", err
	}
	if j.base, err = newBase(newest, false); err != nil {
		return "", errors.Join(err, newest.Close())
	}
	defer func() { err = closeInto(err, j.base.close()) }()
	c.fw = nil // closed by finish
	defer func() {
		if j.frames != nil {
			_ = j.frames.f.Close() // not finished: nothing of it is used
		}
	}()
	n := len(c.recs)
	isData, sha1s, sha256s := make([]bool, n), make([][20]byte, n), make([][32]byte, n)
	for i, r := range c.recs {
		isData[i], sha1s[i], sha256s[i] = r.frame > 0, r.sum1, r.sum256
	}
	j.collect(c.runs, isData, sha1s, sha256s)
	progress(Progress{Phase: "sync", Done: int64(n) * c.cell, Total: int64(n) * c.cell})
	if err := c.raw.Sync(); err != nil {
		return "", err
	}
	for _, name := range []string{captureLog, captureDraft} {
		if err := os.Remove(filepath.Join(c.tmp.dir, name)); err != nil {
			return "", err
		}
	}
	return j.publish(c.tmp)
}

// verify reads disk.raw back: what is signed must be what is there.
func (c *Capture) verify(ctx context.Context, progress func(Progress)) error {
	rep := newReporter("verify", int64(c.total)*c.cell, progress)
	return eachCell(ctx, c.runs, c.cell, func(_ context.Context, buf []byte, cell, ord int64) error {
		if err := readMasked(c.raw, c.mask, buf, cell*c.cell, c.draft.Size); err != nil {
			return err
		}
		rec := &c.recs[ord]
		if ok := rec.frame > 0 && sha256.Sum256(buf) == rec.sum256 || rec.frame == 0 && mask.IsZero(buf); !ok {
			return &BadCellError{Image: c.opt.Name, Cell: cell, Piece: -1, Why: "the server's disk returned other data than was written"}
		}
		rep.add(c.cell)
		return nil
	})
}

// Close ends the receiving. What is not published stays for the next Capture with the same ID.
func (c *Capture) Close() error {
	var errs []error
	for _, f := range []*os.File{c.raw, c.log} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if c.fw != nil && c.fw.f != nil {
		errs = append(errs, c.fw.f.Close())
	}
	if c.dec != nil {
		c.dec.Close()
	}
	errs = append(errs, c.base.close())
	c.base = nil
	return errors.Join(append(errs, c.tmp.hold.Close())...)
}
