// Package captures is control.Captures on the image library: it takes the cells of terminals whose disks are captured,
// one upload at a time for each, and publishes what is complete. It knows nothing of hosts and jobs but a number; what
// may be captured by whom is decided before it is called.
package captures

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/api/cells"
	"labswarm/images/library"
	"labswarm/images/manifest"
	"labswarm/server/daemon/control"
)

// Book is all captures of a server. Make it with New, end it with Close.
type Book struct {
	lib      *library.Library
	describe func(v *library.Version) api.Image
	log      *slog.Logger
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu   sync.Mutex
	open map[uint64]*capture
}

// capture is one of them. Its turn is held by whoever works with c.
type capture struct {
	turn  chan struct{} // holds one token
	draft [32]byte      // digest of the draft
	c     *library.Capture

	mu    sync.Mutex
	gone  bool   // dropped: nobody begins anything with it
	abort func() // ends the upload that is under way
	base  []byte // hashes of the base's cells, nil = none
	st    api.CaptureState
}

// New returns the book of captures that go into lib, which must hold a signing key. describe shows a version to admins.
func New(lib *library.Library, describe func(v *library.Version) api.Image, log *slog.Logger) *Book {
	ctx, cancel := context.WithCancel(context.Background())
	return &Book{lib: lib, describe: describe, log: log, ctx: ctx, cancel: cancel, open: map[uint64]*capture{}}
}

var _ control.Captures = (*Book)(nil)

// Close ends all work. What has arrived stays for the next start.
func (b *Book) Close() error {
	b.cancel()
	b.mu.Lock()
	list := b.open
	b.open = map[uint64]*capture{}
	b.mu.Unlock()
	var errs []error
	for _, e := range list {
		e.end()
		<-e.turn
		if e.c != nil {
			errs = append(errs, e.c.Close())
			e.c = nil
		}
		e.turn <- struct{}{}
	}
	b.wg.Wait()
	return errors.Join(errs...)
}

// end keeps new work away and stops the upload that is under way.
func (e *capture) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gone = true
	if e.abort != nil {
		e.abort()
	}
}

// Keep implements control.Captures.
func (b *Book) Keep(live func(id uint64) bool) {
	ids, err := b.lib.PendingCaptures()
	if err != nil {
		b.log.Error("captures of an earlier time are not found", "err", err)
	}
	for _, id := range ids {
		if live(id) {
			continue
		}
		if err := b.lib.DropCapture(id); err != nil {
			b.log.Error("capture is not removed", "job", id, "err", err)
		}
	}
}

// Drop implements control.Captures. It does not wait for work that is under way.
func (b *Book) Drop(id uint64) {
	b.mu.Lock()
	e := b.open[id]
	delete(b.open, id)
	b.mu.Unlock()
	if e == nil { // not begun, or not since the last start
		if err := b.lib.DropCapture(id); err != nil && !errors.Is(err, library.ErrBusy) { // busy: an earlier call is at it
			b.log.Error("capture is not removed", "job", id, "err", err)
		}
		return
	}
	e.end()
	b.wg.Go(func() { // ends when the work under way does
		<-e.turn
		b.discard(id, e)
		e.turn <- struct{}{}
	})
}

// discard removes what has arrived; the caller has the turn.
func (b *Book) discard(id uint64, e *capture) {
	var err error
	if e.c != nil {
		err = e.c.Close()
		e.c = nil
	}
	if err = errors.Join(err, b.lib.DropCapture(id)); err != nil {
		b.log.Error("capture is not removed", "job", id, "err", err)
	}
}

func (b *Book) find(id uint64) *capture {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open[id]
}

// State implements control.Captures.
func (b *Book) State(id uint64) api.CaptureState {
	if e := b.find(id); e != nil {
		return e.state()
	}
	return api.CaptureState{}
}

func (e *capture) state() api.CaptureState {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.st
}

func (e *capture) set(f func(st *api.CaptureState)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.st)
}

// Draft implements control.Captures. Opening goes on in the background: what an earlier process left is read.
func (b *Book) Draft(id uint64, o control.CaptureOptions, d *api.CaptureDraft) (api.CaptureState, error) {
	used, err := manifest.DecodeUsed(bytes.NewReader(d.Used), d.Extents, d.Size)
	if err != nil {
		return api.CaptureState{}, bad("the draft's used map: %v", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d %x", d.Size, d.Sector, sha256.Sum256(d.Used)))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx.Err() != nil {
		return api.CaptureState{}, busy("the server is about to end")
	}
	old := b.open[id]
	if old != nil && old.draft == sum && old.state().Phase != api.CaptureFailed {
		return old.state(), nil
	}
	e := &capture{turn: make(chan struct{}, 1), draft: sum, st: api.CaptureState{Phase: api.CaptureOpening}}
	b.open[id] = e
	opt := library.CaptureOptions{ID: id, Name: o.Image, Cell: o.Cell, Force: o.Force, Base: o.Base}
	draft := library.Draft{Size: d.Size, Sector: d.Sector, Used: used, Smart: d.Smart}
	b.wg.Go(func() { // ends with the opening, or the book
		if old != nil {
			old.end()
			<-old.turn
			if old.c != nil {
				if err := old.c.Close(); err != nil {
					b.log.Warn("close capture", "job", id, "err", err)
				}
				old.c = nil
			}
			old.turn <- struct{}{}
		}
		b.begin(id, e, opt, draft)
		e.turn <- struct{}{}
	})
	return e.state(), nil
}

// begin opens a capture; its turn is not there yet.
func (b *Book) begin(id uint64, e *capture, o library.CaptureOptions, d library.Draft) {
	c, err := b.lib.Capture(b.ctx, o, d, func(p library.Progress) {
		e.set(func(st *api.CaptureState) { st.Done, st.Total = p.Done, p.Total })
	})
	if err != nil {
		b.failed(id, e, err)
		return
	}
	e.c = c
	base := c.BaseHashes()
	e.mu.Lock()
	e.base = base
	e.mu.Unlock()
	b.log.Info("capture", "job", id, "base", c.BaseVersion(), "image", o.Name, "cells", c.Cells(), "cell", c.CellSize(), "here", c.Next())
	e.set(func(st *api.CaptureState) {
		*st = api.CaptureState{Phase: api.CaptureReceiving, CellBytes: c.CellSize(), Cells: c.Cells(), Next: c.Next(), Base: c.BaseVersion()}
	})
}

func (b *Book) failed(id uint64, e *capture, err error) {
	b.log.Error("capture", "job", id, "err", err)
	p := problem(err)
	e.set(func(st *api.CaptureState) {
		*st = api.CaptureState{Phase: api.CaptureFailed, Code: p.Code, Error: p.Detail}
	})
}

// take waits for the turn of a capture that receives, and sends an earlier upload away.
func (b *Book) take(ctx context.Context, id uint64, abort func()) (*capture, error) {
	e := b.find(id)
	if e == nil || e.state().Phase != api.CaptureReceiving {
		return nil, busy("the server does not await cells of capture %d now", id)
	}
	e.mu.Lock()
	if e.abort != nil {
		e.abort()
	}
	e.mu.Unlock()
	select {
	case <-e.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone || e.c == nil || e.st.Phase != api.CaptureReceiving {
		e.turn <- struct{}{}
		return nil, busy("capture %d has ended", id)
	}
	e.abort = abort
	return e, nil
}

// give returns the turn.
func (e *capture) give() {
	e.mu.Lock()
	e.abort = nil
	e.mu.Unlock()
	e.turn <- struct{}{}
}

// Base implements control.Captures.
func (b *Book) Base(id uint64) ([]byte, error) {
	if e := b.find(id); e != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.base != nil {
			return e.base, nil
		}
	}
	return nil, busy("capture %d has no base now", id)
}

// Cells implements control.Captures. The stream is read in the steps of its cells: what does not fit waits in the
// network.
func (b *Book) Cells(ctx context.Context, id uint64, body io.Reader, abort func()) (api.CaptureState, error) {
	e, err := b.take(ctx, id, abort)
	if err != nil {
		return api.CaptureState{}, err
	}
	defer e.give()
	r := cells.NewReader(body, int(e.c.CellSize()))
	for {
		h, frame, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return e.state(), nil
		case errors.Is(err, cells.ErrStream):
			return api.CaptureState{}, bad("%v", err)
		case err != nil: // cut: the agent comes again and asks where to go on
			return api.CaptureState{}, busy("the stream broke off: %v", err)
		}
		if h.Ord != e.c.Next() { // an earlier stream brought more than the agent was told
			return api.CaptureState{}, busy("cell %d came, %d is awaited", h.Ord, e.c.Next())
		}
		if err := e.c.Put(h.Ord, h.Sum, frame); err != nil {
			return api.CaptureState{}, problem(err)
		}
		e.set(func(st *api.CaptureState) { st.Next = e.c.Next() })
	}
}

// Finish implements control.Captures.
func (b *Book) Finish(id uint64, done func(img api.Image) error) (api.CaptureState, error) {
	e := b.find(id)
	if e == nil {
		return api.CaptureState{}, busy("the server does not know capture %d: send its draft", id)
	}
	if st := e.state(); st.Phase != api.CaptureReceiving {
		return st, nil // the question came twice
	}
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	e, err := b.take(ctx, id, nil)
	if err != nil {
		return api.CaptureState{}, err
	}
	if e.c.Next() != e.c.Cells() {
		defer e.give()
		return e.state(), nil
	}
	e.set(func(st *api.CaptureState) { st.Phase = api.CapturePublishing })
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx.Err() != nil {
		e.give()
		return api.CaptureState{}, busy("the server is about to end")
	}
	b.wg.Go(func() { // ends with the publishing, or the book
		b.publish(id, e, done)
		e.give()
	})
	return e.state(), nil
}

// publish makes the version, and takes it back when the job does not want it any more; the caller has the turn.
func (b *Book) publish(id uint64, e *capture, done func(img api.Image) error) {
	v, err := e.c.Publish(b.ctx, func(p library.Progress) {
		e.set(func(st *api.CaptureState) { st.Done, st.Total = p.Done, p.Total })
	})
	var same *library.UnchangedError
	if errors.As(err, &same) { // also when this process ended between the publishing and the commit
		b.log.Info("capture holds what the newest version holds", "job", id, "image", same.Name+"/"+same.Version)
		v, err = b.lib.Get(same.Name, same.Version)
	}
	if err != nil {
		if b.ctx.Err() == nil {
			b.failed(id, e, err)
		}
		return
	}
	img := b.describe(v)
	if err := v.Close(); err != nil {
		b.log.Warn("close image", "image", img.Name+"/"+img.Version, "err", err)
	}
	if err := done(img); err != nil {
		if same == nil {
			err = errors.Join(err, b.lib.Remove(img.Name, img.Version))
		}
		b.failed(id, e, err)
		return
	}
	b.log.Info("captured image is there", "job", id, "image", img.Name+"/"+img.Version)
	e.set(func(st *api.CaptureState) {
		*st = api.CaptureState{Phase: api.CapturePublished, Image: img.Name + "/" + img.Version}
	})
}

// problem gives an error of the library its code.
func problem(err error) *api.Problem {
	p := &api.Problem{Status: http.StatusInternalServerError, Title: "capture failed", Code: api.CodeInternal, Detail: err.Error()}
	var full *library.NoSpaceError
	var guard *library.GuardError
	var known *api.Problem
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &full):
		p.Status, p.Code = http.StatusInsufficientStorage, api.CodeNoSpace
	case errors.As(err, &guard):
		p.Status, p.Code = http.StatusUnprocessableEntity, api.CodeGuard
	case errors.Is(err, library.ErrCaptured):
		p.Status, p.Code = http.StatusUnprocessableEntity, api.CodeCapture
	}
	return p
}

func bad(format string, a ...any) error {
	return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "not a capture", Code: api.CodeCapture, Detail: fmt.Sprintf(format, a...)}
}

// busy means: ask for the state, then go on from there.
func busy(format string, a ...any) error {
	return &api.Problem{Status: http.StatusConflict, Title: "not now", Code: api.CodeNotNow, Detail: fmt.Sprintf(format, a...)}
}
