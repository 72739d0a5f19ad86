package units

import (
	"fmt"
	"strings"
	"time"
)

// ParseWhen reads a time of people, in from's zone: 22:00 (the next one after
// from), 2026-11-22 22:00, RFC 3339, now, or a duration counted from from.
func ParseWhen(text string, from time.Time) (time.Time, error) {
	text = strings.TrimSpace(text)
	if text == "now" {
		return from, nil
	}
	if d, err := time.ParseDuration(strings.TrimPrefix(text, "+")); err == nil {
		if d <= 0 {
			return from, fmt.Errorf("%q: a duration must be more than nothing", text)
		}
		return from.Add(d), nil
	}
	if t, err := time.Parse("15:04", text); err == nil {
		for day := range 3 { // a clock change may swallow one
			y, m, d := from.AddDate(0, 0, day).Date()
			if at := time.Date(y, m, d, t.Hour(), t.Minute(), 0, 0, from.Location()); at.After(from) {
				return at, nil
			}
		}
	}
	for _, form := range []string{"2006-01-02 15:04", "2006-01-02T15:04", time.RFC3339} {
		if t, err := time.ParseInLocation(form, text, from.Location()); err == nil {
			return t, nil
		}
	}
	return from, fmt.Errorf("%q: use a time like 22:00 or \"2026-11-22 22:00\", or a duration like 2h30m", text)
}
