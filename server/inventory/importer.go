package inventory

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"labswarm/api"
	"labswarm/server/inventory/ident"
	"labswarm/server/inventory/sheet"
	"labswarm/server/store"
)

// Columns of the lists, in the order of an export.
var (
	HostColumns = []string{"room", "seat", "row", "col", "name", "mac", "uuid", "serial", "disk", "labels"}
	RoomColumns = []string{"room", "title", "subnets", "uplink_mbps", "rows", "cols", "door", "desk", "name_template", "language", "windows", "wake", "wake_broadcast", "wake_wave", "wake_pause_s", "seats"}
)

// Import is a checked file: what is to be saved, in this order.
type Import struct {
	Result api.ImportResult
	Rooms  []api.Room
	Hosts  []api.Host
}

// importer collects while a file is checked. The state it checks against is
// that after the import: two rows may swap their seats.
type importer struct {
	tx      store.Tx
	self    Self
	windows bool
	busy    func(old api.Host, mac string) (string, error)
	out     Import

	after map[string]api.Host // by lower-case name
	rooms map[string]*api.Room
	dirty map[string]bool // rooms to be saved
}

// PlanImport checks a file and says what it would change. Nothing is written.
// busy says why a host cannot become the machine with that MAC now, "" = it can.
func PlanImport(tx store.Tx, req api.ImportRequest, self Self, busy func(old api.Host, mac string) (string, error)) (Import, error) {
	im := &importer{tx: tx, self: self, windows: req.Windows, busy: busy, after: map[string]api.Host{}, rooms: map[string]*api.Room{}, dirty: map[string]bool{}}
	im.out.Result = api.ImportResult{Added: []string{}, Changed: []string{}, Errors: []api.ImportIssue{}, Warnings: []api.ImportIssue{}}
	hosts, err := List(tx)
	if err != nil {
		return im.out, err
	}
	for _, h := range hosts {
		im.after[strings.ToLower(h.Name)] = h
	}
	rooms, err := Rooms(tx)
	if err != nil {
		return im.out, err
	}
	for i := range rooms {
		im.rooms[strings.ToLower(rooms[i].Name)] = &rooms[i]
	}
	switch req.What {
	case "hosts":
		err = im.hosts(req)
	case "rooms":
		im.readRooms(req)
	default:
		return im.out, invalid("import of %q: use rooms or hosts", req.What)
	}
	slices.SortStableFunc(im.out.Result.Errors, func(a, b api.ImportIssue) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return im.out, err
}

func (im *importer) wrong(r sheet.Row, col, format string, a ...any) {
	im.out.Result.Errors = append(im.out.Result.Errors, r.Issue(col, format, a...))
}

// line is a row of a host list with the host it makes.
type line struct {
	row  sheet.Row
	host api.Host
	old  *api.Host
}

func (im *importer) hosts(req api.ImportRequest) error {
	rows, issues := sheet.Read(req.Format, "host", HostColumns, req.Text)
	im.out.Result.Errors = append(im.out.Result.Errors, issues...)
	var lines []line
	named := map[string]int{}
	for _, r := range rows {
		l, ok := im.hostRow(r)
		if !ok {
			continue
		}
		key := strings.ToLower(l.host.Name)
		if at, twice := named[key]; twice {
			im.wrong(r, "name", "host %s stands in line %d already", l.host.Name, at)
			continue
		}
		named[key] = r.Line
		if l.old != nil && im.busy != nil {
			why, err := im.busy(*l.old, l.host.MAC)
			if err != nil {
				return err
			}
			if why != "" {
				im.wrong(r, "mac", "%s", why)
			}
		}
		im.after[key] = l.host
		lines = append(lines, l)
	}
	im.unique(lines)
	im.saveSeats(lines)
	for _, l := range lines {
		switch {
		case l.old == nil:
			im.out.Result.Added = append(im.out.Result.Added, l.host.Name)
		case same(*l.old, l.host):
			im.out.Result.Unchanged++
			continue
		default:
			im.out.Result.Changed = append(im.out.Result.Changed, l.host.Name)
		}
		im.out.Hosts = append(im.out.Hosts, l.host)
	}
	return nil
}

// hostRow makes the host of a row: of the one that has the name, else a new one.
func (im *importer) hostRow(r sheet.Row) (line, bool) {
	before := len(im.out.Result.Errors)
	l := line{row: r}
	room := r.Text("room")
	if err := CheckName("room", room); err != nil {
		im.wrong(r, "room", "%v", err)
		return l, false
	}
	rm := im.rooms[strings.ToLower(room)]
	if rm == nil {
		rm = &api.Room{Name: room}
		im.rooms[strings.ToLower(room)] = rm
	}
	seat := r.Text("seat")
	if seat != "" {
		if err := CheckSeat(seat); err != nil {
			im.wrong(r, "seat", "%v", err)
		}
	}
	name := r.Text("name")
	if name == "" && seat != "" {
		name = HostName(*rm, seat)
	}
	if err := CheckName("host", name); err != nil {
		if r.Text("name") == "" {
			im.wrong(r, "name", "no name, and no seat to make one of")
		} else {
			im.wrong(r, "name", "%v", err)
		}
	} else if err := CheckWindowsName(name); err != nil {
		if im.windows || rm.Windows {
			im.wrong(r, "name", "%v", err)
		} else {
			im.out.Result.Warnings = append(im.out.Result.Warnings, r.Issue("name", "%v (fine for other systems)", err))
		}
	}
	if old, ok := im.after[strings.ToLower(name)]; ok {
		l.old, l.host = &old, old
		name = old.Name
	}
	l.host.Name, l.host.Room = name, rm.Name
	im.fill(r, &l.host, seat)
	return l, len(im.out.Result.Errors) == before
}

// fill takes over the cells of a row. A column that the file lacks leaves a
// host's field as it is; so do empty cells of uuid and serial, which the PC
// tells itself.
func (im *importer) fill(r sheet.Row, h *api.Host, seat string) {
	if r.Has("seat") {
		h.Seat = seat
	}
	mac, err := ident.ParseMAC(r.Text("mac"))
	switch {
	case err != nil && (r.Text("mac") != "" || h.MAC == ""):
		im.wrong(r, "mac", "%v", err)
	case err == nil:
		if h.MAC != "" && h.MAC != mac { // another PC: what the old one told of itself is not true of it
			h.UUID, h.Serial = "", ""
		}
		h.MAC = mac
	}
	if t := r.Text("uuid"); t != "" {
		u, err := ident.ParseUUID(t)
		switch {
		case err != nil:
			im.wrong(r, "uuid", "%v", err)
		case ident.JunkUUID(u):
			im.wrong(r, "uuid", "%s is a filler of the board's maker and names no machine: leave it out", u)
		default:
			h.UUID = u
		}
	}
	if t := r.Text("serial"); t != "" {
		if h.Serial = ident.NormSerial(t); h.Serial == "" || len(h.Serial) > 128 {
			im.wrong(r, "serial", "%q is a filler of the maker's and names no machine: leave it out", t)
		}
	}
	if im.self.Has(h.MAC, h.UUID) {
		im.wrong(r, "mac", "this is the server itself, which can never be a target")
	}
	if r.Has("disk") {
		h.Disk = r.Text("disk")
	}
	if r.Has("labels") {
		h.Labels = words(r.Text("labels"))
	}
	if n, err := Normalise(*h); err == nil {
		*h = n
	} else if r.Has("disk") && h.Disk != "" {
		if _, err := Normalise(api.Host{Name: "a", Room: "a", MAC: "02:00:00:00:00:00", Disk: h.Disk}); err != nil {
			im.wrong(r, "disk", "%v", err)
		}
	}
	if h.Labels, err = labels(*h); err != nil {
		im.wrong(r, "labels", "%v", err)
	}
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ' ' || c == ';' })
}

// unique checks the state after the import.
func (im *importer) unique(lines []line) {
	count := map[string][]string{}
	for _, h := range im.after {
		for _, id := range ids(h) {
			count[id] = append(count[id], h.Name)
		}
	}
	for _, l := range lines {
		for _, id := range ids(l.host) {
			names := count[id]
			if len(names) < 2 {
				continue
			}
			slices.Sort(names)
			others := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return strings.EqualFold(n, l.host.Name) })
			what, col := "MAC "+l.host.MAC, "mac"
			switch {
			case strings.HasPrefix(id, keyUUID):
				what, col = "UUID "+l.host.UUID, "uuid"
			case strings.HasPrefix(id, keySeat):
				what, col = "seat "+l.host.Seat+" of room "+l.host.Room, "seat"
			}
			im.wrong(l.row, col, "%s is taken twice: by %s, too", what, strings.Join(others, ", "))
		}
	}
}

// saveSeats puts the seats that rows name with row and column on the map of
// their room, and refuses seats that a room with a list of seats does not have.
func (im *importer) saveSeats(lines []line) {
	for _, l := range lines {
		if l.host.Seat == "" {
			continue
		}
		rm := im.rooms[strings.ToLower(l.host.Room)]
		row, ok1 := im.number(l.row, "row", maxSide)
		col, ok2 := im.number(l.row, "col", maxSide)
		if !ok1 || !ok2 {
			continue
		}
		if (row == 0) != (col == 0) {
			im.wrong(l.row, "row", "give row and column, or neither")
			continue
		}
		before := cloneRoom(*rm)
		i := slices.IndexFunc(rm.Seats, func(s api.Seat) bool { return strings.EqualFold(s.Label, l.host.Seat) })
		switch {
		case i < 0 && row == 0 && len(rm.Seats) > 0:
			im.wrong(l.row, "seat", "room %s has no seat %s: give its row and column, or add it to the room first", rm.Name, l.host.Seat)
			continue
		case i < 0 && row > 0:
			rm.Seats = append(rm.Seats, api.Seat{Label: l.host.Seat, Row: row, Col: col})
		case i >= 0 && row > 0 && (rm.Seats[i].Row != row || rm.Seats[i].Col != col):
			rm.Seats[i].Row, rm.Seats[i].Col = row, col
		default:
			continue
		}
		rm.Rows, rm.Cols = max(rm.Rows, row), max(rm.Cols, col)
		im.dirty[strings.ToLower(rm.Name)] = true
		if _, err := NormaliseRoom(*rm); err != nil {
			im.wrong(l.row, "row", "%v", err)
			*rm = before // so that the rows after it are not told the same
		}
	}
	// A room that gets its first seats has one for each host that sits in it.
	for key := range im.dirty {
		rm := im.rooms[key]
		for _, h := range im.after {
			if strings.EqualFold(h.Room, rm.Name) && h.Seat != "" && !hasSeat(*rm, h.Seat) {
				rm.Seats = append(rm.Seats, api.Seat{Label: h.Seat})
			}
		}
		slices.SortStableFunc(rm.Seats, func(a, b api.Seat) int {
			if a.Row != b.Row {
				return a.Row - b.Row
			}
			if a.Col != b.Col {
				return a.Col - b.Col
			}
			return strings.Compare(a.Label, b.Label)
		})
		if r, err := NormaliseRoom(*rm); err == nil {
			im.out.Rooms = append(im.out.Rooms, r)
		}
	}
	slices.SortFunc(im.out.Rooms, func(a, b api.Room) int { return strings.Compare(a.Name, b.Name) })
}

func (im *importer) number(r sheet.Row, col string, limit int) (int, bool) {
	t := r.Text(col)
	if t == "" {
		return 0, true
	}
	n, err := strconv.Atoi(t)
	if err != nil || n < 0 || n > limit {
		im.wrong(r, col, "%q: want a number from 0 to %d", t, limit)
		return 0, false
	}
	return n, true
}

// same reports whether two records of a host are equal in what a file can say.
func same(a, b api.Host) bool {
	return a.Name == b.Name && a.Room == b.Room && a.Seat == b.Seat && a.MAC == b.MAC && a.UUID == b.UUID && a.Serial == b.Serial && a.Disk == b.Disk &&
		slices.Equal(a.Labels, b.Labels)
}

// Release takes the index entries of hosts that are about to be saved, so that
// two of them can swap what they had. Save them with Put.
func Release(tx store.Tx, names []string) error {
	for _, n := range names {
		h, err := find(tx, n)
		if err != nil {
			return err
		}
		if h == nil {
			continue
		}
		if err := unindex(tx, *h); err != nil {
			return err
		}
	}
	return nil
}

// ExportHosts renders all hosts.
func ExportHosts(tx store.Tx, format string) (string, error) {
	hosts, err := List(tx)
	if err != nil {
		return "", err
	}
	rooms, err := Rooms(tx)
	if err != nil {
		return "", err
	}
	seats := map[string]api.Seat{}
	for _, r := range rooms {
		for _, s := range r.Seats {
			seats[seatKey(r.Name, s.Label)] = s
		}
	}
	var rows []map[string]string
	for _, h := range hosts {
		row := map[string]string{"room": h.Room, "seat": h.Seat, "name": h.Name, "mac": h.MAC, "uuid": h.UUID, "serial": h.Serial, "disk": h.Disk, "labels": strings.Join(h.Labels, " ")}
		if s := seats[seatKey(h.Room, h.Seat)]; h.Seat != "" && s.Row > 0 {
			row["row"], row["col"] = fmt.Sprint(s.Row), fmt.Sprint(s.Col)
		}
		rows = append(rows, row)
	}
	return sheet.Write(format, "host", HostColumns, rows)
}
