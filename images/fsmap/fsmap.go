// Package fsmap finds out which filesystem a partition holds and which of its bytes are used.
//
// A reader that is not sure says so and the whole partition counts as used: too much is slow, too little is a broken
// filesystem. Nothing is written and no journal is replayed. The library calls it at import.
package fsmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"labswarm/images/fsmap/ext"
	"labswarm/images/fsmap/fat"
	"labswarm/images/fsmap/scan"
	"labswarm/images/fsmap/swap"
	"labswarm/images/manifest"
)

// TooBigError means that a filesystem believes to be larger than its partition.
type TooBigError struct {
	FS         string
	Size, Have int64 // bytes
}

func (e *TooBigError) Error() string {
	return fmt.Sprintf("the %s filesystem spans %d bytes but its partition has %d: the image is truncated or the partition was shrunk without it", e.FS, e.Size, e.Have)
}

// BitLockerError means that a volume is encrypted by BitLocker. Its clone does not open on another PC.
type BitLockerError struct{}

func (BitLockerError) Error() string {
	return "the volume is encrypted by BitLocker and its copy would not open on another PC; suspending is not enough: decrypt it with 'manage-bde -off' and make the image again"
}

// Used reads the used map of a partition of size bytes. It fails with TooBigError, BitLockerError or a read error.
// A filesystem it has no reader for, or that the reader is not sure about, comes back whole with Why set.
func Used(r io.ReaderAt, size int64) (manifest.UsedMap, error) {
	um, err := read(r, size)
	if err == nil && um.Extents != nil {
		if um.Size > size {
			return um, &TooBigError{um.FS, um.Size, size}
		}
		return um, nil
	}
	switch {
	case um.Size > size:
		return um, &TooBigError{um.FS, um.Size, size}
	case err != nil && !errors.Is(err, scan.ErrUnsupported) && !errors.Is(err, scan.ErrCorrupt):
		return um, err
	case err == nil || um.Why == "":
		um.Clean = true // nothing speaks against it; a copy of everything is as good as its source
	}
	if err != nil {
		if um.Why != "" {
			um.Why += "; "
		}
		um.Why += err.Error()
	}
	um.Kind = "whole"
	um.Extents = []manifest.Extent{{Off: 0, Len: size}}
	return um, nil
}

// head is how much of a partition the magics lie in.
const head = 128 << 10

// read dispatches on the magic, most specific first: FAT comes last, since NTFS and exFAT look like it.
func read(r io.ReaderAt, size int64) (manifest.UsedMap, error) {
	b := make([]byte, head) // a short partition leaves the rest zero
	if err := scan.Fill(r, 0, b[:min(size, head)]); err != nil {
		return manifest.UsedMap{FS: "unknown"}, fmt.Errorf("read the start of the partition: %w", err)
	}
	if bytes.Equal(b[3:11], []byte("-FVE-FS-")) {
		return manifest.UsedMap{FS: "bitlocker"}, BitLockerError{}
	}
	if um, ok := foreign(b); ok {
		return um, nil
	}
	if binary.LittleEndian.Uint16(b[1024+56:]) == ext.Magic {
		return ext.Used(r, size)
	}
	if page, _ := swap.Detect(r); page != 0 {
		return swap.Used(r, size)
	}
	if fat.Is(b) {
		return fat.Used(r, size)
	}
	return manifest.UsedMap{FS: "unknown"}, nil
}

// foreign recognises what has no reader yet, for display.
func foreign(b []byte) (manifest.UsedMap, bool) {
	le := binary.LittleEndian
	text := manifest.CleanText
	switch {
	case bytes.HasPrefix(b, []byte("LUKS\xba\xbe")):
		return manifest.UsedMap{FS: "luks", UUID: text(b[168:208])}, true
	case bytes.Equal(b[3:11], []byte("NTFS    ")):
		return manifest.UsedMap{FS: "ntfs", UUID: fmt.Sprintf("%016X", le.Uint64(b[72:]))}, true
	case bytes.Equal(b[3:11], []byte("EXFAT   ")):
		return manifest.UsedMap{FS: "exfat", UUID: fmt.Sprintf("%04X-%04X", le.Uint16(b[102:]), le.Uint16(b[100:]))}, true
	case bytes.HasPrefix(b, []byte("XFSB")):
		return manifest.UsedMap{FS: "xfs", UUID: manifest.UUIDText(b[32:48]), Label: text(b[108:120])}, true
	case bytes.Equal(b[65600:65608], []byte("_BHRfS_M")):
		return manifest.UsedMap{FS: "btrfs", UUID: manifest.UUIDText(b[65568:65584]), Label: text(b[65835:66091])}, true
	case bytes.Equal(b[512:520], []byte("LABELONE")):
		return manifest.UsedMap{FS: "lvm"}, true
	}
	return manifest.UsedMap{}, false
}
