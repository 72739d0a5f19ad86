package unpack

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"labswarm/images/fsmap/part"
	"labswarm/images/mask"
)

// restoreClonezilla puts the disk together: table, then each partition.
func (s *Source) restoreClonezilla(ctx context.Context, w *work) error {
	if err := s.writeTable(ctx, w); err != nil {
		return err
	}
	st, err := w.Stat()
	if err != nil {
		return err
	}
	t, err := part.Read(w, st.Size(), czSector)
	if err != nil {
		return s.errorf("its partition table: %v", err)
	}
	left := map[string]bool{}
	for name := range s.cz.files {
		left[name] = true
	}
	// What is missing is said before hours of unpacking.
	for _, p := range t.Parts {
		name := s.cz.partName(p.N)
		delete(left, name)
		_, swap := s.cz.swaps[name]
		if s.cz.files[name] == nil && !swap && p.Type != part.TypeMSR {
			return s.errorf("there is no content of partition %d (%s): the folder is not complete, or it was saved without", p.N, name)
		}
	}
	for name := range left {
		return s.errorf("it holds content of %s, which is not in the partition table of %s", name, s.cz.disk)
	}
	for _, p := range t.Parts {
		name := s.cz.partName(p.N)
		if d := s.cz.files[name]; d != nil {
			if err := s.restorePart(ctx, w, name, d, p); err != nil {
				return err
			}
		} else if id, ok := s.cz.swaps[name]; ok && p.Size >= 10*swapPage {
			if _, err := w.WriteAt(swapHeader(id, p.Size), p.Start); err != nil {
				return &writeError{err}
			}
		}
	}
	return nil
}

// partName is the kernel's name of a partition: sda1, nvme0n1p1.
func (c *czImage) partName(n int) string { return c.stem() + strconv.Itoa(n) }

// stem is what the names of the disk's partitions have in common.
func (c *czImage) stem() string {
	if last := c.disk[len(c.disk)-1]; last >= '0' && last <= '9' {
		return c.disk + "p"
	}
	return c.disk
}

func (s *Source) restorePart(ctx context.Context, w *work, name string, d *czData, p part.Entry) error {
	var all []io.Reader
	for _, in := range d.in {
		all = append(all, io.NewSectionReader(in, 0, in.stat.Size()))
	}
	in := &counter{r: io.MultiReader(all...), w: w}
	packed := bufio.NewReaderSize(in, readAhead)
	head, err := packed.Peek(headLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %q: %w", d.vols[0], err)
	}
	f := Of(head) // what the name says of it does not count
	if why := f.refused(); why != "" && f != partclone {
		return s.errorf("%q: %s", d.vols[0], why)
	}
	at := func() int64 { return in.n - int64(packed.Buffered()) }
	fail := func(err error) error {
		if e := (*Error)(nil); errors.As(err, &e) {
			return s.errorf("partition %d (%s): %s", p.N, name, e.Why)
		}
		return err
	}
	plain := io.NopCloser(packed)
	if f.packed() {
		if plain, err = unpacker(f, packed); err != nil {
			return fail(s.streamError(w, f, err, 0, at()))
		}
	}
	defer func() { _ = plain.Close() }() // only read
	src := &keeper{r: plain}
	content := bufio.NewReaderSize(src, readAhead)
	magic, err := content.Peek(len(ptclMagic))
	if err != nil && src.err != nil && !errors.Is(src.err, io.EOF) {
		return fail(s.streamError(w, f, src.err, src.n, at()))
	}
	if string(magic) == ptclMagic {
		err = s.restorePartclone(ctx, w, content, p)
	} else if d.raw {
		err = s.restoreRaw(w, content, p)
	} else {
		return s.errorf("partition %d (%s): %q does not hold what partclone writes", p.N, name, d.vols[0])
	}
	if src.err != nil && !errors.Is(src.err, io.EOF) {
		return fail(s.streamError(w, f, src.err, src.n, at()))
	}
	return fail(err)
}

// keeper keeps what its reader failed with: a program that is fed from it only sees the end.
type keeper struct {
	r   io.Reader
	n   int64
	err error
}

func (k *keeper) Read(b []byte) (int, error) {
	n, err := k.r.Read(b)
	k.n += int64(n)
	if err != nil {
		k.err = err
	}
	return n, err
}

// restoreRaw writes a copy of every byte of a partition.
func (s *Source) restoreRaw(w *work, r *bufio.Reader, p part.Entry) error {
	n, err := w.copyIn(r, p.Start, p.Size)
	if err != nil {
		return err
	}
	if n < p.Size {
		return s.errorf("its content ends at byte %d of %d: a volume is missing or cut off", n, p.Size)
	}
	if _, err := r.Peek(1); !errors.Is(err, io.EOF) {
		if err != nil {
			return err
		}
		return s.errorf("its content is longer than the partition's %d bytes", p.Size)
	}
	return nil
}

const (
	ptclMagic = "partclone-image"
	ptclHead  = 88 // bytes of a header that are read here
	// maxRest is what may follow behind the last block that partclone reads, in bytes.
	maxRest = 1 << 20
)

// ptclInfo is what a partclone image says of its filesystem. Sizes are bytes.
type ptclInfo struct {
	fs     string
	device int64 // size of the filesystem
	span   int64 // blocks times their size
	used   int64
}

// parsePartclone reads an image's header, version 1 or 2 (partclone, src/partclone.h: image_desc_v1, image_desc_v2).
func parsePartclone(h []byte) (*ptclInfo, error) {
	if len(h) < ptclHead || !bytes.HasPrefix(h, []byte(ptclMagic)) {
		return nil, errors.New("it holds no header of partclone")
	}
	le := binary.LittleEndian
	var device, blocks, used, size uint64
	info := &ptclInfo{}
	switch version := string(h[30:34]); version {
	case "0001":
		info.fs, size = text(h[15:30]), uint64(le.Uint32(h[36:]))
		device, blocks, used = le.Uint64(h[40:]), le.Uint64(h[48:]), le.Uint64(h[56:])
	case "0002":
		if le.Uint16(h[34:]) != 0xc0de {
			return nil, errors.New("its header is of another byte order")
		}
		info.fs = text(h[36:52])
		device, blocks, used, size = le.Uint64(h[52:]), le.Uint64(h[60:]), le.Uint64(h[68:]), uint64(le.Uint32(h[84:]))
	default:
		return nil, fmt.Errorf("it is an image of partclone's format %q; 0001 and 0002 are read", version)
	}
	const most = 1 << 52
	if size == 0 || size > 1<<26 || device == 0 || device > most || blocks == 0 || blocks > most/size || used > blocks {
		return nil, fmt.Errorf("its header holds impossible numbers: a device of %d bytes, %d blocks of %d bytes, %d in use", device, blocks, size, used)
	}
	info.device, info.span, info.used = int64(device), int64(blocks*size), int64(used*size)
	return info, nil
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// restorePartclone has partclone write a filesystem into its partition.
func (s *Source) restorePartclone(ctx context.Context, w *work, r *bufio.Reader, p part.Entry) error {
	head, err := r.Peek(ptclHead)
	if err != nil {
		return s.errorf("its content ends at byte %d, in the header of partclone", len(head))
	}
	info, err := parsePartclone(head)
	if err != nil {
		return s.errorf("%v", err)
	}
	if info.device > p.Size || info.span > p.Size {
		return s.errorf("its filesystem (%s) has %d bytes, more than the partition's %d", info.fs, max(info.device, info.span), p.Size)
	}
	c := &child{helper: restorer, what: "importing a " + string(s.format), stdin: r, files: []*os.File{w.File}, fsize: p.End(),
		// -C: no look at the size of the target, which is a file. Messages go to standard error.
		args: []string{"-C", "-q", "-s", "-", "-O", "/proc/self/fd/3", "-E", strconv.FormatInt(p.Start, 10), "-L", "/dev/null"}}
	if err := w.run(ctx, c); err != nil {
		return s.childError(w, err)
	}
	// partclone ends with 0 as well when it gave up early.
	if !strings.Contains(c.said, "Cloned successfully") {
		return s.errorf("partclone did not say that it was successful: %s", c.said)
	}
	// The end of the packed data carries its checksum.
	n, err := io.CopyN(io.Discard, r, maxRest)
	if err == nil {
		return s.errorf("more than %d bytes follow the end of partclone's data", n)
	}
	return w.backupBoot(p)
}

// backupBoot writes the copy of an NTFS volume's boot sector that stands behind the volume. partclone leaves it out, and
// Windows and ntfsfix miss it.
func (w *work) backupBoot(p part.Entry) error {
	b, old := make([]byte, czSector), make([]byte, czSector)
	if _, err := w.ReadAt(b, p.Start); err != nil {
		return fmt.Errorf("read the work file: %w", err)
	}
	if string(b[3:11]) != "NTFS    " || binary.LittleEndian.Uint16(b[11:]) != czSector {
		return nil
	}
	sectors := binary.LittleEndian.Uint64(b[40:])
	if sectors == 0 || sectors >= uint64(p.Size/czSector) {
		return nil
	}
	off := p.Start + int64(sectors)*czSector
	if _, err := w.ReadAt(old, off); err != nil {
		return fmt.Errorf("read the work file: %w", err)
	}
	if !mask.IsZero(old) {
		return nil
	}
	if _, err := w.WriteAt(b, off); err != nil {
		return &writeError{err}
	}
	return nil
}
