package library

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labswarm/images/manifest"
)

// hurt flips a used byte of a cell on the disk.
func hurt(t *testing.T, v *Version, cell int64) {
	t.Helper()
	m := v.Manifest()
	off := max(m.Used()[manifest.First(m.Used(), cell*m.Cell)].Off, cell*m.Cell)
	raw := filepath.Join(v.Dir(), rawFile)
	write(t, raw, off, []byte{^at(t, raw, off)})
}

func TestScrub(t *testing.T) {
	l, v := small(t, ImportOptions{})
	m := v.Manifest()
	scrub := func(o ScrubOptions) Scrubbed {
		t.Helper()
		s, err := l.Scrub(t.Context(), v.Name(), v.Version(), o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	none := func(context.Context, Result) error { t.Error("a version that is right is called damaged"); return nil }
	if s := scrub(ScrubOptions{Damaged: none}); !s.Found.OK() || s.Cells+s.Frames != 0 || s.Digest != v.Digest() || !strings.Contains(s.Text(), "are right") {
		t.Errorf("fresh: %+v, %q", s, s.Text())
	}
	// A rotten frame is mended; the version was never in doubt.
	zst := filepath.Join(v.Dir(), framesFile)
	write(t, zst, 9, []byte{^at(t, zst, 9)})
	if s := scrub(ScrubOptions{Damaged: none}); s.Frames != 1 || s.Found.FramesOK() || !s.Result.FramesOK() {
		t.Errorf("rotten frame: %+v", s)
	}
	// A rotten cell: told before it is mended.
	hurt(t, v, m.CellOf(2))
	told := 0
	s := scrub(ScrubOptions{Damaged: func(_ context.Context, r Result) error {
		told++
		if now := verified(t, reopen(t, l, v)); now.OK() || len(r.Bad) != 1 || r.Bad[0].Cell != m.CellOf(2) {
			t.Errorf("told of %+v when the disk has %+v", r.Bad, now.Bad)
		}
		return nil
	}})
	if told != 1 || s.Cells != 1 || !s.Result.OK() || !strings.Contains(s.Text(), "1 cells and 0 compressed ones were made again") {
		t.Errorf("rotten cell: told %d times, %+v, %q", told, s, s.Text())
	}
	// Both forms: it stays damaged and says so.
	hurt(t, v, m.CellOf(0))
	write(t, zst, 9, []byte{^at(t, zst, 9)})
	if s := scrub(ScrubOptions{}); s.Result.OK() || s.Cells != 0 || !strings.Contains(s.Text(), "--force=unchanged") {
		t.Errorf("rotten in both forms: %+v, %q", s, s.Text())
	}
	if left := leftovers(t, l.dir); len(left) != 1 {
		t.Errorf("left behind: %q", left)
	}
}

// TestScrubPausesAndSlows: no cell is read while it is told to pause, and the rate is kept.
func TestScrubPausesAndSlows(t *testing.T) {
	l, v := small(t, ImportOptions{})
	ship := v.Manifest().ShippedBytes()
	start := time.Now()
	if _, err := l.Scrub(t.Context(), v.Name(), v.Version(), ScrubOptions{Rate: 4 * ship}); err != nil {
		t.Fatal(err)
	}
	// The first cell goes at once. Only a lower bound: a slow machine is slower still.
	if took, least := time.Since(start), 200*time.Millisecond; took < least {
		t.Errorf("%d bytes at %d a second took %v; want %v at least", ship, 4*ship, took, least)
	}
	stop := errors.New("stop")
	asked := 0
	_, err := l.Scrub(t.Context(), v.Name(), v.Version(), ScrubOptions{Pause: func(context.Context) error {
		if asked++; asked == 3 {
			return stop
		}
		return nil
	}})
	if !errors.Is(err, stop) || asked < 3 || asked > 6 {
		t.Errorf("Scrub that is stopped at the third cell = %v after %d", err, asked)
	}
}

// TestNumbersAreNotUsedTwice: the number of a removed version never names other content.
func TestNumbersAreNotUsedTwice(t *testing.T) {
	l, one := small(t, ImportOptions{})
	file := filepath.Join(t.TempDir(), "disk")
	next := func() string {
		t.Helper()
		raw, err := os.ReadFile(filepath.Join(one.Dir(), rawFile))
		if err == nil {
			err = os.WriteFile(file, raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return mustImport(t, l, ImportOptions{Name: "lab", File: file, Force: []string{ForceUnchanged}}).Version()
	}
	two, three := next(), next()
	for _, v := range []string{three, two} {
		if err := l.Remove("lab", v); err != nil {
			t.Fatal(err)
		}
	}
	_, number := splitVersion(three)
	if _, n := splitVersion(next()); n <= number {
		t.Errorf("number %d again after %s was removed", n, three)
	}
	// A note that cannot be read stops nothing.
	if err := os.WriteFile(filepath.Join(l.dir, newestPrefix+"lab"), []byte("../../x"), 0o600); err != nil {
		t.Fatal(err)
	}
	next()
}
