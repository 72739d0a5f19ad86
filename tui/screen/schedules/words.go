package schedules

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/api/filter"
	"labswarm/tui/component"
	"labswarm/tui/screen"
	"labswarm/tui/screen/list"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

type row struct {
	role theme.Role
	text string
}

func line(s *api.ScheduleInfo) list.Line {
	name, image, room := snapshot.Clean(s.Name), image(s), target(s)
	next, nextRole, state := next(s)
	last, lastRole := last(s.Last)
	rule := when(s)
	if d, err := time.Parse(time.DateOnly, s.Date); err == nil {
		rule = d.Format("2 Jan ") + snapshot.Clean(s.Start+"-"+s.End)
	}
	cells := component.Plain(name, rule, image, room, next, last)
	cells[4].Role, cells[5].Role = nextRole, lastRole
	return list.Line{Key: name, Cells: cells, Row: filter.Row{"name": name, "image": image, "room": room, "next": next, "last": last, "state": state}}
}

func image(s *api.ScheduleInfo) string {
	out := s.Job.Image + "/latest"
	if s.Job.Version != "" {
		out = s.Job.Image + "/" + s.Job.Version
	}
	return snapshot.Clean(out)
}

func target(s *api.ScheduleInfo) string {
	if s.Job.Room == "" {
		return fmt.Sprintf("%d hosts", len(s.Job.Hosts))
	}
	return snapshot.Clean(s.Job.Room)
}

// when is the rule: "Mon-Fri 02:00-06:00".
func when(s *api.ScheduleInfo) string {
	return snapshot.Clean(days(s.Weekdays, s.Date) + " " + s.Start + "-" + s.End)
}

var week = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// days shortens three neighbours and more to a span.
func days(weekdays []string, date string) string {
	if date != "" {
		return "once " + date
	}
	var out []string
	for i := 0; i < len(week); i++ {
		end := i
		for end < len(week) && slices.Contains(weekdays, week[end]) {
			end++
		}
		switch {
		case end-i >= 3:
			out = append(out, title(week[i])+"-"+title(week[end-1]))
			i = end
		case end > i:
			out = append(out, title(week[i]))
		}
	}
	return strings.Join(out, ",")
}

func title(day string) string { return strings.ToUpper(day[:1]) + day[1:] }

// next says when it runs next, or why it does not.
func next(s *api.ScheduleInfo) (text string, role theme.Role, state string) {
	switch {
	case s.Clock != "":
		return "STOPPED " + snapshot.Clean(s.Clock), theme.Bad, "stopped"
	case !s.Paused.IsZero():
		text = "paused"
		if s.PausedBy != "" {
			text += " by " + snapshot.Clean(s.PausedBy)
		}
		return text, theme.Warn, "paused"
	case len(s.Next) == 0:
		return "no more runs", theme.Dim, "over"
	}
	n := &s.Next[0]
	if n.Skip != "" {
		return night(n.Date) + " skipped: " + snapshot.Clean(n.Skip), theme.Warn, "skips"
	}
	return night(n.Date) + " " + snapshot.Clean(s.Start), theme.Text, "on"
}

// night writes a local date with its weekday.
func night(date string) string {
	d, err := time.Parse(time.DateOnly, date)
	if err != nil {
		return snapshot.Clean(date)
	}
	return d.Format("Mon 2 Jan")
}

// last is the newest entry of the ledger in a few words.
func last(r *api.ScheduleRun) (string, theme.Role) {
	switch {
	case r == nil:
		return "-", theme.Dim
	case r.Result == api.RunStarted:
		return fmt.Sprintf("job %d", r.Job), theme.Good
	case r.Result == api.RunMissed:
		return "MISSED", theme.Bad
	}
	return snapshot.Clean(r.Result), theme.Warn
}

// zones names the time zones that the schedules are in.
func zones(all []api.ScheduleInfo) string {
	var out []string
	for i := range all {
		if z := snapshot.Clean(all[i].TZ); z != "" && !slices.Contains(out, z) {
			out = append(out, z)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// detail is about one schedule: the next five runs, then its past, in at most
// space lines.
func detail(s *api.ScheduleInfo, f Facts, in screen.In, space int) []row {
	out := []row{{theme.Head, snapshot.Clean(s.Name) + "  " + when(s) + " " + snapshot.Clean(s.TZ)}}
	if text, role, _ := next(s); s.Clock != "" || !s.Paused.IsZero() {
		out = append(out, row{role, text})
	}
	for i := range s.Next {
		out = append(out, nextRow(s, i))
	}
	if len(s.Next) == 0 {
		out = append(out, row{theme.Dim, "next  no more runs"})
	}
	if f.Name != s.Name {
		return append(out, row{theme.Dim, "past  asking the server ..."})[:min(space, len(out)+1)]
	}
	if len(f.Runs) == 0 {
		out = append(out, row{theme.Dim, "past  it has not run yet"})
	}
	for _, r := range f.Runs {
		_, role := last(&r)
		text := fmt.Sprintf("past  %-10s  %s", night(r.Date), snapshot.Clean(r.Result))
		if r.Job != 0 {
			text += fmt.Sprintf(" job %d%s", r.Job, outcome(in.S, r.Job))
		}
		if r.Reason != "" {
			text += ": " + snapshot.Clean(r.Reason)
		}
		out = append(out, row{role, text})
	}
	return out[:min(space, len(out))]
}

func nextRow(s *api.ScheduleInfo, i int) row {
	n := &s.Next[i]
	if n.Skip != "" {
		return row{theme.Warn, fmt.Sprintf("next  %-10s  skipped: %s", night(n.Date), snapshot.Clean(n.Skip))}
	}
	text := fmt.Sprintf("next  %-10s  %s to %s", night(n.Date), snapshot.Clean(s.Start), snapshot.Clean(s.End))
	if i > 0 && s.Next[i-1].Skip == "" {
		was, ok1 := offset(s, &s.Next[i-1])
		is, ok2 := offset(s, n)
		if ok1 && ok2 && was != is {
			text += fmt.Sprintf("   clocks change: UTC%+g h -> UTC%+g h", was.Hours(), is.Hours())
		}
	}
	return row{theme.Text, text}
}

// offset is how far local time is ahead of UTC at the beginning of a run.
func offset(s *api.ScheduleInfo, n *api.ScheduleNext) (time.Duration, bool) {
	wall, err := time.Parse("2006-01-02 15:04", n.Date+" "+s.Start)
	return wall.Sub(n.Start), err == nil && !n.Start.IsZero()
}

// outcome is what became of a job that the picture still has.
func outcome(s *snapshot.Snapshot, id uint64) string {
	j := s.Job(id)
	if j == nil {
		return ""
	}
	good := 0
	for i := range j.Slots {
		if j.Slots[i].State.Good() {
			good++
		}
	}
	state := "running"
	if component.Ended(j) {
		state = j.Result
	}
	return fmt.Sprintf(", %s, %d of %d verified", state, good, len(j.Slots))
}
