// Package logs is the console's screen of the server's event log.
package logs

import (
	"strconv"
	"strings"

	"labswarm/api"
	"labswarm/api/filter"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/doctor"
	"labswarm/tui/screen/list"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// State is what the person chose. The zero value follows the newest line.
type State struct {
	list.State
	Held bool // does not follow
}

// Screen implements screen.View.
func (st State) Screen() keymap.Screen { return keymap.Log }

// Query implements screen.View: the picture has the newest events.
func (st State) Query(*snapshot.Snapshot) screen.Query { return screen.Query{} }

// KeyState implements screen.View.
func (st State) KeyState(in screen.In) keymap.State {
	lines, _ := st.Shown(table(in))
	return keymap.State{Items: len(lines)}
}

// at is the state with the newest line selected while it follows.
func (st State) at(t list.Table) list.State {
	if st.Held {
		return st.State
	}
	return st.Move(keymap.Last, t, 1)
}

// Render implements screen.View.
func (st State) Render(in screen.In) string {
	c, ok := screen.Framer(in, "")
	if !ok {
		return c.String()
	}
	t := table(in)
	c.Add(theme.Head, " Log")
	if st.Held {
		c.Line(theme.Text, "   held; f follows the newest")
	} else {
		c.Line(theme.Text, "   following")
	}
	now := st.at(t)
	detail := ""
	if l := now.Selected(t); l != nil {
		detail = l.Cells[len(l.Cells)-1].Text
	}
	const below = 3 // lines for the whole sentence of the selected event
	now.Draw(c, t, c.Rows()-1-below)
	c.Down(below + 1)
	for _, l := range component.Wrap(detail, c.Left()-2, below) {
		c.Line(theme.Text, " "+l)
	}
	c.Down(1)
	in.Foot().Write(c, st.Screen(), st.KeyState(in))
	return c.String()
}

// Press implements screen.View.
func (st State) Press(id keymap.ID, in screen.In) (screen.View, screen.Effect) {
	t := table(in)
	if id == keymap.ShowDoctor {
		return st, screen.Effect{Open: doctor.State{}}
	}
	if id == keymap.Follow {
		st.State, st.Held = st.at(t), !st.Held
		return st, screen.Effect{}
	}
	st.State = st.at(t).Move(id, t, in.Size.H-7)
	if id != keymap.Filter {
		st.Held = id != keymap.Last
	}
	return st, screen.Effect{}
}

// Type implements screen.Typist.
func (st State) Type(key string, in screen.In) (screen.View, screen.Effect) {
	st.State = st.State.Type(key, table(in))
	return st, screen.Effect{}
}

func table(in screen.In) list.Table {
	t := list.Table{
		Cols:  []component.Column{{Head: "TIME"}, {Head: "L"}, {Head: "JOB", Right: true, Drop: 3}, {Head: "HOST", Max: 14, Drop: 2}, {Head: "WHAT", Grow: true}},
		Names: []string{"level", "code", "job", "host", "room"},
		Empty: "nothing has happened yet",
	}
	t.Lines = make([]list.Line, 0, len(in.S.Log))
	for i := range in.S.Log {
		t.Lines = append(t.Lines, line(&in.S.Log[i], in))
	}
	return t
}

func line(e *api.Event, in screen.In) list.Line {
	job, level, role := "", "I", theme.Text
	switch e.Level {
	case "warn":
		level, role = "W", theme.Warn
	case "error":
		level, role = "E", theme.Bad
	}
	if e.Job != 0 {
		job = strconv.FormatUint(e.Job, 10)
	}
	cells := component.Plain(component.Clock(e.Time, in.Now), level, job, e.Host, e.Text)
	cells[1].Role, cells[4].Role = role, role
	return list.Line{Key: strconv.FormatUint(e.Seq, 10), Cells: cells, Row: filter.Row{
		"level": strings.ToLower(e.Level), "code": e.Code, "job": job, "host": e.Host, "room": e.Room, "what": e.Text,
	}}
}
