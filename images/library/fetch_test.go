package library

import (
	"context"
	"encoding/binary"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestScrubFetches: a cell that is damaged in both forms is fetched, after the damage was told and before the long pause;
// what comes is checked by the library. What nobody has stays damaged and is named, with advice.
func TestScrubFetches(t *testing.T) {
	l, v := small(t, ImportOptions{})
	m := v.Manifest()
	want := payload(t, v)
	zst := filepath.Join(v.Dir(), framesFile)
	both := func(pieces ...int) {
		t.Helper()
		w := reopen(t, l, v)
		for _, p := range pieces {
			hurt(t, w, m.CellOf(p))
			off := w.frames.at + int64(binary.LittleEndian.Uint64(w.frames.index[p*frameEntry:])) + 9
			write(t, zst, off, []byte{^at(t, zst, off)})
		}
	}
	both(0, 2)
	var steps []string
	source := func(ctx context.Context, w *Version, pieces []int) (got Fetched) {
		steps = append(steps, "fetch")
		if !slices.Equal(pieces, []int{0, 2}) {
			t.Errorf("pieces asked for: %v", pieces)
		}
		wrong := slices.Clone(want[:m.Cell])
		wrong[7] ^= 1
		var bad *BadCellError
		if err := w.Repair(0, wrong); !errors.As(err, &bad) {
			t.Errorf("Repair with wrong content = %v", err)
		}
		for _, p := range pieces {
			if err := w.Repair(p, want[int64(p)*m.Cell:int64(p+1)*m.Cell]); err != nil {
				t.Error(err)
			}
		}
		return Fetched{Cells: 2, From: []string{"a1"}}
	}
	o := ScrubOptions{Fetch: source, Damaged: func(context.Context, Result) error { steps = append(steps, "told"); return nil }}
	o.Pause = func(context.Context) error {
		if n := len(steps); n > 0 && steps[n-1] == "fetch" {
			steps = append(steps, "pause")
		}
		return nil
	}
	s, err := l.Scrub(t.Context(), v.Name(), v.Version(), o)
	if err != nil || !s.Result.OK() || !s.Result.FramesOK() || s.Fetched.Cells != 2 || !strings.Contains(s.Text(), "2 cells were fetched back from a1") {
		t.Errorf("Scrub = %+v, %v, %q", s, err, s.Text())
	}
	if got := strings.Join(steps, " "); got != "told fetch pause" {
		t.Errorf("order: %s; want told fetch pause", got)
	}
	both(2)
	nobody := func(context.Context, *Version, []int) Fetched { return Fetched{Note: "nobody is there"} }
	s, err = l.Scrub(t.Context(), v.Name(), v.Version(), ScrubOptions{Fetch: nobody})
	if err != nil || s.Result.OK() || s.Result.Bad[0].Cell != m.CellOf(2) || !strings.Contains(s.Text(), "nobody is there") || !strings.Contains(s.Text(), Advice) {
		t.Errorf("Scrub without a source = %+v, %v, %q", s, err, s.Text())
	}
	w := reopen(t, l, v)
	bad, err := w.Damaged([]int64{m.CellOf(0), m.CellOf(2)})
	if err != nil || len(bad) != 1 || bad[0].Piece != 2 {
		t.Errorf("Damaged = %v, %v; want piece 2", bad, err)
	}
	if _, err := w.Damaged([]int64{m.GridCells()}); err == nil {
		t.Error("a cell beyond the disk was read")
	}
}
