package cli

import (
	"fmt"
	"strings"
	"time"

	"labswarm/internal/units"
)

// progressEvery is the pause between two plain lines in a pipe.
const progressEvery = 10 * time.Second

// progress draws the progress of long work on standard error: a bar on a
// terminal, one line per phase and per 10 s elsewhere, nothing with --quiet.
type progress struct {
	e     *env
	tty   bool
	phase string
	last  time.Time
	drawn bool
}

func (e *env) progress() *progress {
	return &progress{e: e, tty: canRedraw(e.err) && !e.plain}
}

// update tells how far the phase is; sizes in bytes, rate in bytes per second.
func (p *progress) update(phase string, done, total, rate int64) {
	if p.e.quiet || p.e.json && !p.tty {
		return
	}
	pause := progressEvery
	if p.tty {
		pause = 200 * time.Millisecond
	}
	if phase == p.phase && time.Since(p.last) < pause && (done != total || !p.tty) {
		return
	}
	p.phase, p.last = phase, time.Now()
	percent := 100.0
	if total > 0 {
		percent = 100 * float64(done) / float64(total)
	}
	tail := fmt.Sprintf("%3.0f %%  %s of %s  %s  %s left", percent, units.FormatBytes(done), units.FormatBytes(total), units.FormatRate(rate), units.FormatETA(done, total, rate))
	if !p.tty {
		p.e.hint("%s: %s", phase, tail)
		return
	}
	n := int(percent / 100 * 30)
	n = max(0, min(30, n))
	text := fmt.Sprintf("%-8s [%s%s] %s", phase, strings.Repeat("#", n), strings.Repeat("-", 30-n), tail)
	_, _ = fmt.Fprintf(p.e.err, "\r%s\x1b[K", cut(text, p.e.err)) // only a picture
	p.drawn = true
}

// end leaves the line of the bar.
func (p *progress) end() {
	if p.drawn {
		_, _ = fmt.Fprintln(p.e.err) // only a picture
		p.drawn = false
	}
}
