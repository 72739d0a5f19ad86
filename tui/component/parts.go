package component

import (
	"fmt"
	"math"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/internal/units"
	"labswarm/tui/keymap"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// RoleOf is the look of a host. It only repeats what its mark says.
func RoleOf(g snapshot.Group) theme.Role {
	switch g {
	case snapshot.Failed, snapshot.Held:
		return theme.Bad
	case snapshot.Silent, snapshot.NoShow:
		return theme.Warn
	case snapshot.Writing:
		return theme.Busy
	case snapshot.Waiting:
		return theme.Wait
	case snapshot.Good:
		return theme.Good
	}
	return theme.Dim
}

// Bar draws progress in w columns with its brackets: "[#####-----]".
func Bar(percent float64, w int, th *theme.Theme) string {
	n := max(0, w-2)
	full := 0
	if percent > 0 { // false for NaN
		full = int(math.Round(min(percent, 100) * float64(n) / 100))
	}
	if full == n && percent < 100 && n > 0 {
		full = n - 1 // a full bar means finished
	}
	return "[" + strings.Repeat(th.Sym.BarFull, full) + strings.Repeat(th.Sym.BarEmpty, n-full) + "]"
}

// Percent writes a percentage; 100 % is written only when it is reached.
func Percent(p float64) string {
	if !(p > 0) { // also NaN
		return "0 %"
	}
	return fmt.Sprintf("%d %%", int(min(p, 100)))
}

// Figure brackets a figure that is out of date, because the picture is stale.
func Figure(text string, stale bool) string {
	if stale && text != "-" {
		return "(" + text + ")"
	}
	return text
}

// Header writes the top line: program, server, where we are, age of the data.
func Header(c *Canvas, s *snapshot.Snapshot, where string, now time.Time) {
	c.Add(theme.Head, " labswarm")
	if s.Server.Name != "" {
		c.Add(theme.Text, "  "+s.Server.Name)
	}
	age, role := Age(s, now)
	if where != "" && Width(where)+Width(age)+5 < c.Left() {
		c.Add(theme.Head, "  "+where)
	}
	c.Add(theme.Text, "  ").Add(role, age)
	if s.Full && !s.Server.Ready && s.Link == snapshot.Live {
		c.Add(theme.Warn, "  server not ready yet")
	}
	c.Right(theme.Dim, keymap.Bar())
	c.End()
}

// Age says how old the picture is.
func Age(s *snapshot.Snapshot, now time.Time) (string, theme.Role) {
	age := s.Age(now)
	switch {
	case !s.Full && s.Link == snapshot.Lost:
		return "OFFLINE", theme.Bad
	case !s.Full:
		return "connecting", theme.Dim
	case s.Offline(now):
		return fmt.Sprintf("OFFLINE %s (showing %s)", coarse(age), s.Heard.Format("15:04:05")), theme.Bad
	case s.Link == snapshot.Lost:
		return fmt.Sprintf("STALE %s reconnecting", coarse(age)), theme.Warn
	case s.Stale(now):
		return "STALE " + coarse(age), theme.Warn
	}
	return fmt.Sprintf("live %.1fs", age.Seconds()), theme.Dim
}

// coarse writes a span with one unit: "12s", "4m", "3h".
func coarse(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// Clock writes the time of day of t in the zone of now, with the date when it
// is not today.
func Clock(t, now time.Time) string {
	t = t.In(now.Location())
	if t.Year() != now.Year() || t.YearDay() != now.YearDay() {
		return t.Format("2 Jan 15:04:05")
	}
	return t.Format("15:04:05")
}

// Copies says how much the server sent of a job, in copies of the image.
func Copies(j *api.Job) string {
	if j.BytesShipped <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(j.SeedSent)/float64(j.BytesShipped))
}

// ETA is the time left of a job, "-" when the server does not know it.
func ETA(j *api.Job) string {
	if j.EtaS < 0 {
		return "-"
	}
	return units.FormatDuration(time.Duration(j.EtaS) * time.Second)
}

// Foot is what the last line shows: a message about the last key, else the
// keys that are of use now.
type Foot struct {
	Keys    keymap.Map
	Message string
}

// Write writes the last line.
func (f Foot) Write(c *Canvas, on keymap.Screen, st keymap.State) {
	if f.Message != "" {
		c.Add(theme.Warn, " "+f.Message)
		return
	}
	c.Add(theme.Dim, " "+f.Keys.Footer(on, st, c.Left()-2))
}

// Para writes text over at most n lines, one column from the left.
func Para(c *Canvas, text string, n int) {
	for _, l := range Wrap(text, c.Left()-2, n) {
		c.Line(theme.Text, " "+l)
	}
}

// Ended reports whether a job is over.
func Ended(j *api.Job) bool { return !j.Ended.IsZero() }

// Image is the image of a job with its version.
func Image(j *api.Job) string {
	name := j.Image
	if j.Kind == api.KindCapture {
		name = "capture of " + name
	}
	if j.Version == "" {
		return name
	}
	return name + "/" + j.Version
}
