package schedule

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labswarm/api"
)

func nightly(tz string) api.Schedule {
	return api.Schedule{Name: "n", Weekdays: []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}, Start: "22:00", End: "06:00", TZ: tz}
}

func compile(t testing.TB, s api.Schedule, cals ...api.Calendar) *Plan {
	t.Helper()
	byName := map[string]api.Calendar{}
	for _, c := range cals {
		byName[strings.ToLower(c.Name)] = c
	}
	p, err := Compile(s, byName)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestResolve(t *testing.T) {
	for _, tt := range []struct{ zone, wall, want string }{
		{"Europe/Berlin", "2026-03-29 01:59", "2026-03-29T00:59:00Z"},
		{"Europe/Berlin", "2026-03-29 02:00", "2026-03-29T01:00:00Z"}, // skipped: the first instant after the gap
		{"Europe/Berlin", "2026-03-29 02:30", "2026-03-29T01:00:00Z"},
		{"Europe/Berlin", "2026-03-29 03:00", "2026-03-29T01:00:00Z"},
		{"Europe/Berlin", "2026-10-25 02:30", "2026-10-25T00:30:00Z"}, // twice: the earlier
		{"Europe/Berlin", "2026-10-25 03:00", "2026-10-25T02:00:00Z"},
		{"America/New_York", "2026-03-08 02:15", "2026-03-08T07:00:00Z"},
		{"America/New_York", "2026-11-01 01:15", "2026-11-01T05:15:00Z"},
		{"Australia/Lord_Howe", "2026-10-04 02:15", "2026-10-03T15:30:00Z"}, // half an hour
		{"America/Sao_Paulo", "2018-11-04 00:00", "2018-11-04T03:00:00Z"},   // midnight itself is skipped
		{"Pacific/Apia", "2011-12-30 12:00", "2011-12-30T10:00:00Z"},        // a day that never was
		{"Asia/Kolkata", "2026-01-01 22:00", "2026-01-01T16:30:00Z"},
		{"UTC", "2026-01-01 22:00", "2026-01-01T22:00:00Z"},
	} {
		loc, err := time.LoadLocation(tt.zone)
		if err != nil {
			t.Fatal(err)
		}
		w, err := time.Parse("2006-01-02 15:04", tt.wall)
		if err != nil {
			t.Fatal(err)
		}
		if got := Resolve(w.Truncate(24*time.Hour), w.Hour()*60+w.Minute(), loc).UTC().Format(time.RFC3339); got != tt.want {
			t.Errorf("%s %s = %s; want %s", tt.zone, tt.wall, got, tt.want)
		}
	}
}

// TestEveryDateHasOneRun: over many zones and forty years.
func TestEveryDateHasOneRun(t *testing.T) {
	zones := []string{"Europe/Berlin", "Europe/London", "Europe/Dublin", "America/New_York", "America/Sao_Paulo", "America/Caracas", "America/St_Johns", "Asia/Kolkata", "Asia/Tehran", "Asia/Gaza",
		"Asia/Pyongyang", "Australia/Lord_Howe", "Australia/Sydney", "Africa/Casablanca", "Africa/Cairo", "Pacific/Apia", "Pacific/Chatham", "Pacific/Kiritimati", "Antarctica/Troll", "Antarctica/Casey", "UTC"}
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom(zones).Draw(t, "zone")
		s := nightly(zone)
		// Mostly the hours in which clocks change.
		hm := func(what string) string {
			return fmt.Sprintf("%02d:%02d", rapid.SampledFrom([]int{0, 1, 2, 3, 4, 12, 22, 23}).Draw(t, what+" hour"), rapid.SampledFrom([]int{0, 15, 30, 59}).Draw(t, what+" minute"))
		}
		s.Start, s.End = hm("start"), hm("end")
		p, err := Compile(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		d := time.Date(rapid.IntRange(2000, 2040).Draw(t, "year"), 1, 1, 0, 0, 0, 0, time.UTC)
		var last Run
		for range 366 {
			r, ok := p.on(d)
			noon := Resolve(d, 12*60, p.loc).In(p.loc).Format(dateForm)
			switch {
			case !ok && noon == d.Format(dateForm):
				t.Fatalf("%s %s has no run", zone, d.Format(dateForm))
			case ok && !r.Start.Before(r.End):
				t.Fatalf("%s: %+v has no length", zone, r)
			case ok && r.Start.In(p.loc).Format(dateForm) != r.Date:
				t.Fatalf("%s: the run of %s starts on %s", zone, r.Date, r.Start.In(p.loc))
			case ok && r.Start.Before(last.End):
				t.Fatalf("%s: %+v begins inside %+v", zone, r, last)
			case ok && r.End.Sub(r.Start) > p.Length()+25*time.Hour:
				t.Fatalf("%s: %+v lasts %s", zone, r, r.End.Sub(r.Start))
			}
			if ok {
				last = r
			}
			d = d.AddDate(0, 0, 1)
		}
	})
}

func TestDaysAndCalendars(t *testing.T) {
	xmas := api.Calendar{Name: "Holidays", Days: []string{"2026-12-24..2027-01-06", "2026-12-21"}}
	at := time.Date(2026, 12, 18, 12, 0, 0, 0, time.UTC) // a Friday
	for _, tt := range []struct {
		name string
		set  func(*api.Schedule)
		want string // days of the next runs, - = skipped
	}{
		{"weekdays", func(s *api.Schedule) { s.Weekdays = []string{"fri", "Mon"} }, "18 21 25 28 01"},
		{"holidays", func(s *api.Schedule) { s.Weekdays, s.Skip = []string{"fri", "mon"}, []string{"holidays"} }, "18 -21 -25 -28 -01"},
		{"only then", func(s *api.Schedule) { s.Only = []string{"Holidays"} }, "21 24 25 26 27"},
		{"once", func(s *api.Schedule) { s.Weekdays, s.Date = nil, "2026-12-30" }, "30"},
		{"once, over", func(s *api.Schedule) { s.Weekdays, s.Date = nil, "2026-12-01" }, ""},
		{"from and to", func(s *api.Schedule) { s.From, s.To = "2026-12-30", "2026-12-31" }, "30 31"},
		{"the running one counts", func(s *api.Schedule) { s.Start, s.End = "13:30", "13:15" }, "17 18 19 20 21"},
	} {
		s := nightly("Europe/Berlin")
		tt.set(&s)
		var got []string
		for _, r := range compile(t, s, xmas).Next(at, 5) {
			word := r.Date[8:]
			if r.Skip != "" {
				word = "-" + word
			}
			got = append(got, word)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v; want %s", tt.name, got, tt.want)
		}
	}
}

func TestNonsense(t *testing.T) {
	for want, set := range map[string]func(*api.Schedule){
		`time zone "Mars/Olympus"`: func(s *api.Schedule) { s.TZ = "Mars/Olympus" },
		"name a time zone":         func(s *api.Schedule) { s.TZ = "" },
		`start "25:00"`:            func(s *api.Schedule) { s.Start = "25:00" },
		`end "soon"`:               func(s *api.Schedule) { s.End = "soon" },
		"weekdays or one date":     func(s *api.Schedule) { s.Weekdays = nil },
		"either weekdays":          func(s *api.Schedule) { s.Date = "2026-01-01" },
		`weekday "funday"`:         func(s *api.Schedule) { s.Weekdays = []string{"funday"} },
		`date "2026-02-30"`:        func(s *api.Schedule) { s.Weekdays, s.Date = nil, "2026-02-30" },
		"before it begins":         func(s *api.Schedule) { s.From, s.To = "2026-02-02", "2026-02-01" },
		`calendar "x" is not`:      func(s *api.Schedule) { s.Skip = []string{"x"} },
		"late or never":            func(s *api.Schedule) { s.CatchUp = "always" },
		"schedule name":            func(s *api.Schedule) { s.Name = "a/b" },
	} {
		s := nightly("UTC")
		set(&s)
		var e *Error
		if _, err := Compile(s, nil); !errors.As(err, &e) || !strings.Contains(e.Text, want) {
			t.Errorf("%+v: %v; want %q", s, err, want)
		}
	}
	for _, days := range [][]string{{"tomorrow"}, {"2026-01-02..2026-01-01"}, {"2026-01-01..x"}, make([]string, maxDays+1)} {
		if CheckCalendar(api.Calendar{Name: "c", Days: days}) == nil {
			t.Errorf("a calendar of %.40q", days)
		}
	}
}

func TestOverlap(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	a := nightly("Europe/Berlin")
	b := nightly("Europe/London") // 23:00 in Berlin
	if _, _, ok := Overlap(compile(t, a), compile(t, b), now); !ok {
		t.Error("22:00 to 06:00 in two zones: no overlap")
	}
	b.TZ, b.Start, b.End = "Europe/Berlin", "06:00", "08:00"
	if x, y, ok := Overlap(compile(t, a), compile(t, b), now); ok {
		t.Errorf("one ends as the other begins: %+v, %+v", x, y)
	}
	b.Start = "05:59"
	if _, _, ok := Overlap(compile(t, a), compile(t, b), now); !ok {
		t.Error("a minute is an overlap")
	}
	b.Weekdays, b.Date = nil, "2027-02-01"
	if x, _, ok := Overlap(compile(t, a), compile(t, b), now); !ok || x.Date != "2027-01-31" {
		t.Errorf("one night in February: %+v, %v", x, ok)
	}
	a.Skip = []string{"c"}
	if _, _, ok := Overlap(compile(t, a, api.Calendar{Name: "c", Days: []string{"2027-01-31"}}), compile(t, b), now); ok {
		t.Error("a night that is skipped overlaps")
	}
}

func TestDueAndJudge(t *testing.T) {
	s := nightly("Europe/Berlin")
	s.Since = time.Date(2026, 11, 18, 0, 0, 0, 0, time.UTC)
	p := compile(t, s)
	none := func(string) bool { return false }
	at := func(day, hour, min int) time.Time { return time.Date(2026, 11, day, hour, min, 0, 0, p.loc) }
	if due := p.Due(at(18, 21, 59), none); len(due) != 0 {
		t.Errorf("a minute early: %+v", due)
	}
	due := p.Due(at(20, 22, 0), none)
	if len(due) != 3 || due[0].Date != "2026-11-18" || due[2].Date != "2026-11-20" {
		t.Fatalf("due: %+v", due)
	}
	if d := p.Due(at(20, 22, 0), func(date string) bool { return date != "2026-11-20" }); len(d) != 1 {
		t.Errorf("what the ledger knows is due again: %+v", d)
	}
	s.Since = at(20, 23, 0)
	if d := compile(t, s).Due(at(21, 1, 0), none); len(d) != 0 {
		t.Errorf("saved inside its window, it begins at once: %+v", d)
	}
	r := due[2]
	never, paused, skip := s, s, r
	never.CatchUp, paused.Paused, paused.PausedBy, skip.Skip = CatchNever, at(1, 0, 0), "eva", "calendar x"
	for _, tt := range []struct {
		name   string
		s      api.Schedule
		r      Run
		now    time.Time
		needs  time.Duration
		result string
		reason string
	}{
		{"on time", s, r, at(20, 22, 0), 0, api.RunStarted, ""},
		{"late", s, r, at(21, 1, 0), time.Hour, api.RunStarted, "3h0m0s late"},
		{"too late for the room", s, r, at(21, 5, 30), time.Hour, api.RunMissed, "30m0s were left"},
		{"over", s, r, at(21, 6, 0), 0, api.RunMissed, "not there"},
		{"late and not to be caught up", never, r, at(20, 22, 6), 0, api.RunMissed, "not to be caught up"},
		{"not late at all", never, r, at(20, 22, 5), 0, api.RunStarted, ""},
		{"paused", paused, r, at(20, 22, 0), 0, api.RunSkipped, "eva"},
		{"holiday", s, skip, at(20, 22, 0), 0, api.RunSkipped, "calendar x"},
	} {
		v := Judge(tt.s, tt.r, tt.now, tt.needs)
		if v.Result != tt.result || v.Start != (tt.result == api.RunStarted) || !strings.Contains(v.Reason, tt.reason) || tt.reason == "" && v.Reason != "" {
			t.Errorf("%s: %+v; want %s %q", tt.name, v, tt.result, tt.reason)
		}
	}
}

func TestClock(t *testing.T) {
	t0 := time.Date(2026, 11, 20, 2, 0, 0, 0, time.UTC)
	built := t0.Add(-time.Hour)
	var c Clock
	look := func(wall time.Time, mono time.Duration, want string) {
		t.Helper()
		if got := c.Look(wall, mono, built, t0.Add(-time.Minute)); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("at %s: %q; want %q", wall.Format(time.TimeOnly), got, want)
		}
	}
	look(t0, 0, "")
	look(t0.Add(time.Hour), time.Hour, "")                  // time goes on
	look(t0.Add(69*time.Minute), time.Hour+time.Second, "") // put right by minutes
	look(t0.Add(4*time.Hour), time.Hour+2*time.Second, "jumped by 2h50m59s")
	look(t0.Add(4*time.Hour+time.Second), time.Hour+3*time.Second, "jumped") // it stays in doubt
	c.Accept()
	look(t0.Add(4*time.Hour+2*time.Second), time.Hour+4*time.Second, "")
	look(t0.Add(2*time.Hour), time.Hour+5*time.Second, "jumped by -2h")
	c = Clock{}
	look(built.Add(-time.Second), 0, "built later")
	c = Clock{}
	look(t0.Add(-30*time.Minute), 0, "a run was noted") // the clock went back while the server was off
	c.Accept()
	look(t0.Add(-29*time.Minute), time.Minute, "")
}
