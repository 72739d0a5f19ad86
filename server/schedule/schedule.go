// Package schedule says when a schedule runs: local times to instants, allowed
// days, overlaps, and what becomes of a run that is due. It is pure: no store,
// no network, no clock; the daemon keeps the ledger. Called by server/daemon.
package schedule

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a server without the package tzdata knows the zones, too

	"labswarm/api"
)

// Error says what is wrong with a schedule or a calendar, for people.
type Error struct{ Text string }

// Error is the sentence.
func (e *Error) Error() string { return e.Text }

func bad(format string, a ...any) error { return &Error{Text: fmt.Sprintf(format, a...)} }

const (
	dateForm = time.DateOnly
	maxDays  = 400 // of a calendar
	// horizon is how far ahead runs are looked for, in days.
	horizon = 800
)

var (
	weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	nameRule = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?$`)
)

// Plan is a checked schedule that can be asked.
type Plan struct {
	s          api.Schedule
	loc        *time.Location
	start, end int // minutes after midnight
	days       [7]bool
	once       time.Time // UTC midnight of Date
	from, to   time.Time // UTC midnights, zero = open
	skip, only []calendar
}

// Run is one run of a schedule.
type Run struct {
	Date       string // local, of the start
	Start, End time.Time
	Skip       string // why it does not take place, "" = it does
}

// CheckName says whether a schedule or calendar can have this name.
func CheckName(kind, name string) error {
	if !nameRule.MatchString(name) {
		return bad("%s name %q: use 1 to 32 letters, digits and hyphens, beginning and ending with a letter or digit", kind, name)
	}
	return nil
}

// Compile checks a schedule. cals holds the calendars by name. Errors: *Error.
func Compile(s api.Schedule, cals map[string]api.Calendar) (*Plan, error) {
	p := &Plan{s: s}
	if err := CheckName("schedule", s.Name); err != nil {
		return nil, err
	}
	var err error
	if s.TZ == "" || s.TZ == "Local" {
		return nil, bad("schedule %s: name a time zone, like Europe/Berlin", s.Name)
	}
	if p.loc, err = time.LoadLocation(s.TZ); err != nil {
		return nil, bad("schedule %s: time zone %q is not known: use a name like Europe/Berlin", s.Name, s.TZ)
	}
	if p.start, err = minutes("start", s.Start); err == nil {
		p.end, err = minutes("end", s.End)
	}
	if err != nil {
		return nil, bad("schedule %s: %v", s.Name, err)
	}
	if err := p.compileDays(); err != nil {
		return nil, bad("schedule %s: %v", s.Name, err)
	}
	if s.CatchUp != "" && s.CatchUp != CatchLate && s.CatchUp != CatchNever {
		return nil, bad("schedule %s: catch_up %q: use late or never", s.Name, s.CatchUp)
	}
	if p.skip, err = named(s.Skip, cals); err == nil {
		p.only, err = named(s.Only, cals)
	}
	if err != nil {
		return nil, bad("schedule %s: %v", s.Name, err)
	}
	return p, nil
}

func (p *Plan) compileDays() (err error) {
	switch {
	case (p.s.Date == "") == (len(p.s.Weekdays) == 0):
		return bad("name either weekdays or one date")
	case p.s.Date != "":
		if p.once, err = day("date", p.s.Date); err != nil {
			return err
		}
	}
	for _, w := range p.s.Weekdays {
		i := slices.Index(weekdays, strings.ToLower(w))
		if i < 0 {
			return bad("weekday %q: use mon, tue, wed, thu, fri, sat, sun", w)
		}
		p.days[i] = true
	}
	if p.s.From != "" {
		if p.from, err = day("from", p.s.From); err != nil {
			return err
		}
	}
	if p.s.To != "" {
		if p.to, err = day("to", p.s.To); err != nil {
			return err
		}
	}
	if !p.to.IsZero() && p.to.Before(p.from) {
		return bad("it ends on %s, before it begins on %s", p.s.To, p.s.From)
	}
	return nil
}

// minutes reads HH:MM.
func minutes(what, text string) (int, error) {
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0, bad("%s %q: use a time like 22:00", what, text)
	}
	return t.Hour()*60 + t.Minute(), nil
}

// day reads a date, as midnight in UTC: dates are counted there, where each
// has 24 hours.
func day(what, text string) (time.Time, error) {
	t, err := time.Parse(dateForm, text)
	if err != nil {
		return t, bad("%s %q: use a date like 2026-12-01", what, text)
	}
	return t, nil
}

// Zone is the schedule's time zone.
func (p *Plan) Zone() *time.Location { return p.loc }

// Length is how long its window is on an ordinary day.
func (p *Plan) Length() time.Duration {
	n := p.end - p.start
	if n <= 0 {
		n += 24 * 60
	}
	return time.Duration(n) * time.Minute
}

// on returns the run of a date (UTC midnight). ok is false when there is none.
func (p *Plan) on(d time.Time) (r Run, ok bool) {
	switch {
	case !p.once.IsZero() && !d.Equal(p.once), p.once.IsZero() && !p.days[d.Weekday()]:
		return r, false
	case !p.from.IsZero() && d.Before(p.from), !p.to.IsZero() && d.After(p.to):
		return r, false
	case len(p.only) > 0 && in(p.only, d) == "":
		return r, false
	}
	r = Run{Date: d.Format(dateForm), Start: Resolve(d, p.start, p.loc)}
	if r.Start.In(p.loc).Format(dateForm) != r.Date {
		return r, false // a day that this zone never had
	}
	last := d
	if p.end <= p.start {
		last = d.AddDate(0, 0, 1)
	}
	r.End = Resolve(last, p.end, p.loc)
	if !r.End.After(r.Start) { // both in an hour that the clocks skip
		r.End = r.Start.Add(p.Length())
	}
	if cal := in(p.skip, d); cal != "" {
		r.Skip = "calendar " + cal
	}
	return r, true
}

// Next returns the n first runs that end after now, also those that are skipped.
func (p *Plan) Next(now time.Time, n int) []Run {
	var out []Run
	d := p.today(now).AddDate(0, 0, -2)
	if !p.once.IsZero() {
		d = p.once
	}
	for i := 0; i < horizon && len(out) < n; i++ {
		if r, ok := p.on(d.AddDate(0, 0, i)); ok && r.End.After(now) {
			out = append(out, r)
		}
		if !p.once.IsZero() {
			break
		}
	}
	return out
}

// today is the local date, as midnight in UTC.
func (p *Plan) today(now time.Time) time.Time {
	y, m, d := now.In(p.loc).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// memory is for how many days a server that was away tells what it missed.
const memory = 31

// Due returns the runs that have begun and of which the ledger knows nothing,
// oldest first. Windows that began before the schedule was saved or resumed do
// not count.
func (p *Plan) Due(now time.Time, known func(date string) bool) []Run {
	var out []Run
	for i := -memory; i <= 0; i++ {
		d := p.today(now).AddDate(0, 0, i)
		if d.AddDate(0, 0, 2).Before(p.s.Since) || known(d.Format(dateForm)) {
			continue
		}
		r, ok := p.on(d)
		if ok && !r.Start.After(now) && !r.Start.Before(p.s.Since) {
			out = append(out, r)
		}
	}
	return out
}

// Overlap returns the first runs of two schedules that would be at work at the
// same time after now. ok is false when there are none.
func Overlap(a, b *Plan, now time.Time) (x, y Run, ok bool) {
	as, bs := a.Next(now, horizon), b.Next(now, horizon)
	for i, j := 0, 0; i < len(as) && j < len(bs); {
		x, y = as[i], bs[j]
		switch {
		case x.Start.Before(y.End) && y.Start.Before(x.End) && x.Skip == "" && y.Skip == "":
			return x, y, true
		case x.End.Before(y.End):
			i++
		default:
			j++
		}
	}
	return x, y, false
}
