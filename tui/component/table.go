package component

import (
	"labswarm/tui/theme"
)

// Column is one column of a table.
type Column struct {
	Head  string
	Max   int  // columns at most, 0 = as wide as its widest cell
	Right bool // figures stand at the right
	Drop  int  // when it gets narrow the greatest goes first; 0 = stays
	Grow  bool // takes what is left; at most one column
}

// Cell is one cell of a row.
type Cell struct {
	Text string
	Role theme.Role
}

// Plain returns a row of plain cells.
func Plain(texts ...string) []Cell {
	out := make([]Cell, len(texts))
	for i, t := range texts {
		out[i].Text = t
	}
	return out
}

// Fields is how the columns of a table share a line: the width of each, -1 =
// left out.
func Fields(cols []Column, rows [][]Cell, w int) []int {
	width := make([]int, len(cols))
	for i, c := range cols {
		width[i] = Width(c.Head)
		for _, r := range rows {
			width[i] = max(width[i], Width(r[i].Text))
		}
		if c.Max > 0 {
			width[i] = min(width[i], c.Max)
		}
	}
	for total(width, cols, w) > w {
		worst := -1
		for i, c := range cols {
			if width[i] >= 0 && c.Drop > 0 && (worst < 0 || c.Drop > cols[worst].Drop) {
				worst = i
			}
		}
		if worst < 0 {
			break
		}
		width[worst] = -1
	}
	for i, c := range cols {
		if c.Grow && width[i] >= 0 {
			width[i] = 0
			width[i] = max(1, w-total(width, cols, w))
		}
	}
	return width
}

// total is the width of a line: one blank before each column. A column that
// grows needs 12 columns at least, so that others go before it becomes useless.
func total(width []int, cols []Column, w int) int {
	sum := 0
	for i, n := range width {
		if n < 0 {
			continue
		}
		if cols[i].Grow {
			n = min(n, max(12, w/3))
		}
		sum += n + 1
	}
	return sum
}

// TableHead writes the line of headings.
func TableHead(c *Canvas, cols []Column, width []int) {
	for i, col := range cols {
		field(c, " ", Cell{col.Head, theme.Dim}, col, width[i])
	}
	c.End()
}

// TableRow writes one row. lead is the character before it: " ", or ">" for the
// selected one, which also has its look.
func TableRow(c *Canvas, cols []Column, width []int, row []Cell, lead string) {
	for i, col := range cols {
		cell := row[i]
		if lead == ">" {
			cell.Role = theme.Sel
		}
		field(c, lead, cell, col, width[i])
		lead = " "
	}
	c.End()
}

func field(c *Canvas, lead string, cell Cell, col Column, w int) {
	if w < 0 {
		return
	}
	text := Fit(cell.Text, w)
	pad := Blanks(w - Width(text))
	if col.Right {
		text = pad + text
	} else {
		text += pad
	}
	c.Add(theme.Text, lead).Add(cell.Role, text)
}
