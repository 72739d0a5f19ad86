package unpack

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"labswarm/internal/units"
)

// driver is qemu's name of a format; it is never left to qemu to guess.
func (f Format) driver() string {
	return map[Format]string{Qcow2: "qcow2", VMDK: "vmdk", VHD: "vpc", VHDX: "vhdx", VDI: "vdi"}[f]
}

// nbdNode names the socket at descriptor 3 to qemu.
const nbdNode = "file.driver=nbd,file.server.type=fd,file.server.str=3"

// convert unpacks a disk of one file with qemu-img, which sees that file through a socket and nothing else.
func (s *Source) convert(ctx context.Context, w *work) error {
	in := s.in[0]
	if err := s.checkHead(w, in); err != nil {
		return err
	}
	return s.convertNode(ctx, w, "driver="+s.format.driver()+","+nbdNode, func(c *child) error { return w.runNBD(ctx, c, in, s.size) })
}

// convertNode unpacks the disk that node describes to qemu-img; run runs it with the work file as its last descriptor.
func (s *Source) convertNode(ctx context.Context, w *work, node string, run func(*child) error) error {
	what := "importing a " + string(s.format) + " disk"
	info := &child{helper: qemuImg, what: what, fsize: 0, args: []string{"info", "--output=json", "--image-opts", node}}
	if err := run(info); err != nil {
		return s.childError(w, err)
	}
	di, err := parseInfo(info.out)
	if err != nil {
		return s.errorf("qemu-img's description of it is not understood: %v", err)
	}
	if why := di.refuse(s.format); why != "" {
		return s.errorf("%s", why)
	}
	for _, e := range di.Specific.Data.Extents {
		if s.vmdk != nil && !s.beside(e.File) {
			return s.errorf("it names the file %q, which does not lie in its own folder: put all files of the disk into one", e.File)
		}
	}
	if n := len(di.Snapshots); n > 0 {
		w.opt.Warn(fmt.Sprintf("the disk holds %d snapshots: its present state is imported, not one of them", n))
	}
	if err := s.checkImage(w, node, what, run); err != nil {
		return err
	}
	if err := w.resize(s.path, di.VirtualSize); err != nil {
		return err
	}
	if err := w.give(); err != nil {
		return err
	}
	conv := &child{helper: qemuImg, what: what, fsize: di.VirtualSize, args: []string{"convert", "-n", "--target-is-zero", "-W", "--image-opts", node,
		"--target-image-opts", "driver=raw,file.driver=file,file.locking=off,file.filename=/proc/self/fd/4"}}
	conv.files = append(conv.files, w.File)
	if err := run(conv); err != nil {
		return s.childError(w, err)
	}
	if s.format == VHD {
		return s.trimVHD(w, di.VirtualSize)
	}
	return nil
}

// checkImage has qemu-img look for references to what is not in the file. Formats that it has no check for say so.
func (s *Source) checkImage(w *work, node, what string, run func(*child) error) error {
	if s.format == VHD { // opening it was the check
		return nil
	}
	c := &child{helper: qemuImg, what: what, args: []string{"check", "--output=json", "--image-opts", node}}
	err := run(c)
	// 3 = space that nothing refers to, 63 = no check for this format.
	var exit interface{ ExitCode() int }
	if err == nil || errors.As(err, &exit) && (exit.ExitCode() == 3 || exit.ExitCode() == 63) {
		return nil
	}
	if errors.As(err, &exit) && exit.ExitCode() == 2 {
		return s.errorf("the %s file is damaged or cut off: qemu-img check finds %s", s.format, checkText(c.out))
	}
	return s.childError(w, err)
}

func checkText(out []byte) string {
	var r struct {
		Corruptions int64 `json:"corruptions"`
		End         int64 `json:"image-end-offset"`
	}
	if err := json.Unmarshal(out, &r); err != nil || r.Corruptions == 0 {
		return "errors"
	}
	return fmt.Sprintf("%d errors (the content should end at byte %d)", r.Corruptions, r.End)
}

// childError makes what a program complained of an Error of the source, and leaves the rest alone.
func (s *Source) childError(w *work, err error) error {
	var missing *MissingError
	var exit interface{ ExitCode() int }
	if errors.As(err, &missing) || w.ctx.Err() != nil || w.room() != nil || !errors.As(err, &exit) {
		return err
	}
	return s.errorf("the %s data is damaged, cut off or of an unknown kind: %v", s.format, err)
}

// diskInfo is what is used of qemu-img's description.
type diskInfo struct {
	VirtualSize int64             `json:"virtual-size"`
	Format      string            `json:"format"`
	Encrypted   bool              `json:"encrypted"`
	Backing     string            `json:"backing-filename"`
	FullBacking string            `json:"full-backing-filename"`
	Snapshots   []json.RawMessage `json:"snapshots"`
	Specific    struct {
		Data struct {
			DataFile   string          `json:"data-file"`
			Encrypt    json.RawMessage `json:"encrypt"`
			Corrupt    bool            `json:"corrupt"`
			CreateType string          `json:"create-type"`
			Extents    []struct {
				File string `json:"filename"`
			} `json:"extents"`
		} `json:"data"`
	} `json:"format-specific"`
}

// parseInfo reads the output of `qemu-img info --output=json`.
func parseInfo(b []byte) (*diskInfo, error) {
	di := &diskInfo{}
	if err := json.Unmarshal(b, di); err != nil {
		return nil, err
	}
	if di.VirtualSize <= 0 || di.VirtualSize%512 != 0 || di.VirtualSize >= 1<<53 {
		return nil, fmt.Errorf("a disk of %d bytes", di.VirtualSize)
	}
	return di, nil
}

// refuse says why a disk cannot be imported, by qemu-img's description; "" when it can.
func (di *diskInfo) refuse(f Format) string {
	d := di.Specific.Data
	switch {
	case di.Format != f.driver() && f != VMDKText:
		return fmt.Sprintf("qemu-img calls it %q", di.Format)
	case di.Backing != "" || di.FullBacking != "":
		return whyBacking
	case d.DataFile != "":
		return whyDataFile
	case di.Encrypted || len(d.Encrypt) > 0 && string(d.Encrypt) != "null":
		return whyEncrypted
	case d.Corrupt:
		return whyCorrupt
	case len(d.Extents) > 1 && f == VMDK:
		return whyExtents
	}
	return ""
}

const (
	whyBacking   = "it holds only what differs from another disk, its base: make one disk of both with `qemu-img convert -O qcow2 DISK NEW` and import that"
	whyDataFile  = "its content lies in another file that it names: make one disk of both with `qemu-img convert -O qcow2 DISK NEW` and import that"
	whyEncrypted = "it is encrypted: decrypt it first"
	whyCorrupt   = "it is marked as damaged: look at it with `qemu-img check`"
	whyExtents   = "it names other files: import the small .vmdk that describes them"
)

// checkHead looks at the header itself, before any other program does: what names another file never gets there.
func (s *Source) checkHead(w *work, r io.ReaderAt) error {
	head := make([]byte, 1024)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %q: %w", s.path, err)
	}
	if n < 512 {
		return s.errorf("the %s data ends at byte %d, in its header: the file is cut off; copy it again", s.format, n)
	}
	var why string
	switch s.format {
	case Qcow2:
		why = checkQcow2(head)
	case VMDK:
		why = checkVMDK(head)
	case VHD:
		why, err = checkVHD(r, s.size)
	case VDI:
		why = checkVDI(head, s.size)
	}
	if err != nil {
		return fmt.Errorf("read %q: %w", s.path, err)
	}
	if why != "" {
		return s.errorf("%s", why)
	}
	return nil
}

// checkQcow2 reads a header (qemu, docs/interop/qcow2.txt).
func checkQcow2(h []byte) string {
	be := binary.BigEndian
	switch version := be.Uint32(h[4:]); {
	case version != 2 && version != 3:
		return fmt.Sprintf("it is qcow of version %d; 2 and 3 are read", version)
	case be.Uint64(h[8:]) != 0 || be.Uint32(h[16:]) != 0:
		return whyBacking
	case be.Uint32(h[32:]) != 0:
		return whyEncrypted
	case version == 3 && be.Uint64(h[72:])&4 != 0:
		return whyDataFile
	case version == 3 && be.Uint64(h[72:])&2 != 0:
		return whyCorrupt
	}
	return ""
}

// checkVMDK reads a sparse extent's header (VMware, Virtual Disk Format 1.1).
func checkVMDK(h []byte) string {
	le := binary.LittleEndian
	if string(h[:4]) == "COWD" {
		return ""
	}
	if le.Uint64(h[12:]) == 0 { // the content lies where the description inside says
		return whyExtents
	}
	return vmdkParent(h[512:])
}

// checkVHD reads the footer, which stands in the last sector and, but in disks of fixed size, also in the first.
func checkVHD(r io.ReaderAt, size int64) (string, error) {
	const fixed, dynamic, differing = 2, 3, 4
	foot := make([]byte, 512)
	if _, err := r.ReadAt(foot, size-512); err != nil {
		return "", err
	}
	if string(foot[:8]) != "conectix" {
		return "it has no footer at its end: the file is cut off; copy it again", nil
	}
	sum := uint32(0)
	for i, b := range foot {
		if i < 64 || i >= 68 { // the place of the sum itself
			sum += uint32(b)
		}
	}
	if ^sum != binary.BigEndian.Uint32(foot[64:]) {
		return fmt.Sprintf("the checksum of its footer at byte %d is wrong: the file is damaged; copy it again", size-512), nil
	}
	switch kind := binary.BigEndian.Uint32(foot[60:]); kind {
	case fixed, dynamic:
		return "", nil
	case differing:
		return "it holds only what differs from another disk, its parent: merge the two on the machine it comes from and import that", nil
	default:
		return fmt.Sprintf("it is a VHD of kind %d; 2 (fixed) and 3 (dynamic) are read", kind), nil
	}
}

// checkVDI compares the blocks that the header counts with the length of the file: qemu reads missing ones as zeros.
func checkVDI(h []byte, size int64) string {
	const normal, fixed = 1, 2
	le := binary.LittleEndian
	if kind := le.Uint32(h[76:]); kind != normal && kind != fixed {
		return "it holds only what differs from another disk, or is of an unknown kind: clone it in VirtualBox and import the clone"
	}
	data, block, count := int64(le.Uint32(h[344:])), int64(le.Uint32(h[376:])), int64(le.Uint32(h[388:]))
	if need := data + block*count; need > size {
		return fmt.Sprintf("the file ends at byte %d, but should have %d: it is cut off; copy it again", size, need)
	}
	return ""
}

// trimVHD cuts what a VHD adds to fill a cylinder: the disk ends with its backup GPT. Without a GPT nobody knows
// where the disk ended, and nothing is cut.
func (s *Source) trimVHD(w *work, size int64) error {
	end, err := gptEnd(w, size)
	if err != nil {
		return fmt.Errorf("read the work file: %w", err)
	}
	if end > 0 && end < size {
		w.opt.Warn(fmt.Sprintf("%s at the end, which the format adds, are left out", units.FormatBytes(size-end)))
		return w.Truncate(end)
	}
	return nil
}

// gptEnd returns where the disk ends by its GPT in bytes, if the backup header is there; else 0. Sectors of 512 bytes.
func gptEnd(r io.ReaderAt, size int64) (int64, error) {
	const sector, signature = 512, "EFI PART"
	h := make([]byte, sector)
	if size < 3*sector {
		return 0, nil
	}
	if _, err := r.ReadAt(h, sector); err != nil {
		return 0, err
	}
	last := binary.LittleEndian.Uint64(h[32:]) // AlternateLBA, UEFI 2.10, 5.3.2
	if string(h[:8]) != signature || last < 2 || last >= uint64(size/sector) {
		return 0, nil
	}
	if _, err := r.ReadAt(h, int64(last)*sector); err != nil {
		return 0, err
	}
	if string(h[:8]) != signature || binary.LittleEndian.Uint64(h[24:]) != last {
		return 0, nil
	}
	return (int64(last) + 1) * sector, nil
}
