package rooms

import (
	"time"

	"labswarm/tui/component"
	"labswarm/tui/snapshot"
)

// kind is how the hosts of a room are drawn.
type kind uint8

const (
	tiles      kind = iota // name and mark
	rates                  // name, mark and rate: few hosts
	dense                  // marks only, each row with the name of its first host: many hosts
	denseSeats             // marks only, as the seats stand, each row with its number
	list                   // one line a host, exceptions first: narrow terminals
)

// Bounds of the drawing, in columns and lines.
const (
	narrow     = 60 // below: a list instead of a map
	low        = 16 // below: one job line, no blank line
	nameMax    = 16 // a longer name is cut in a tile
	labelMax   = 10
	detailMost = 4
	detailMin  = 2
	rateWidth  = 13 // " (1023 KiB/s)"
	denseWidth = 3
	wideRow    = 12 // from here on whole groups of four tiles
)

// plan is where everything goes on one screen.
type plan struct {
	kind   kind
	cols   int    // hosts in a row
	tileW  int    // columns of a host
	nameW  int    // columns of a name
	labelW int    // columns before a row of the dense map
	total  int    // rows of the map
	rows   int    // rows of it on the screen
	detail int    // lines about the selected host
	blank  int    // empty lines around them
	job    int    // lines about the job
	labels bool   // seats go by their labels: the names do not fit
	chart  *chart // the seats as they stand, nil = hosts in their order
}

// row is the row of the map on which a host stands; at is its place in drawing
// order.
func (p plan) row(at int) int {
	if p.chart != nil {
		return p.chart.at[at].Row
	}
	return at / p.cols
}

// layout divides the screen. Columns and lines are dropped in a fixed order:
// rates, blank lines, details, names; never a mark.
func (st State) layout(s *snapshot.Snapshot, r *snapshot.Room, size component.Size, now time.Time) plan {
	p := plan{job: 2, detail: detailMost, blank: 2}
	if size.H < low {
		p.job, p.blank, p.detail = 1, 0, detailMin
	}
	const top, foot = 2, 1
	free := size.H - top - foot - p.job
	if n, _ := st.notice(s, size.W, now); n != "" {
		free--
	}
	n := len(r.Hosts)
	if size.W < narrow {
		p.kind, p.cols, p.total, p.detail, p.blank = list, 1, n, 0, 0
		p.nameW = min(max(r.Widest, 4), nameMax)
		p.rows = free
		return p
	}
	p.tile(r, size.W)
	rows := free - p.detail - p.blank
	switch most := free - min(p.detail, detailMin); {
	case r.Map != nil:
		p.seats(r, size.W, st.Dense)
	case st.Dense:
		p.dense(r, size.W)
	case p.total <= rows/2 && p.withRates(n, size.W, rows/2):
	case p.total <= most:
	default:
		p.dense(r, size.W)
	}
	if p.total > rows { // the map takes from the lines around it
		p.blank = max(0, min(p.blank, free-p.total-p.detail))
		p.detail = max(detailMin, min(p.detail, free-p.total-p.blank))
	}
	p.rows = max(1, free-p.detail-p.blank)
	return p
}

func (p *plan) tile(r *snapshot.Room, w int) {
	p.kind = tiles
	p.nameW = min(max(r.Widest, 3), nameMax)
	p.cols = max(1, (w-1)/(p.nameW+5))
	if p.cols >= wideRow {
		p.cols -= p.cols % 4
	} else if p.cols > 8 {
		p.cols = 8
	}
	p.tileW = min((w-1)/p.cols, p.nameW+8)
	p.total = ceil(len(r.Hosts), p.cols)
}

// withRates makes room for rates if the map then has most rows at most.
func (p *plan) withRates(n, w, most int) bool {
	tileW := p.nameW + 5 + rateWidth + 1
	cols := (w - 1) / tileW
	if cols < 1 || ceil(n, cols) > most {
		return false
	}
	p.kind, p.cols, p.tileW, p.total = rates, cols, tileW, ceil(n, cols)
	return true
}

func (p *plan) dense(r *snapshot.Room, w int) {
	p.kind = dense
	p.nameW = min(r.Widest, labelMax)
	p.labelW = p.nameW + 2
	p.cols = max(1, (w-p.labelW-1)/denseWidth)
	p.tileW = denseWidth
	p.total = ceil(len(r.Hosts), p.cols)
}

func ceil(a, b int) int { return (a + b - 1) / b }
