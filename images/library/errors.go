package library

import (
	"errors"
	"fmt"
	"strings"

	"labswarm/images/survey"
	"labswarm/internal/units"
)

// ErrReadOnly means that the library was opened without a signing key.
var ErrReadOnly = errors.New("the image library is open for reading only")

// ErrUnchanged means that an import found exactly what the newest version holds already; see UnchangedError.
var ErrUnchanged = errors.New("unchanged")

// UnchangedError names the version that equals the file. It matches ErrUnchanged.
type UnchangedError struct{ Name, Version string }

func (e *UnchangedError) Error() string {
	return fmt.Sprintf("%s is unchanged: version %s holds the same content; --force=%s makes a new version all the same", e.Name, e.Version, ForceUnchanged)
}

// Is makes errors.Is(err, ErrUnchanged) work.
func (e *UnchangedError) Is(target error) bool { return target == ErrUnchanged }

// NotDiskError means that a file is not the raw image of a whole disk.
type NotDiskError struct{ File, Why string }

func (e *NotDiskError) Error() string {
	return fmt.Sprintf("%q is not a raw disk image: %s", e.File, e.Why)
}

// NoSpaceError means that the file system of the library has too little room. Sizes are bytes.
type NoSpaceError struct {
	Dir     string
	Need    int64 // for the image; 0 = not known
	Free    int64
	Reserve int64 // kept free for the rest of the server
}

func (e *NoSpaceError) Error() string {
	if e.Need == 0 {
		return fmt.Sprintf("no room in %q: %s must stay free and only %s are; remove old images or use a bigger disk",
			e.Dir, units.FormatBytes(e.Reserve), units.FormatBytes(e.Free))
	}
	return fmt.Sprintf("no room in %q: the image needs %s and %s must stay free, but only %s are free; remove old images or use a bigger disk",
		e.Dir, units.FormatBytes(e.Need), units.FormatBytes(e.Reserve), units.FormatBytes(e.Free))
}

// Names of the guards that ImportOptions.Force may override.
const (
	ForceDirty      = survey.Dirty
	ForceHibernated = survey.Hibernated
	ForceUnchanged  = "unchanged" // the content equals the newest version
)

// Finding is one reason not to make an image of a disk.
type Finding = survey.Finding

// GuardError lists every finding at once.
type GuardError struct {
	File     string
	Findings []Finding
}

func (e *GuardError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q cannot become an image as it is:", e.File)
	for _, f := range e.Findings {
		fmt.Fprintf(&b, "\n  %s", f)
		if f.Guard != "" {
			fmt.Fprintf(&b, " (--force=%s takes it all the same)", f.Guard)
		}
	}
	return b.String()
}

// BadCellError means that a cell in the store is not what the manifest says. It must not be sent to anybody.
type BadCellError struct {
	Image string // name/version
	Cell  int64  // grid cell
	Piece int    // torrent piece, -1 for a zero cell
	Why   string
}

func (e *BadCellError) Error() string {
	return fmt.Sprintf("image %s: cell %d is damaged in the store: %s; import the image again", e.Image, e.Cell, e.Why)
}
