package unpack

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// hiddenMax is what is taken of the bytes behind the boot sector: boot loaders keep to the first MiB.
const hiddenMax = 1<<20 - czSector

// mbrDump is a table as `sfdisk -d` writes it, in sectors.
type mbrDump struct {
	id    uint32
	parts []mbrDumpPart
}

type mbrDumpPart struct {
	n           int
	start, size int64
	kind        byte
	boot        bool
}

var (
	dumpLine   = regexp.MustCompile(`^([0-9]{1,3}) *: *start= *([0-9]{1,12}), *size= *([0-9]{1,12}), *(?:type|Id)= *([0-9a-fA-F]{1,2})(, *bootable)?$`)
	dumpHead   = regexp.MustCompile(`^(label|label-id|unit|sector-size|device|first-lba|last-lba|grain|table-length): *(.*)$`)
	partedDisk = regexp.MustCompile(`(?m)^Disk /dev/[a-z0-9/]+: ([0-9]{1,15})s$`)
	partedSect = regexp.MustCompile(`(?m)^Sector size \(logical/physical\): ([0-9]{3,5})B/`)
)

// parseDump reads the dump of an MBR: that of sfdisk 2.26 and newer, and the older one without a head. stem is the name
// of the disk's partitions without their number.
func parseDump(text []byte, stem string) (*mbrDump, error) {
	d := &mbrDump{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "Warning:") {
			continue
		}
		if m := dumpHead.FindStringSubmatch(line); m != nil {
			if err := d.head(m[1], strings.TrimSpace(m[2])); err != nil {
				return nil, err
			}
			continue
		}
		line, ok := strings.CutPrefix(line, "/dev/"+stem)
		m := dumpLine.FindStringSubmatch(line)
		if m == nil || !ok {
			return nil, fmt.Errorf("the line %q is not understood", line)
		}
		p := mbrDumpPart{boot: m[5] != ""}
		var kind uint64
		var errs [4]error
		p.n, errs[0] = strconv.Atoi(m[1])
		p.start, errs[1] = strconv.ParseInt(m[2], 10, 64)
		p.size, errs[2] = strconv.ParseInt(m[3], 10, 64)
		kind, errs[3] = strconv.ParseUint(m[4], 16, 8)
		if err := errors.Join(errs[:]...); err != nil {
			return nil, err
		}
		if p.kind = byte(kind); p.kind == 0 || p.size == 0 { // sfdisk of old lists empty places
			continue
		}
		if p.n < 1 || p.n > 64 || p.start < 1 || p.start+p.size > 1<<32 {
			return nil, fmt.Errorf("the line %q holds impossible numbers", line)
		}
		d.parts = append(d.parts, p)
	}
	if len(d.parts) == 0 {
		return nil, errors.New("it lists no partition")
	}
	return d, nil
}

func (d *mbrDump) head(key, value string) error {
	switch key {
	case "label":
		if value != "dos" {
			return fmt.Errorf("the table is of kind %q", value)
		}
	case "unit":
		if value != "sectors" {
			return fmt.Errorf("its unit is %q", value)
		}
	case "sector-size":
		if value != "512" {
			return fmt.Errorf("it is of a disk with sectors of %s bytes; Clonezilla's folders are read for 512", value)
		}
	case "label-id":
		id, err := strconv.ParseUint(strings.TrimPrefix(value, "0x"), 16, 32)
		if err != nil {
			return fmt.Errorf("the disk id %q is no number", value)
		}
		d.id = uint32(id)
	}
	return nil
}

// script writes the table for sfdisk: only what was understood gets there.
func (d *mbrDump) script() string {
	var b strings.Builder
	fmt.Fprintf(&b, "label: dos\nlabel-id: 0x%08x\nunit: sectors\n\n", d.id)
	for _, p := range d.parts {
		boot := ""
		if p.boot {
			boot = ", bootable"
		}
		fmt.Fprintf(&b, "/dev/sda%d : start=%d, size=%d, type=%x%s\n", p.n, p.start, p.size, p.kind, boot)
	}
	return b.String()
}

// end returns the end of the last partition in bytes.
func (d *mbrDump) end() (n int64) {
	for _, p := range d.parts {
		n = max(n, (p.start+p.size)*czSector)
	}
	return n
}

// partedSize returns the size of a disk in bytes by parted's list; 0 = it does not say.
func partedSize(text []byte) (int64, error) {
	if m := partedSect.FindSubmatch(text); m != nil && string(m[1]) != "512" {
		return 0, fmt.Errorf("it is of a disk with sectors of %s bytes; Clonezilla's folders are read for 512", m[1])
	}
	m := partedDisk.FindSubmatch(text)
	if m == nil {
		return 0, nil
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil || n <= 0 || n > 1<<43 {
		return 0, fmt.Errorf("it gives the disk an impossible size of %s sectors", m[1])
	}
	return n * czSector, nil
}

// writeTable gives the disk its size and partition table.
func (s *Source) writeTable(ctx context.Context, w *work) error {
	t, d := s.cz.table, s.cz.disk
	size, err := partedSize(t.parted)
	if err != nil {
		return s.errorf("its file %q: %v", d+"-pt.parted", err)
	}
	if t.gpt != nil {
		return s.writeGPT(w)
	}
	if t.dump == nil || len(t.mbr) != czSector {
		return s.errorf("its file %q or %q is missing or cut off", d+"-pt.sf", d+"-mbr")
	}
	dump, err := parseDump(t.dump, s.cz.stem())
	if err != nil {
		return s.errorf("its file %q: %v", d+"-pt.sf", err)
	}
	if dump.id == 0 { // a dump of old does not name it
		dump.id = binary.LittleEndian.Uint32(t.mbr[440:])
	}
	if size == 0 {
		size = (dump.end() + 1<<20 - 1) &^ (1<<20 - 1)
		w.opt.Warn("the folder does not say how big the disk was: the image ends with its last partition")
	}
	if dump.end() > size {
		return s.errorf("its partitions end at byte %d, beyond the disk of %d bytes", dump.end(), size)
	}
	if err := w.resize(s.path, size); err != nil {
		return err
	}
	if err := w.give(); err != nil {
		return err
	}
	c := &child{helper: sfdisk, what: "importing a " + string(s.format), stdin: strings.NewReader(dump.script()), files: []*os.File{w.File}, fsize: size,
		args: []string{"-q", "--no-reread", "--no-tell-kernel", "-w", "never", "-W", "never", "/proc/self/fd/3"}}
	if err := w.run(ctx, c); err != nil {
		return s.childError(w, err)
	}
	// The boot loader: code before the disk id, and what follows the sector.
	if _, err := w.WriteAt(t.mbr[:440], 0); err != nil {
		return &writeError{err}
	}
	first := size
	for _, p := range dump.parts {
		first = min(first, p.start*czSector)
	}
	hidden := t.hidden[:min(int64(len(t.hidden)), first-czSector)]
	if _, err := w.WriteAt(hidden, czSector); err != nil {
		return &writeError{err}
	}
	return nil
}

// writeGPT writes the saved start of the disk. Its end, the backup table, is made anew when an image is deployed.
func (s *Source) writeGPT(w *work) error {
	g, name := s.cz.table.gpt, s.cz.disk+"-gpt-1st"
	if len(g) != 34*czSector {
		return s.errorf("its file %q has %d bytes in place of %d: it is cut off", name, len(g), 34*czSector)
	}
	h := g[czSector:]
	if !bytes.HasPrefix(h, []byte("EFI PART")) {
		return s.errorf("its file %q holds no GPT at byte %d", name, czSector)
	}
	last := binary.LittleEndian.Uint64(h[32:]) // AlternateLBA, UEFI 2.10, 5.3.2
	if last < 67 || last > 1<<43 {
		return s.errorf("its file %q gives the disk an impossible end, sector %d", name, last)
	}
	if err := w.resize(s.path, (int64(last)+1)*czSector); err != nil {
		return err
	}
	if _, err := w.WriteAt(g, 0); err != nil {
		return &writeError{err}
	}
	return w.give()
}

// swapID is what Clonezilla keeps of a swap area.
type swapID struct {
	uuid  [16]byte
	label string
}

var swapLine = regexp.MustCompile(`^(UUID|LABEL)="([^"]*)"$`)

// parseSwap reads a swappt-*.info file, which Clonezilla itself would run as a script.
func parseSwap(text []byte) (id swapID, err error) {
	for line := range strings.Lines(string(text)) {
		m := swapLine.FindStringSubmatch(strings.TrimSpace(line))
		switch {
		case strings.TrimSpace(line) == "":
		case m == nil:
			return id, fmt.Errorf("the line %q is not understood", strings.TrimSpace(line))
		case m[1] == "LABEL":
			if id.label = m[2]; len(id.label) > 16 {
				return id, fmt.Errorf("the label %q is longer than 16 bytes", id.label)
			}
		case m[2] != "":
			b, err := hex.DecodeString(strings.ReplaceAll(m[2], "-", ""))
			if err != nil || len(b) != 16 {
				return id, fmt.Errorf("%q is no UUID", m[2])
			}
			copy(id.uuid[:], b)
		}
	}
	return id, nil
}

const swapPage = 4096

// swapHeader is what mkswap writes into the first page of an area of size bytes (Linux, include/linux/swap.h, union
// swap_header).
func swapHeader(id swapID, size int64) []byte {
	b := make([]byte, swapPage)
	binary.LittleEndian.PutUint32(b[1024:], 1)
	binary.LittleEndian.PutUint32(b[1028:], uint32(min(size/swapPage, 1<<32)-1))
	copy(b[1036:], id.uuid[:])
	copy(b[1052:], id.label)
	copy(b[swapPage-10:], "SWAPSPACE2")
	return b
}

// readSwaps reads what the folder says of swap areas.
func (s *Source) readSwaps(root *os.Root, names []string) error {
	for _, name := range names {
		part, ok := strings.CutPrefix(strings.TrimSuffix(name, ".info"), "swappt-")
		if !ok || !strings.HasSuffix(name, ".info") {
			continue
		}
		text, err := s.small(root, name, czMaxText)
		if err != nil {
			return err
		}
		id, err := parseSwap(text)
		if err != nil {
			return s.errorf("its file %q: %v", name, err)
		}
		s.cz.swaps[part] = id
	}
	return nil
}
