// Package theme holds the console's colours and symbols. A theme is made once
// per program; screens only look things up in it.
//
// It decides nothing: which state gets which role is the screens' business, and
// no meaning is ever carried by colour alone (every state has a two-character
// mark). All packages below tui use it.
package theme

import (
	"image/color"
	"strings"

	"charm.land/lipgloss/v2"
)

// Role is what a piece of text is for; a theme gives it its looks.
type Role uint8

// The roles. Text is the terminal's own colour.
const (
	Text Role = iota
	Dim       // not important now, or out of date
	Head      // titles
	Wait      // states before the work begins
	Busy      // states in which something is moving
	Good      // proven
	Warn      // needs an eye
	Bad       // failed
	Sel       // the selected host or room
	roles
)

// Symbols is the set of characters that differ between terminals: bars and
// lines, never the marks.
type Symbols struct {
	BarFull, BarEmpty string // one column each
	Rule              string // one column
}

// Theme is immutable and safe for use by several goroutines.
type Theme struct {
	ASCII bool // only characters 0x20-0x7e may leave the program
	Color bool
	Sym   Symbols
	on    [roles]string
	off   [roles]string
}

// Palette is the blue and orange of the default theme, by role. Roles that are
// missing use the terminal's own colour.
//
// Blue against orange differs in every common colour blindness; within one hue
// the difference is brightness.
func Palette() map[Role]color.Color {
	return map[Role]color.Color{
		Dim:  lipgloss.Color("#808080"),
		Wait: lipgloss.Color("#c0c0c0"),
		Busy: lipgloss.Color("#87d7ff"),
		Good: lipgloss.Color("#2f8fff"),
		Warn: lipgloss.Color("#ffd75f"),
		Bad:  lipgloss.Color("#ff8700"),
	}
}

// New makes a theme. Without colour not a single escape sequence is written;
// with ascii only ASCII characters are.
func New(withColor, ascii bool) *Theme {
	t := &Theme{ASCII: ascii, Color: withColor}
	t.Sym = Symbols{BarFull: "█", BarEmpty: "░", Rule: "─"}
	if ascii {
		t.Sym = Symbols{BarFull: "#", BarEmpty: "-", Rule: "-"}
	}
	if !withColor {
		return t
	}
	for r, style := range styles() {
		// The style's escape sequences are kept, so that a frame costs no
		// styling work.
		t.on[r], t.off[r], _ = strings.Cut(style.Render("x"), "x")
	}
	return t
}

func styles() map[Role]lipgloss.Style {
	out := map[Role]lipgloss.Style{
		Head: lipgloss.NewStyle().Bold(true),
		Sel:  lipgloss.NewStyle().Bold(true).Reverse(true),
	}
	for r, c := range Palette() {
		out[r] = lipgloss.NewStyle().Foreground(c)
	}
	out[Bad] = out[Bad].Bold(true)
	out[Good] = out[Good].Bold(true)
	return out
}

// On returns the escape sequence that begins a role, "" without colour.
func (t *Theme) On(r Role) string { return t.on[r] }

// Off returns the escape sequence that ends a role, "" without colour.
func (t *Theme) Off(r Role) string { return t.off[r] }
