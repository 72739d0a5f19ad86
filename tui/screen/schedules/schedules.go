// Package schedules is the console's list of schedules: when each runs, what
// became of its last night, and why the next one does not run.
package schedules

import (
	"context"
	"fmt"
	"time"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/list"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// State is what the person chose.
type State struct {
	list.State
	Open string // whose runs are shown below the list, "" = nobody's
}

// Facts is what the view reads.
type Facts struct {
	List []api.ScheduleInfo
	Name string            // whose Runs
	Runs []api.ScheduleRun // newest first
}

const readEvery = 5 * time.Second

// Screen implements screen.View.
func (st State) Screen() keymap.Screen { return keymap.Schedules }

// Query implements screen.View: the schedules, and the past of the open one.
func (st State) Query(*snapshot.Snapshot) screen.Query {
	name := st.Open
	return screen.Query{Key: "schedules " + name, Every: readEvery, Read: func(ctx context.Context, c *client.Client) (any, error) {
		f := Facts{Name: name}
		var err error
		if f.List, err = c.Schedules(ctx); err != nil || name == "" {
			return f, err
		}
		for _, s := range f.List { // it may be gone
			if s.Name == name {
				f.Runs, err = c.ScheduleRuns(ctx, name)
			}
		}
		return f, err
	}}
}

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
	t := table(in)
	c.Add(theme.Head, " Schedules")
	f, read := in.Data.(Facts)
	if read {
		c.Add(theme.Text, fmt.Sprintf("   %d", len(f.List)))
		if z := zones(f.List); z != "" && in.Cause == "" {
			c.Add(theme.Text, "   times of "+z)
		}
	}
	if in.Cause != "" {
		c.Add(theme.Warn, "   could not be read: "+in.Cause)
	}
	c.End()
	var below []row
	if s := st.selected(in, t); s != nil && st.Open != "" {
		below = detail(s, f, in, max(3, in.Size.H/2))
	}
	st.Draw(c, t, c.Rows()-1-len(below))
	c.Down(1 + len(below))
	for _, l := range below {
		c.Line(l.role, " "+l.text)
	}
	c.Down(1)
	in.Foot().Write(c, st.Screen(), st.KeyState(in))
	return c.String()
}

// selected is the schedule of the selected line.
func (st State) selected(in screen.In, t list.Table) *api.ScheduleInfo {
	f, _ := in.Data.(Facts)
	l := st.Selected(t)
	for i := range f.List {
		if l != nil && snapshot.Clean(f.List[i].Name) == l.Key {
			return &f.List[i]
		}
	}
	return nil
}

// Press implements screen.View.
func (st State) Press(id keymap.ID, in screen.In) (screen.View, screen.Effect) {
	t := table(in)
	s := st.selected(in, t)
	switch {
	case id == keymap.Open && st.Open != "":
		st.Open = ""
		return st, screen.Effect{}
	case id == keymap.Open && s != nil:
		st.Open = s.Name
		return st, screen.Effect{}
	case id == keymap.Pause && s != nil:
		return st, screen.Effect{Open: pause(s)}
	case id == keymap.RunNow && s != nil:
		return st, screen.Effect{Open: runNow(s, in.S)}
	case id == keymap.Delete && s != nil:
		return st, screen.Effect{Open: remove(s)}
	}
	st.State = st.Move(id, t, in.Size.H-4)
	if s := st.selected(in, t); st.Open != "" && s != nil { // the runs follow the selection
		st.Open = s.Name
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
		Cols: []component.Column{{Head: "NAME", Max: 16}, {Head: "WHEN", Max: 22, Drop: 3}, {Head: "IMAGE", Max: 20, Drop: 4}, {Head: "ROOM", Max: 12, Drop: 2},
			{Head: "NEXT", Max: max(16, in.Size.W-64)}, {Head: "LAST", Grow: true}},
		Names: []string{"name", "image", "room", "next", "last", "state"},
		Empty: "no schedules yet: labswarm schedule add NAME --days mon,tue --room ROOM --image NAME --start 22:00 --end 06:00",
	}
	f, ok := in.Data.(Facts)
	if !ok {
		t.Empty = "asking the server for its schedules ..."
		return t
	}
	for i := range f.List {
		t.Lines = append(t.Lines, line(&f.List[i]))
	}
	return t
}
