package library

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// ScrubOptions says how to scrub.
type ScrubOptions struct {
	Rate int64 // bytes of disk.raw per second, 0 = as fast as it goes
	// Pause is asked before each cell and may wait, for example while a job runs. nil = never.
	Pause func(context.Context) error
	// Damaged is called when cells are damaged, before anything is written: from then on no job may use the version.
	Damaged  func(context.Context, Result) error
	Fetch    Fetch // nil = nobody is asked for what is damaged in both forms
	Progress func(Progress)
}

// Scrubbed is what a scrub found and did.
type Scrubbed struct {
	Digest [32]byte // of the manifest: the version that was read
	Found  Result   // before the repair
	Result Result   // after it
	Cells  int      // cells made again from their compressed form
	Frames int      // compressed cells made again from the cells
	// Fetched are the cells that others gave back.
	Fetched Fetched
	// Note says why something was not made again; nil when all was.
	Note error
}

// Advice is what a person can do about cells that nobody could give back.
const Advice = "start a relay that holds the image and scrub again, import the disk again with --force=" + ForceUnchanged + ", or an export of it, or use another version"

// Text is the outcome in one line.
func (s Scrubbed) Text() string {
	t := fmt.Sprintf("%d data cells and %d zero cells are right", s.Result.DataCells, s.Result.ZeroCells)
	if n := len(s.Result.Bad); n > 0 {
		t = fmt.Sprintf("%d cells are damaged, the first is cell %d, and so is their compressed form",
			n, s.Result.Bad[0].Cell)
	}
	if s.Cells+s.Frames > 0 {
		t += fmt.Sprintf("; %d cells and %d compressed ones were made again", s.Cells, s.Frames)
	}
	if !s.Result.FramesOK() {
		t += fmt.Sprintf("; %d compressed cells are damaged or missing, they travel uncompressed", s.Result.missingFrames())
	}
	if f := s.Fetched.Text(); f != "" {
		t += "; " + f
	}
	if len(s.Result.Bad) > 0 {
		t += "; " + Advice
	}
	if s.Note != nil {
		t += fmt.Sprintf(" (%v)", s.Note)
	}
	return t
}

func (r Result) missingFrames() int {
	if r.FramesErr != nil {
		return r.DataCells
	}
	return len(r.BadFrames)
}

// Scrub reads a version from the disk, past the page cache, compares it with the signed manifest and makes again what is
// damaged, as far as the one form can be had from the other. An error means that it could not be done or not be ended.
// The library must have its key.
func (l *Library) Scrub(ctx context.Context, name, version string, o ScrubOptions) (s Scrubbed, err error) {
	v, err := l.Get(name, version)
	if err != nil {
		return s, err
	}
	s.Digest = v.Digest()
	defer func() { err = errors.Join(err, v.Close()) }()
	v.dropFrameCache()
	s.Found, err = v.verifyAll(ctx, o.Progress, v.scrubGate(o))
	if err != nil {
		return s, err
	}
	s.Result = s.Found
	if s.Found.OK() && s.Found.FramesOK() {
		return s, nil
	}
	if !s.Found.OK() && o.Damaged != nil {
		if err := o.Damaged(ctx, s.Found); err != nil {
			return s, err
		}
	}
	// The few damaged cells at once: PCs that hold them are there while a job runs.
	m, err := l.mendCells(ctx, v, s.Found, o.Fetch)
	if err == nil && o.Pause != nil {
		err = o.Pause(ctx)
	}
	if err == nil {
		err = l.mendRest(ctx, v, s.Found, &m, o.Progress)
	}
	if err != nil {
		return s, err
	}
	s.Result, s.Cells, s.Frames, s.Fetched, s.Note = m.Result, m.Cells, m.Frames, m.Fetched, m.Note
	return s, nil
}

// scrubGate slows the reading down, lets it wait, and has the kernel forget what it holds of the file, so that the disk
// is read and no copy in RAM.
func (v *Version) scrubGate(o ScrubOptions) gate {
	limit := rate.NewLimiter(rate.Inf, 0)
	if o.Rate > 0 {
		limit = rate.NewLimiter(rate.Limit(o.Rate), int(v.man.Cell))
	}
	var one sync.Mutex // pauses and limits are for all workers together
	return func(ctx context.Context, off, n int64) error {
		one.Lock()
		defer one.Unlock()
		if o.Pause != nil {
			if err := o.Pause(ctx); err != nil {
				return err
			}
		}
		if err := limit.WaitN(ctx, int(n)); err != nil {
			return err
		}
		_ = unix.Fadvise(int(v.raw.Fd()), off, n, unix.FADV_DONTNEED) // only a hint
		return nil
	}
}

func (v *Version) dropFrameCache() {
	if v.frames != nil {
		_ = unix.Fadvise(int(v.frames.zst.Fd()), 0, 0, unix.FADV_DONTNEED) // only a hint
	}
}

// Mended is what Mend did.
type Mended struct {
	Result  Result  // of verifying again
	Cells   int     // cells made again
	Frames  int     // compressed cells made again
	Fetched Fetched // cells that others gave back
	Note    error   // why something could not be written, nil = nothing like that
}

// Mend makes damaged cells again from their compressed form and compressed cells from the cells, as Verify found them,
// has fetch get what is damaged in both (nil = nobody is asked), and verifies what came of it.
func (l *Library) Mend(ctx context.Context, v *Version, found Result, fetch Fetch, progress func(Progress)) (Mended, error) {
	m, err := l.mendCells(ctx, v, found, fetch)
	if err == nil {
		err = l.mendRest(ctx, v, found, &m, progress)
	}
	return m, err
}

// mendCells is the part of Mend that touches damaged cells only.
func (l *Library) mendCells(ctx context.Context, v *Version, found Result, fetch Fetch) (m Mended, err error) {
	m.Cells, m.Fetched, m.Note = l.MendCells(ctx, v, found.Bad, fetch)
	return m, ctx.Err()
}

// mendRest is the part of Mend that reads all of the version.
func (l *Library) mendRest(ctx context.Context, v *Version, found Result, m *Mended, progress func(Progress)) (err error) {
	cells := make([]int64, len(found.Bad))
	for i, b := range found.Bad {
		cells[i] = b.Cell
	}
	still, err := v.Damaged(cells)
	if err != nil {
		return err
	}
	if m.Note == nil && len(still) == 0 && !found.FramesOK() {
		if m.Note = l.RepairFrames(ctx, v, progress); m.Note == nil {
			m.Frames = found.missingFrames()
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	again, err := l.Get(v.Name(), v.Version())
	if err != nil {
		return errors.Join(m.Note, err)
	}
	defer func() { err = errors.Join(err, again.Close()) }()
	m.Result, err = again.Verify(ctx, progress)
	return err
}
