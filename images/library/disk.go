package library

import (
	"context"
	"errors"
	"fmt"
	"os"

	"labswarm/images/unpack"
)

// openDisk opens what is to be imported as a raw disk: as it is, or unpacked into a work file in dir.
func openDisk(ctx context.Context, o ImportOptions, dir string) (*source, error) {
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
		Dir: dir, MaxSize: o.MaxSize, Warn: o.Warn, Room: func() error { return checkSpace(dir, 0) },
		Progress: func(n int64) {
			if n = min(n, rep.total-rep.done); n > 0 { // a program may read some bytes twice
				rep.add(n)
			}
		},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("import image %s: %w", o.Name, noSpace(err, dir, 0)), from.Close())
	}
	s, err := workSource(work, o.File)
	if err != nil {
		return nil, errors.Join(err, work.Close(), from.Close())
	}
	s.origin = from
	return s, nil
}

// workSource is the source for an unpacked disk; path is what it came from.
func workSource(work *os.File, path string) (*source, error) {
	st, err := work.Stat()
	if err != nil {
		return nil, fmt.Errorf("check the work file: %w", err)
	}
	s := &source{File: work, path: path, stat: st}
	return s, s.probe()
}

// Close closes the disk and what it came from.
func (s *source) Close() error {
	err := s.File.Close()
	if s.origin != nil {
		err = errors.Join(err, s.origin.Close())
	}
	return err
}
