package report

import (
	"bytes"
	_ "embed" // the page
	"fmt"
	"html/template"
	"strconv"
	"strings"

	"labswarm/api"
	"labswarm/internal/units"
)

//go:embed page.html
var pageText string

// page holds no script and asks nobody for anything. html/template escapes every text by its place.
var page = template.Must(template.New("report").Funcs(template.FuncMap{"bytes": units.FormatBytes, "span": span, "plain": Plain, "lower": strings.ToLower}).Parse(pageText))

// Sizes of the plots, in SVG units.
const (
	plotWide  = 900
	plotLeft  = 110 // names
	rowHigh   = 16
	chartHigh = 180
)

type bar struct {
	X, Y, W string
	Class   string
	Title   string
}

type row struct {
	Name string
	Y    int
}

type plot struct {
	W, H, Left, Right int
	Rows              []row
	Bars              []bar
	Ticks             []tick
}

type tick struct {
	X    string
	Text string
}

type chart struct {
	W, H         int
	Server, All  string // points of lines; All = server and peers
	MaxText      string
	Ticks        []tick
	Left, Bottom int
}

type pageData struct {
	R        *Report
	Verdict  string
	F        Figures
	When     string
	Long     string
	Groups   []group
	Lines    [][2]string
	Timeline *plot
	Bytes    *plot
	Rate     *chart
}

type group struct {
	Class string
	Bad   bool
	Hosts []Host
}

func renderHTML(r *Report) ([]byte, error) {
	d := pageData{R: r, Verdict: r.Verdict(), F: r.Figures(), When: when(r.Created), Long: span(r.DurationS), Lines: r.figureLines(),
		Timeline: timeline(r), Bytes: sources(r), Rate: rates(r)}
	for _, c := range []Class{NotUsable, OldImage, Busy, Ready} {
		if hosts := r.Of(c); len(hosts) > 0 {
			d.Groups = append(d.Groups, group{c.String(), c == NotUsable, hosts})
		}
	}
	var b bytes.Buffer
	if err := page.Execute(&b, d); err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	return b.Bytes(), nil
}

func num(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }

// ticks marks seconds on the x axis: at most ten, at round numbers.
func ticks(end float64, left, wide int) []tick {
	step := 1.0
	for _, s := range []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400} {
		if step = s; end/s <= 10 {
			break
		}
	}
	var out []tick
	for t := 0.0; t <= end && len(out) < 100; t += step {
		out = append(out, tick{num(float64(left) + t/max(end, 1)*float64(wide)), span(t)})
	}
	return out
}

// timeline has a row per seat and a bar per state.
func timeline(r *Report) *plot {
	if len(r.Hosts) == 0 || r.DurationS <= 0 {
		return nil
	}
	wide := plotWide - plotLeft - 10
	p := &plot{W: plotWide, H: rowHigh*len(r.Hosts) + 24, Left: plotLeft, Right: plotWide - 10, Ticks: ticks(r.DurationS, plotLeft, wide)}
	x := func(s float64) float64 {
		return float64(plotLeft) + min(max(s, 0), r.DurationS)/r.DurationS*float64(wide)
	}
	for i := range r.Hosts {
		h := &r.Hosts[i]
		p.Rows = append(p.Rows, row{short(h.Name), i*rowHigh + 12})
		for _, s := range h.spans(r.DurationS) {
			w := x(s.To) - x(s.From)
			if w < 2 {
				w = 2 // an end, or a state of a moment
			}
			p.Bars = append(p.Bars, bar{X: num(x(s.From)), Y: strconv.Itoa(i*rowHigh + 2), W: num(w), Class: colour(s.State),
				Title: fmt.Sprintf("%s %s at %s for %s", short(h.Name), strings.ToLower(string(s.State)), span(s.From), span(s.To-s.From))})
		}
	}
	return p
}

// colour is the CSS class of a state.
func colour(s api.State) string {
	switch s {
	case api.StateWriting, api.StateCapturing:
		return "write"
	case api.StateVerifying, api.StateFinalising:
		return "verify"
	case api.StateDone, api.StateRebooting, api.StateConfirmed:
		return "good"
	case api.StateFailed, api.StateHeld, api.StateNoShow:
		return "bad"
	case api.StatePending, api.StateArmed, api.StateWaking, api.StateSkipped, api.StateCancelled:
		return "wait"
	}
	return "boot"
}

// sources has a row per seat: bytes from the server, then from peers.
func sources(r *Report) *plot {
	var most int64
	for i := range r.Hosts {
		most = max(most, r.Hosts[i].BytesFromSeed+r.Hosts[i].BytesFromPeers)
	}
	if most <= 0 {
		return nil
	}
	wide := plotWide - plotLeft - 10
	p := &plot{W: plotWide, H: rowHigh*len(r.Hosts) + 24, Left: plotLeft, Right: plotWide - 10}
	for i := range 5 {
		p.Ticks = append(p.Ticks, tick{num(float64(plotLeft) + float64(i)*float64(wide)/4), units.FormatBytes(most * int64(i) / 4)})
	}
	for i := range r.Hosts {
		h := &r.Hosts[i]
		p.Rows = append(p.Rows, row{short(h.Name), i*rowHigh + 12})
		server := float64(h.BytesFromSeed) / float64(most) * float64(wide)
		peers := float64(h.BytesFromPeers) / float64(most) * float64(wide)
		y := strconv.Itoa(i*rowHigh + 2)
		p.Bars = append(p.Bars,
			bar{num(plotLeft), y, num(max(0, server)), "server", short(h.Name) + " from the server: " + units.FormatBytes(h.BytesFromSeed)},
			bar{num(float64(plotLeft) + max(0, server)), y, num(max(0, peers)), "peers", short(h.Name) + " from PCs: " + units.FormatBytes(h.BytesFromPeers)})
	}
	return p
}

// rates draws what all hosts together received over time.
func rates(r *Report) *chart {
	if len(r.Samples) < 2 {
		return nil
	}
	type point struct{ t, server, all float64 }
	var pts []point
	var top float64
	for i := 1; i < len(r.Samples); i++ {
		a, b := r.Samples[i-1], r.Samples[i]
		dt := b.TS - a.TS
		if dt <= 0 {
			continue
		}
		server := max(0, float64(b.Server-a.Server)/dt)
		p := point{b.TS, server, server + max(0, float64(b.Peers-a.Peers)/dt)}
		top = max(top, p.all)
		pts = append(pts, p)
	}
	if top <= 0 {
		return nil
	}
	end := max(r.DurationS, r.Samples[len(r.Samples)-1].TS)
	wide := float64(plotWide - plotLeft - 10)
	c := &chart{W: plotWide, H: chartHigh + 24, Left: plotLeft, Bottom: chartHigh, MaxText: units.FormatBytes(int64(top)) + "/s", Ticks: ticks(end, plotLeft, int(wide))}
	var server, all strings.Builder
	for _, p := range pts {
		x := num(plotLeft + p.t/end*wide)
		fmt.Fprintf(&server, "%s,%s ", x, num(chartHigh-p.server/top*(chartHigh-10)))
		fmt.Fprintf(&all, "%s,%s ", x, num(chartHigh-p.all/top*(chartHigh-10)))
	}
	c.Server, c.All = strings.TrimSpace(server.String()), strings.TrimSpace(all.String())
	return c
}

// short keeps a name beside its row.
func short(s string) string {
	r := []rune(Plain(s))
	if len(r) > 16 {
		return string(r[:15]) + "…"
	}
	return string(r)
}
