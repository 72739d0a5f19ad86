package report

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/api/filter"
	"labswarm/internal/units"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/list"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// List is the list of kept reports, the newest first.
type List struct{ list.State }

const listEvery = 10 * time.Second

// Screen implements screen.View.
func (st List) Screen() keymap.Screen { return keymap.Reports }

// Query implements screen.View.
func (st List) Query(*snapshot.Snapshot) screen.Query {
	return screen.Query{Key: "reports", Every: listEvery, Read: func(ctx context.Context, c *client.Client) (any, error) { return c.Reports(ctx) }}
}

// KeyState implements screen.View.
func (st List) KeyState(in screen.In) keymap.State {
	lines, _ := st.Shown(table(in))
	return keymap.State{Items: len(lines)}
}

// Press implements screen.View.
func (st List) Press(id keymap.ID, in screen.In) (screen.View, screen.Effect) {
	t := table(in)
	switch id {
	case keymap.Back:
		return st, screen.Effect{Back: true}
	case keymap.Open:
		if l := st.Selected(t); l != nil {
			if n, err := strconv.ParseUint(l.Key, 10, 64); err == nil {
				return st, screen.Effect{Open: State{Job: n}}
			}
		}
		return st, screen.Effect{}
	}
	st.State = st.Move(id, t, in.Size.H-4)
	return st, screen.Effect{}
}

// Type implements screen.Typist.
func (st List) Type(key string, in screen.In) (screen.View, screen.Effect) {
	st.State = st.State.Type(key, table(in))
	return st, screen.Effect{}
}

// Render implements screen.View.
func (st List) Render(in screen.In) string {
	c, ok := screen.Framer(in, "")
	if !ok {
		return c.String()
	}
	t := table(in)
	c.Add(theme.Head, " Reports")
	if in.Cause != "" {
		c.Add(theme.Warn, "   could not be read: "+in.Cause)
	} else if in.Data != nil {
		c.Add(theme.Text, fmt.Sprintf("   %d kept", len(t.Lines)))
	}
	c.End()
	st.Draw(c, t, c.Rows()-1)
	c.Down(1)
	in.Foot().Write(c, st.Screen(), st.KeyState(in))
	return c.String()
}

func table(in screen.In) list.Table {
	t := list.Table{
		Cols: []component.Column{{Head: "JOB", Right: true}, {Head: "RESULT"}, {Head: "READY", Right: true}, {Head: "ROOM", Max: 14}, {Head: "IMAGE", Grow: true},
			{Head: "BEGAN", Drop: 1}, {Head: "TOOK", Right: true, Drop: 2}},
		Names: []string{"job", "result", "ready", "room", "image"},
		Empty: "no job has ended yet",
	}
	reports, ok := in.Data.([]api.ReportInfo)
	if !ok {
		t.Empty = "asking the server for its reports ..."
		return t
	}
	for _, r := range reports {
		id, room, image, result := strconv.FormatUint(r.Job, 10), snapshot.Clean(r.Room), snapshot.Clean(r.Image), strings.ToUpper(snapshot.Clean(r.Result))
		cells := component.Plain(id, result, fmt.Sprintf("%d/%d", r.Ready, r.Hosts), or(room, "-"), image, component.Clock(r.Created, in.Now),
			units.FormatDuration(time.Duration(r.DurationS*float64(time.Second))))
		cells[1].Role = theme.Good
		if result != "OK" {
			cells[1].Role = theme.Warn
		}
		t.Lines = append(t.Lines, list.Line{Key: id, Cells: cells, Row: filter.Row{"job": id, "result": strings.ToLower(result), "ready": strconv.Itoa(r.Ready), "room": room, "image": image}})
	}
	return t
}
