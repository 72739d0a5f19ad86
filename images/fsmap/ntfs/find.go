package ntfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"labswarm/images/fsmap/scan"
	"labswarm/images/manifest"
)

// More attribute types, and flags of $STANDARD_INFORMATION (FILE_ATTRIBUTE_* of Windows).
const (
	attrStdInfo  = 0x10
	attrFileName = 0x30
	attrReparse  = 0xC0

	fileSparse, fileReparse, fileCompressed, fileEncrypted = 0x200, 0x400, 0x800, 0x4000
)

// ErrNotFound means that a volume has no file of that path.
var ErrNotFound = errors.New("no such file")

// NotCleanError means that a volume must not be written: Windows, or its journal, will change it.
type NotCleanError struct{ Why string }

func (e *NotCleanError) Error() string { return e.Why }

// Files finds files of a clean volume, so that their bytes can be replaced where they lie. It writes nothing.
type Files struct{ v *volume }

// File is the content of a small file, and where it lies.
type File struct {
	Content []byte
	Parts   []manifest.Extent // bytes of the volume, in the order of the content; inside the MFT record of a small file
}

// Open reads a volume's own tables. r spans the partition of size bytes. A volume that is not clean is refused with
// NotCleanError.
func Open(r io.ReaderAt, size int64) (*Files, error) {
	b, err := scan.Read(r, 0, 512)
	if err != nil {
		return nil, fmt.Errorf("read NTFS boot sector: %w", err)
	}
	v, err := parseBoot(r, b)
	if err != nil {
		return nil, err
	}
	if n := v.total * v.sector; n > size {
		return nil, fmt.Errorf("volume of %d bytes in a partition of %d: %w", n, size, scan.ErrCorrupt)
	}
	if err := v.checkCopies(b, size); err != nil {
		return nil, err
	}
	if err := v.openMFT(); err != nil {
		return nil, err
	}
	_, st, why, err := v.state()
	if err != nil {
		return nil, err
	}
	if st != manifest.StateClean {
		return nil, &NotCleanError{why}
	}
	return &Files{v}, nil
}

// Find returns the file at a path of folder names, in any case, of at most limit bytes. Besides ErrNotFound it refuses,
// with scan.ErrUnsupported or scan.ErrCorrupt, what cannot be changed in place: compressed, encrypted and sparse files,
// reparse points, and what is not wholly written.
func (f *Files) Find(limit int64, path ...string) (*File, error) {
	file, err := f.find(limit, path)
	if err != nil {
		return nil, fmt.Errorf(`NTFS file \%s: %w`, strings.Join(path, `\`), err)
	}
	return file, nil
}

func (f *Files) find(limit int64, path []string) (*File, error) {
	rec, err := f.v.readRecord(recRoot)
	if err != nil {
		return nil, err
	}
	for i, name := range path {
		if rec, err = f.v.child(rec, name); err != nil {
			return nil, err
		}
		const isFolder = 2
		if folder := le.Uint16(rec.b[22:])&isFolder != 0; folder != (i < len(path)-1) {
			return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
		}
	}
	return f.v.file(rec, limit)
}

// child returns the entry of a folder with a name. Index blocks hold old entries too: the record itself must say that it
// is a file of that name in that folder.
func (v *volume) child(dir *record, name string) (*record, error) {
	refs, err := v.lookUp(dir, name)
	if err != nil {
		return nil, err
	}
	if len(refs) > 64 {
		return nil, fmt.Errorf("%d entries of one name: %w", len(refs), scan.ErrCorrupt)
	}
	var found *record
	for _, ref := range refs {
		n := int64(ref & (1<<48 - 1))
		rec, err := v.readRecord(n)
		if err != nil && !known(err) {
			return nil, err
		}
		if err != nil || le.Uint16(rec.b[16:]) != uint16(ref>>48) || le.Uint64(rec.b[32:]) != 0 || found != nil && found.n == n {
			continue
		}
		ok, err := rec.named(dir, name)
		switch {
		case err != nil:
			return nil, err
		case ok && found != nil:
			return nil, fmt.Errorf("two entries of the name %s: %w", name, scan.ErrUnsupported)
		case ok:
			found = rec
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return found, nil
}

// named tells whether a record is that of an entry of dir.
func (r *record) named(dir *record, name string) (ok bool, err error) {
	self := uint64(dir.n) | uint64(le.Uint16(dir.b[16:]))<<48
	err = r.attrs(func(a attr) bool {
		if a.typ == attrFileName && a.resident && len(a.value) >= 66 && le.Uint64(a.value) == self {
			s, good := text16(a.value, 66, int(a.value[64]))
			ok = ok || good && strings.EqualFold(s, name)
		}
		return !ok
	})
	return ok, err
}

// file reads the unnamed stream of a record.
func (v *volume) file(rec *record, limit int64) (*File, error) {
	data, err := v.plain(rec)
	if err != nil {
		return nil, err
	}
	var s stream
	if err := v.open(&s, rec, attrData, ""); err != nil {
		return nil, err
	}
	switch {
	case s.size > limit:
		return nil, fmt.Errorf("%d bytes; %d are looked at: %w", s.size, limit, scan.ErrUnsupported)
	case s.valid < s.size:
		return nil, fmt.Errorf("only %d of %d bytes are written: %w", s.valid, s.size, scan.ErrUnsupported)
	case s.data != nil && data == nil:
		return nil, fmt.Errorf("its content lies in another MFT record: %w", scan.ErrUnsupported)
	}
	f := &File{Content: make([]byte, s.size)}
	if err := s.readAt(v, f.Content, 0); err != nil {
		return nil, err
	}
	if data != nil && data.resident {
		f.Parts, err = v.inRecord(rec, cap(rec.b)-cap(data.value), len(data.value))
	} else {
		f.Parts, err = s.places(v, 0, s.size)
	}
	if err != nil {
		return nil, err
	}
	return f, f.check(v.r)
}

// check reads the content again the way it would be written.
func (f *File) check(r io.ReaderAt) error {
	got := make([]byte, 0, len(f.Content))
	for _, p := range f.Parts {
		b := make([]byte, p.Len)
		if err := scan.Fill(r, p.Off, b); err != nil {
			return err
		}
		got = append(got, b...)
	}
	if !bytes.Equal(got, f.Content) {
		return fmt.Errorf("its bytes lie elsewhere than its tables say: %w", scan.ErrCorrupt)
	}
	return nil
}

// plain refuses files whose bytes on the disk are not their content, and returns their data attribute, nil when that is
// not in the base record.
func (v *volume) plain(rec *record) (data *attr, err error) {
	refuse := ""
	err = rec.attrs(func(a attr) bool {
		switch {
		case a.typ == attrReparse:
			refuse = "it is a reparse point"
		case a.typ == attrStdInfo && a.resident && len(a.value) >= 36:
			for _, f := range []struct {
				bit  uint32
				what string
			}{{fileSparse, "sparse"}, {fileReparse, "a reparse point"}, {fileCompressed, "compressed"}, {fileEncrypted, "encrypted"}} {
				if le.Uint32(a.value[32:])&f.bit != 0 {
					refuse = "it is " + f.what
				}
			}
		case a.typ == attrData && a.name == "":
			if a.flags != 0 {
				refuse = "it is compressed, encrypted or sparse"
			}
			if data == nil {
				data = &a
			}
		}
		return true
	})
	if err == nil && refuse != "" {
		err = fmt.Errorf("%s: %w", refuse, scan.ErrUnsupported)
	}
	return data, err
}

// inRecord returns where n bytes of a record lie on the volume. The last two bytes of each 512 stand in the update
// sequence; in their place is its number, which stays.
func (v *volume) inRecord(rec *record, at, n int) ([]manifest.Extent, error) {
	array := int(le.Uint16(rec.b[4:]))
	var out []manifest.Extent
	for p := at; p < at+n; {
		from, end := p, min(at+n, p/fixup*fixup+fixup-2)
		if p%fixup >= fixup-2 {
			from = array + 2*(p/fixup+1) + p%fixup - (fixup - 2)
			end = p + 1
		}
		parts, err := v.mft.places(v, rec.n*v.record+int64(from), int64(end-p))
		if err != nil {
			return nil, err
		}
		out, p = append(out, parts...), end
	}
	return out, nil
}

// places returns where n bytes from off of a stream with runs lie on the volume.
func (s *stream) places(v *volume, off, n int64) ([]manifest.Extent, error) {
	var out []manifest.Extent
	for n > 0 {
		vcn := off / v.cluster
		i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].vcn+s.runs[i].n > vcn })
		if off < 0 || i == len(s.runs) || s.runs[i].lcn < 0 {
			return nil, fmt.Errorf("byte %d is outside the runs or in a hole: %w", off, scan.ErrCorrupt)
		}
		x := s.runs[i]
		skip := off - x.vcn*v.cluster
		k := min(n, x.n*v.cluster-skip)
		out = append(out, manifest.Extent{Off: x.lcn*v.cluster + skip, Len: k})
		off, n = off+k, n-k
	}
	return out, nil
}
