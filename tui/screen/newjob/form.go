package newjob

import (
	"fmt"
	"strings"
	"time"

	"labswarm/internal/units"
	"labswarm/tui/component"
	fields "labswarm/tui/screen/form"
)

// form is the step "when": text fields.
type form struct {
	fields.Fields
	now   time.Time // when it was checked
	from  time.Time // zero = at once
	until time.Time // zero = the server's default
}

// The fields of the form.
const (
	fieldFrom = iota
	fieldUntil
	fieldAfter
	fieldWake
)

func newForm() form {
	return form{Fields: fields.Fields{All: []fields.Field{
		{Label: "begins", Hint: "now, 22:00, 2026-11-22 22:00, or a duration: 2h", Text: "now"},
		{Label: "no host begins after", Hint: "06:00, or a duration from the beginning: 4h", Text: "4h"},
		{Label: "then", Hint: "reboot, poweroff or stay", Text: "reboot"},
		{Label: "switch on (Wake-on-LAN)", Hint: "yes or no", Text: "no"},
	}}}
}

// check reads the fields; the error names the first bad one, which gets the
// focus.
func (f form) check(now time.Time) (form, error) {
	f.now, f.from, f.until = now, time.Time{}, time.Time{}
	from := now
	if t := f.Get(fieldFrom); t != "" && t != "now" {
		at, err := units.ParseWhen(t, now)
		if err != nil {
			return f.bad(fieldFrom, err)
		}
		f.from, from = at, at
	}
	if t := f.Get(fieldUntil); t != "" {
		at, err := units.ParseWhen(t, from)
		if err != nil {
			return f.bad(fieldUntil, err)
		}
		f.until = at
	}
	switch f.after() {
	case "reboot", "poweroff", "stay":
	default:
		return f.bad(fieldAfter, fmt.Errorf("%q: use %s", f.after(), f.All[fieldAfter].Hint))
	}
	switch f.Get(fieldWake) {
	case "yes", "y", "no", "n", "":
	default:
		return f.bad(fieldWake, fmt.Errorf("%q: use %s", f.Get(fieldWake), f.All[fieldWake].Hint))
	}
	return f, nil
}

func (f form) bad(field int, err error) (form, error) {
	f.Fields = f.Focus(field)
	return f, fmt.Errorf("%s: %w", f.All[field].Label, err)
}

func (f form) after() string { return or(f.Get(fieldAfter), "reboot") }

func (f form) wake() bool { return strings.HasPrefix(f.Get(fieldWake), "y") }

// words is what was filled in, once it is checked.
func (f form) words() string {
	out := "at once"
	if !f.from.IsZero() {
		out = "from " + component.Clock(f.from, f.now)
	}
	if !f.until.IsZero() {
		out += " until " + component.Clock(f.until, f.now)
	}
	out += ", then " + f.after()
	if f.wake() {
		out += ", wake"
	}
	return out
}

func (f form) draw(c *component.Canvas) {
	f.Draw(c)
	component.Para(c, "A host past the point of no return finishes, also after the end. A PC that was not seen until then boots its own disk.", 3)
}
