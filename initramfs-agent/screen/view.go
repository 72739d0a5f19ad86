// Package screen is the terminal's own display: a plain page on the first
// virtual console and plain lines on serial consoles. It shows what it is told
// and takes no input, so that nobody can leave the machine at a prompt.
//
// Called by main, which owns it, and by deploy, which fills the View.
package screen

import (
	"fmt"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/internal/units"
)

// View is what is to be seen.
type View struct {
	Room, Host, Image string
	Language          string // of the room: en it de es fr, "" = en
	Job               uint64
	State             api.State
	Detail            string // what it waits for
	Done, Total       int64  // bytes of the phase
	RateBps           int64  // bytes per second
	Parent            string // who sends the data, "" = nobody
	Server, IP, MAC   string
	SpeedMbps         int
	Version           string
	Committed         bool // the point of no return is passed
	Verified          bool // the disk is proven
	Capture           bool // the disk is read for an image, and never written

	EnrolCode    string // six digits that the admin types: an unknown PC waits for its seat
	Seat, Serial string
	Bound        bool // an unknown PC has its seat now

	Code, Problem string // a failure takes the whole screen: DW-4K7P, or DW alone, and its words for the lab office

	// Idle is how long State and Done have not changed. Screen measures it.
	Idle time.Duration
}

// waitShown is the time without a byte from which on the waiting is shown.
const waitShown = 30 * time.Second

// Percent of the phase, -1 when it has no measure.
func (v View) Percent() int {
	if v.Total <= 0 {
		return -1
	}
	return int(min(v.Done, v.Total) * 100 / v.Total)
}

// Advice is the sentence that matters to whoever stands before the machine. It
// follows the real state, never the percent.
func (v View) Advice() string { return v.advice(language(v.Language)) }

func (v View) advice(w *words) string {
	switch {
	case v.Problem != "" && v.Committed && !v.Verified:
		return w.unusable
	case v.Problem != "" && v.Committed:
		return w.proven
	case v.Problem != "":
		return w.untouched
	case v.Verified:
		return w.done
	case v.Capture:
		return w.read
	case v.Committed:
		return w.never
	}
	return w.nothing
}

var (
	steps        = []api.State{api.StateEnrolled, api.StateChecking, api.StateWriting, api.StateVerifying, api.StateFinalising, api.StateDone, api.StateRebooting}
	captureSteps = []api.State{api.StateEnrolled, api.StateChecking, api.StateCapturing, api.StateVerifying, api.StateDone, api.StateRebooting}
)

// step is the phase in words: "Step 3 of 6: writing".
func (v View) step(w *words) string {
	list := steps
	if v.Capture {
		list = captureSteps
	}
	for i, s := range list {
		if s != v.State {
			continue
		}
		text := w.steps[s]
		if t := w.capturing[s]; v.Capture && t != "" {
			text = t
		}
		return fmt.Sprintf(w.step, min(i+1, 6), 6, text)
	}
	return w.start
}

// left is the time the phase still takes, in words.
func (v View) left(w *words) string {
	d, ok := units.ETA(v.Done, v.Total, v.RateBps)
	switch {
	case v.Total <= 0 || !ok || v.Idle >= waitShown:
		return ""
	case d < time.Minute:
		return w.soon
	case d < 90*time.Second:
		return w.minute
	}
	return fmt.Sprintf(w.minutes, int((d+30*time.Second)/time.Minute))
}

// waiting says that nothing moves, "" while something does. States that may
// last (waiting for the order, helping the others) have their own words.
func (v View) waiting(w *words) string {
	if v.Idle < waitShown {
		return ""
	}
	since := fmt.Sprintf("%d:%02d", int(v.Idle/time.Minute), int(v.Idle/time.Second)%60)
	switch v.State {
	case api.StateWriting:
		if v.Parent == "" {
			return fmt.Sprintf(w.wait, since)
		}
		from := v.Parent
		if from == "server" {
			from = w.server
		}
		return fmt.Sprintf(w.waitFrom, from, since)
	case api.StateChecking, api.StateCapturing, api.StateVerifying:
		return fmt.Sprintf(w.still, since)
	}
	return ""
}

// detail is what it waits for; nothing moving comes first.
func (v View) detail(w *words) string {
	if t := v.waiting(w); t != "" {
		return t
	}
	return w.detail(v.Detail)
}

// Line is the view on one line, for a serial console. It is English: who reads
// it is an admin.
func (v View) Line() string {
	w := &english
	if v.Problem != "" {
		return fmt.Sprintf("PROBLEM %s %s: %s %s", v.Code, v.Host, v.Problem, v.advice(w))
	}
	if v.EnrolCode != "" || v.Bound {
		return v.enrolLine()
	}
	parts := present(v.Host, v.Image, string(v.State))
	if p := v.Percent(); p >= 0 {
		parts = append(parts, fmt.Sprintf("%d%%", p), rate(v.RateBps), v.left(w))
	}
	parts = append(parts, v.detail(w), v.advice(w))
	return strings.Join(present(parts...), " | ")
}

// present leaves out what is empty, and labels without a value.
func present(parts ...string) []string {
	var out []string
	for _, p := range parts {
		if p != "" && !strings.HasSuffix(p, " ") {
			out = append(out, p)
		}
	}
	return out
}

func rate(bps int64) string {
	if bps <= 0 {
		return ""
	}
	return units.FormatRate(bps)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
