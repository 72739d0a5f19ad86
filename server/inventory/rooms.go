package inventory

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"labswarm/api"
	"labswarm/server/store"
)

const keyRoom = "rooms/"

// Limits of a room record, which must fit a value of the store.
const (
	maxSeats   = 400
	maxSide    = 60 // rows or columns
	maxSubnets = 16
)

// DefaultTemplate makes computer names of seats in rooms without a template.
const DefaultTemplate = "{room}-{seat}"

// windowsName is the length of a NetBIOS name.
const windowsName = 15

var (
	seatRule     = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,14}[A-Za-z0-9])?$`)
	templateRule = regexp.MustCompile(`^([A-Za-z0-9-]|\{room\}|\{seat\})+$`)
	windowsRule  = regexp.MustCompile(`^[A-Z0-9][A-Z0-9-]*$`)
	digitsOnly   = regexp.MustCompile(`^[0-9]+$`)
)

// CheckSeat says whether a seat's label can be used.
func CheckSeat(label string) error {
	if !seatRule.MatchString(label) {
		return invalid("seat %q: use 1 to 16 letters, digits and hyphens, beginning and ending with a letter or digit", label)
	}
	return nil
}

// CheckWindowsName says whether Windows takes a computer name: at most 15 of
// A-Z, 0-9 and hyphen (small letters count as capital ones), not digits only.
func CheckWindowsName(name string) error {
	switch up := strings.ToUpper(name); {
	case len(name) > windowsName:
		return invalid("computer name %q has %d characters; Windows takes %d", name, len(name), windowsName)
	case !windowsRule.MatchString(up):
		return invalid("computer name %q: Windows takes A-Z, 0-9 and hyphens only", name)
	case digitsOnly.MatchString(up):
		return invalid("computer name %q: Windows takes no name of digits only", name)
	}
	return nil
}

// HostName is the computer name of a seat by the room's template.
func HostName(r api.Room, seat string) string {
	t := r.Template
	if t == "" {
		t = DefaultTemplate
	}
	return strings.NewReplacer("{room}", r.Name, "{seat}", seat).Replace(t)
}

// NormaliseRoom checks the fields an admin gives and fills in what follows from
// them: a grid without seats gets one in every square.
func NormaliseRoom(r api.Room) (api.Room, error) {
	if err := CheckName("room", r.Name); err != nil {
		return r, err
	}
	if len(r.Title) > 80 || strings.ContainsFunc(r.Title, func(c rune) bool { return c < ' ' }) {
		return r, invalid("room %s: the title has more than 80 characters or a control character", r.Name)
	}
	var err error
	if r.Subnets, err = subnets(r); err != nil {
		return r, err
	}
	if r.Uplink < 0 || r.Uplink > 1_000_000 {
		return r, invalid("room %s: uplink of %d Mb/s", r.Name, r.Uplink)
	}
	if err := checkWake(r); err != nil {
		return r, err
	}
	if r.Template != "" && (!templateRule.MatchString(r.Template) || !strings.Contains(r.Template, "{seat}")) {
		return r, invalid("room %s: name template %q: use letters, digits, hyphens, {room} and {seat}; {seat} must be in it, or all PCs have one name", r.Name, r.Template)
	}
	if r.Language != "" && !slices.Contains(api.Languages(), r.Language) {
		return r, invalid("room %s: language %.20q: screens speak %s", r.Name, r.Language, strings.Join(api.Languages(), " "))
	}
	if err := checkGrid(r); err != nil {
		return r, err
	}
	if len(r.Seats) == 0 {
		r.Seats = everySquare(r)
	}
	r.Hosts, r.Saved = nil, true
	return r, checkSeats(r)
}

func subnets(r api.Room) ([]string, error) {
	if len(r.Subnets) > maxSubnets {
		return nil, invalid("room %s: %d subnets, at most %d", r.Name, len(r.Subnets), maxSubnets)
	}
	var out []string
	for _, s := range r.Subnets {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil || !p.Addr().Is4() {
			return nil, invalid("room %s: subnet %q: use IPv4 with its length, like 10.8.1.0/24", r.Name, s)
		}
		if text := p.Masked().String(); !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out, nil
}

func checkWake(r api.Room) error {
	w := r.Wake
	if w == nil {
		return nil
	}
	if w.Broadcast != "" {
		if a, err := netip.ParseAddr(w.Broadcast); err != nil || !a.Is4() {
			return invalid("room %s: wake broadcast %q: use an IPv4 address", r.Name, w.Broadcast)
		}
	}
	if w.Wave < 0 || w.Wave > 1000 || w.PauseS < 0 || w.PauseS > 3600 {
		return invalid("room %s: waves of %d hosts, %d s apart: use 1 to 1000 and at most 3600 s (0 = default)", r.Name, w.Wave, w.PauseS)
	}
	return nil
}

func checkGrid(r api.Room) error {
	if r.Rows < 0 || r.Cols < 0 || r.Rows > maxSide || r.Cols > maxSide || (r.Rows == 0) != (r.Cols == 0) || r.Rows*r.Cols > maxSeats {
		return invalid("room %s: a map of %d rows and %d columns: use 1 to %d each and at most %d squares, or neither", r.Name, r.Rows, r.Cols, maxSide, maxSeats)
	}
	for what, s := range map[string]*api.Spot{"door": r.Door, "desk": r.Desk} {
		if s != nil && (s.Row < 0 || s.Col < 0 || s.Row > r.Rows+1 || s.Col > r.Cols+1) {
			return invalid("room %s: %s at row %d, column %d: the map has rows 0 to %d and columns 0 to %d, walls included", r.Name, what, s.Row, s.Col, r.Rows+1, r.Cols+1)
		}
	}
	return nil
}

// everySquare numbers the squares of the map, row by row, without door and desk.
func everySquare(r api.Room) []api.Seat {
	var out []api.Seat
	digits := len(fmt.Sprint(r.Rows * r.Cols))
	for row := 1; row <= r.Rows; row++ {
		for col := 1; col <= r.Cols; col++ {
			spot := api.Spot{Row: row, Col: col}
			if (r.Door != nil && *r.Door == spot) || (r.Desk != nil && *r.Desk == spot) {
				continue
			}
			out = append(out, api.Seat{Label: fmt.Sprintf("%0*d", max(digits, 2), len(out)+1), Row: row, Col: col})
		}
	}
	return out
}

// checkSeats: labels, squares and computer names are unique and fit.
func checkSeats(r api.Room) error {
	if len(r.Seats) > maxSeats {
		return invalid("room %s: %d seats, at most %d", r.Name, len(r.Seats), maxSeats)
	}
	labels, squares := map[string]bool{}, map[api.Spot]string{}
	for i := range r.Seats {
		s := &r.Seats[i]
		s.Host = ""
		if err := CheckSeat(s.Label); err != nil {
			return invalid("room %s: %v", r.Name, err)
		}
		low := strings.ToLower(s.Label)
		if labels[low] {
			return invalid("room %s: seat %s stands there twice", r.Name, s.Label)
		}
		labels[low] = true
		if (s.Row == 0) != (s.Col == 0) || s.Row < 0 || s.Col < 0 || s.Row > r.Rows || s.Col > r.Cols {
			return invalid("room %s: seat %s at row %d, column %d: the map has %d rows and %d columns", r.Name, s.Label, s.Row, s.Col, r.Rows, r.Cols)
		}
		if spot := (api.Spot{Row: s.Row, Col: s.Col}); s.Row > 0 {
			if other, taken := squares[spot]; taken {
				return invalid("room %s: seats %s and %s are both at row %d, column %d", r.Name, other, s.Label, s.Row, s.Col)
			}
			squares[spot] = s.Label
		}
		name := HostName(r, s.Label)
		if err := CheckName("host", name); err != nil {
			return invalid("room %s, seat %s: %v", r.Name, s.Label, err)
		}
		if r.Windows {
			if err := CheckWindowsName(name); err != nil {
				return invalid("room %s, seat %s: %v", r.Name, s.Label, err)
			}
		}
	}
	return nil
}

// PutRoom adds or changes a room. Hosts keep their seats: a list of seats that
// lacks one on which a host sits is refused. Errors: *InvalidError,
// *ConflictError.
func PutRoom(tx store.Tx, r api.Room) (api.Room, error) {
	old, err := findRoom(tx, r.Name)
	if err != nil {
		return r, err
	}
	if old != nil {
		r.Name = old.Name // the spelling given first stays
	}
	if r, err = NormaliseRoom(r); err != nil {
		return r, err
	}
	hosts, err := List(tx)
	if err != nil {
		return r, err
	}
	for _, h := range hosts {
		if !strings.EqualFold(h.Room, r.Name) {
			continue
		}
		if old == nil {
			r.Name = h.Room // it came into being with this host
		}
		if h.Seat != "" && len(r.Seats) > 0 && !hasSeat(r, h.Seat) {
			return r, &ConflictError{Text: fmt.Sprintf("room %s: host %s sits on seat %s, which is not among the new seats: move the host first", r.Name, h.Name, h.Seat)}
		}
	}
	return r, saveRoom(tx, r)
}

func saveRoom(tx store.Tx, r api.Room) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode room %s: %w", r.Name, err)
	}
	return tx.Put(keyRoom+strings.ToLower(r.Name), raw)
}

func hasSeat(r api.Room, label string) bool {
	return slices.ContainsFunc(r.Seats, func(s api.Seat) bool { return strings.EqualFold(s.Label, label) })
}

// RemoveRoom forgets a saved room. One in which hosts are is refused.
func RemoveRoom(tx store.Tx, name string) error {
	r, err := Room(tx, name)
	if err != nil {
		return err
	}
	if len(r.Hosts) > 0 {
		return &ConflictError{Text: fmt.Sprintf("room %s has %d hosts: move or remove them first", r.Name, len(r.Hosts))}
	}
	return tx.Delete(keyRoom + strings.ToLower(name))
}

// findRoom returns nil when no room of that name was saved.
func findRoom(tx store.Tx, name string) (*api.Room, error) {
	raw, err := tx.Get(keyRoom + strings.ToLower(name))
	if err != nil || raw == nil {
		return nil, err
	}
	var r api.Room
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("read room %s: %w", name, err)
	}
	return &r, nil
}

// roomOf is the saved room, or one that has only a name.
func roomOf(tx store.Tx, name string) (api.Room, error) {
	r, err := findRoom(tx, name)
	if err != nil || r == nil {
		return api.Room{Name: name}, err
	}
	return *r, nil
}

// RoomRecord is the saved room, or one that has only a name.
func RoomRecord(tx store.Tx, name string) (api.Room, error) { return roomOf(tx, name) }

// Room returns one room with its hosts; *NotFoundError when it is neither saved
// nor has any.
func Room(tx store.Tx, name string) (api.Room, error) {
	all, err := Rooms(tx)
	if err != nil {
		return api.Room{}, err
	}
	for _, r := range all {
		if strings.EqualFold(r.Name, name) {
			return r, nil
		}
	}
	return api.Room{}, &NotFoundError{Kind: "room", Name: name}
}

// Rooms returns the saved rooms and those that only have hosts, by name.
func Rooms(tx store.Tx) ([]api.Room, error) {
	out := []api.Room{}
	for key, raw := range tx.Scan(keyRoom, "", 0) {
		var r api.Room
		if err := json.Unmarshal(raw, &r); err != nil {
			return nil, fmt.Errorf("read %s: %w", key, err)
		}
		out = append(out, r)
	}
	hosts, err := List(tx)
	if err != nil {
		return nil, err
	}
	for _, h := range hosts {
		i := slices.IndexFunc(out, func(r api.Room) bool { return strings.EqualFold(r.Name, h.Room) })
		if i < 0 {
			out = append(out, api.Room{Name: h.Room})
			i = len(out) - 1
		}
		out[i].Hosts = append(out[i].Hosts, h.Name)
		for k := range out[i].Seats {
			if strings.EqualFold(out[i].Seats[k].Label, h.Seat) {
				out[i].Seats[k].Host = h.Name
			}
		}
	}
	slices.SortFunc(out, func(a, b api.Room) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
