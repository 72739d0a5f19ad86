package inventory

import (
	"slices"
	"strings"

	"labswarm/api"
	"labswarm/server/inventory/ident"
	"labswarm/server/store"
)

const keySeat = "seats/"

const (
	maxLabels = 16
	maxLabel  = 32
)

func seatKey(room, seat string) string {
	return keySeat + strings.ToLower(room) + "/" + strings.ToLower(seat)
}

// place fills in what the room says of a host (its spelling, a computer name)
// and checks all fields.
func place(tx store.Tx, h api.Host) (api.Host, error) {
	r, err := roomOf(tx, h.Room)
	if err != nil {
		return h, err
	}
	h.Room = r.Name
	if h.Seat != "" {
		if err := CheckSeat(h.Seat); err != nil {
			return h, err
		}
		if i := slices.IndexFunc(r.Seats, func(s api.Seat) bool { return strings.EqualFold(s.Label, h.Seat) }); i >= 0 {
			h.Seat = r.Seats[i].Label
		} else if len(r.Seats) > 0 {
			return h, invalid("host %s: room %s has no seat %s; `labswarm room show %s` lists its seats", h.Name, r.Name, h.Seat, r.Name)
		}
		if h.Name == "" {
			h.Name = HostName(r, h.Seat)
		}
	}
	if h, err = Normalise(h); err != nil {
		return h, err
	}
	if r.Windows {
		if err := CheckWindowsName(h.Name); err != nil {
			return h, invalid("host %s in room %s, which is for Windows: %v", h.Name, r.Name, err)
		}
	}
	if h.Labels, err = labels(h); err != nil {
		return h, err
	}
	if h.Serial != "" {
		if h.Serial = ident.NormSerial(h.Serial); h.Serial == "" || len(h.Serial) > 128 {
			return h, invalid("host %s: that serial number is a filler of the maker's and names no machine: leave it out", h.Name)
		}
	}
	return h, nil
}

func labels(h api.Host) ([]string, error) {
	var out []string
	for _, l := range h.Labels {
		l = strings.ToLower(strings.TrimSpace(l))
		if len(l) > maxLabel || !nameRule.MatchString(l) {
			return nil, invalid("host %s: label %q: use 1 to %d letters, digits and hyphens", h.Name, l, maxLabel)
		}
		out = append(out, l)
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) > maxLabels {
		return nil, invalid("host %s: %d labels, at most %d", h.Name, len(out), maxLabels)
	}
	return out, nil
}

// fresh drops what only the server may say of a host.
func fresh(p api.HostPlace) api.HostPlace {
	p.Claimed, p.Quarantined, p.PendingMACs, p.KnownDisks, p.NotUnique = true, "", nil, nil, nil
	return p
}

// Move puts a host on another seat, or into another room. Its name stays.
func Move(tx store.Tx, name, room, seat string) (api.Host, error) {
	h, err := Get(tx, name)
	if err != nil {
		return h, err
	}
	old := h
	h.Room, h.Seat = room, seat
	if h, err = place(tx, h); err != nil {
		return h, err
	}
	if err := checkFree(tx, h); err != nil {
		return h, err
	}
	if err := unindex(tx, old); err != nil {
		return h, err
	}
	return h, save(tx, h)
}

// OnSeat returns the name of the host on a seat, "" when it is free.
func OnSeat(tx store.Tx, room, seat string) (string, error) {
	name, err := tx.Get(seatKey(room, seat))
	return string(name), err
}

// Barred says why no job may write a host that is picked with its whole room
// (room true) or by name, "" when one may.
func Barred(h api.Host, room bool) string {
	switch {
	case h.Exclude:
		return "excluded from all jobs"
	case h.Quarantined != "":
		return "quarantined: " + h.Quarantined + " (`labswarm host questions`)"
	case h.Protect && room:
		return "protected: it is written only when it is named"
	}
	return ""
}
