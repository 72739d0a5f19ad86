package unpack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// Format is a kind of source, as text for people.
type Format string

// The formats that are recognised. Those without a comment are unpacked.
const (
	Raw        Format = "raw disk" // or anything unknown
	Gzip       Format = "gzip"
	Bzip2      Format = "bzip2"
	XZ         Format = "xz"
	Zstd       Format = "zstd"
	Qcow2      Format = "qcow2"
	VMDK       Format = "VMDK"
	VMDKText   Format = "VMDK description"
	VHD        Format = "VHD"
	VHDX       Format = "VHDX"
	VDI        Format = "VDI"
	Clonezilla Format = "Clonezilla image"
	lz4        Format = "lz4"  // refused
	lzop       Format = "lzop" // refused
	lzip       Format = "lzip" // refused
	lrzip      Format = "lrzip"
	sevenZip   Format = "7z"         // refused
	zip        Format = "zip"        // refused
	wim        Format = "WIM or ESD" // refused
	iso        Format = "CD or DVD"  // refused
	partclone  Format = "partclone"  // refused
)

// magics are what files start with, or hold at a fixed offset.
var magics = []struct {
	off    int
	magic  string
	format Format
}{
	{0, "\x1f\x8b", Gzip}, {0, "BZh", Bzip2}, {0, "\xfd7zXZ\x00", XZ}, {0, "\x28\xb5\x2f\xfd", Zstd},
	{0, "QFI\xfb", Qcow2}, {0, "KDMV", VMDK}, {0, "COWD", VMDK}, {0, "# Disk DescriptorFile", VMDKText},
	{0, "conectix", VHD}, {0, "vhdxfile", VHDX}, {64, "\x7f\x10\xda\xbe", VDI},
	{0, "\x04\x22\x4d\x18", lz4}, {0, "\x89LZO\x00\x0d\x0a\x1a\x0a", lzop}, {0, "LZIP", lzip}, {0, "LRZI", lrzip},
	{0, "7z\xbc\xaf\x27\x1c", sevenZip}, {0, "PK\x03\x04", zip}, {0, "MSWIM\x00\x00\x00", wim}, {0, "WLPWM\x00\x00\x00", wim},
	{0, "partclone-image", partclone},
}

const headLen = 512 // bytes that Of looks at

// Of recognises a format by the first bytes of a file.
func Of(head []byte) Format {
	for _, m := range magics {
		if len(head) >= m.off+len(m.magic) && string(head[m.off:m.off+len(m.magic)]) == m.magic {
			return m.format
		}
	}
	// A zstd file may begin with a skippable frame (RFC 8878, 3.1.2).
	if len(head) >= 4 && binary.LittleEndian.Uint32(head)&^0xf == 0x184d2a50 {
		return Zstd
	}
	return Raw
}

// recognise looks at both ends of a file of size bytes: a VHD of fixed size has its mark in the last sector, a CD has
// its own behind 32 KiB.
func recognise(r io.ReaderAt, size int64) (Format, error) {
	head := make([]byte, headLen)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if f := Of(head[:n]); f != Raw {
		return f, nil
	}
	for _, p := range []struct {
		off    int64
		magic  string
		format Format
	}{{size - 512, "conectix", VHD}, {0x8001, "CD001", iso}} {
		b := make([]byte, len(p.magic))
		if p.off < 0 || p.off+int64(len(b)) > size {
			continue
		}
		if _, err := r.ReadAt(b, p.off); err != nil {
			return "", err
		}
		// Linux's installation images are CDs with a partition table: those are a disk as well, so only without one.
		if string(b) == p.magic && (p.format != iso || !bytes.Equal(head[510:512], []byte{0x55, 0xaa})) {
			return p.format, nil
		}
	}
	return Raw, nil
}

// packed tells whether f is a compressed stream that unpacks to a disk.
func (f Format) packed() bool { return f == Gzip || f == Bzip2 || f == XZ || f == Zstd }

// refused says why a format is not imported, and what to do; "" when it is.
func (f Format) refused() string {
	switch f {
	case wim:
		return "it is a WIM or ESD, which holds files and no disk: install it once on a PC or virtual machine and import that disk"
	case iso:
		return "it is a CD or DVD image: install it once on a PC or virtual machine and import that disk"
	case zip, sevenZip:
		return "it is a " + string(f) + " archive: unpack it and import the disk inside"
	case lz4, lzop, lzip, lrzip:
		return "it is compressed with " + string(f) + ", which is not read here: unpack it, or repack it with zstd, gzip or xz"
	case partclone:
		return "it is partclone's copy of one partition: name Clonezilla's folder that it belongs to, or restore it into a disk first"
	}
	return ""
}

// Inside says what is wrong with the first bytes of a disk that was unpacked or is taken as raw; "" when nothing is.
func Inside(head []byte) string {
	f := Of(head)
	switch {
	case f == Raw:
		return ""
	case f.refused() != "":
		return f.refused()
	}
	return "it holds a file of format " + string(f) + " in place of a disk: unpack the outer layer and import what is inside"
}
