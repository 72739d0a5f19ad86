package deploy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/images/survey"
	"labswarm/initramfs-agent/bootenv"
	"labswarm/initramfs-agent/capture"
	"labswarm/initramfs-agent/contact"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/disk/target"
	"labswarm/initramfs-agent/screen"
)

// captureWait is how long the server may be away, or take nothing, before a capture is given up.
const captureWait = 30 * time.Minute

// capture does what an order to capture says: the disk is read and sent, and nothing on it is changed.
func (s *session) capture(ctx context.Context, env *order.Envelope) (err error) {
	s.cfg.Screen.Update(func(v *screen.View) { v.Capture = true })
	r, d, err := s.acceptCapture(env)
	if err != nil {
		return err
	}
	src, err := s.cfg.Disks.OpenReading(r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	s.setState(api.StateChecking, "reading the partition table and what the filesystems use")
	health := src.Health(d.Bus)
	s.cfg.Log.Info("disk asked for its health", "known", health.Known, "failing", health.Failing, "text", health.Text)
	failing := ""
	if health.Failing {
		failing = health.Text
	}
	look, err := s.look(src, d, failing, r.Order().Force)
	if err != nil {
		return err
	}
	s.cfg.Log.Info("disk looked at", "parts", len(look.Parts), "extents", len(look.Used), "boot", look.Boot, "warnings", look.Warnings, "forced", look.Forced)
	t := &transfer{s: s, src: src, disk: d, look: look, failing: failing, force: r.Order().Force, deadline: r.Deadline(), moved: bootenv.Uptime()}
	defer t.close()
	image, err := t.run(ctx)
	if err != nil {
		return err
	}
	s.cfg.Log.Info("captured", "image", image)
	s.setState(api.StateDone, "the image "+image+" is there")
	s.setState(api.StateRebooting, "")
	return nil
}

// acceptCapture applies every rule to the order. It reads the disk's description only; nothing was opened when it
// returns.
func (s *session) acceptCapture(env *order.Envelope) (r order.Reading, d api.Disk, err error) {
	peek, err := order.PeekCapture(env, s.facts(order.DiskID{}))
	if err != nil {
		return r, d, err
	}
	s.mu.Lock()
	s.orderID = peek.ID
	s.mu.Unlock()
	disks, err := s.cfg.Disks.List()
	if err != nil {
		return r, d, err
	}
	if d, err = target.Choose(peek.Disk, disks); err != nil {
		return r, d, err
	}
	s.mu.Lock()
	s.disk = d
	s.mu.Unlock()
	if r, err = order.VerifyCapture(env, s.facts(target.IDOf(d))); err != nil {
		return r, d, err
	}
	o := r.Order()
	s.powerOff = o.After == "poweroff"
	s.cfg.Log.Info("order to capture accepted", "order", o.ID, "job", o.Job, "attempt", o.Attempt, "image", o.Image, "force", o.Force, "disk", target.Describe(d))
	return r, d, nil
}

// look reads what the disk holds, past the page cache.
func (s *session) look(src *disk.Captured, d api.Disk, failing string, force []string) (look *survey.Disk, err error) {
	at, err := src.At()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	return capture.Look(at, d.Bytes, d.Sector, failing, force)
}

// transfer brings a disk to the server: it does what the server's state asks for, again and again, whatever breaks.
type transfer struct {
	s        *session
	src      *disk.Captured
	disk     api.Disk
	look     *survey.Disk
	failing  string // its own word when it fails
	force    []string
	deadline time.Duration // of the order, since boot
	moved    time.Duration // when something went on, since boot

	stream *capture.Stream
	base   []byte // hashes of the cells that the server has
	again  bool   // the disk was looked at a second time, and had not changed
	next   int
}

func (t *transfer) close() {
	if t.stream != nil {
		t.stream.Close()
		t.stream = nil
	}
}

// run returns name/version of the published image.
func (t *transfer) run(ctx context.Context) (string, error) {
	st, err := t.s.c.CaptureState(ctx)
	for n := 0; ; {
		if err != nil {
			if err := t.retry(ctx, err, n); err != nil {
				return "", err
			}
			n++
			st, err = t.s.c.CaptureState(ctx)
			continue
		}
		if st.Phase == api.CapturePublished {
			return st.Image, nil
		}
		before := st
		if st, err = t.step(ctx, st); err == nil && st != before {
			n, t.moved = 0, bootenv.Uptime()
		}
	}
}

// retry waits before the next try, or says that there is none.
func (t *transfer) retry(ctx context.Context, err error, n int) error {
	var p *api.Problem
	var fault *api.Fault
	var read *disk.ReadError
	switch {
	case errors.As(err, &fault), errors.As(err, &read), ctx.Err() != nil:
		return err
	case errors.As(err, &p) && (p.Code == api.CodeNoSpace || p.Code == api.CodeCapture || p.Code == api.CodeGuard):
		return &api.Fault{Code: p.Code, Text: p.Detail}
	case errors.As(err, &p) && p.Code == api.CodeNotNow: // asked for the state, it says what to do
	case !contact.Temporary(err):
		return t.s.refused(err)
	}
	t.s.cfg.Log.Warn("capture interrupted", "cell", t.next, "err", err)
	now := bootenv.Uptime()
	switch {
	case now-t.moved > captureWait:
		return &api.Fault{Code: api.CodeNoServer, Text: fmt.Sprintf("the server took nothing for %s; nothing was published", captureWait), Err: err}
	case now > t.deadline:
		return &localError{"the order to capture ran out"}
	}
	if p != nil && p.Code == api.CodeNotNow && n == 0 {
		return sleep(ctx, pollEvery)
	}
	t.s.detail("the server does not answer, trying again")
	return sleep(ctx, contact.Backoff(n))
}

// step does what the server's state asks for and returns its next one.
func (t *transfer) step(ctx context.Context, st api.CaptureState) (api.CaptureState, error) {
	s := t.s
	switch st.Phase {
	case api.CaptureNone:
		d, err := capture.Draft(t.look, t.disk.Bytes, t.disk.Sector, t.failing)
		if err != nil {
			return st, &api.Fault{Code: api.CodeCapture, Text: "describe the disk", Err: err}
		}
		return s.c.CaptureDraft(ctx, d)
	case api.CaptureOpening:
		s.detail("the server looks at what it has already")
		return t.poll(ctx)
	case api.CaptureReceiving:
		if st.Next < st.Cells {
			return t.send(ctx, st)
		}
		return t.finish(ctx)
	case api.CapturePublishing:
		t.enter(api.StateVerifying, "the server reads the image back")
		s.phase(st.Done, st.Total)
		return t.poll(ctx)
	case api.CaptureFailed:
		return st, &api.Fault{Code: first(st.Code, api.CodeInternal), Text: first(st.Error, "the server gave no reason")}
	}
	return st, &api.Fault{Code: api.CodeInternal, Text: fmt.Sprintf("the server is in the phase %q, which this agent does not know", st.Phase)}
}

// pollEvery is the pause between two questions while the server works.
const pollEvery = 300 * time.Millisecond

func (t *transfer) poll(ctx context.Context) (api.CaptureState, error) {
	if err := sleep(ctx, pollEvery); err != nil {
		return api.CaptureState{}, err
	}
	return t.s.c.CaptureState(ctx)
}

// enter changes the state once.
func (t *transfer) enter(st api.State, why string) {
	t.s.mu.Lock()
	same := t.s.state == st
	t.s.mu.Unlock()
	if !same {
		t.s.setState(st, why)
	}
}

// send uploads one batch from where the server is.
func (t *transfer) send(ctx context.Context, st api.CaptureState) (api.CaptureState, error) {
	if st.CellBytes < 64<<10 || st.CellBytes > 16<<20 {
		return st, &api.Fault{Code: api.CodeCapture, Text: fmt.Sprintf("the server wants cells of %d bytes", st.CellBytes)}
	}
	t.enter(api.StateCapturing, "")
	if t.stream != nil && t.stream.Next() != st.Next { // an upload was cut: cells are read again
		t.close()
	}
	if st.Base != "" && len(t.base) != 32*st.Cells {
		base, err := t.s.c.CaptureBase(ctx, st.Cells)
		if err == nil && len(base) != 32*st.Cells {
			err = &api.Fault{Code: api.CodeCapture, Text: fmt.Sprintf("the server sent %d bytes of hashes of version %s for %d cells", len(base), st.Base, st.Cells)}
		}
		if err != nil {
			return st, err
		}
		t.base = base
		t.s.cfg.Log.Info("cells like those of the base are not sent", "base", st.Base)
	}
	if t.stream == nil {
		var err error
		if t.stream, err = capture.NewStream(ctx, t.src, t.look.Used, st.CellBytes, st.Next, t.base); err != nil {
			return st, err
		}
	}
	t.s.detail("")
	total := int64(st.Cells) * st.CellBytes
	t.stream.Batch(func(next int) {
		t.next = next
		t.s.phase(int64(next)*st.CellBytes, total)
	})
	out, err := t.s.c.CaptureCells(ctx, t.stream)
	if rerr := t.stream.Err(); rerr != nil {
		return out, rerr // not the network: the disk
	}
	return out, err
}

// finish looks at the disk again, and asks for the publishing.
func (t *transfer) finish(ctx context.Context) (api.CaptureState, error) {
	t.close()
	if !t.again {
		look, err := t.s.look(t.src, t.disk, t.failing, t.force)
		if err == nil {
			err = capture.Same(t.look, look)
		}
		if err != nil {
			return api.CaptureState{}, err
		}
		t.again = true
	}
	return t.s.c.CaptureFinish(ctx)
}
