// Package hosts is the console's list of all PCs.
package hosts

import (
	"fmt"
	"strconv"

	"labswarm/api/filter"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/host"
	"labswarm/tui/screen/list"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// State is what the person chose.
type State struct {
	list.State
	BySeen bool // the longest unseen first, else room by room
}

// Screen implements screen.View.
func (st State) Screen() keymap.Screen { return keymap.Hosts }

// Query implements screen.View: the picture has everything.
func (st State) Query(*snapshot.Snapshot) screen.Query { return screen.Query{} }

// KeyState implements screen.View.
func (st State) KeyState(in screen.In) keymap.State {
	lines, _ := st.Shown(st.table(in))
	return keymap.State{Items: len(lines)}
}

// Render implements screen.View.
func (st State) Render(in screen.In) string {
	c, ok := screen.Framer(in, "")
	if !ok {
		return c.String()
	}
	c.Add(theme.Head, " Hosts").Line(theme.Text, fmt.Sprintf("   %d in %d rooms", in.S.Hosts, len(in.S.Rooms)))
	st.Draw(c, st.table(in), c.Rows()-1)
	in.Foot().Write(c, st.Screen(), st.KeyState(in))
	return c.String()
}

// Press implements screen.View.
func (st State) Press(id keymap.ID, in screen.In) (screen.View, screen.Effect) {
	t := st.table(in)
	switch id {
	case keymap.Sort:
		st.BySeen = !st.BySeen
		return st, screen.Effect{}
	case keymap.Open:
		if l := st.Selected(t); l != nil {
			if r, h := in.S.Host(l.Key); h != nil {
				return st, screen.Effect{Open: host.State{Room: r.Name, Host: h.Name}}
			}
		}
	}
	st.State = st.Move(id, t, in.Size.H-4)
	return st, screen.Effect{}
}

// At implements screen.Chooser.
func (st State) At(_, host string) screen.View {
	st.Key = host
	return st
}

// Type implements screen.Typist.
func (st State) Type(key string, in screen.In) (screen.View, screen.Effect) {
	st.State = st.State.Type(key, st.table(in))
	return st, screen.Effect{}
}

func (st State) table(in screen.In) list.Table {
	t := list.Table{
		Cols: []component.Column{{Head: "HOST", Max: 16}, {Head: "ROOM", Max: 12}, {Head: "MAC", Drop: 2}, {Head: "ADDRESS", Drop: 3}, {Head: "FW", Drop: 5},
			{Head: "DISK", Grow: true}, {Head: "SEEN", Drop: 4}, {Head: "STATE"}},
		Names: []string{"host", "room", "mac", "address", "fw", "state", "seen"},
		Empty: "no hosts yet: labswarm host add NAME --room R --mac M",
	}
	for i := range in.S.Rooms {
		r := &in.S.Rooms[i]
		for k := range r.Hosts {
			t.Lines = append(t.Lines, line(r, &r.Hosts[k], in))
		}
	}
	if st.BySeen {
		sortBySeen(t.Lines, in)
	}
	return t
}

func line(r *snapshot.Room, h *snapshot.Host, in screen.In) list.Line {
	state, seen, fw, ip := "", "never", h.Firmware, h.LastIP
	if h.Exclude {
		state = "excluded"
	}
	if h.Slot != nil {
		state = snapshot.Mark(h.Slot) + " job " + strconv.FormatUint(h.Job.ID, 10)
		if h.Slot.LastIP != "" {
			ip = h.Slot.LastIP
		}
	}
	if !h.LastSeen.IsZero() {
		seen = component.Clock(h.LastSeen, in.Now)
	}
	switch {
	case h.Secure:
		fw = "secure"
	case fw == "secureboot":
		fw = "secure"
	}
	cells := component.Plain(h.Name, r.Name, h.MAC, ip, fw, component.Disk(h), seen, state)
	cells[7].Role = component.RoleOf(h.Group)
	word := "idle"
	if h.Slot != nil {
		word = string(h.Slot.State)
	}
	days := ""
	if !h.LastSeen.IsZero() {
		days = strconv.Itoa(int(in.Now.Sub(h.LastSeen).Hours() / 24))
	}
	return list.Line{Key: h.Name, Cells: cells, Row: filter.Row{
		"host": h.Name, "room": r.Name, "mac": h.MAC, "address": ip, "fw": fw, "state": word, "seen": days, "disk": component.Disk(h),
	}}
}
