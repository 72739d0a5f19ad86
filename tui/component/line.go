package component

import (
	"strings"

	"labswarm/tui/theme"
)

const blanks = "                                                                                                                                "

// Blanks returns n blanks.
func Blanks(n int) string {
	if n <= len(blanks) {
		return blanks[:n]
	}
	return strings.Repeat(" ", n)
}

// Canvas collects the lines of one frame. No line gets wider than the size and
// no frame gets more lines than it.
type Canvas struct {
	size  Size
	th    *theme.Theme
	buf   []byte
	lines int
	col   int // columns used in the present line
}

// NewCanvas begins a frame.
func NewCanvas(size Size, th *theme.Theme) *Canvas {
	return &Canvas{size: size, th: th, buf: make([]byte, 0, size.W*size.H*2)}
}

// Theme returns the theme of the frame.
func (c *Canvas) Theme() *theme.Theme { return c.th }

// Left is the number of columns free in the present line.
func (c *Canvas) Left() int { return c.size.W - c.col }

// Rows is the number of lines still free, the present one included.
func (c *Canvas) Rows() int { return c.size.H - c.lines }

// Add writes text into the present line, cut with "~" where the line ends.
func (c *Canvas) Add(r theme.Role, text string) *Canvas {
	if c.Rows() <= 0 || text == "" || c.Left() <= 0 {
		return c
	}
	if c.th.ASCII {
		text = asciiOnly(text)
	}
	text = Fit(text, c.Left())
	c.buf = append(c.buf, c.th.On(r)...)
	c.buf = append(c.buf, text...)
	c.buf = append(c.buf, c.th.Off(r)...)
	c.col += Width(text)
	return c
}

// To fills the present line with blanks up to a column.
func (c *Canvas) To(col int) *Canvas {
	if n := min(col, c.size.W) - c.col; n > 0 {
		c.Add(theme.Text, Blanks(n))
	}
	return c
}

// Right writes text against the right edge if it fits with one blank before
// it, and reports whether it did.
func (c *Canvas) Right(r theme.Role, text string) bool {
	w := Width(text)
	if w+1 >= c.Left() {
		return false
	}
	c.To(c.size.W-w-1).Add(r, text)
	return true
}

// End finishes the present line.
func (c *Canvas) End() *Canvas {
	if c.Rows() <= 0 {
		return c
	}
	c.lines++
	c.col = 0
	if c.Rows() > 0 {
		c.buf = append(c.buf, '\n')
	}
	return c
}

// Line writes one whole line.
func (c *Canvas) Line(r theme.Role, text string) *Canvas { return c.Add(r, text).End() }

// Down adds empty lines until n lines are free, for what stands at the bottom.
func (c *Canvas) Down(n int) *Canvas {
	for c.Rows() > n {
		c.End()
	}
	return c
}

// String is the frame: lines joined by newlines, no newline at the end.
func (c *Canvas) String() string {
	c.Down(0)
	return string(c.buf)
}
