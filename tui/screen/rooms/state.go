package rooms

import (
	"slices"
	"time"

	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/snapshot"
)

// State is what the person chose. Room and host go by name, so that a choice
// survives every change of the room. The zero value is the first host of the
// first room.
type State struct {
	Room string
	Host string
	Top  int // first row of the map on the screen; a wish, drawing corrects it

	Marked []string // hosts of the room that the next command is for, sorted
	Dense  bool     // the dense map also where names would fit

	news news // what was read beside the picture
}

// place finds the room and the position of the selected host in drawing order.
// A name that is gone falls back to the first.
func (st State) place(s *snapshot.Snapshot, size component.Size) (r *snapshot.Room, order []int, at int) {
	if len(s.Rooms) == 0 {
		return nil, nil, 0
	}
	i, _ := s.Find(st.Room)
	r = &s.Rooms[i]
	if size.W < narrow {
		order = exceptionsFirst(r)
	}
	h, ok := r.Find(st.Host)
	switch {
	case order == nil:
		at = h
	case ok:
		at = slices.Index(order, h)
	}
	return r, order, at
}

// hostAt maps a position in drawing order to an index into the room.
func hostAt(order []int, at int) int {
	if order == nil {
		return at
	}
	return order[at]
}

// exceptionsFirst is the order of the narrow list: worst first, then as in the
// room.
func exceptionsFirst(r *snapshot.Room) []int {
	out := make([]int, 0, len(r.Hosts))
	for g := range snapshot.Groups {
		if r.Counts[g] == 0 {
			continue
		}
		for i := range r.Hosts {
			if r.Hosts[i].Group == g {
				out = append(out, i)
			}
		}
	}
	return out
}

// Selected returns the room and the host the state points at, nil when there
// is none.
func (st State) Selected(s *snapshot.Snapshot, size component.Size) (*snapshot.Room, *snapshot.Host) {
	r, order, at := st.place(s, size)
	if r == nil || len(r.Hosts) == 0 {
		return r, nil
	}
	return r, &r.Hosts[hostAt(order, at)]
}

// Move returns the state after a key. Moves stop at the edges.
func (st State) Move(id keymap.ID, s *snapshot.Snapshot, size component.Size, now time.Time) State {
	r, order, at := st.place(s, size)
	if r == nil {
		return st
	}
	switch id {
	case keymap.NextRoom, keymap.PrevRoom:
		return st.turn(id, s)
	}
	if _, small := component.TooSmall(size); small || len(r.Hosts) == 0 {
		return st
	}
	p, n := st.layout(s, r, size, now), len(r.Hosts)
	if p.chart != nil {
		at = p.chart.step(id, at, p.rows)
	} else {
		at = step(id, at, n, p)
	}
	st.Room, st.Host = r.Name, r.Hosts[hostAt(order, at)].Name
	st.Top = scroll(st.Top, p.row(at), p)
	return st
}

func (st State) turn(id keymap.ID, s *snapshot.Snapshot) State {
	i, _ := s.Find(st.Room)
	d := 1
	if id == keymap.PrevRoom {
		d = len(s.Rooms) - 1
	}
	return State{Room: s.Rooms[(i+d)%len(s.Rooms)].Name, Dense: st.Dense}
}

// mark marks the selected host, or takes its mark away; all marks or none with
// the whole room.
func (st State) mark(id keymap.ID, r *snapshot.Room, host string) State {
	was := st.Marked
	st.Marked = nil
	switch {
	case id == keymap.MarkAll && len(was) < len(r.Hosts):
		for i := range r.Hosts {
			st.Marked = append(st.Marked, r.Hosts[i].Name)
		}
		slices.Sort(st.Marked)
	case id == keymap.MarkAll:
	default:
		at, marked := slices.BinarySearch(was, host)
		if marked {
			st.Marked = slices.Delete(slices.Clone(was), at, at+1)
		} else {
			st.Marked = slices.Insert(slices.Clone(was), at, host)
		}
	}
	return st
}

// marked reports whether a host has a mark.
func (st State) marked(host string) bool {
	_, ok := slices.BinarySearch(st.Marked, host)
	return ok
}

// Chosen returns the marked hosts that are still in the room, else the selected
// one.
func (st State) Chosen(s *snapshot.Snapshot, size component.Size) []string {
	r, h := st.Selected(s, size)
	if h == nil {
		return nil
	}
	var out []string
	for i := range r.Hosts {
		if st.marked(r.Hosts[i].Name) {
			out = append(out, r.Hosts[i].Name)
		}
	}
	if out == nil {
		out = []string{h.Name}
	}
	return out
}

// step moves a position among n hosts.
func step(id keymap.ID, at, n int, p plan) int {
	switch id {
	case keymap.Left:
		return max(0, at-1)
	case keymap.Right:
		return min(n-1, at+1)
	case keymap.Up:
		return up(at, 1, p.cols)
	case keymap.Down:
		return down(at, 1, n, p.cols)
	case keymap.PageUp:
		return up(at, p.rows, p.cols)
	case keymap.PageDown:
		return down(at, p.rows, n, p.cols)
	case keymap.First:
		return 0
	case keymap.Last:
		return n - 1
	}
	return at
}

// up goes rows up and keeps the column.
func up(at, rows, cols int) int {
	return at - min(rows, at/cols)*cols
}

// down goes rows down and keeps the column; the last row may be shorter.
func down(at, rows, n, cols int) int {
	row, last := at/cols, (n-1)/cols
	return min(n-1, at+min(rows, last-row)*cols)
}

// scroll returns the first row to draw so that the selected one is seen.
func scroll(top, row int, p plan) int {
	top = min(top, row, max(0, p.total-p.rows))
	return max(0, top, row-p.rows+1)
}
