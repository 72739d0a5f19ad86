// Package plot draws one line of figures over time as characters: braille, block
// or ASCII. It is pure and knows nothing of jobs. tui/screen/job uses it.
package plot

import (
	"fmt"
	"math"
	"strings"
)

// Set is a set of characters.
type Set uint8

// The sets. Braille has 2x4 dots a character, Block eighths, ASCII eight steps.
const (
	Braille Set = iota
	Block
	ASCII
)

// NaN is a sample that was not taken: a blank, not a zero.
var NaN = math.NaN()

// Draw draws samples, oldest first and evenly spaced, into h lines of w columns.
// Columns that hold several samples show their mean; where the lowest of them
// lies at less than half the mean, the column's foot is marked by a gap (a dip
// of seconds is not averaged away). top is the value of the upper edge, see Top.
func Draw(samples []float64, w, h int, top float64, set Set) []string {
	w, h = max(w, 0), max(h, 0)
	per := 1 // points a column
	if set == Braille {
		per = 2
	}
	means, lows := bin(samples, w*per)
	lines := make([]string, h)
	for row := range h {
		var b strings.Builder
		for col := range w {
			b.WriteString(cell(means, lows, col, h-1-row, h, top, set))
		}
		lines[row] = b.String()
	}
	return lines
}

// bin spreads samples over n points: mean and lowest of each, NaN where there is
// none. Fewer samples than points stand at the left, one point each.
func bin(samples []float64, n int) (means, lows []float64) {
	means, lows = make([]float64, n), make([]float64, n)
	for i := range n {
		from, to := i, i+1
		if len(samples) > n {
			from, to = i*len(samples)/n, (i+1)*len(samples)/n
		}
		means[i], lows[i] = NaN, NaN
		sum, count := 0.0, 0
		for k := from; k < to && k < len(samples); k++ {
			v := samples[k]
			if math.IsNaN(v) || math.IsInf(v, 0) {
				continue
			}
			sum += v
			count++
			if count == 1 || v < lows[i] {
				lows[i] = v
			}
		}
		if count > 0 {
			means[i] = sum / float64(count)
		}
	}
	return means, lows
}

// steps is how many of the row's parts, of n, a value fills. Row 0 is the
// lowest.
func steps(v float64, row, h, n int, top float64) int {
	if math.IsNaN(v) || v <= 0 || top <= 0 {
		return 0
	}
	all := int(math.Round(v / top * float64(h*n)))
	all = max(1, all) // what is more than nothing is seen
	return min(max(all-row*n, 0), n)
}

func cell(means, lows []float64, col, row, h int, top float64, set Set) string {
	if set == Braille {
		return braille(steps(means[2*col], row, h, 4, top), steps(means[2*col+1], row, h, 4, top))
	}
	n := steps(means[col], row, h, 8, top)
	if row == 0 && n == 8 && lows[col] < means[col]/2 {
		n = 4 // the gap that tells of a dip
	}
	if set == Block {
		return []string{" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"}[n]
	}
	return string(" ..::-=+#"[n])
}

// braille is a character with l dots filled from below at the left, r at the
// right (Unicode 2800 and up).
func braille(l, r int) string {
	left, right := []rune{0, 0x40, 0x44, 0x46, 0x47}, []rune{0, 0x80, 0xa0, 0xb0, 0xb8}
	if l == 0 && r == 0 {
		return " "
	}
	return string(0x2800 + left[l] + right[r])
}

// Top returns the upper edge of the axis for a greatest value: a 1, 2 or 5 times
// a power of ten that is not below it, nor below before (an axis only grows).
func Top(greatest, before float64) float64 {
	if math.IsNaN(greatest) || math.IsInf(greatest, 0) || greatest <= before {
		return max(before, 1)
	}
	if greatest <= 1 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(greatest)))
	for _, f := range []float64{1, 2, 5} {
		if f*unit >= greatest {
			return max(f*unit, before)
		}
	}
	return max(10*unit, before)
}

// Label writes an axis value in at most five characters.
func Label(v float64) string {
	switch {
	case v >= 10000:
		return fmt.Sprintf("%.0fk", v/1000)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}
