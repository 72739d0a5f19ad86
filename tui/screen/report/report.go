// Package report is the console's report of a job: verdict first, seats second,
// figures last. What the hosts came to is the server's judgement; the screen
// adds the hosts of the room that were not in the job.
package report

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/newjob"
	"labswarm/tui/screen/pager"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// State is what the person chose.
type State struct {
	pager.State
	Job uint64
}

const (
	readEvery = 5 * time.Second // while the job runs
	most      = 4               // lines for the sentence about one host
)

// Screen implements screen.View.
func (st State) Screen() keymap.Screen { return keymap.Report }

// Query implements screen.View: once more when the job has ended.
func (st State) Query(s *snapshot.Snapshot) screen.Query {
	j, id := s.Job(st.Job), st.Job
	q := screen.Query{Key: fmt.Sprintf("report %d", id), Read: func(ctx context.Context, c *client.Client) (any, error) { return c.ReportSummary(ctx, id) }}
	if j != nil && !component.Ended(j) {
		q.Key, q.Every = q.Key+" running", readEvery
	}
	return q
}

// of is the report that was read, if it is the one that is shown.
func (st State) of(in screen.In) (r api.ReportSummary, ok bool) {
	r, ok = in.Data.(api.ReportSummary)
	return r, ok && r.Job == st.Job
}

// KeyState implements screen.View.
func (st State) KeyState(in screen.In) keymap.State {
	r, ok := st.of(in)
	if !ok {
		return keymap.State{}
	}
	return keymap.State{Items: 1, Hosts: len(failed(r, in.S))}
}

// failed are the hosts without the image that have ended and still are in the
// inventory.
func failed(r api.ReportSummary, s *snapshot.Snapshot) []string {
	var out []string
	for _, g := range r.Groups {
		if g.Name != api.GroupNotUsable && g.Name != api.GroupOldImage {
			continue
		}
		for _, h := range g.Hosts {
			if _, known := s.Host(h.Host); known != nil {
				out = append(out, h.Host)
			}
		}
	}
	slices.SortFunc(out, snapshot.Natural)
	return out
}

// Press implements screen.View.
func (st State) Press(id keymap.ID, in screen.In) (screen.View, screen.Effect) {
	r, ok := st.of(in)
	switch id {
	case keymap.Back:
		return st, screen.Effect{Back: true}
	case keymap.Save:
		return st, screen.Effect{Open: saver{job: st.Job}}
	case keymap.NewJob:
		if hosts := failed(r, in.S); ok && len(hosts) > 0 {
			return st, screen.Effect{Open: newjob.ForHosts(hosts)}
		}
		return st, screen.Effect{}
	}
	st.State = st.Move(id, len(st.lines(in)), in.Size.H)
	return st, screen.Effect{}
}

// Render implements screen.View.
func (st State) Render(in screen.In) string {
	c, ok := screen.Framer(in, "")
	if !ok {
		return c.String()
	}
	c.Add(theme.Head, fmt.Sprintf(" Report of job %d", st.Job))
	if r, ok := st.of(in); ok {
		role := theme.Warn
		switch r.Verdict {
		case "OK":
			role = theme.Good
		case "LIVE":
			role = theme.Busy
		}
		c.Add(theme.Text, "   ").Add(role, fmt.Sprintf("%s  %d of %d", snapshot.Clean(r.Verdict), r.Ready, r.Hosts))
	}
	lines := st.lines(in)
	if more := st.More(lines, in.Size.H); more != "" {
		c.Right(theme.Dim, more)
	}
	c.End()
	st.Draw(c, lines, in.Size.H)
	c.Down(1)
	in.Foot().Write(c, st.Screen(), st.KeyState(in))
	return c.String()
}

// lines is the whole report.
func (st State) lines(in screen.In) []pager.Line {
	w := in.Size.W - 2
	r, ok := st.of(in)
	switch {
	case in.Cause != "":
		return pager.Wrap(theme.Warn, "", "no report: "+in.Cause, w, most)
	case !ok:
		return []pager.Line{{Role: theme.Dim, Text: "asking the server for the report ..."}}
	}
	what := snapshot.Clean(r.Image)
	if r.Kind == api.KindCapture {
		what = "capture of " + what
	}
	end := r.Created.Add(time.Duration(r.DurationS * float64(time.Second)))
	out := pager.Wrap(theme.Text, "", fmt.Sprintf("%s -> %s   %s to %s", what, or(snapshot.Clean(r.Room), "named hosts"),
		component.Clock(r.Created, in.Now), component.Clock(end, in.Now)), w, 2)
	section := func(role theme.Role, title string, rows ...pager.Line) {
		if in.Size.H >= 16 {
			out = append(out, pager.Line{})
		}
		out = append(append(out, pager.Line{Role: role, Text: title}), rows...)
	}
	roles := map[string]theme.Role{api.GroupNotUsable: theme.Bad, api.GroupOldImage: theme.Warn, api.GroupBusy: theme.Busy, api.GroupReady: theme.Good}
	var ready []api.ReportHost
	for _, g := range r.Groups {
		if g.Name == api.GroupReady {
			ready = g.Hosts
			continue
		}
		section(roles[g.Name], fmt.Sprintf("%s  %d", snapshot.Clean(g.Name), len(g.Hosts)), about(g.Hosts, w)...)
	}
	if names := outside(r, in.S); len(names) > 0 {
		section(theme.Warn, fmt.Sprintf("NOT IN THE JOB  %d", len(names)), pager.Wrap(theme.Text, "  ", strings.Join(names, " "), w, len(names))...)
	}
	if len(ready) > 0 {
		names := make([]string, len(ready))
		for i, h := range ready {
			names[i] = snapshot.Clean(h.Host)
		}
		slices.SortFunc(names, snapshot.Natural)
		section(theme.Good, fmt.Sprintf("%s  %d", api.GroupReady, len(ready)), pager.Wrap(theme.Text, "  ", strings.Join(names, " "), w, len(names))...)
	}
	var figures []pager.Line
	for _, f := range r.Figures {
		figures = append(figures, pager.Wrap(theme.Text, fmt.Sprintf("  %-22s", snapshot.Clean(f.Name)), snapshot.Clean(f.Text), w, most)...)
	}
	section(theme.Head, "FIGURES", figures...)
	if len(r.Warnings) > 0 {
		section(theme.Warn, fmt.Sprintf("WARNINGS  %d", len(r.Warnings)), about(r.Warnings, w)...)
	}
	if len(ready) > 0 {
		section(theme.Head, "HOST BY HOST", about(ready, w)...)
	}
	return out
}

func about(hosts []api.ReportHost, w int) []pager.Line {
	var out []pager.Line
	for _, h := range hosts {
		out = append(out, pager.Wrap(theme.Text, fmt.Sprintf("  %-8s ", snapshot.Clean(h.Host)), snapshot.Clean(h.Text), w, most)...)
	}
	return out
}

// outside are the hosts of the room that were not in the job.
func outside(r api.ReportSummary, s *snapshot.Snapshot) []string {
	at, ok := s.Find(snapshot.Clean(r.Room))
	if !ok || r.Room == "" {
		return nil
	}
	in := map[string]bool{}
	for _, g := range r.Groups {
		for _, h := range g.Hosts {
			in[snapshot.Clean(h.Host)] = true
		}
	}
	var out []string
	for i := range s.Rooms[at].Hosts {
		if n := s.Rooms[at].Hosts[i].Name; !in[n] {
			out = append(out, n)
		}
	}
	return out
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}
