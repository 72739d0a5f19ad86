package library

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"labswarm/images/manifest"
	"labswarm/internal/units"
)

// ImportOptions says what to import and how.
type ImportOptions struct {
	Name     string   // image name
	File     string   // the disk, in any form that images/unpack knows; only read
	MaxSize  int64    // longest disk that is unpacked, in bytes; 0 = unpack.DefaultMaxSize
	Wrap     bool     // File is a bare filesystem: put a GPT around it
	Cell     int64    // cell size in bytes; 0 = that of the image's newest version, else manifest.DefaultCell
	Force    []string // guards to override: ForceDirty, ForceHibernated, ForceUnchanged
	OSHint   string   // free text for people
	Hooks    *Hooks   // what every PC gets beside its name; nil = those of the newest version
	Codec    string   // CodecZstd (also "") makes the frame store, CodecNone does not
	Progress func(Progress)
	Warn     func(string) // findings that do not stop the import
}

// Codecs of ImportOptions and of a manifest.
const (
	CodecZstd = "zstd" // cells may travel as zstd frames
	CodecNone = "none"
)

// Progress tells how far a long operation is. Calls come one at a time, about five a second.
type Progress struct {
	Phase       string // "unpack" (bytes of what is imported), "copy", "sync" or "verify"
	Done, Total int64  // bytes
	Rate        int64  // bytes per second since the phase began
}

// Import makes a new version of an image from a disk. It leaves nothing behind when it fails or ctx ends.
//
// Errors a caller may want to tell apart: NotDiskError, part.TruncatedError, GuardError, NoSpaceError,
// UnchangedError (matches ErrUnchanged), ErrReadOnly, fs.ErrNotExist, ctx.Err(), and those of unpack.Unpack.
func (l *Library) Import(ctx context.Context, o ImportOptions) (v *Version, err error) {
	if l.key == nil {
		return nil, fmt.Errorf("import image: %w", ErrReadOnly)
	}
	if err := checkOptions(&o); err != nil {
		return nil, err
	}
	s, err := l.openDisk(ctx, o, l.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = closeInto(err, s.Close()) }()
	p, err := makePlan(s, o.Force)
	if err != nil {
		return nil, err
	}
	for _, w := range p.warn {
		o.Warn(w)
	}
	job := &importJob{lib: l, opt: o, src: s, plan: p}
	defer func() { err = closeInto(err, job.base.close()) }()
	if err := job.size(); err != nil {
		return nil, err
	}
	version, err := job.run(ctx)
	if err != nil {
		return nil, err
	}
	return l.open(o.Name, version)
}

// closeInto keeps the first error; closing something read cannot undo what was done, but is not ignored either.
func closeInto(err, closeErr error) error {
	if err != nil || closeErr == nil {
		return err
	}
	return fmt.Errorf("close: %w", closeErr)
}

func checkOptions(o *ImportOptions) error {
	if err := manifest.CheckName(o.Name); err != nil {
		return fmt.Errorf("import image: %w", err)
	}
	if o.Cell != 0 && !slices.Contains(manifest.CellSizes(), o.Cell) {
		return fmt.Errorf("import image %s: cell size %s is not one of 256 KiB, 1 MiB, 2 MiB and 4 MiB", o.Name, units.FormatBytes(o.Cell))
	}
	for _, f := range o.Force {
		if f != ForceDirty && f != ForceHibernated && f != ForceUnchanged {
			return fmt.Errorf("import image %s: --force=%s is unknown; there are %s, %s and %s", o.Name, f, ForceDirty, ForceHibernated, ForceUnchanged)
		}
	}
	if o.Codec == "" {
		o.Codec = CodecZstd
	}
	if o.Codec != CodecZstd && o.Codec != CodecNone {
		return fmt.Errorf("import image %s: codec %q is unknown; there are %s and %s", o.Name, o.Codec, CodecZstd, CodecNone)
	}
	o.OSHint = manifest.CleanText([]byte(o.OSHint))
	if len(o.OSHint) > 200 {
		return fmt.Errorf("import image %s: the OS hint has more than 200 bytes", o.Name)
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	return nil
}

// importJob carries one import from the plan to the published folder.
type importJob struct {
	lib  *Library
	opt  ImportOptions
	src  *source
	plan *plan
	cell int64
	work []manifest.Extent // used bytes that are not holes in the source
	sums cellSums
	base *base // nil: there is no earlier version

	frames *frameWriter // nil = none are made, or they are finished
}

// size finds what has to be read, the version it is made on, and settles the cell size.
func (j *importJob) size() error {
	data, err := dataRanges(j.src.File, j.src.size)
	if err != nil {
		return err
	}
	j.work = intersect(j.plan.used, data)
	newest, err := j.lib.newest(j.opt.Name)
	if err != nil {
		return fmt.Errorf("import image %s: %w", j.opt.Name, err)
	}
	if j.base, err = newBase(newest, j.opt.Codec == CodecZstd); err != nil {
		return fmt.Errorf("import image %s: %w", j.opt.Name, errors.Join(err, newest.Close()))
	}
	if j.cell, err = cellFor(j.opt, newest, j.work); err != nil {
		return err
	}
	if cells := countCells(manifest.TouchedCells(j.work, j.cell)); cells > manifest.MaxPieces {
		return fmt.Errorf("import image %s: %d data cells of %s exceed the limit of %d; use a bigger --cell", j.opt.Name, cells, units.FormatBytes(j.cell), manifest.MaxPieces)
	}
	return nil
}

func countCells(runs []manifest.Run) (n int64) {
	for _, r := range runs {
		n += r.Count
	}
	return n
}

// cellFor settles the cell size. It is fixed per image name: versions with different cells could not be compared.
func cellFor(o ImportOptions, newest *Version, data []manifest.Extent) (int64, error) {
	fixed := int64(0)
	if newest != nil {
		fixed = newest.man.Cell
	}
	cell := o.Cell
	switch {
	case fixed != 0 && cell == 0:
		return fixed, nil
	case fixed != 0 && cell != fixed:
		return 0, fmt.Errorf("import image %s: its versions have cells of %s; choose that, or another name", o.Name, units.FormatBytes(fixed))
	case cell == 256*units.KiB && manifest.Sum(data) > 8*units.GiB:
		return 0, fmt.Errorf("import image %s: cells of 256 KiB are for images below 8 GiB; this one has %s", o.Name, units.FormatBytes(manifest.Sum(data)))
	case cell != 0:
		return cell, nil
	}
	return manifest.DefaultCell(data), nil
}

// newest opens the newest readable version; nil when there is none.
func (l *Library) newest(name string) (*Version, error) {
	list, err := l.versions(name)
	if err != nil {
		return nil, err
	}
	for _, version := range slices.Backward(list) {
		v, err := l.open(name, version)
		if err != nil {
			continue // a damaged version, shown by List, must not stop the import that replaces it
		}
		return v, nil
	}
	return nil, nil
}

func (j *importJob) run(ctx context.Context) (version string, err error) {
	tmp, err := j.lib.newTemp()
	if err != nil {
		return "", fmt.Errorf("import image %s: %w", j.opt.Name, err)
	}
	defer func() {
		if j.frames != nil { // nobody wanted them
			err = closeInto(err, j.frames.f.Close())
		}
		if err2 := tmp.discard(); err == nil && err2 != nil {
			err = fmt.Errorf("import image %s: %w", j.opt.Name, err2)
		}
	}()
	if err := j.copyCells(ctx, tmp.dir); err != nil {
		return "", fmt.Errorf("import image %s: %w", j.opt.Name, j.lib.noSpace(err, manifest.Sum(j.work)))
	}
	changed, err := j.src.changed()
	if err != nil {
		return "", err
	}
	if changed {
		return "", fmt.Errorf("import image %s: %q was written to while it was read; stop what uses it and try again", j.opt.Name, j.src.path)
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("import image %s: %w", j.opt.Name, err)
	}
	version, err = j.publish(tmp)
	if err != nil {
		var unchanged *UnchangedError
		if errors.As(err, &unchanged) {
			return "", err
		}
		return "", fmt.Errorf("import image %s: %w", j.opt.Name, j.lib.noSpace(err, manifest.Sum(j.work)))
	}
	return version, nil
}

// reporter adds up progress from several workers and passes it on now and then.
type reporter struct {
	mu    sync.Mutex
	phase string
	total int64
	done  int64
	start time.Time
	last  time.Time
	call  func(Progress)
}

func newReporter(phase string, total int64, call func(Progress)) *reporter {
	r := &reporter{phase: phase, total: total, call: call, start: time.Now()}
	call(Progress{Phase: phase, Total: total})
	return r
}

func (r *reporter) add(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done += n
	if now := time.Now(); now.Sub(r.last) >= 200*time.Millisecond || r.done >= r.total {
		r.last = now
		rate := int64(float64(r.done) / max(now.Sub(r.start).Seconds(), 1e-3))
		r.call(Progress{Phase: r.phase, Done: r.done, Total: r.total, Rate: rate})
	}
}
