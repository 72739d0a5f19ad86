// Package fsmap finds out which filesystem a partition holds and which of its bytes are used.
//
// A reader that is not sure says so and the whole partition counts as used: too much is slow, too little is a broken
// filesystem. Nothing is written and no journal is replayed. The library calls it at import.
package fsmap

import (
	"errors"
	"fmt"
	"io"

	"labswarm/images/fsmap/scan"
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

// SpanError means that a filesystem lies on several disks, of which this is one.
type SpanError = scan.SpanError

// Used reads the used map of a partition of size bytes. It fails with TooBigError, BitLockerError, SpanError or a
// read error. A filesystem it has no reader for, that the reader is not sure about, or that is not clean comes back
// whole, with Why set to the reason where there is one.
func Used(r io.ReaderAt, size int64) (manifest.UsedMap, error) {
	um, err := read(r, size)
	switch {
	case um.Size > size:
		return um, &TooBigError{um.FS, um.Size, size}
	case err != nil && !errors.Is(err, scan.ErrUnsupported) && !errors.Is(err, scan.ErrCorrupt):
		return um, err
	}
	if um.State == "" {
		um.State = manifest.StateClean // nothing speaks against it; a copy of everything is as good as its source
	}
	if err == nil && um.Extents != nil && um.State == manifest.StateClean {
		return um, nil
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
