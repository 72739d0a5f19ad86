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
	Job               uint64
	State             api.State
	Detail            string // what it waits for
	Done, Total       int64  // bytes of the phase
	RateBps           int64  // bytes per second
	Server, IP, MAC   string
	SpeedMbps         int
	Version           string
	Committed         bool // the point of no return is passed
	Verified          bool // the disk is proven
	Capture           bool // the disk is read for an image, and never written

	EnrolCode    string // six digits that the admin types: an unknown PC waits for its seat
	Seat, Serial string // of an unknown PC
	Bound        bool   // it has its seat now

	Code, Problem string // a failure takes the whole screen
}

// Percent of the phase, -1 when it has no measure.
func (v View) Percent() int {
	if v.Total <= 0 {
		return -1
	}
	return int(min(v.Done, v.Total) * 100 / v.Total)
}

// Advice is the sentence that matters to whoever stands before the machine. It
// follows the real state, never the percent.
func (v View) Advice() string {
	switch {
	case v.Problem != "" && v.Committed && !v.Verified:
		return "The PC cannot be used now. Tell the lab office the code above."
	case v.Problem != "":
		return "Nothing has been changed. The PC starts from its own disk."
	case v.Verified:
		return "Finished, restarting"
	case v.Capture:
		return "This PC is only read, nothing is changed. If switched off, it goes on next time."
	case v.Committed:
		return ">>> DO NOT SWITCH OFF. The PC restarts by itself. <<<"
	}
	return "You may switch off, nothing has been changed"
}

type step struct {
	state api.State
	text  string
}

var steps = []step{
	{api.StateEnrolled, "waiting for the order"},
	{api.StateChecking, "looking what is there already"},
	{api.StateWriting, "writing"},
	{api.StateVerifying, "reading everything back"},
	{api.StateFinalising, "writing the partition table"},
	{api.StateDone, "done, helping the others"},
	{api.StateRebooting, "restarting"},
}

var captureSteps = []step{
	{api.StateEnrolled, "waiting for the order"},
	{api.StateChecking, "looking what is to be read"},
	{api.StateCapturing, "reading this disk for an image"},
	{api.StateVerifying, "the server checks the image"},
	{api.StateDone, "done, the image is there"},
	{api.StateRebooting, "restarting"},
}

// Step is the phase in words: "Step 3 of 6: writing".
func (v View) Step() string {
	list := steps
	if v.Capture {
		list = captureSteps
	}
	for i, s := range list {
		if s.state == v.State {
			return fmt.Sprintf("Step %d of %d: %s", min(i+1, 6), 6, s.text)
		}
	}
	return "Starting"
}

// left is the time the phase still takes, in words.
func (v View) left() string {
	d, ok := units.ETA(v.Done, v.Total, v.RateBps)
	switch {
	case v.Total <= 0 || !ok:
		return ""
	case d < time.Minute:
		return "less than a minute left"
	case d < 90*time.Second:
		return "about a minute left"
	}
	return fmt.Sprintf("about %d minutes left", int((d+30*time.Second)/time.Minute))
}

const width = 80

// Page renders the view for an 80x25 text screen.
func (v View) Page() []string {
	if v.Problem != "" {
		return v.problemPage()
	}
	if v.EnrolCode != "" || v.Bound {
		return v.enrolPage()
	}
	bar, pct := "", ""
	if p := v.Percent(); p >= 0 {
		full := p * 60 / 100
		bar = "  [" + strings.Repeat("#", full) + strings.Repeat("-", 60-full) + "]  " + rate(v.RateBps)
		pct = fmt.Sprintf("%d%%", p)
	}
	lines := []string{"", fit(fmt.Sprintf("  labswarm   %s", room(v.Room)), v.Image), ""}
	lines = append(lines, banner(strings.ToUpper(v.Host), pct)...)
	lines = append(lines, "", bar, "", fit("  "+v.Step(), v.left()), "  "+v.Detail, "", "  "+v.Advice(), "", "",
		"  "+strings.Join(present("server "+v.Server, v.IP, v.MAC, speed(v.SpeedMbps), job(v.Job), "agent "+v.Version), "   "))
	for i := range lines {
		lines[i] = clip(lines[i])
	}
	return lines
}

func (v View) problemPage() []string {
	lines := []string{"", fit("  PROBLEM   "+v.Host+" "+room(v.Room), "code  "+v.Code), "", ""}
	for _, l := range wrap(v.Problem, width-4) {
		lines = append(lines, "  "+l)
	}
	lines = append(lines, "", "  "+v.Advice(), "  "+v.Detail, "", "  Other PCs are not affected. You may switch this PC off.", "",
		"  "+strings.Join(present("server "+v.Server, v.IP, v.MAC, job(v.Job), "agent "+v.Version), "   "))
	for i := range lines {
		lines[i] = clip(lines[i])
	}
	return lines[:min(len(lines), 24)]
}

// Line is the view on one line, for a serial console.
func (v View) Line() string {
	if v.Problem != "" {
		return fmt.Sprintf("PROBLEM %s %s: %s %s", v.Code, v.Host, v.Problem, v.Advice())
	}
	if v.EnrolCode != "" || v.Bound {
		return v.enrolLine()
	}
	parts := present(v.Host, v.Image, string(v.State))
	if p := v.Percent(); p >= 0 {
		parts = append(parts, fmt.Sprintf("%d%%", p), rate(v.RateBps), v.left())
	}
	parts = append(parts, v.Detail, v.Advice())
	return strings.Join(present(parts...), " | ")
}

func present(parts ...string) []string {
	var out []string
	for _, p := range parts {
		if p != "" && !strings.HasSuffix(p, " ") {
			out = append(out, p)
		}
	}
	return out
}

func room(name string) string {
	if name == "" {
		return ""
	}
	return "Room " + name
}

func job(id uint64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprintf("job %d", id)
}

func speed(mbps int) string {
	if mbps <= 0 {
		return ""
	}
	return fmt.Sprintf("network %d Mb/s", mbps)
}

func rate(bps int64) string {
	if bps <= 0 {
		return ""
	}
	return units.FormatRate(bps)
}

// fit puts left and right at the ends of a line.
func fit(left, right string) string {
	return left + strings.Repeat(" ", max(width-2-len(left)-len(right), 1)) + right
}

func clip(s string) string { return s[:min(len(s), width-1)] }

func wrap(text string, n int) []string {
	var out []string
	line := ""
	for _, w := range strings.Fields(text) {
		for len(w) > n {
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
