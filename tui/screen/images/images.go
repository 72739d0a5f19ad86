// Package images is the console's list of image versions.
package images

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
	"labswarm/tui/screen/newjob"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// State is what the person chose.
type State struct {
	list.State
	Open bool // facts of the selected version below the list
}

// Facts is what the view reads.
type Facts struct {
	Images []api.Image
	States map[string]api.ImageState // by name/version
}

const readEvery = 5 * time.Second

// Screen implements screen.View.
func (st State) Screen() keymap.Screen { return keymap.Images }

// Query implements screen.View.
func (st State) Query(*snapshot.Snapshot) screen.Query {
	return screen.Query{Key: "images", Every: readEvery, Read: func(ctx context.Context, c *client.Client) (any, error) {
		list, err := c.Images(ctx)
		if err != nil {
			return nil, err
		}
		states, err := c.ImageStates(ctx)
		if err != nil {
			return nil, err
		}
		f := Facts{Images: list, States: map[string]api.ImageState{}}
		for _, s := range states {
			f.States[s.Name+"/"+s.Version] = s
		}
		return f, nil
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
	c.Add(theme.Head, " Images")
	if in.Data != nil {
		c.Add(theme.Text, fmt.Sprintf("   %d versions", len(t.Lines)))
	}
	if in.Cause != "" {
		c.Add(theme.Warn, "   could not be read: "+in.Cause)
	}
	c.End()
	var facts []string
	if st.Open {
		const table = 3 // lines that the list keeps
		facts = st.facts(in, t)
		facts = facts[:max(0, min(len(facts), c.Rows()-1-table))]
	}
	st.Draw(c, t, c.Rows()-1-len(facts))
	c.Down(1 + len(facts))
	for _, f := range facts {
		c.Line(theme.Text, " "+f)
	}
	c.Down(1)
	in.Foot().Write(c, st.Screen(), st.KeyState(in))
	return c.String()
}

// Press implements screen.View.
func (st State) Press(id keymap.ID, in screen.In) (screen.View, screen.Effect) {
	switch id {
	case keymap.Open:
		st.Open = !st.Open
		return st, screen.Effect{}
	case keymap.NewJob:
		if l := st.Selected(table(in)); l != nil {
			return st, screen.Effect{Open: newjob.OfImage(l.Key)}
		}
	case keymap.Pin, keymap.Remove:
		if l := st.Selected(table(in)); l != nil {
			return st, screen.Effect{Open: question(id, l.Key, in)}
		}
		return st, screen.Effect{}
	}
	st.State = st.Move(id, table(in), in.Size.H-4)
	return st, screen.Effect{}
}

// Type implements screen.Typist.
func (st State) Type(key string, in screen.In) (screen.View, screen.Effect) {
	st.State = st.State.Type(key, table(in))
	return st, screen.Effect{}
}

func table(in screen.In) list.Table {
	t := list.Table{
		Cols: []component.Column{{Head: "NAME", Grow: true}, {Head: "VERSION", Max: 18}, {Head: "USED", Right: true}, {Head: "CELLS", Right: true, Drop: 4},
			{Head: "BOOT", Drop: 3}, {Head: "CREATED", Drop: 2}, {Head: "PIN", Drop: 5}, {Head: "CHECK"}},
		Names: []string{"name", "version", "boot", "pin", "check"},
		Empty: "no images yet: labswarm image import NAME FILE",
	}
	f, ok := in.Data.(Facts)
	if !ok {
		t.Empty = "asking the server for its images ..."
		return t
	}
	for _, i := range f.Images {
		t.Lines = append(t.Lines, line(i, f.States[i.Name+"/"+i.Version], in))
	}
	return t
}

func line(i api.Image, st api.ImageState, in screen.In) list.Line {
	name, version := snapshot.Clean(i.Name), snapshot.Clean(i.Version)
	check, role := checked(st, in)
	cells := component.Plain(name, version, units.FormatBytes(i.UsedBytes), strconv.Itoa(i.Cells), snapshot.Clean(i.Boot), component.Clock(i.Created, in.Now), pinned(st), check)
	cells[7].Role = role
	return list.Line{Key: name + "/" + version, Cells: cells, Row: filter.Row{"name": name, "version": version, "boot": i.Boot, "pin": pinned(st), "check": check}}
}

// facts is about the selected version.
func (st State) facts(in screen.In, t list.Table) []string {
	f, ok := in.Data.(Facts)
	l := st.Selected(t)
	if !ok || l == nil {
		return nil
	}
	for _, i := range f.Images {
		if snapshot.Clean(i.Name)+"/"+snapshot.Clean(i.Version) != l.Key {
			continue
		}
		out := []string{
			fmt.Sprintf("%s  disk %s, needs %s at least, ships %s", l.Key, units.FormatBytes(i.DiskBytes), units.FormatBytes(i.MinBytes), units.FormatBytes(i.BytesShipped)),
			"manifest " + i.Digest,
		}
		out = append(out, stateLines(f.States[i.Name+"/"+i.Version], in)...)
		for _, p := range i.Partitions {
			out = append(out, "  "+snapshot.Clean(p))
		}
		if len(i.Forced) > 0 {
			out = append(out, "forced: "+snapshot.Clean(strings.Join(i.Forced, ", ")))
		}
		return out
	}
	return nil
}
