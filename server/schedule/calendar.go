package schedule

import (
	"slices"
	"strings"
	"time"

	"labswarm/api"
)

// calendar is a checked api.Calendar: spans of UTC midnights, both ends in.
type calendar struct {
	name  string
	spans [][2]time.Time
}

func compileCalendar(c api.Calendar) (calendar, error) {
	out := calendar{name: c.Name}
	if err := CheckName("calendar", c.Name); err != nil {
		return out, err
	}
	if len(c.Days) > maxDays {
		return out, bad("calendar %s: %d entries, at most %d: use ranges", c.Name, len(c.Days), maxDays)
	}
	for _, text := range c.Days {
		first, last, ranged := strings.Cut(text, "..")
		if !ranged {
			last = first
		}
		a, err := day("day", strings.TrimSpace(first))
		if err != nil {
			return out, bad("calendar %s: %v", c.Name, err)
		}
		z, err := day("day", strings.TrimSpace(last))
		if err != nil {
			return out, bad("calendar %s: %v", c.Name, err)
		}
		if z.Before(a) {
			return out, bad("calendar %s: %q ends before it begins", c.Name, text)
		}
		out.spans = append(out.spans, [2]time.Time{a, z})
	}
	return out, nil
}

// CheckCalendar says what is wrong with a calendar. Errors: *Error.
func CheckCalendar(c api.Calendar) error {
	_, err := compileCalendar(c)
	return err
}

// named finds and checks calendars.
func named(names []string, cals map[string]api.Calendar) ([]calendar, error) {
	var out []calendar
	for _, n := range names {
		c, ok := cals[strings.ToLower(n)]
		if !ok {
			return nil, bad("calendar %q is not known: `labswarm schedule calendar` shows what there is", n)
		}
		k, err := compileCalendar(c)
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, nil
}

// in returns the name of the first calendar that has a day, "" = none.
func in(cals []calendar, d time.Time) string {
	for _, c := range cals {
		if slices.ContainsFunc(c.spans, func(s [2]time.Time) bool { return !d.Before(s[0]) && !d.After(s[1]) }) {
			return c.name
		}
	}
	return ""
}
