package relay

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

const testCell = 1 << 20

// onePass runs a verification of n cells under a virtual clock; sent says what
// the relay has sent to hosts after so long.
func onePass(ctx context.Context, n int, bad []int, sent func(since time.Duration) int64) (damaged int, seen []int, paused int, err error) {
	start := time.Now()
	p := scrubPass{pieces: n, heavy: heavyBps, limiter: rate.NewLimiter(scrubRate, scrubBurst),
		sent: func() int64 { return sent(time.Since(start)) },
		note: func(_ int, wait bool) {
			if wait {
				paused++
			}
		},
		look: func(_ context.Context, piece int) (int, bool, error) {
			seen = append(seen, piece)
			return testCell, slices.Contains(bad, piece), nil
		}}
	damaged, err = p.run(ctx)
	return damaged, seen, paused, err
}

// TestScrubIsSlow: every cell once, at 100 MB/s and not faster.
func TestScrubIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 2000
		start := time.Now()
		damaged, seen, paused, err := onePass(t.Context(), n, []int{3, 1999}, func(time.Duration) int64 { return 0 })
		took := time.Since(start)
		if err != nil || damaged != 2 || paused != 0 || len(seen) != n || !slices.IsSorted(seen) || seen[n-1] != n-1 {
			t.Fatalf("%d damaged, %d cells, %d pauses, %v; want 2 of %d without a pause", damaged, len(seen), paused, err, n)
		}
		if at := float64(n*testCell) / took.Seconds(); at > 1.01*scrubRate || at < 0.98*scrubRate {
			t.Errorf("read at %.1f MB/s; want %d", at/1e6, int64(scrubRate)/1_000_000)
		}
	})
}

// TestScrubWaits: nothing is read while hosts are served heavily, but light
// serving is none of its business.
func TestScrubWaits(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bps   int64
		waits bool
	}{{"heavy", 2 * heavyBps, true}, {"light", heavyBps / 2, false}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const busy = time.Minute // of serving, from the 2nd second on
				start := time.Now()
				_, seen, paused, err := onePass(t.Context(), 400, nil, func(d time.Duration) int64 {
					return int64(min(max(d-2*time.Second, 0), busy).Seconds() * float64(tt.bps))
				})
				took := time.Since(start)
				if err != nil || len(seen) != 400 || (paused > 0) != tt.waits || tt.waits != (took > busy) || took > busy+15*time.Second {
					t.Errorf("%d cells in %v, %d pauses, %v; want a wait: %v", len(seen), took, paused, err, tt.waits)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // its end is not waited for
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, _, paused, err := onePass(ctx, 4000, nil, func(d time.Duration) int64 { return int64(d) * 10 }); !errors.Is(err, context.DeadlineExceeded) || paused == 0 {
			t.Errorf("an interrupted pause: %d pauses, %v", paused, err)
		}
	})
}

func TestHeavy(t *testing.T) {
	for _, tt := range []struct {
		mbps int
		want int64
	}{{0, heavyBps}, {100, 1_250_000}, {1000, heavyBps}, {10_000, heavyBps}} {
		if got := heavy(tt.mbps); got != tt.want {
			t.Errorf("heavy(%d) = %d; want %d", tt.mbps, got, tt.want)
		}
	}
}

func TestDue(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	const week = 7 * 24 * time.Hour
	for _, tt := range []struct{ last, want time.Time }{
		{time.Time{}, now}, {now.Add(-time.Hour), now.Add(week - time.Hour)}, {now.Add(-2 * week), now.Add(-week)}, {now.Add(time.Hour), now},
	} {
		if got := due(tt.last, week, now); !got.Equal(tt.want) {
			t.Errorf("due after %v = %v; want %v", tt.last, got, tt.want)
		}
	}
}

// TestScrubsAreRemembered over a restart; those of copies that are gone are not.
func TestScrubsAreRemembered(t *testing.T) {
	cfg := &Config{StateDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	s := newScrubs(cfg)
	f := scrubbed{End: time.Unix(1_700_000_000, 0).UTC(), Damaged: 3, Frames: 1}
	s.done("aa", f, map[string]bool{"aa": true})
	s.done("bb", scrubbed{End: f.End}, map[string]bool{"aa": true, "bb": true})
	if s = newScrubs(cfg); s.of("aa") != f || s.of("bb").End != f.End {
		t.Errorf("after a restart: %+v; want %+v", s.last, f)
	}
	s.done("bb", f, map[string]bool{"bb": true})
	if s = newScrubs(cfg); !s.of("aa").End.IsZero() || s.of("bb") != f {
		t.Errorf("after aa has gone: %+v", s.last)
	}
	for _, junk := range []string{"", "null", "{", `{"bb":{"end":"x"}}`} {
		if err := os.WriteFile(filepath.Join(cfg.StateDir, scrubFile), []byte(junk), 0o600); err != nil {
			t.Fatal(err)
		}
		s = newScrubs(cfg)
		s.done("cc", f, map[string]bool{"cc": true})
		if s = newScrubs(cfg); s.of("cc") != f || !s.of("bb").End.IsZero() {
			t.Errorf("from %q: %+v", junk, s.last)
		}
	}
}
