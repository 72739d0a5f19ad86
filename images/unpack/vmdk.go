package unpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// vmdkDesc is the text file that says of which files a VMDK is made (VMware, Virtual Disk Format 1.1).
type vmdkDesc struct{ extents []vmdkExtent }

// vmdkExtent is one stretch of the disk. Sizes are bytes.
type vmdkExtent struct {
	size int64
	kind string // FLAT and the like
	file string // in the folder of the description; "" for ZERO
	off  int64  // in a flat file
}

func (d *vmdkDesc) size() (n int64) {
	for _, e := range d.extents {
		n += e.size
	}
	return n
}

// flat tells whether the files hold the plain content.
func (d *vmdkDesc) flat() bool {
	for _, e := range d.extents {
		if e.kind != "FLAT" && e.kind != "VMFS" && e.kind != "ZERO" {
			return false
		}
	}
	return true
}

const (
	vmdkMaxText    = 256 << 10 // bytes of a description
	vmdkMaxExtents = 4096
	vmdkMaxSectors = 1 << 43 // 4 PiB
)

var vmdkLine = regexp.MustCompile(`^(RW|RDONLY|NOACCESS) +([0-9]{1,13}) +([A-Z]{3,12})(?: +"([^"]*)"(?: +([0-9]{1,13}))?(?: .*)?)?$`)

// parseVMDK reads a description. Files it names must lie beside it.
func parseVMDK(text []byte) (*vmdkDesc, error) {
	if why := vmdkParent(text); why != "" {
		return nil, errors.New(why)
	}
	d := &vmdkDesc{}
	for line := range strings.Lines(string(bytes.TrimRight(text, "\x00"))) {
		m := vmdkLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			if w, _, _ := strings.Cut(strings.TrimSpace(line), " "); w == "RW" || w == "RDONLY" || w == "NOACCESS" {
				return nil, fmt.Errorf("the line %q of its description is not understood", strings.TrimSpace(line))
			}
			continue
		}
		e := vmdkExtent{kind: m[3], file: m[4]}
		sectors, _ := strconv.ParseInt(m[2], 10, 64) // at most 13 digits
		off, _ := strconv.ParseInt("0"+m[5], 10, 64)
		e.size, e.off = sectors*512, off*512
		switch {
		case e.kind != "FLAT" && e.kind != "VMFS" && e.kind != "ZERO" && e.kind != "SPARSE" && e.kind != "VMFSSPARSE":
			return nil, fmt.Errorf("its extents are of kind %s, which is not read here: make one disk of it with `qemu-img convert` or VMware's vmware-vdiskmanager", e.kind)
		case e.kind == "ZERO":
			e.file = ""
		case !besideName(e.file):
			return nil, fmt.Errorf("it names the file %q, which does not lie in its own folder: put all files of the disk into one", e.file)
		}
		if sectors == 0 || sectors > vmdkMaxSectors || d.size()/512+sectors > vmdkMaxSectors || len(d.extents) >= vmdkMaxExtents {
			return nil, errors.New("its description lists an impossible size")
		}
		d.extents = append(d.extents, e)
	}
	if len(d.extents) == 0 {
		return nil, errors.New("its description lists no extents")
	}
	return d, nil
}

// besideName tells whether name is that of a file in the same folder.
func besideName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= 255 && utf8.ValidString(name) && !strings.ContainsAny(name, "/\\:\x00")
}

var vmdkParentCID = regexp.MustCompile(`(?im)^\s*parentCID\s*=\s*([0-9a-f]+)`)

// vmdkParent says why the description belongs to a disk that builds on another; "" when it does not.
func vmdkParent(text []byte) string {
	if m := vmdkParentCID.FindSubmatch(text); m != nil && !strings.EqualFold(string(m[1]), "ffffffff") {
		return whyBacking
	}
	if bytes.Contains(text, []byte("parentFileNameHint")) {
		return whyBacking
	}
	return ""
}

// openExtents reads the description and opens the files that it names.
func (s *Source) openExtents() error {
	text := make([]byte, vmdkMaxText+1)
	n, err := s.in[0].ReadAt(text, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %q: %w", s.path, err)
	}
	if n > vmdkMaxText {
		return s.errorf("its description is longer than %d bytes", vmdkMaxText)
	}
	if s.vmdk, err = parseVMDK(text[:n]); err != nil {
		return s.errorf("%v", err)
	}
	root, err := os.OpenRoot(filepath.Dir(s.path))
	if err != nil {
		return fmt.Errorf("open disk image: %w", err)
	}
	defer func() { _ = root.Close() }() // nothing is written to it
	for _, e := range s.vmdk.extents {
		if e.file == "" {
			continue
		}
		in, err := openIn(root, e.file)
		if err != nil {
			return s.errorf("its file %q cannot be opened: %v", e.file, err)
		}
		s.in = append(s.in, in)
		s.size += in.stat.Size()
		if e.kind == "SPARSE" || e.kind == "VMFSSPARSE" {
			head := make([]byte, 1024)
			if _, err := in.ReadAt(head, 0); err != nil {
				return s.errorf("its file %q is cut off in its header; copy it again", e.file)
			}
			if f := Of(head); f != VMDK || checkVMDK(head) != "" { // it could name further files
				return s.errorf("its file %q is no part of a VMDK", e.file)
			}
		} else {
			if have := in.stat.Size(); have < e.off+e.size {
				return s.errorf("its file %q ends at byte %d, but should have %d: it is cut off; copy it again", e.file, have, e.off+e.size)
			}
		}
	}
	return nil
}

// openIn opens a regular file of a folder, and nothing that a link leads out of it.
func openIn(root *os.Root, name string) (input, error) {
	f, err := root.Open(name)
	if err != nil {
		return input{}, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		return input{}, errors.Join(err, f.Close())
	}
	return input{f, name, st}, nil
}

// convertExtents unpacks a disk of several files.
func (s *Source) convertExtents(ctx context.Context, w *work) error {
	if s.vmdk.flat() {
		return s.copyExtents(w)
	}
	path, err := filepath.Abs(s.path)
	if err != nil {
		return err
	}
	// qemu opens these files itself, which needs the right to read them.
	none, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer func() { _ = none.Close() }()
	node := "driver=vmdk,file.driver=file,file.locking=off,file.filename=" + strings.ReplaceAll(path, ",", ",,")
	err = s.convertNode(ctx, w, node, func(c *child) error {
		c.files = append([]*os.File{none}, c.files...)
		return w.run(ctx, c)
	})
	if err != nil && strings.Contains(err.Error(), "Permission denied") {
		return s.errorf("qemu-img, which runs as nobody for safety, may not read its files: let everybody read them and enter their folder, or make one file of them with `qemu-img convert -O qcow2`")
	}
	if err == nil {
		w.progress(s.size)
	}
	return err
}

// beside tells whether path, as qemu-img gives it, is one of the files that the description names.
func (s *Source) beside(path string) bool {
	dir, err := filepath.Abs(filepath.Dir(s.path))
	return err == nil && filepath.Dir(path) == dir && slices.ContainsFunc(s.vmdk.extents, func(e vmdkExtent) bool { return e.file == filepath.Base(path) })
}

// copyExtents unpacks a disk whose files hold the plain content.
func (s *Source) copyExtents(w *work) error {
	if err := w.resize(s.path, s.vmdk.size()); err != nil {
		return err
	}
	at, k := int64(0), 1 // s.in[0] is the description
	for _, e := range s.vmdk.extents {
		if e.file != "" {
			n, err := w.copyIn(&counter{r: io.NewSectionReader(s.in[k], e.off, e.size), w: w}, at, e.size)
			if err != nil {
				return fmt.Errorf("read %q at byte %d: %w", e.file, e.off+n, err)
			}
			if n != e.size {
				return s.errorf("its file %q ended at byte %d while it was read", e.file, e.off+n)
			}
			k++
		}
		at += e.size
	}
	return nil
}
