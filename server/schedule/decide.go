package schedule

import (
	"fmt"
	"time"

	"labswarm/api"
)

// What becomes of a run whose start was missed.
const (
	CatchLate  = "late"  // begin late, inside the window
	CatchNever = "never" // leave it
)

// Grace is how late a start may be without being called so.
const Grace = 5 * time.Minute

// Verdict is what becomes of a run that is due.
type Verdict struct {
	Start  bool
	Result string // api.RunStarted, RunSkipped, RunMissed
	Reason string
}

// Late reports whether a run would begin late now, so that it must be asked
// how long it takes.
func Late(r Run, now time.Time) bool { return now.Sub(r.Start) > Grace }

// Judge decides a run that is due. needs is how long its job takes at least, 0
// = not asked. A run never moves to another day.
func Judge(s api.Schedule, r Run, now time.Time, needs time.Duration) Verdict {
	late := now.Sub(r.Start).Round(time.Minute)
	switch {
	case r.Skip != "":
		return Verdict{Result: api.RunSkipped, Reason: r.Skip}
	case !s.Paused.IsZero():
		return Verdict{Result: api.RunSkipped, Reason: "paused by " + s.PausedBy}
	case !now.Before(r.End):
		return Verdict{Result: api.RunMissed, Reason: "the server was not there while its window was open"}
	case Late(r, now) && s.CatchUp == CatchNever:
		return Verdict{Result: api.RunMissed, Reason: fmt.Sprintf("%s late, and it is not to be caught up", late)}
	case now.Add(needs).After(r.End):
		return Verdict{Result: api.RunMissed, Reason: fmt.Sprintf("%s late: %s were left, it needs %s at least", late, r.End.Sub(now).Round(time.Minute), needs.Round(time.Minute))}
	case Late(r, now):
		return Verdict{Start: true, Result: api.RunStarted, Reason: fmt.Sprintf("%s late", late)}
	}
	return Verdict{Start: true, Result: api.RunStarted}
}

// maxStep is how far a clock may be put right without a word.
const maxStep = 10 * time.Minute

// Clock watches the server's clock. While it is in doubt nothing starts, and
// nothing is caught up by itself. The zero value has seen nothing yet.
type Clock struct {
	wall     time.Time
	mono     time.Duration
	seen     bool
	accepted time.Time // a person said that the clock is right
	doubt    string
}

// Look compares wall time with monotonic time, with the time the program was
// built, and with the newest time in the ledger. It returns why the clock is
// in doubt, "" = it is not.
func (c *Clock) Look(wall time.Time, mono time.Duration, built, newest time.Time) string {
	wall = wall.Round(0)
	step := time.Duration(0)
	if c.seen {
		step = wall.Sub(c.wall) - (mono - c.mono)
	}
	c.wall, c.mono, c.seen = wall, mono, true
	switch {
	case wall.Before(built):
		c.doubt = fmt.Sprintf("the server's clock says %s, but this program was built later", wall.Format(time.RFC3339))
	case step > maxStep || step < -maxStep:
		c.doubt = fmt.Sprintf("the server's clock jumped by %s", step.Round(time.Second))
	case newest.Sub(wall) > maxStep && !c.accepted.After(wall.Add(-24*time.Hour)):
		c.doubt = fmt.Sprintf("the server's clock says %s, but a run was noted at %s", wall.Format(time.RFC3339), newest.Format(time.RFC3339))
	}
	return c.doubt
}

// Accept says that a person has looked at the clock.
func (c *Clock) Accept() { c.doubt, c.accepted = "", c.wall }
