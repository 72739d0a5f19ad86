package library

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"labswarm/images/manifest"
	"labswarm/images/mask"
	"labswarm/internal/units"
	"labswarm/swarm/frame"
)

// Preview tells what an import would make. Sizes are bytes.
type Preview struct {
	DiskSize  int64           `json:"disk_size"`
	MinSize   int64           `json:"min_size"`
	Sector    int             `json:"sector"`
	Label     string          `json:"label"`
	Boot      string          `json:"boot"`
	Parts     []manifest.Part `json:"parts"`
	UsedBytes int64           `json:"used_bytes"`
	Cell      int64           `json:"cell"`
	Cells     int64           `json:"cells"`         // to ship
	ShipBytes int64           `json:"bytes_shipped"` // cells times cell size
	WireBytes int64           `json:"wire_bytes"`    // one copy on the wire, compressed where that is worth it
	Sampled   int64           `json:"sampled_cells"` // cells that were read
	Exact     bool            `json:"exact"`         // all were: Cells and WireBytes are no estimates
	Seconds   float64         `json:"seconds_1gbe"`  // one copy over a free 1 Gb/s link
	Warnings  []string        `json:"warnings"`
	Forced    []string        `json:"forced"`
}

const (
	sampleCells = 256        // cells that Preview reads
	gigabit     = 117.4e6    // payload bytes per second of TCP over 1 Gb/s Ethernet, frames of 1500 bytes
	previewRoom = "/var/tmp" // for work files: /tmp may lie in memory
)

// Preview does an import's checks and a part of its reading, and writes nothing into the library: a source that must be
// unpacked is unpacked into $TMPDIR or /var/tmp. Errors are those of Import.
func (l *Library) Preview(ctx context.Context, o ImportOptions) (pre *Preview, err error) {
	var warnings []string
	o.Warn = func(s string) { warnings = append(warnings, s) }
	if err := checkOptions(&o); err != nil {
		return nil, err
	}
	dir := previewRoom
	if os.Getenv("TMPDIR") != "" {
		dir = os.TempDir()
	}
	s, err := l.openDisk(ctx, o, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = closeInto(err, s.Close()) }()
	p, err := makePlan(s, o.Force)
	if err != nil {
		return nil, err
	}
	job := &importJob{lib: l, opt: o, src: s, plan: p}
	defer func() { err = closeInto(err, job.base.close()) }()
	if err := job.size(); err != nil {
		return nil, err
	}
	t := p.table
	pre = &Preview{DiskSize: t.Size, MinSize: t.MinSize(), Sector: t.Sector, Label: t.Label, Boot: p.boot, Parts: p.parts,
		UsedBytes: manifest.Sum(p.used), Cell: job.cell, Warnings: append(append([]string{}, warnings...), p.warn...), Forced: append([]string{}, p.force...)}
	if err := l.checkSpaceIn(existing(l.dir), manifest.Sum(job.work)); err != nil {
		pre.Warnings = append(pre.Warnings, err.Error())
	}
	if err := job.sample(ctx, pre); err != nil {
		return nil, fmt.Errorf("look at disk image %q: %w", o.File, err)
	}
	return pre, nil
}

// existing returns dir, or the folder that it would be made in.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == "/" || dir == "." {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// sample reads cells evenly over the disk and scales what it finds up to all of them.
func (j *importJob) sample(ctx context.Context, pre *Preview) error {
	all := manifest.TouchedCells(j.work, j.cell)
	total := countCells(all)
	runs := spread(all, total, sampleCells)
	pre.Sampled, pre.Exact = countCells(runs), total <= sampleCells
	masker, span := mask.FromUsed(j.plan.used), mask.FromUsed(j.work)
	encoders := sync.Pool{New: func() any {
		e, err := frame.NewEncoder(int(j.cell))
		if err != nil {
			return err
		}
		return e
	}}
	var data, wire atomic.Int64
	rep := newReporter("look", pre.Sampled*j.cell, j.opt.Progress)
	err := eachCell(ctx, runs, j.cell, func(_ context.Context, buf []byte, cell, _ int64) error {
		defer rep.add(j.cell)
		off := cell * j.cell
		if err := j.readSpan(span, buf, off); err != nil {
			return err
		}
		masker.Mask(buf, off)
		if mask.IsZero(buf) {
			return nil
		}
		data.Add(1)
		n := int(j.cell)
		if j.opt.Codec == CodecZstd {
			e, ok := encoders.Get().(*frame.Encoder)
			if !ok {
				return fmt.Errorf("set up the encoder for cells of %s", units.FormatBytes(j.cell))
			}
			if k := len(e.Encode(nil, buf)); frame.Worth(k, n) {
				n = k
			}
			encoders.Put(e)
		}
		wire.Add(int64(n))
		return nil
	})
	if err != nil {
		return err
	}
	scale := float64(total) / float64(max(pre.Sampled, 1))
	pre.Cells = int64(float64(data.Load())*scale + 0.5)
	pre.ShipBytes, pre.WireBytes = pre.Cells*j.cell, int64(float64(wire.Load())*scale+0.5)
	pre.Seconds = float64(pre.WireBytes) / gigabit
	return nil
}

// Time is Seconds as a duration.
func (p *Preview) Time() time.Duration { return time.Duration(p.Seconds * float64(time.Second)) }

// spread picks at most n of total cells at even distances.
func spread(runs []manifest.Run, total, n int64) []manifest.Run {
	if total <= n {
		return runs
	}
	var out []manifest.Run
	seen, k := int64(0), int64(0) // cells before this run, cells picked
	for _, r := range runs {
		for ; k < n && k*total/n < seen+r.Count; k++ {
			out = manifest.AppendCell(out, r.First+k*total/n-seen)
		}
		seen += r.Count
	}
	return out
}
