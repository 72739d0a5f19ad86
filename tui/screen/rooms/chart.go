package rooms

import (
	"fmt"

	"labswarm/api"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// chart is a room as it stands: lines of places, then the hosts without a seat.
type chart struct {
	lines [][]place
	at    []api.Spot // line and column of each host of the room
	cols  int        // of the seats and the walls that are drawn
	first int        // line of row 1
	seats int        // lines of the map; the rest are hosts without a seat
}

// place is one square. The zero value is floor.
type place struct {
	what square
	host int    // of a taken seat
	text string // of an empty one: its label
}

type square uint8

const (
	floor square = iota
	taken
	empty
	door
	desk
	heading // of the hosts without a seat
)

// seats lays the room out: tiles with names where each gets four columns of it
// at least, else three columns a seat.
func (p *plan) seats(r *snapshot.Room, w int, dense bool) {
	p.chart = newChart(r)
	name := min(max(r.Widest, r.Map.Widest, 3), nameMax)
	if each := (w - 1) / p.chart.cols; !dense && each-5 >= min(name, 4) {
		p.kind, p.nameW = tiles, min(name, each-5)
		p.tileW, p.cols = min(each, p.nameW+8), p.chart.cols
		p.labels = r.Widest > p.nameW && r.Map.Widest <= p.nameW
	} else {
		p.kind, p.tileW = denseSeats, denseWidth
		p.labelW = len(fmt.Sprint(r.Map.Rows)) + 2
		p.cols = max(1, min(p.chart.cols, (w-p.labelW-1)/denseWidth))
	}
	p.chart.rest(r, max(1, (w-max(1, p.labelW))/p.tileW))
	p.total = len(p.chart.lines)
}

// newChart puts the seats, the door and the desk into place. A wall is drawn
// when something stands at it.
func newChart(r *snapshot.Room) *chart {
	m := r.Map
	top, left, bottom, right := 1, 1, m.Rows, m.Cols
	for _, s := range []*api.Spot{m.Door, m.Desk} {
		if s != nil {
			top, left, bottom, right = min(top, s.Row), min(left, s.Col), max(bottom, s.Row), max(right, s.Col)
		}
	}
	c := &chart{cols: right - left + 1, first: 1 - top, seats: bottom - top + 1, at: make([]api.Spot, len(r.Hosts))}
	all := make([]place, c.cols*c.seats)
	for row := range c.seats {
		c.lines = append(c.lines, all[row*c.cols:(row+1)*c.cols])
	}
	for i := range c.at {
		c.at[i].Row = -1
	}
	set := func(s *api.Spot, w square) {
		if s != nil {
			c.lines[s.Row-top][s.Col-left].what = w
		}
	}
	set(m.Door, door)
	set(m.Desk, desk)
	for i := range m.Seats { // a seat at the desk is more than the desk
		s := &m.Seats[i]
		sq := place{what: empty, text: s.Label}
		if s.Host >= 0 {
			sq = place{what: taken, host: s.Host}
			c.at[s.Host] = api.Spot{Row: s.Row - top, Col: s.Col - left}
		}
		c.lines[s.Row-top][s.Col-left] = sq
	}
	return c
}

// rest appends the hosts without a seat, in their order.
func (c *chart) rest(r *snapshot.Room, cols int) {
	var line []place
	for i := range r.Hosts {
		if c.at[i].Row >= 0 {
			continue
		}
		if len(c.lines) == c.seats {
			c.lines = append(c.lines, []place{{what: heading}})
		}
		c.at[i] = api.Spot{Row: len(c.lines), Col: len(line)}
		if line = append(line, place{what: taken, host: i}); len(line) == cols {
			c.lines, line = append(c.lines, line), nil
		}
	}
	if len(line) > 0 {
		c.lines = append(c.lines, line)
	}
}

// step moves from host to host as they stand: left and right along the line, up
// and down to the nearest host of the next line that has one.
func (c *chart) step(id keymap.ID, at, page int) int {
	switch id {
	case keymap.Left:
		return c.along(at, -1)
	case keymap.Right:
		return c.along(at, +1)
	case keymap.Up:
		return c.across(at, -1)
	case keymap.Down:
		return c.across(at, +1)
	case keymap.PageUp, keymap.PageDown:
		d := map[keymap.ID]int{keymap.PageUp: -1, keymap.PageDown: +1}[id]
		for range page {
			at = c.across(at, d)
		}
	case keymap.First:
		return c.end(0, +1, at)
	case keymap.Last:
		return c.end(len(c.lines)-1, -1, at)
	}
	return at
}

func (c *chart) along(at, d int) int {
	line := c.lines[c.at[at].Row]
	for col := c.at[at].Col + d; col >= 0 && col < len(line); col += d {
		if line[col].what == taken {
			return line[col].host
		}
	}
	return at
}

func (c *chart) across(at, d int) int {
	for row := c.at[at].Row + d; row >= 0 && row < len(c.lines); row += d {
		if h, ok := nearest(c.lines[row], c.at[at].Col); ok {
			return h
		}
	}
	return at
}

// nearest is the host of a line closest to a column; of two the left one.
func nearest(line []place, col int) (host int, ok bool) {
	for d := range max(len(line), col+1) {
		for _, at := range [2]int{col - d, col + d} {
			if at >= 0 && at < len(line) && line[at].what == taken {
				return line[at].host, true
			}
		}
	}
	return 0, false
}

// end is the first host from a line on, or the last.
func (c *chart) end(row, d, at int) int {
	for ; row >= 0 && row < len(c.lines); row += d {
		col := 0
		if d < 0 {
			col = len(c.lines[row]) - 1
		}
		if h, ok := nearest(c.lines[row], col); ok {
			return h
		}
	}
	return at
}

// chartRow draws one line of the room. A room that is wider than the screen
// shows the part around the selected host.
func chartRow(c *component.Canvas, p plan, st State, r *snapshot.Room, row, at int, stale bool) {
	line, left, from := p.chart.lines[row], 1, 0
	seat := row < p.chart.seats
	if p.kind == denseSeats {
		left = p.labelW
		if n := row - p.chart.first + 1; seat && n >= 1 && n <= r.Map.Rows {
			c.Add(theme.Dim, fmt.Sprintf(" %*d", p.labelW-2, n))
		}
	}
	if seat && at >= 0 {
		from = firstCol(p.chart.at[at], p, p.chart)
	}
	for i := from; i < len(line) && (!seat || i < from+p.cols); i++ {
		if line[i].what == floor {
			continue
		}
		c.To(left + (i-from)*p.tileW)
		drawPlace(c, p, st, r, line[i], at, stale)
	}
	if seat && from+p.cols < len(line) {
		c.Add(theme.Dim, "~")
	}
}

// firstCol is the first column of the map to draw.
func firstCol(sel api.Spot, p plan, ch *chart) int {
	if sel.Row >= ch.seats { // on no seat: the left part
		return 0
	}
	return min(max(sel.Col-p.cols/2, 0), ch.cols-p.cols)
}

func drawPlace(c *component.Canvas, p plan, st State, r *snapshot.Room, sq place, at int, stale bool) {
	dense := p.kind == denseSeats
	switch sq.what {
	case taken:
		h := &r.Hosts[sq.host]
		tile(c, p, h, sq.host == at, st.marked(h.Name), stale)
	case empty:
		if dense {
			c.Add(theme.Dim, "  .")
			return
		}
		c.Add(theme.Dim, " "+pad(nameTail(sq.text, p.nameW), p.nameW+1)+" .")
	case door:
		c.Add(theme.Dim, landmark(dense, " []", " [door]"))
	case desk:
		c.Add(theme.Dim, landmark(dense, " ==", " [desk]"))
	case heading:
		c.Add(theme.Dim, " without a seat:")
	}
}

func landmark(dense bool, short, long string) string {
	if dense {
		return short
	}
	return long
}
