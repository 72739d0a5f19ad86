package newjob

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"labswarm/internal/units"
	"labswarm/tui/component"
	"labswarm/tui/theme"
)

// form is the step "when": text fields.
type form struct {
	text  [fields]string
	field int
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
	fields
)

var questions = [fields]struct{ label, hint string }{
	{"begins", "now, 22:00, 2026-11-22 22:00, or a duration: 2h"},
	{"no host begins after", "06:00, or a duration from the beginning: 4h"},
	{"then", "reboot, poweroff or stay"},
	{"switch on (Wake-on-LAN)", "yes or no"},
}

const maxField = 40 // bytes

func newForm() form { return form{text: [fields]string{"now", "4h", "reboot", "no"}} }

func (f form) typed(key string) form {
	t := &f.text[f.field]
	switch key {
	case "tab", "down":
		f.field = (f.field + 1) % fields
	case "shift+tab", "up":
		f.field = (f.field + fields - 1) % fields
	case "ctrl+u":
		*t = ""
	case "backspace":
		_, n := utf8.DecodeLastRuneInString(*t)
		*t = (*t)[:len(*t)-n]
	default:
		if utf8.RuneCountInString(key) == 1 && len(*t)+len(key) <= maxField {
			*t += key
		}
	}
	return f
}

// check reads the fields; the error names the first bad one, which gets the
// focus.
func (f form) check(now time.Time) (form, error) {
	f.now, f.from, f.until = now, time.Time{}, time.Time{}
	from := now
	if t := strings.TrimSpace(f.text[fieldFrom]); t != "" && t != "now" {
		at, err := units.ParseWhen(t, now)
		if err != nil {
			return f.bad(fieldFrom, err)
		}
		f.from, from = at, at
	}
	if t := strings.TrimSpace(f.text[fieldUntil]); t != "" {
		at, err := units.ParseWhen(t, from)
		if err != nil {
			return f.bad(fieldUntil, err)
		}
		f.until = at
	}
	switch f.after() {
	case "reboot", "poweroff", "stay":
	default:
		return f.bad(fieldAfter, fmt.Errorf("%q: use %s", f.after(), questions[fieldAfter].hint))
	}
	switch strings.TrimSpace(f.text[fieldWake]) {
	case "yes", "y", "no", "n", "":
	default:
		return f.bad(fieldWake, fmt.Errorf("%q: use %s", f.text[fieldWake], questions[fieldWake].hint))
	}
	return f, nil
}

func (f form) bad(field int, err error) (form, error) {
	f.field = field
	return f, fmt.Errorf("%s: %w", questions[field].label, err)
}

func (f form) after() string { return or(strings.TrimSpace(f.text[fieldAfter]), "reboot") }

func (f form) wake() bool { return strings.HasPrefix(strings.TrimSpace(f.text[fieldWake]), "y") }

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
	c.End()
	for i, q := range questions {
		role, cursor := theme.Text, ""
		if i == f.field {
			role, cursor = theme.Sel, "_"
		}
		c.Add(theme.Text, fmt.Sprintf(" %-24s", q.label)).Add(role, " "+f.text[i]+cursor+" ").End()
		if c.Rows() > 2*fields {
			c.Line(theme.Dim, "                          "+q.hint)
		}
	}
	c.End()
	component.Para(c, "A host past the point of no return finishes, also after the end. A PC that was not seen until then boots its own disk.", 3)
}
