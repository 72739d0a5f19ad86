package screen

import (
	"fmt"
	"strconv"
	"strings"
)

// Size is that of a text screen, in characters.
type Size struct{ Cols, Rows int }

// VGA is the text screen of every PC (80x25).
var VGA = Size{80, 25}

// wide is the width from which on the letters stand side by side with the
// percent whatever the seat is called.
const wide = 72

// Page renders the view for a text screen: at most Rows lines of less than Cols
// characters, all ASCII. A full line would make the console scroll.
func (v View) Page(size Size) []string {
	if size.Cols <= 0 || size.Rows <= 0 {
		size = VGA
	}
	p := &page{cols: max(size.Cols, 2), w: language(v.Language)}
	switch {
	case v.Problem != "":
		v.problemPage(p)
	case v.EnrolCode != "" || v.Bound:
		v.enrolPage(p)
	default:
		v.workPage(p)
	}
	for i, l := range p.lines {
		p.lines[i] = clip(ascii(l), p.cols-1)
	}
	return p.lines[:min(len(p.lines), size.Rows-1)]
}

// page is what is drawn, from above.
type page struct {
	cols  int
	w     *words
	lines []string
}

func (p *page) blank() { p.lines = append(p.lines, "") }

// text writes a paragraph, wrapped between margins of two columns.
func (p *page) text(s string) {
	if s == "" {
		return
	}
	for _, l := range wrap(s, max(p.cols-4, 1)) {
		p.lines = append(p.lines, "  "+l)
	}
}

// pair puts left and right at the ends of a line, on two lines where they do not
// fit into one.
func (p *page) pair(left, right string) {
	if left == "" || right == "" || len(left)+len(right)+5 > p.cols {
		p.text(left)
		p.text(right)
		return
	}
	p.lines = append(p.lines, "  "+left+strings.Repeat(" ", p.cols-4-len(left)-len(right))+right)
}

// flow writes short facts side by side, as many as fit on a line.
func (p *page) flow(facts ...string) {
	line := ""
	for _, f := range present(facts...) {
		if line != "" && len(line)+3+len(f) > p.cols-4 {
			p.lines, line = append(p.lines, "  "+line), ""
		}
		if line != "" {
			line += "   "
		}
		line += f
	}
	if line != "" {
		p.lines = append(p.lines, "  "+line)
	}
}

// banner writes left, and right where there is room, in block letters, five
// lines. What is too long keeps its end: that is what tells seats apart.
func (p *page) banner(left, right string) (both bool) {
	indent := 8
	if p.cols < wide {
		indent = 2
	}
	most := (p.cols - 2 - indent) / glyphWidth
	if len(left) > most {
		left = left[len(left)-max(most, 0):]
	}
	both = right != "" && len(left)+len(right)+1 <= most
	for row := range 5 {
		l := strings.Repeat(" ", indent) + blocks(left, row)
		if both {
			r := blocks(right, row)
			l += strings.Repeat(" ", max(p.cols-2-len(l)-len(r), 1)) + r
		}
		p.lines = append(p.lines, strings.TrimRight(l, " "))
	}
	return both
}

func (v View) workPage(p *page) {
	w := p.w
	p.blank()
	head := strings.Join(present("labswarm", label(w.room, v.Room), label(w.seat, v.Seat)), "   ")
	p.pair(head, v.Image)
	p.blank()
	pct := ""
	if n := v.Percent(); n >= 0 {
		pct = strconv.Itoa(n) + "%"
	}
	big := v.Seat
	if big == "" {
		big = v.Host
	}
	if !p.banner(strings.ToUpper(ascii(big)), pct) && pct != "" {
		p.text(pct)
	}
	p.blank()
	p.bar(v.Percent(), rate(v.RateBps))
	net := ""
	if v.SpeedMbps > 0 {
		net = fmt.Sprintf(w.network, v.SpeedMbps)
	}
	p.pair(v.step(w), net)
	p.text(v.left(w))
	p.text(v.detail(w))
	p.blank()
	p.text(v.advice(w))
	p.blank()
	v.facts(p)
}

// bar is the progress of the phase and its speed.
func (p *page) bar(percent int, rate string) {
	if percent < 0 {
		p.blank()
		return
	}
	n := min(max(p.cols-20, 10), 60)
	full := percent * n / 100
	p.lines = append(p.lines, strings.TrimRight("  ["+strings.Repeat("#", full)+strings.Repeat("-", n-full)+"]  "+rate, " "))
}

// facts are the last lines: who this PC is and to whom it talks.
func (v View) facts(p *page) {
	w := p.w
	p.flow(label(w.host, v.Host), label(w.serial, v.Serial), v.MAC, v.IP, label(w.server, v.Server), job(w, v.Job), label(w.agent, v.Version))
}

func label(name, value string) string {
	if value == "" {
		return ""
	}
	return name + " " + value
}

func job(w *words, id uint64) string {
	if id == 0 {
		return ""
	}
	return label(w.job, strconv.FormatUint(id, 10))
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// ascii replaces what a text console cannot be trusted to draw: names come from
// people and servers.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// wrap breaks text into lines of at most n bytes.
func wrap(text string, n int) []string {
	var out []string
	line := ""
	for _, w := range strings.Fields(ascii(strings.ReplaceAll(text, "\n", " "))) {
		for len(w) > n {
			if line != "" {
				out, line = append(out, line), ""
			}
			out, w = append(out, w[:n]), w[n:]
		}
		if line != "" && len(line)+1+len(w) > n {
			out, line = append(out, line), ""
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	return append(out, line)
}
