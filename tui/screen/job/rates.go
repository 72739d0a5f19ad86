package job

import (
	"fmt"
	"math"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/tui/component"
	"labswarm/tui/plot"
	"labswarm/tui/screen"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// plotLines is how high the plot may be on a screen with so many lines left: the
// list below needs its place first.
func plotLines(rows int) int {
	switch {
	case rows >= 30:
		return 8
	case rows >= 18:
		return 4
	}
	return 0
}

const axis = 6 // columns of the labels at the left

// rates draws the job's rate over time: h lines, one for the title, one for the
// time.
func rates(c *component.Canvas, in screen.In, j *api.Job, h int) {
	r, ok := in.S.Rates[j.ID]
	if !ok || len(r.Bps) == 0 {
		c.Line(theme.Dim, " written over time: nothing was heard of it since this console was opened")
		return
	}
	const mib = 1 << 20
	samples, greatest := make([]float64, len(r.Bps)), 0.0
	for i, v := range r.Bps {
		samples[i] = v / mib
		if samples[i] > greatest { // false for NaN
			greatest = samples[i]
		}
	}
	top := plot.Top(greatest, 0)
	c.Line(theme.Dim, " MiB/s, all hosts, since "+component.Clock(r.Begin, in.Now))
	for i, l := range plot.Draw(samples, c.Left()-axis-2, h-2, top, set(in.Th)) {
		label := ""
		if i == 0 {
			label = plot.Label(top)
		}
		c.Add(theme.Dim, fmt.Sprintf("%*s|", axis, label)).Line(theme.Busy, l)
	}
	c.Line(theme.Dim, fmt.Sprintf("%*s+%s", axis, "0", timeAxis(r, c.Left()-axis-2, in.Now)))
}

// set is the plot's characters on this terminal.
func set(th *theme.Theme) plot.Set {
	if th.ASCII {
		return plot.ASCII
	}
	return plot.Braille
}

// timeAxis is a line of w columns with the times of its ends.
func timeAxis(r snapshot.Rates, w int, now time.Time) string {
	span := time.Duration(len(r.Bps)) * r.Every
	used := min(w, int(math.Ceil(float64(len(r.Bps))/2)))
	if len(r.Bps) > 2*w {
		used = w
	}
	end := component.Clock(r.Begin.Add(span), now)
	if used <= len(end) {
		return strings.Repeat("-", max(used, 0)) + " " + end
	}
	return strings.Repeat("-", used-len(end)-1) + " " + end
}

// stateWord is the state in small letters; NO_SHOW reads as "no show".
func stateWord(s *api.Slot) string {
	if snapshot.IsSilent(s) {
		return "silent"
	}
	return strings.ReplaceAll(strings.ToLower(string(s.State)), "_", " ")
}
