package units

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1.00 KiB", 1536: "1.50 KiB",
		360 * MiB: "360 MiB", 6 * GiB: "6.00 GiB", 99*MiB + 512*KiB: "99.5 MiB",
		MiB - 1: "1.00 MiB", GiB - 1: "1.00 GiB", -2 * KiB: "-2.00 KiB", math.MaxInt64: "8192 PiB",
	} {
		if got := FormatBytes(n); got != want {
			t.Errorf("FormatBytes(%d) = %q; want %q", n, got, want)
		}
	}
}

func TestFormatDurationAndETA(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 8 * time.Second: "8s", 245 * time.Second: "4m05s",
		2*time.Hour + 7*time.Minute: "2h07m", 76 * time.Hour: "3d04h",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("FormatDuration(%v) = %q; want %q", d, got, want)
		}
	}
	for _, c := range []struct {
		done, total, rate int64
		want              string
	}{{0, 100, 10, "10s"}, {100, 100, 0, "0s"}, {0, 100, 0, "-"}, {0, math.MaxInt64, 1, "-"}} {
		if got := FormatETA(c.done, c.total, c.rate); got != c.want {
			t.Errorf("FormatETA(%d, %d, %d) = %q; want %q", c.done, c.total, c.rate, got, c.want)
		}
	}
	if got := FormatRate(0); got != "-" {
		t.Errorf("FormatRate(0) = %q; want \"-\"", got)
	}
	if got := FormatRate(112 * MiB); got != "112 MiB/s" {
		t.Errorf("FormatRate(112 MiB) = %q", got)
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "1048576": MiB, "1M": MiB, " 1 mib ": MiB, "1.5GiB": GiB + GiB/2, "8G": 8 * GiB, "256k": 256 * KiB,
	} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "M", "-1", "1X", "1.2.3G", "0.3", "99999999999P", "1e3", "NaN", "9223372036854775808"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("ParseSize(%q) = %d; want an error", s, got)
		}
	}
}

// Any size printed with three digits parses back to within the rounding of those digits.
func TestFormatParseRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 4*PiB).Draw(t, "n")
		text := FormatBytes(n)
		back, err := ParseSize(text)
		if err != nil {
			return // a rounded fraction need not be whole bytes
		}
		if diff := math.Abs(float64(back - n)); diff > float64(n)*0.006 {
			t.Fatalf("ParseSize(FormatBytes(%d) = %q) = %d", n, text, back)
		}
	})
}
