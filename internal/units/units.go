// Package units turns bytes, rates and times into the text people read, and sizes people type back into bytes.
//
// It does no I/O and knows nothing of images or hosts. The CLI, the console, the server and the agent call it.
// Sizes are binary (1 KiB = 1024 bytes), because disks, cells and partitions are counted that way.
package units

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Binary sizes in bytes.
const (
	KiB int64 = 1 << 10
	MiB int64 = 1 << 20
	GiB int64 = 1 << 30
	TiB int64 = 1 << 40
	PiB int64 = 1 << 50
)

var steps = [...]struct {
	size int64
	name string
}{{PiB, "PiB"}, {TiB, "TiB"}, {GiB, "GiB"}, {MiB, "MiB"}, {KiB, "KiB"}}

// FormatBytes writes n bytes with three significant digits and a binary unit: "0 B", "1.50 KiB", "360 MiB".
func FormatBytes(n int64) string {
	if n < 0 {
		if n == math.MinInt64 {
			n++
		}
		return "-" + FormatBytes(-n)
	}
	for i, s := range steps {
		if n < s.size {
			continue
		}
		text := digits(float64(n) / float64(s.size))
		// 1023.99 KiB rounds to "1024 KiB"; say "1.00 MiB" instead.
		if text == "1024" && i > 0 {
			return "1.00 " + steps[i-1].name
		}
		return text + " " + s.name
	}
	return strconv.FormatInt(n, 10) + " B"
}

func digits(v float64) string {
	switch {
	case v >= 99.95:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// FormatRate writes a rate in bytes per second: "112 MiB/s". A rate that is not positive is "-".
func FormatRate(bytesPerSecond int64) string {
	if bytesPerSecond <= 0 {
		return "-"
	}
	return FormatBytes(bytesPerSecond) + "/s"
}

// FormatDuration writes a time span with its two largest units: "8s", "4m05s", "2h07m", "3d04h".
// Negative spans read as "0s".
func FormatDuration(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s <= 0:
		return "0s"
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s%3600/60)
	}
	return fmt.Sprintf("%dd%02dh", s/86400, s%86400/3600)
}

// ETA returns how long the rest takes at the given rate (bytes per second).
// ok is false when that cannot be said: no rate, or an answer beyond a year.
func ETA(done, total, bytesPerSecond int64) (left time.Duration, ok bool) {
	if done >= total {
		return 0, true
	}
	if bytesPerSecond <= 0 {
		return 0, false
	}
	secs := float64(total-done) / float64(bytesPerSecond)
	if secs > 365*24*3600 {
		return 0, false
	}
	return time.Duration(secs * float64(time.Second)), true
}

// FormatETA is ETA as text; "-" when it cannot be said.
func FormatETA(done, total, bytesPerSecond int64) string {
	left, ok := ETA(done, total, bytesPerSecond)
	if !ok {
		return "-"
	}
	return FormatDuration(left)
}

// ParseSize reads a size such as "1048576", "1M", "1MiB", "1.5 GiB" or "8G" and returns bytes.
// K, M, G, T and P are binary with and without "iB" or "B". It fails on a negative, empty or
// overflowing size and on one that is not a whole number of bytes.
func ParseSize(text string) (int64, error) {
	s := strings.ToUpper(strings.TrimSpace(text))
	cut := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if cut < 0 {
		cut = len(s)
	}
	num, unit := s[:cut], strings.TrimSpace(s[cut:])
	mul, ok := unitSize(unit)
	if num == "" || !ok {
		return 0, fmt.Errorf("parse size %q: want a number with an optional unit, such as 512K, 1MiB or 8G", text)
	}
	if n, err := strconv.ParseInt(num, 10, 64); err == nil {
		if n > math.MaxInt64/mul {
			return 0, fmt.Errorf("parse size %q: larger than %d bytes", text, int64(math.MaxInt64))
		}
		return n * mul, nil
	}
	v, err := strconv.ParseFloat(num, 64)
	if err != nil {
		return 0, fmt.Errorf("parse size %q: want a number with an optional unit, such as 512K, 1MiB or 8G", text)
	}
	v *= float64(mul)
	if v >= math.MaxInt64 {
		return 0, fmt.Errorf("parse size %q: larger than %d bytes", text, int64(math.MaxInt64))
	}
	if v != math.Trunc(v) {
		return 0, fmt.Errorf("parse size %q: not a whole number of bytes", text)
	}
	return int64(v), nil
}

func unitSize(unit string) (int64, bool) {
	switch unit {
	case "", "B":
		return 1, true
	case "K", "KB", "KIB":
		return KiB, true
	case "M", "MB", "MIB":
		return MiB, true
	case "G", "GB", "GIB":
		return GiB, true
	case "T", "TB", "TIB":
		return TiB, true
	case "P", "PB", "PIB":
		return PiB, true
	}
	return 0, false
}
