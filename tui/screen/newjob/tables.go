package newjob

import (
	"strconv"

	"labswarm/api"
	"labswarm/api/filter"
	"labswarm/internal/units"
	"labswarm/tui/component"
	"labswarm/tui/screen"
	"labswarm/tui/screen/list"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// imageTable lists the versions, as the server sends them.
func imageTable(in screen.In) list.Table {
	t := list.Table{
		Cols:  []component.Column{{Head: "IMAGE", Grow: true}, {Head: "USED", Right: true}, {Head: "SHIPS", Right: true, Drop: 2}, {Head: "BOOT", Drop: 3}, {Head: "CREATED", Drop: 1}},
		Names: []string{"image", "boot"}, Empty: "no images yet: labswarm image import NAME FILE",
	}
	images, ok := in.Data.([]api.Image)
	if !ok {
		t.Empty = "asking the server for its images ..."
		return t
	}
	for _, i := range images {
		key := snapshot.Clean(i.Name) + "/" + snapshot.Clean(i.Version)
		t.Lines = append(t.Lines, list.Line{Key: key, Row: filter.Row{"image": key, "boot": i.Boot}, Cells: component.Plain(key, units.FormatBytes(i.UsedBytes),
			units.FormatBytes(i.BytesShipped), snapshot.Clean(i.Boot), component.Clock(i.Created, in.Now))})
	}
	return t
}

func roomTable(in screen.In) list.Table {
	t := list.Table{
		Cols:  []component.Column{{Head: "ROOM", Grow: true}, {Head: "HOSTS", Right: true}, {Head: "BUSY", Right: true}},
		Names: []string{"room", "hosts", "busy"}, Empty: "no rooms yet: labswarm host add NAME --room R --mac M",
	}
	for i := range in.S.Rooms {
		r := &in.S.Rooms[i]
		if r.Name == snapshot.NoRoom {
			continue
		}
		busy := 0
		for k := range r.Hosts {
			if s := r.Hosts[k].Slot; s != nil && !s.State.Ended() {
				busy++
			}
		}
		n, b := strconv.Itoa(len(r.Hosts)), strconv.Itoa(busy)
		t.Lines = append(t.Lines, list.Line{Key: r.Name, Cells: component.Plain(r.Name, n, b), Row: filter.Row{"room": r.Name, "hosts": n, "busy": b}})
	}
	return t
}

// planTable lists the hosts of the plan: what will happen to each disk.
func planTable(in screen.In) list.Table {
	t := list.Table{
		Cols:  []component.Column{{Head: "HOST", Max: 14}, {Head: "WILL", Max: 7}, {Head: "DISK", Max: 26, Drop: 1}, {Head: "FETCH", Right: true, Drop: 3}, {Head: "WHY", Grow: true}},
		Names: []string{"host", "will"}, Empty: "asking the server what would happen ...",
	}
	p, ok := in.Data.(api.JobPlan)
	if !ok {
		return t
	}
	for i := range p.Hosts {
		t.Lines = append(t.Lines, planLine(&p.Hosts[i]))
	}
	return t
}

func planLine(h *api.JobPlanHost) list.Line {
	role, fetch := theme.Text, ""
	switch h.Verdict {
	case api.VerdictRefuse:
		role = theme.Bad
	case api.VerdictSkip:
		role = theme.Dim
	}
	if h.FetchBytes > 0 {
		fetch = units.FormatBytes(h.FetchBytes)
	}
	why := h.Reason
	for _, r := range h.Risk {
		why = "RISK: " + r
		role = theme.Warn
		break
	}
	name := snapshot.Clean(h.Host)
	cells := component.Plain(name, h.Verdict, snapshot.Clean(h.Disk), fetch, snapshot.Clean(why))
	cells[1].Role, cells[4].Role = role, role
	return list.Line{Key: name, Cells: cells, Row: filter.Row{"host": name, "will": h.Verdict}}
}
