package library

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"labswarm/images/manifest"
	"labswarm/swarm/frame"
)

// frameBuffers is what a worker needs to check a frame.
type frameBuffers struct {
	dec   *frame.Decoder
	frame []byte
	plain []byte
}

// frameCheck compares frames with their cells, from several goroutines.
type frameCheck struct {
	v    *Version
	bufs chan *frameBuffers
	all  []*frameBuffers

	mu  sync.Mutex
	n   int   // right ones
	bad []int // pieces
}

func newFrameCheck(v *Version) (*frameCheck, error) {
	c := &frameCheck{v: v, bufs: make(chan *frameBuffers, runtime.GOMAXPROCS(0))}
	for range cap(c.bufs) {
		d, err := frame.NewDecoder(int(v.man.Cell))
		if err != nil {
			c.close()
			return nil, err
		}
		b := &frameBuffers{dec: d, plain: make([]byte, v.man.Cell)}
		c.all = append(c.all, b)
		c.bufs <- b
	}
	return c, nil
}

func (c *frameCheck) close() {
	for _, b := range c.all {
		b.dec.Close()
	}
}

// right tells whether the frame of a piece unpacks to its cell, and hands both to use while they are in the buffers.
// cell is the right content; nil when the cell on the disk is damaged: the frame is compared with the hashes then.
func (c *frameCheck) right(piece int, cell []byte, use func(f, plain []byte) error) (bool, error) {
	s := c.v.frames
	if s == nil || s.len(piece) > int(c.v.man.Cell)+frameSlack {
		return false, nil
	}
	b := <-c.bufs
	defer func() { c.bufs <- b }()
	var err error
	if b.frame, err = s.read(piece, b.frame); err != nil {
		return false, nil // what cannot be read or has rotted is a bad frame, and named as such
	}
	if b.dec.Decode(b.plain, b.frame) != nil || cell != nil && !bytes.Equal(b.plain, cell) || cell == nil && !c.v.matches(piece, b.plain) {
		return false, nil
	}
	return true, use(b.frame, b.plain)
}

// frameSlack is what a frame of raw blocks is longer than its cell at most, generously: bytes.
const frameSlack = 4 << 10

// cell is a callback of Version.verify: it books whether the frame of a piece is right.
func (c *frameCheck) cell(_ context.Context, ord int64, cell []byte) error {
	piece := int(ord)
	ok, err := c.right(piece, cell, func(_, _ []byte) error { return nil })
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if ok {
		c.n++
	} else {
		c.bad = append(c.bad, piece)
	}
	return nil
}

// into adds what was found to a result.
func (c *frameCheck) into(r *Result) {
	slices.Sort(c.bad)
	r.Frames = c.n
	for _, piece := range c.bad {
		r.BadFrames = append(r.BadFrames, c.v.man.CellOf(piece))
	}
}

// RepairFrames makes the frame store of a version again from its cells, and keeps the frames that are right. The new
// store takes the place of the old one in one step: a crash leaves the one or the other. It fails when a cell itself is
// damaged. v, and whoever else has the version open, keeps what it opened; open it again.
func (l *Library) RepairFrames(ctx context.Context, v *Version, progress func(Progress)) error {
	err := l.repairFrames(ctx, v, progress)
	if err != nil {
		return fmt.Errorf("make the compressed cells of image %s/%s again: %w", v.man.Name, v.man.Version, l.noSpace(err, v.man.ShippedBytes()))
	}
	return nil
}

func (l *Library) repairFrames(ctx context.Context, v *Version, progress func(Progress)) (err error) {
	if l.key == nil {
		return ErrReadOnly
	}
	if err := l.checkSpace(v.man.ShippedBytes()); err != nil {
		return err
	}
	tmp, err := l.newTemp()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tmp.discard()) }()
	if err := v.rebuildFrames(ctx, tmp.dir, l.newRoom(v.man.ShippedBytes()), progress); err != nil {
		return err
	}
	unlock, err := l.lock() // nobody removes the version, or imports it again, meanwhile
	if err != nil {
		return err
	}
	defer unlock()
	now, err := v.read(manifestFile, manifest.MaxJSON)
	if err != nil {
		return err
	}
	if !bytes.Equal(now, v.json) {
		return errors.New("another image has taken its place meanwhile")
	}
	return installFrames(tmp.dir, v.dir)
}

// rebuildFrames writes a frame store into dir, as long as there is room.
func (v *Version) rebuildFrames(ctx context.Context, dir string, room *room, progress func(Progress)) error {
	w, err := newFrameWriter(dir, v.man.Cell)
	if err != nil {
		return err
	}
	check, err := newFrameCheck(v)
	if err != nil {
		return errors.Join(err, w.f.Close())
	}
	defer check.close()
	res, err := v.verify(ctx, progress, nil, func(ctx context.Context, ord int64, cell []byte) error {
		if err := room.take(v.man.Cell); err != nil {
			return err
		}
		if cell == nil {
			return w.keep(ctx, ord, nil) // the result says so; the others go on
		}
		ok, err := check.right(int(ord), cell, func(f, _ []byte) error { return w.keep(ctx, ord, bytes.Clone(f)) })
		if ok || err != nil {
			return err
		}
		return w.add(ctx, ord, cell)
	})
	if err == nil && !res.OK() {
		err = fmt.Errorf("%d cells are damaged, the first: %w", len(res.Bad), res.Bad[0])
	}
	if err != nil {
		return errors.Join(err, w.f.Close())
	}
	return w.finish(v.Digest())
}
