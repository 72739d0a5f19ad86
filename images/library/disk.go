package library

import (
	"context"
	"errors"
	"fmt"
	"os"

	"labswarm/images/fsmap"
	"labswarm/images/fsmap/part"
	"labswarm/images/unpack"
)

// openDisk opens what is to be imported as a raw disk: as it is, or unpacked or wrapped into a work file in dir.
func (l *Library) openDisk(ctx context.Context, o ImportOptions, dir string) (*source, error) {
	s, err := l.unpackDisk(ctx, o, dir)
	if err != nil || !o.Wrap {
		return s, err
	}
	wrapped, err := l.wrapDisk(ctx, s, o, dir)
	if err2 := s.Close(); err2 != nil && err == nil {
		return nil, errors.Join(fmt.Errorf("close %q: %w", o.File, err2), wrapped.Close())
	}
	return wrapped, err
}

// wrapDisk copies a bare filesystem into a disk of its own.
func (l *Library) wrapDisk(ctx context.Context, s *source, o ImportOptions, dir string) (*source, error) {
	um, err := fsmap.Used(s, s.size)
	if um.FS == "" || um.FS == "unknown" {
		return nil, errors.Join(&NotDiskError{o.File, "--wrap is for a single filesystem, and it begins with none that is known"}, err)
	}
	if t, err := part.Read(s, s.size, s.sector); err == nil {
		return nil, &NotDiskError{o.File, fmt.Sprintf("it has a partition table with %d partitions already: import it without --wrap", len(t.Parts))}
	}
	rep := newReporter("wrap", s.size, o.Progress)
	work, err := unpack.Wrap(ctx, s, s.size, um.FS, unpack.Options{Dir: dir, MaxSize: o.MaxSize, Room: func() error { return l.checkSpaceIn(dir, 0) }, Progress: rep.add})
	if err != nil {
		return nil, fmt.Errorf("import image %s: %w", o.Name, l.noSpaceIn(dir, err, 0))
	}
	changed, err := s.changed()
	if changed {
		err = fmt.Errorf("import image %s: %q was written to while it was read; stop what uses it and try again", o.Name, o.File)
	}
	if err != nil {
		return nil, errors.Join(err, work.Close())
	}
	return workSource(work, o.File)
}

// unpackDisk opens a raw disk, or unpacks it.
func (l *Library) unpackDisk(ctx context.Context, o ImportOptions, dir string) (*source, error) {
	from, err := unpack.Open(o.File)
	if err != nil {
		return nil, err
	}
	if from.Raw() {
		if err := from.Close(); err != nil {
			return nil, fmt.Errorf("close %q: %w", o.File, err)
		}
		return openSource(o.File)
	}
	rep := newReporter("unpack", from.Size(), o.Progress)
	work, err := from.Unpack(ctx, unpack.Options{
		Dir: dir, MaxSize: o.MaxSize, Warn: o.Warn, Room: func() error { return l.checkSpaceIn(dir, 0) },
		Progress: func(n int64) {
			if n = min(n, rep.total-rep.done); n > 0 { // a program may read some bytes twice
				rep.add(n)
			}
		},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("import image %s: %w", o.Name, l.noSpaceIn(dir, err, 0)), from.Close())
	}
	s, err := workSource(work, o.File)
	if err != nil {
		return nil, errors.Join(err, from.Close())
	}
	s.origin = from
	return s, nil
}

// workSource is the source for an unpacked disk; path is what it came from. The work file is closed on an error.
func workSource(work *os.File, path string) (*source, error) {
	st, err := work.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("check the work file: %w", err), work.Close())
	}
	s := &source{File: work, path: path, stat: st}
	if err := s.probe(); err != nil {
		return nil, errors.Join(err, work.Close())
	}
	return s, nil
}

// Close closes the disk and what it came from.
func (s *source) Close() error {
	err := s.File.Close()
	if s.origin != nil {
		err = errors.Join(err, s.origin.Close())
	}
	return err
}
