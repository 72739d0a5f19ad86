// Package unpack turns what an admin has into the raw content of a disk: compressed raw images, the disks of virtual
// machines (through qemu-img) and Clonezilla's folders (through partclone).
//
// The result is a sparse work file that has no name any more, so that nothing is left of it whatever happens. Sources come from
// strangers. They are only read; programs of others see them through a read-only socket, run without root's rights and
// under limits, and are told the format, never asked to guess it. The package knows nothing of cells and manifests:
// images/library calls it and goes on with the work file as with any raw disk.
package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"labswarm/internal/units"
)

// DefaultMaxSize is the longest disk that is unpacked unless Options say otherwise, in bytes. A few KiB can unpack to
// any length.
const DefaultMaxSize = 4 * units.TiB

// Options of Unpack.
type Options struct {
	Dir      string       // folder of the work file
	MaxSize  int64        // longest disk in bytes; 0 = DefaultMaxSize
	Room     func() error // asked several times a second; its error ends the work. nil = never
	Progress func(int64)  // further bytes of the source were read; calls come one at a time. nil = not wanted
	Warn     func(string) // findings that do not stop the work. nil = not wanted
}

func (o *Options) defaults() {
	if o.MaxSize <= 0 {
		o.MaxSize = DefaultMaxSize
	}
	if o.Room == nil {
		o.Room = func() error { return nil }
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
}

// Source is a file or folder to import, open for reading.
type Source struct {
	path   string
	format Format
	size   int64   // bytes of all files
	in     []input // files that are read; nil for a raw disk
	cz     *czImage
	vmdk   *vmdkDesc
}

// input is one file of a source.
type input struct {
	*os.File
	name string
	stat fs.FileInfo
}

// Error means that a source cannot be imported as it is.
type Error struct{ File, Why string }

func (e *Error) Error() string { return fmt.Sprintf("%q cannot be imported: %s", e.File, e.Why) }

// MissingError means that a program of another Debian package is needed.
type MissingError struct{ For, Program, Package string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s needs the program %s, which is not installed: apt-get install %s", e.For, e.Program, e.Package)
}

// Open recognises path by its content. What is not recognised is taken for a raw disk.
//
// Errors a caller may want to tell apart: *Error, fs.ErrNotExist.
func Open(path string) (*Source, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open disk image: the file %q does not exist: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("open disk image: %w", err)
	}
	s := &Source{path: path, format: Raw, size: st.Size()}
	switch {
	case st.IsDir():
		err = s.openClonezilla()
	case st.Mode().IsRegular():
		err = s.openFile()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Source) openFile() error {
	in, err := openInput(s.path, s.path)
	if err != nil {
		return err
	}
	s.in = []input{in}
	s.size = in.stat.Size()
	if s.format, err = recognise(in, s.size); err != nil {
		return fmt.Errorf("read %q: %w", s.path, err)
	}
	if why := s.format.refused(); why != "" {
		return s.errorf("%s", why)
	}
	if s.format == VMDKText {
		return s.openExtents()
	}
	return nil
}

// openInput opens a regular file. A link in its last place is followed only for what the admin named himself.
func openInput(path, name string) (input, error) {
	f, err := os.Open(path)
	if err != nil {
		return input{}, fmt.Errorf("open disk image: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &Error{name, "it is no regular file"}
	}
	if err != nil {
		return input{}, errors.Join(err, f.Close())
	}
	return input{f, name, st}, nil
}

// Raw tells whether the source is, as far as its first bytes tell, the plain content of a disk.
func (s *Source) Raw() bool { return s.format == Raw }

// Format returns what was recognised.
func (s *Source) Format() Format { return s.format }

// Size returns the bytes of the source's files.
func (s *Source) Size() int64 { return s.size }

// Close closes the source's files.
func (s *Source) Close() error {
	var errs []error
	for _, in := range s.in {
		errs = append(errs, in.Close())
	}
	s.in = nil
	return errors.Join(errs...)
}

// Changed returns an error that names a file of the source that was written to since Open.
func (s *Source) Changed() error {
	for _, in := range s.in {
		st, err := in.Stat()
		if err != nil {
			return fmt.Errorf("check %q: %w", in.name, err)
		}
		now, err := os.Stat(in.Name())
		if err != nil {
			return fmt.Errorf("check %q, which was there when the import began: %w", in.name, err)
		}
		if !os.SameFile(in.stat, now) || st.Size() != in.stat.Size() || !st.ModTime().Equal(in.stat.ModTime()) {
			return s.errorf("%q was written to while it was read; stop what uses it and try again", filepath.Base(in.name))
		}
	}
	return nil
}

func (s *Source) errorf(format string, args ...any) error {
	return &Error{s.path, fmt.Sprintf(format, args...)}
}

// Unpack makes the raw content of the disk in a work file in o.Dir that has no name. The caller closes it.
//
// Errors a caller may want to tell apart: *Error, *MissingError, *TooBigError, what o.Room returned, ctx.Err().
func (s *Source) Unpack(ctx context.Context, o Options) (work *os.File, err error) {
	o.defaults()
	w, err := newWork(ctx, o)
	if err != nil {
		return nil, err
	}
	switch {
	case s.format == Clonezilla:
		err = s.restoreClonezilla(ctx, w)
	case s.format == VMDKText:
		err = s.convertExtents(ctx, w)
	case s.format == Raw:
		err = s.errorf("it is a raw disk; there is nothing to unpack")
	case s.format.packed():
		err = s.decompress(w)
	default:
		err = s.convert(ctx, w)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(w.cause(ctx, err), w.Close())
	}
	return w.File, nil
}

// counter counts the bytes read from a source once.
type counter struct {
	r io.Reader
	w *work
	n int64 // bytes read so far
}

func (c *counter) Read(b []byte) (int, error) {
	if err := c.w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(b)
	c.n += int64(n)
	c.w.progress(int64(n))
	return n, err
}
