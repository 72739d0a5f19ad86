// Package jobs is the console's list of jobs, the newest first.
package jobs

import (
	"fmt"
	"strconv"
	"strings"

	"labswarm/api"
	"labswarm/api/filter"
	"labswarm/internal/units"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/doctor"
	"labswarm/tui/screen/job"
	"labswarm/tui/screen/list"
	"labswarm/tui/screen/newjob"
	"labswarm/tui/screen/report"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// State is what the person chose.
type State struct{ list.State }

// Screen implements screen.View.
func (st State) Screen() keymap.Screen { return keymap.Jobs }

// Query implements screen.View: the picture has everything.
func (st State) Query(*snapshot.Snapshot) screen.Query { return screen.Query{} }

// KeyState implements screen.View.
func (st State) KeyState(in screen.In) keymap.State {
	lines, _ := st.Shown(table(in))
	return keymap.State{Items: len(lines)}
}

// Render implements screen.View.
func (st State) Render(in screen.In) string {
	c, ok := screen.Framer(in, "")
	if !ok {
		return c.String()
	}
	live := 0
	for _, j := range in.S.Jobs {
		if !component.Ended(j) {
			live++
		}
	}
	c.Add(theme.Head, " Jobs").Line(theme.Text, fmt.Sprintf("   %d running, %d ended", live, len(in.S.Jobs)-live))
	st.Draw(c, table(in), c.Rows()-1)
	in.Foot().Write(c, st.Screen(), st.KeyState(in))
	return c.String()
}

// Press implements screen.View.
func (st State) Press(id keymap.ID, in screen.In) (screen.View, screen.Effect) {
	t := table(in)
	switch id {
	case keymap.NewJob:
		return st, screen.Effect{Open: newjob.ForRoom("")}
	case keymap.ShowReports:
		return st, screen.Effect{Open: report.List{}}
	case keymap.ShowDoctor:
		return st, screen.Effect{Open: doctor.State{}}
	}
	if id == keymap.Open {
		if l := st.Selected(t); l != nil {
			n, err := strconv.ParseUint(l.Key, 10, 64)
			if err != nil {
				return st, screen.Effect{Note: "open job: " + err.Error()}
			}
			return st, screen.Effect{Open: job.State{ID: n}}
		}
	}
	st.State = st.Move(id, t, in.Size.H-4)
	return st, screen.Effect{}
}

// Type implements screen.Typist.
func (st State) Type(key string, in screen.In) (screen.View, screen.Effect) {
	st.State = st.State.Type(key, table(in))
	return st, screen.Effect{}
}

func table(in screen.In) list.Table {
	t := list.Table{
		Cols: []component.Column{{Head: "JOB", Right: true}, {Head: "STATE"}, {Head: "ROOM", Max: 14}, {Head: "IMAGE", Grow: true},
			{Head: "OK", Right: true}, {Head: "!!", Right: true, Drop: 2}, {Head: "DONE", Right: true}, {Head: "ETA", Right: true, Drop: 3}, {Head: "BEGAN", Drop: 4}},
		Names: []string{"job", "state", "room", "image", "ok", "failed"},
		Empty: "no jobs yet: labswarm job create --image NAME --room ROOM",
	}
	for _, j := range in.S.Jobs {
		t.Lines = append(t.Lines, line(j, in))
	}
	return t
}

func line(j *api.Job, in screen.In) list.Line {
	good, bad := 0, 0
	for i := range j.Slots {
		switch snapshot.GroupOf(&j.Slots[i]) {
		case snapshot.Good:
			good++
		case snapshot.Failed, snapshot.Held:
			bad++
		}
	}
	state, role, eta := "running", theme.Busy, component.Figure(component.ETA(j), in.Stale())
	if component.Ended(j) {
		state, role, eta = j.Result, theme.Good, "-"
		if j.Result != "ok" {
			role = theme.Bad
		}
		if took := j.Ended.Sub(j.Created); took > 0 {
			eta = "took " + units.FormatDuration(took)
		}
	}
	id := strconv.FormatUint(j.ID, 10)
	cells := component.Plain(id, state, room(j), component.Image(j), fmt.Sprintf("%d/%d", good, len(j.Slots)), strconv.Itoa(bad),
		component.Percent(j.Percent), eta, component.Clock(j.Created, in.Now))
	cells[1].Role = role
	if bad > 0 {
		cells[5].Role = theme.Bad
	}
	return list.Line{Key: id, Cells: cells, Row: filter.Row{
		"job": id, "state": strings.ToLower(state), "room": j.Room, "image": component.Image(j), "ok": strconv.Itoa(good), "failed": strconv.Itoa(bad),
	}}
}

func room(j *api.Job) string {
	if j.Room != "" {
		return j.Room
	}
	return fmt.Sprintf("%d hosts", len(j.Slots))
}
