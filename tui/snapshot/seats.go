package snapshot

import (
	"charm.land/lipgloss/v2"

	"labswarm/api"
)

// SeatMap is how the seats of a room stand. Rows and columns count from 1; the
// walls are row and column 0 and the ones after the last.
type SeatMap struct {
	Rows, Cols int
	Door, Desk *api.Spot // the teacher's; nil = not on the map
	Seats      []Seat    // on the map, one a place
	Widest     int       // columns of the longest label
}

// Seat is a place on the map.
type Seat struct {
	api.Spot
	Label string
	Host  int // index into the room's hosts, -1 = empty
}

// maxMap bounds rows and columns, as the server does.
const maxMap = 200

// seatMap joins a room's seats with its hosts, which are in their final order.
// A host whose seat is not on the map, or taken by another, stands on no seat.
func seatMap(r *api.Room, hosts []Host) *SeatMap {
	if r.Rows < 1 || r.Cols < 1 || r.Rows > maxMap || r.Cols > maxMap {
		return nil
	}
	m := &SeatMap{Rows: r.Rows, Cols: r.Cols, Door: onMap(r, r.Door), Desk: onMap(r, r.Desk)}
	byLabel := map[string]int{}
	for i := len(hosts) - 1; i >= 0; i-- { // of two on one seat the first
		if s := hosts[i].Seat; s != "" {
			byLabel[s] = i
		}
	}
	taken := map[api.Spot]bool{}
	for _, s := range r.Seats {
		at := api.Spot{Row: s.Row, Col: s.Col}
		if at.Row < 1 || at.Col < 1 || at.Row > m.Rows || at.Col > m.Cols || taken[at] {
			continue
		}
		taken[at] = true
		seat := Seat{Spot: at, Label: Clean(s.Label), Host: -1}
		if h, ok := byLabel[seat.Label]; ok {
			seat.Host = h
			delete(byLabel, seat.Label)
		}
		m.Seats = append(m.Seats, seat)
		m.Widest = max(m.Widest, lipgloss.Width(seat.Label))
	}
	return m
}

// onMap is a spot of the map or its walls.
func onMap(r *api.Room, s *api.Spot) *api.Spot {
	if s == nil || s.Row < 0 || s.Col < 0 || s.Row > r.Rows+1 || s.Col > r.Cols+1 {
		return nil
	}
	at := *s
	return &at
}
