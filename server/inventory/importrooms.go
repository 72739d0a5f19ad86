package inventory

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"labswarm/api"
	"labswarm/server/inventory/sheet"
	"labswarm/server/store"
)

func (im *importer) readRooms(req api.ImportRequest) {
	rows, issues := sheet.Read(req.Format, "room", RoomColumns, req.Text)
	im.out.Result.Errors = append(im.out.Result.Errors, issues...)
	seen := map[string]int{}
	for _, r := range rows {
		before := len(im.out.Result.Errors)
		name := r.Text("room")
		if err := CheckName("room", name); err != nil {
			im.wrong(r, "room", "%v", err)
			continue
		}
		key := strings.ToLower(name)
		if at, twice := seen[key]; twice {
			im.wrong(r, "room", "room %s stands in line %d already", name, at)
			continue
		}
		seen[key] = r.Line
		rm := api.Room{Name: name, Windows: req.Windows}
		old := im.rooms[key]
		if old != nil {
			rm = *old
		}
		im.roomCells(r, &rm)
		if len(im.out.Result.Errors) > before {
			continue
		}
		next, err := NormaliseRoom(rm)
		if err != nil {
			im.wrong(r, "room", "%v", err)
			continue
		}
		im.sitting(r, next)
		switch {
		case old == nil || !old.Saved:
			im.out.Result.Added = append(im.out.Result.Added, next.Name)
		case sameRoom(*old, next):
			im.out.Result.Unchanged++
			continue
		default:
			im.out.Result.Changed = append(im.out.Result.Changed, next.Name)
		}
		im.out.Rooms = append(im.out.Rooms, next)
	}
}

// sitting refuses a list of seats that lacks one on which a host sits.
func (im *importer) sitting(r sheet.Row, rm api.Room) {
	for _, h := range im.after {
		if strings.EqualFold(h.Room, rm.Name) && h.Seat != "" && len(rm.Seats) > 0 && !hasSeat(rm, h.Seat) {
			im.wrong(r, "seats", "host %s sits on seat %s, which is not among the seats", h.Name, h.Seat)
		}
	}
}

// sameRoom compares records; old has who sits where in it.
func sameRoom(old, next api.Room) bool {
	n, err := NormaliseRoom(cloneRoom(old))
	return err == nil && reflect.DeepEqual(n, next)
}

func cloneRoom(r api.Room) api.Room {
	r.Seats = append([]api.Seat(nil), r.Seats...)
	return r
}

// roomCells takes over the cells of a row; columns that the file lacks leave a
// room's fields as they are.
func (im *importer) roomCells(r sheet.Row, rm *api.Room) {
	rm.Seats = append([]api.Seat(nil), rm.Seats...)
	text := func(col string, to *string) {
		if r.Has(col) {
			*to = r.Text(col)
		}
	}
	num := func(col string, to *int, limit int) {
		if r.Has(col) {
			*to, _ = im.number(r, col, limit)
		}
	}
	text("title", &rm.Title)
	text("name_template", &rm.Template)
	text("language", &rm.Language)
	num("uplink_mbps", &rm.Uplink, 1_000_000)
	num("rows", &rm.Rows, maxSide)
	num("cols", &rm.Cols, maxSide)
	if r.Has("subnets") {
		rm.Subnets = words(r.Text("subnets"))
	}
	im.spot(r, "door", &rm.Door)
	im.spot(r, "desk", &rm.Desk)
	if r.Has("windows") {
		rm.Windows = im.yes(r, "windows")
	}
	w := api.Wake{}
	if rm.Wake != nil {
		w = *rm.Wake
	}
	if r.Has("wake") && r.Text("wake") != "" {
		w.Off = !im.yes(r, "wake")
	}
	text("wake_broadcast", &w.Broadcast)
	num("wake_wave", &w.Wave, 1000)
	num("wake_pause_s", &w.PauseS, 3600)
	if rm.Wake = nil; w != (api.Wake{}) {
		rm.Wake = &w
	}
	if r.Has("seats") {
		im.seats(r, rm)
	}
}

func (im *importer) yes(r sheet.Row, col string) bool {
	switch strings.ToLower(r.Text(col)) {
	case "", "false", "no", "off", "0":
		return false
	case "true", "yes", "on", "1":
		return true
	}
	im.wrong(r, col, "%q: use yes or no", r.Text(col))
	return false
}

func (im *importer) spot(r sheet.Row, col string, to **api.Spot) {
	if !r.Has(col) {
		return
	}
	*to = nil
	if t := r.Text(col); t != "" {
		s, ok := parseSpot(t)
		if !ok {
			im.wrong(r, col, "%q: want ROW:COLUMN", t)
			return
		}
		*to = &s
	}
}

// ParseSpot reads ROW:COLUMN.
func ParseSpot(t string) (api.Spot, error) {
	s, ok := parseSpot(t)
	if !ok {
		return s, invalid("place %q: want ROW:COLUMN", t)
	}
	return s, nil
}

func parseSpot(t string) (api.Spot, bool) {
	a, b, ok := strings.Cut(t, ":")
	row, err1 := strconv.Atoi(a)
	col, err2 := strconv.Atoi(b)
	return api.Spot{Row: row, Col: col}, ok && err1 == nil && err2 == nil
}

// seats reads LABEL@ROW:COLUMN or LABEL, with blanks between.
func (im *importer) seats(r sheet.Row, rm *api.Room) {
	rm.Seats = nil
	for _, w := range words(r.Text("seats")) {
		label, at, placed := strings.Cut(w, "@")
		s := api.Seat{Label: label}
		if placed {
			spot, ok := parseSpot(at)
			if !ok {
				im.wrong(r, "seats", "%.40q: want LABEL@ROW:COLUMN", w)
				return
			}
			s.Row, s.Col = spot.Row, spot.Col
		}
		rm.Seats = append(rm.Seats, s)
	}
}

// ExportRooms renders all rooms, also those that nobody saved.
func ExportRooms(tx store.Tx, format string) (string, error) {
	rooms, err := Rooms(tx)
	if err != nil {
		return "", err
	}
	var rows []map[string]string
	for _, r := range rooms {
		row := map[string]string{"room": r.Name, "title": r.Title, "subnets": strings.Join(r.Subnets, " "), "name_template": r.Template, "language": r.Language,
			"uplink_mbps": unlessZero(r.Uplink), "rows": unlessZero(r.Rows), "cols": unlessZero(r.Cols), "door": spotText(r.Door), "desk": spotText(r.Desk)}
		if r.Windows {
			row["windows"] = "yes"
		}
		if w := r.Wake; w != nil {
			row["wake_broadcast"], row["wake_wave"], row["wake_pause_s"] = w.Broadcast, unlessZero(w.Wave), unlessZero(w.PauseS)
			if w.Off {
				row["wake"] = "no"
			}
		}
		var seats []string
		for _, s := range r.Seats {
			t := s.Label
			if s.Row > 0 {
				t += fmt.Sprintf("@%d:%d", s.Row, s.Col)
			}
			seats = append(seats, t)
		}
		row["seats"] = strings.Join(seats, " ")
		rows = append(rows, row)
	}
	return sheet.Write(format, "room", RoomColumns, rows)
}

func unlessZero(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func spotText(s *api.Spot) string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", s.Row, s.Col)
}
