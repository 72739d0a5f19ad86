package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// Extent is a byte range [Off, Off+Len). In JSON it is the pair [off,len].
type Extent struct{ Off, Len int64 }

// End returns the first byte after the extent.
func (e Extent) End() int64 { return e.Off + e.Len }

// MarshalJSON writes [off,len].
func (e Extent) MarshalJSON() ([]byte, error) { return pairJSON(e.Off, e.Len), nil }

// UnmarshalJSON reads exactly two integers.
func (e *Extent) UnmarshalJSON(b []byte) (err error) {
	e.Off, e.Len, err = parsePair(b)
	return err
}

// Run is a range of grid cells. In JSON it is the pair [first,count].
type Run struct{ First, Count int64 }

// MarshalJSON writes [first,count].
func (r Run) MarshalJSON() ([]byte, error) { return pairJSON(r.First, r.Count), nil }

// UnmarshalJSON reads exactly two integers.
func (r *Run) UnmarshalJSON(b []byte) (err error) {
	r.First, r.Count, err = parsePair(b)
	return err
}

func pairJSON(a, b int64) []byte { return fmt.Appendf(nil, "[%d,%d]", a, b) }

func parsePair(b []byte) (int64, int64, error) {
	var p []int64
	if err := json.Unmarshal(b, &p); err != nil {
		return 0, 0, err
	}
	if len(p) != 2 {
		return 0, 0, fmt.Errorf("pair with %d numbers", len(p))
	}
	return p[0], p[1], nil
}

// ErrTooManyExtents is returned when a used map has more than MaxExtents pieces.
var ErrTooManyExtents = errors.New("used map has too many extents")

// Merge sorts extents, joins those that touch or overlap and drops empty ones. It reuses the given slice.
func Merge(in []Extent) []Extent {
	slices.SortFunc(in, func(a, b Extent) int {
		switch {
		case a.Off < b.Off:
			return -1
		case a.Off > b.Off:
			return 1
		}
		return 0
	})
	out := in[:0]
	for _, e := range in {
		if e.Len <= 0 {
			continue
		}
		if n := len(out); n > 0 && e.Off <= out[n-1].End() {
			out[n-1].Len = max(out[n-1].End(), e.End()) - out[n-1].Off
			continue
		}
		out = append(out, e)
	}
	return out
}

// RoundOut widens every extent to multiples of unit, clips it to [0, size) and merges. It reuses the slice.
func RoundOut(in []Extent, unit, size int64) []Extent {
	for i, e := range in {
		off := max(e.Off, 0) / unit * unit
		end := min((min(e.End(), size)+unit-1)/unit*unit, size)
		in[i] = Extent{off, max(end-off, 0)}
	}
	return Merge(in)
}

// Sum returns the total length of the extents in bytes.
func Sum(list []Extent) (n int64) {
	for _, e := range list {
		n += e.Len
	}
	return n
}

// First returns the index of the first extent that ends after off; len(list) when there is none.
// The list must be merged.
func First(list []Extent, off int64) int {
	return sort.Search(len(list), func(i int) bool { return list[i].End() > off })
}

// TouchedCells returns the runs of grid cells that intersect a merged list.
func TouchedCells(list []Extent, cell int64) []Run {
	var out []Run
	for _, e := range list {
		out = appendRun(out, e.Off/cell, (e.End()-1)/cell)
	}
	return out
}

// AppendCell adds one cell to an ascending run list.
func AppendCell(runs []Run, cell int64) []Run { return appendRun(runs, cell, cell) }

// appendRun adds [first, last]; first may overlap the end of the list but not precede its last run.
func appendRun(runs []Run, first, last int64) []Run {
	if n := len(runs); n > 0 {
		end := runs[n-1].First + runs[n-1].Count
		if first <= end {
			runs[n-1].Count = max(end, last+1) - runs[n-1].First
			return runs
		}
	}
	return append(runs, Run{first, last - first + 1})
}

func findRun(runs []Run, cell int64) int {
	i := sort.Search(len(runs), func(i int) bool { return runs[i].First+runs[i].Count > cell })
	if i == len(runs) || runs[i].First > cell {
		return -1
	}
	return i
}

func countRuns(runs []Run) (n int64) {
	for _, r := range runs {
		n += r.Count
	}
	return n
}
