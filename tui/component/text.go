// Package component holds the parts that screens are drawn with: lines that
// cannot become wider than the screen, bars, the age of the data.
//
// Everything is pure: no clock, no environment, no I/O. The screens call it.
package component

import (
	"strings"
	"unicode/utf8"

	"charm.land/lipgloss/v2"
)

// Size is a rectangle in character cells.
type Size struct{ W, H int }

// smallest is the smallest terminal the console draws on.
var smallest = Size{W: 40, H: 10}

// TooSmall reports whether the console cannot draw on s; why is the line to
// show instead, cut to the width.
func TooSmall(s Size) (why string, small bool) {
	if s.W >= smallest.W && s.H >= smallest.H {
		return "", false
	}
	return Fit("terminal too small (need 40x10)", s.W), true
}

// Width is the number of columns s takes on the screen.
func Width(s string) int {
	if isASCII(s) {
		return len(s)
	}
	return lipgloss.Width(s)
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// Fit cuts s to w columns; text that was cut ends in "~". s holds no escape
// sequences.
func Fit(s string, w int) string {
	if w <= 0 {
		return ""
	}
	if Width(s) <= w {
		return s
	}
	if isASCII(s) {
		return s[:w-1] + "~"
	}
	end := 0
	for i, r := range s {
		next := i + utf8.RuneLen(r)
		if lipgloss.Width(s[:next]) > w-1 {
			break
		}
		end = next
	}
	return s[:end] + "~"
}

// Wrap breaks s at spaces into at most n lines of w columns; what does not fit
// is cut with "~".
func Wrap(s string, w, n int) []string {
	var out []string
	for s = strings.TrimSpace(s); s != "" && len(out) < n; s = strings.TrimSpace(s) {
		if Width(s) <= w || len(out) == n-1 {
			return append(out, Fit(s, w))
		}
		cut := 0
		for i := range s {
			if s[i] == ' ' && Width(s[:i]) <= w {
				cut = i
			}
		}
		if cut == 0 { // one long word
			line := strings.TrimSuffix(Fit(s, w+1), "~")
			out, s = append(out, line), s[len(line):]
			continue
		}
		out, s = append(out, s[:cut]), s[cut:]
	}
	return out
}

// asciiOnly replaces what an ASCII terminal cannot show.
func asciiOnly(s string) string {
	if isASCII(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return '?'
		}
		return r
	}, s)
}
