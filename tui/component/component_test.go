package component

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labswarm/api"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

func TestFit(t *testing.T) {
	for _, tt := range []struct {
		s    string
		w    int
		want string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "ab~"}, {"abcd", 1, "~"}, {"abcd", 0, ""}, {"abcd", -1, ""}, {"", 3, ""},
		{"機械室", 6, "機械室"}, {"機械室", 5, "機械~"}, {"機械室", 4, "機~"}, {"機械室", 1, "~"},
		{"e\u0301a", 2, "e\u0301a"},
	} {
		if got := Fit(tt.s, tt.w); got != tt.want {
			t.Errorf("Fit(%q, %d) = %q, want %q", tt.s, tt.w, got, tt.want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		s    string
		w, n int
		want []string
	}{
		{"", 10, 2, nil},
		{"one two three", 7, 3, []string{"one two", "three"}},
		{"one two three four", 7, 2, []string{"one two", "three ~"}},
		{"abcdefghij kl", 4, 9, []string{"abcd", "efgh", "ij", "kl"}},
		{"機械室の端末", 4, 9, []string{"機械", "室の", "端末"}},
		{"anything", 10, 0, nil},
	} {
		if diff := cmp.Diff(tt.want, Wrap(tt.s, tt.w, tt.n)); diff != "" {
			t.Errorf("Wrap(%q, %d, %d) (-want +got):\n%s", tt.s, tt.w, tt.n, diff)
		}
	}
}

func TestBar(t *testing.T) {
	th := theme.New(false, true)
	for _, tt := range []struct {
		p    float64
		w    int
		want string
	}{
		{0, 12, "[----------]"}, {50, 12, "[#####-----]"}, {100, 12, "[##########]"}, {99.9, 12, "[#########-]"},
		{-3, 12, "[----------]"}, {400, 12, "[##########]"}, {math.NaN(), 12, "[----------]"}, {math.Inf(1), 4, "[##]"}, {50, 1, "[]"},
	} {
		if got := Bar(tt.p, tt.w, th); got != tt.want {
			t.Errorf("Bar(%v, %d) = %q, want %q", tt.p, tt.w, got, tt.want)
		}
	}
}

func TestPercent(t *testing.T) {
	for p, want := range map[float64]string{0: "0 %", 0.4: "0 %", 99.99: "99 %", 100: "100 %", 250: "100 %", -1: "0 %"} {
		if got := Percent(p); got != want {
			t.Errorf("Percent(%v) = %q, want %q", p, got, want)
		}
	}
	if got := Percent(math.NaN()); got != "0 %" {
		t.Errorf("Percent(NaN) = %q", got)
	}
}

func TestClock(t *testing.T) {
	rome := time.FixedZone("CET", 3600)
	now := time.Date(2026, 11, 20, 0, 30, 0, 0, rome)
	for at, want := range map[time.Time]string{
		time.Date(2026, 11, 19, 23, 10, 5, 0, time.UTC): "00:10:05",
		time.Date(2026, 11, 19, 22, 10, 5, 0, time.UTC): "19 Nov 23:10:05",
		time.Date(2025, 11, 20, 8, 0, 0, 0, time.UTC):   "20 Nov 09:00:00",
	} {
		if got := Clock(at, now); got != want {
			t.Errorf("Clock(%v) = %q, want %q", at, got, want)
		}
	}
}

// TestTroubleSaysWhatBecameOfTheDisk: an error is never shown without it.
func TestTroubleSaysWhatBecameOfTheDisk(t *testing.T) {
	h := &snapshot.Host{Slot: &api.Slot{State: api.StateFailed, Code: "DW", Error: "input/output error"}}
	if got := Trouble(h); got != "code DW  input/output error (nothing was written to the disk)" {
		t.Errorf("before commence: %q", got)
	}
	h.Slot.PONR = true
	if got := Trouble(h); !strings.Contains(got, "old content of the disk is gone") {
		t.Errorf("after commence: %q", got)
	}
	h.Slot.Error = ""
	if got := Trouble(h); !strings.Contains(got, "code DW") {
		t.Errorf("without a sentence: %q", got)
	}
}

// TestCanvasHoldsItsSize: what does not fit is cut, not wrapped.
func TestCanvasHoldsItsSize(t *testing.T) {
	c := NewCanvas(Size{W: 5, H: 2}, theme.New(false, true))
	c.Add(theme.Text, "ab").Add(theme.Text, "cdefg").End()
	c.Line(theme.Text, "häß").Line(theme.Text, "no room").Add(theme.Text, "x")
	if got, want := c.String(), "abcd~\nh??"; got != want {
		t.Errorf("frame %q, want %q", got, want)
	}
}
