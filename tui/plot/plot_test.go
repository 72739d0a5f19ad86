package plot

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"charm.land/lipgloss/v2"
	"pgregory.net/rapid"

	"labswarm/tui/tuitest"
)

func series() map[string][]float64 {
	out := map[string][]float64{"none": nil, "one": {40}, "zero": make([]float64, 30)}
	for i := range 120 {
		f := float64(i)
		out["constant"] = append(out["constant"], 50)
		out["ramp"] = append(out["ramp"], f)
		spike, gap, dip := 20.0, 60.0, 80.0
		if i == 60 {
			spike = 100
		}
		if i >= 40 && i < 60 {
			gap = NaN
		}
		if i%20 == 7 {
			dip = 5
		}
		out["spike"], out["gap"], out["dip"] = append(out["spike"], spike), append(out["gap"], gap), append(out["dip"], dip)
	}
	return out
}

func TestGolden(t *testing.T) {
	names := []string{"none", "one", "zero", "constant", "ramp", "spike", "gap", "dip"}
	for _, w := range []int{20, 40, 79} {
		for set, name := range []string{"braille", "block", "ascii"} {
			var b strings.Builder
			for _, n := range names {
				fmt.Fprintf(&b, "%s\n%s\n", n, strings.Join(Draw(series()[n], w, 3, 100, Set(set)), "|\n")+"|")
			}
			tuitest.Golden(t, fmt.Sprintf("%s-%d.txt", name, w), b.String())
		}
	}
}

// TestNeverWider: any samples, any size, exactly that many lines and columns.
func TestNeverWider(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		odd := rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{NaN, math.Inf(1), math.Inf(-1), -1, 0}))
		s := rapid.SliceOfN(odd, 0, 300).Draw(rt, "samples")
		w, h := rapid.IntRange(-1, 90).Draw(rt, "w"), rapid.IntRange(-1, 12).Draw(rt, "h")
		lines := Draw(s, w, h, rapid.Float64Range(-1, 1e6).Draw(rt, "top"), Set(rapid.IntRange(0, 2).Draw(rt, "set")))
		if len(lines) != max(h, 0) {
			rt.Fatalf("%d lines, want %d", len(lines), h)
		}
		for _, l := range lines {
			if got := lipgloss.Width(l); got != max(w, 0) {
				rt.Fatalf("a line of %d columns, want %d: %q", got, w, l)
			}
		}
	})
}

// TestDipIsSeen: two seconds of nothing in a minute of full speed show.
func TestDipIsSeen(t *testing.T) {
	with, without := series()["dip"], series()["constant"]
	for i := range without {
		without[i] = 76.25 // the mean of the other
	}
	a, b := Draw(with, 10, 2, 100, Block), Draw(without, 10, 2, 100, Block)
	if a[1] == b[1] {
		t.Errorf("a dip draws like none: %q", a[1])
	}
}

func TestTop(t *testing.T) {
	for _, tt := range []struct{ greatest, before, want float64 }{
		{0, 0, 1}, {0.2, 0, 1}, {1, 0, 1}, {1.5, 0, 2}, {88, 0, 100}, {101, 100, 200}, {450, 0, 500}, {501, 0, 1000}, {30, 200, 200}, {NaN, 50, 50},
	} {
		if got := Top(tt.greatest, tt.before); got != tt.want {
			t.Errorf("Top(%v, %v) = %v, want %v", tt.greatest, tt.before, got, tt.want)
		}
	}
}
