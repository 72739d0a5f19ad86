// Package mask answers one question for four jobs: does this stretch of a disk hold what the image says?
//
// Masking zeroes the bytes no filesystem of the image uses, so that leftovers on a target disk neither cause traffic
// nor enter an image. Import, the scan before a job, resume after a power cut, the final read-back and serving a
// cell from disk all go through Masker. It does no I/O; the agent and the library call it.
package mask

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"labswarm/images/manifest"
)

// Masker masks and checks stretches of one image's disk. It is immutable and safe for concurrent use.
type Masker struct {
	man  *manifest.Manifest
	used []manifest.Extent
}

// New makes a Masker for a loaded manifest.
func New(m *manifest.Manifest) *Masker { return &Masker{man: m, used: m.Used()} }

// FromUsed makes a Masker for a merged used map alone; CheckCell then always answers Free.
func FromUsed(used []manifest.Extent) *Masker { return &Masker{used: used} }

// Mask zeroes the bytes of buf that the image does not use. buf[0] lies at disk offset diskOff (bytes).
func (m *Masker) Mask(buf []byte, diskOff int64) {
	end := diskOff + int64(len(buf))
	pos := diskOff // everything before pos is done
	for i := manifest.First(m.used, diskOff); i < len(m.used) && m.used[i].Off < end; i++ {
		if e := m.used[i]; e.Off > pos {
			clear(buf[pos-diskOff : e.Off-diskOff])
		}
		pos = min(m.used[i].End(), end)
	}
	clear(buf[pos-diskOff:])
}

// Touches tells whether any byte of [diskOff, diskOff+n) is used.
func (m *Masker) Touches(diskOff, n int64) bool {
	i := manifest.First(m.used, diskOff)
	return n > 0 && i < len(m.used) && m.used[i].Off < diskOff+n
}

// Each calls f for every used stretch of [diskOff, diskOff+n), in order.
func (m *Masker) Each(diskOff, n int64, f func(off, length int64)) {
	end := diskOff + n
	for i := manifest.First(m.used, diskOff); i < len(m.used) && m.used[i].Off < end; i++ {
		off := max(m.used[i].Off, diskOff)
		f(off, min(m.used[i].End(), end)-off)
	}
}

var zeros [64 << 10]byte

// IsZero tells whether buf is all zero. It compares against a zero block, which runs at memory speed.
func IsZero(buf []byte) bool {
	for len(buf) > len(zeros) {
		if !bytes.Equal(buf[:len(zeros)], zeros[:]) {
			return false
		}
		buf = buf[len(zeros):]
	}
	return bytes.Equal(buf, zeros[:len(buf)])
}

// State is what CheckCell found.
type State int

// The answers of CheckCell. The zero value means the worst, so a forgotten case is never taken for a match.
const (
	Differs State = iota // the image wants other content here
	Match                // the masked content is the image's
	Free                 // the image uses no byte of this cell: anything may stand here
)

func (s State) String() string {
	switch s {
	case Match:
		return "match"
	case Free:
		return "free"
	}
	return "differs"
}

// CheckCell compares a grid cell just read from a disk with the image. It masks buf in place and zeroes the part
// that hangs over the end of the image's disk; buf must be exactly one cell long, also for the last cell.
func (m *Masker) CheckCell(buf []byte, cell int64) (State, error) {
	if m.man == nil {
		return Free, nil
	}
	if int64(len(buf)) != m.man.Cell || cell < 0 || cell >= m.man.GridCells() {
		return Differs, fmt.Errorf("check cell %d: buffer of %d bytes, cell size %d, grid of %d", cell, len(buf), m.man.Cell, m.man.GridCells())
	}
	piece, isData := m.man.PieceOf(cell)
	if !isData && !m.man.IsZero(cell) {
		return Free, nil
	}
	m.Mask(buf, cell*m.man.Cell) // the used map ends with the disk, so the overhang becomes zero
	var ok bool
	if isData {
		ok = sha256.Sum256(buf) == m.man.PieceSHA256(piece)
	} else {
		ok = IsZero(buf)
	}
	if ok {
		return Match, nil
	}
	return Differs, nil
}
