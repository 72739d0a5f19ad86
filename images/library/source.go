package library

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"labswarm/images/fsmap"
	"labswarm/images/manifest"
	"labswarm/images/unpack"
)

// source is the raw disk being imported: a file or a block device, opened for reading, or a work file.
type source struct {
	*os.File
	path   string
	size   int64
	sector int // 0 for a file
	stat   fs.FileInfo
	origin *unpack.Source // what the file was unpacked from; nil for a raw disk
}

func openSource(path string) (*source, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open disk image: the file %q does not exist: %w", path, fs.ErrNotExist)
	case err != nil:
		return nil, fmt.Errorf("open disk image: %w", err)
	case st.IsDir():
		return nil, &NotDiskError{path, "it is a folder; name the file that holds the whole disk"}
	case !st.Mode().IsRegular() && st.Mode()&(fs.ModeDevice|fs.ModeCharDevice) != fs.ModeDevice:
		return nil, &NotDiskError{path, "it is neither a file nor a block device"}
	}
	s := &source{path: path, stat: st}
	flags := os.O_RDONLY
	if !st.Mode().IsRegular() {
		flags |= unix.O_EXCL // refuses a disk of which anything is mounted: it would change under our hands
	}
	if s.File, err = os.OpenFile(path, flags, 0); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return nil, &NotDiskError{path, "the device is in use; unmount everything on it first"}
		}
		return nil, fmt.Errorf("open disk image: %w", err)
	}
	if err := s.probe(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *source) probe() error {
	var err error
	if s.size, err = s.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("find the size of %q: %w", s.path, err)
	}
	if !s.stat.Mode().IsRegular() {
		if s.sector, err = unix.IoctlGetInt(int(s.Fd()), unix.BLKSSZGET); err != nil {
			return fmt.Errorf("find the sector size of %q: %w", s.path, err)
		}
	}
	if s.size == 0 {
		return &NotDiskError{s.path, "it is empty"}
	}
	head := make([]byte, 512)
	if _, err := s.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %q: %w", s.path, err)
	}
	if why := unpack.Inside(head); why != "" {
		return &NotDiskError{s.path, why}
	}
	if s.size%512 != 0 {
		return &NotDiskError{s.path, fmt.Sprintf("its size of %d bytes is not a multiple of 512, the size of a sector; the copy may be cut off", s.size)}
	}
	return nil
}

// noTable says what a disk without partition table seems to be.
func (s *source) noTable(cause error) error {
	cd := make([]byte, 5)
	if _, err := s.ReadAt(cd, 0x8001); err == nil && string(cd) == "CD001" {
		return &NotDiskError{s.path, "it is a CD or DVD image; install it once and make an image of that disk"}
	}
	if um, err := fsmap.Used(s, s.size); err == nil && um.FS != "unknown" {
		return &NotDiskError{s.path, "it is a single " + um.FS + " filesystem without a partition table, and images are made of whole disks: import the disk it comes from, or --wrap puts a table around it (a PC does not boot from that)"}
	}
	return &NotDiskError{s.path, cause.Error()}
}

// changed tells whether a file was written to since it was opened.
func (s *source) changed() (bool, error) {
	if s.origin != nil {
		return false, s.origin.Changed()
	}
	if !s.stat.Mode().IsRegular() {
		return false, nil
	}
	st, err := s.File.Stat()
	if err != nil {
		return false, fmt.Errorf("check %q: %w", s.path, err)
	}
	return st.Size() != s.size || !st.ModTime().Equal(s.stat.ModTime()), nil
}

// dataRanges returns the parts of f that are not holes; everything for a device or a file system that cannot tell.
func dataRanges(f *os.File, size int64) ([]manifest.Extent, error) {
	var out []manifest.Extent
	for off := int64(0); off < size; {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // nothing but a hole up to the end
		}
		if errors.Is(err, unix.EINVAL) || len(out) >= manifest.MaxExtents {
			return []manifest.Extent{{Off: 0, Len: size}}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("find the holes of %q: %w", f.Name(), err)
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("find the holes of %q: %w", f.Name(), err)
		}
		out = append(out, manifest.Extent{Off: start, Len: min(end, size) - start})
		off = end
	}
	return out, nil
}

// intersect returns the bytes that are in both merged lists.
func intersect(a, b []manifest.Extent) []manifest.Extent {
	var out []manifest.Extent
	for i, j := 0, 0; i < len(a) && j < len(b); {
		off, end := max(a[i].Off, b[j].Off), min(a[i].End(), b[j].End())
		if off < end {
			out = append(out, manifest.Extent{Off: off, Len: end - off})
		}
		if a[i].End() < b[j].End() {
			i++
		} else {
			j++
		}
	}
	return out
}
