package tuitest

import (
	"fmt"

	"labswarm/api"
	"labswarm/tui/snapshot"
)

// Seated gives the hosts of A101 seats on a map of rows and cols: a door and
// the teacher's desk at the wall, a free seat at the end of the first row, an
// aisle in the middle when there is space for it, and the last two hosts
// without a seat.
func Seated(f snapshot.Facts, rows, cols int, label func(n int) string) snapshot.Facts {
	var seats []api.Seat
	aisle, n := 0, 0
	for i := range f.Hosts {
		if f.Hosts[i].Room == "A101" {
			n++
		}
	}
	if rows*(cols-1) >= n {
		aisle = cols/2 + 1
	}
	for row := 1; row <= rows; row++ {
		for col := 1; col <= cols; col++ {
			if col != aisle {
				seats = append(seats, api.Seat{Label: label(len(seats) + 1), Row: row, Col: col})
			}
		}
	}
	next := 0
	for i := range f.Hosts {
		switch h := &f.Hosts[i]; {
		case h.Room != "A101" || n-i <= 2 || next >= len(seats):
		default:
			h.Seat = seats[next].Label
			if next++; seats[next-1].Row == 1 && next < len(seats) && seats[min(next+1, len(seats)-1)].Row == 2 {
				next++ // free
			}
		}
	}
	for i := range f.Rooms {
		if f.Rooms[i].Name == "A101" {
			f.Rooms[i].Rows, f.Rooms[i].Cols, f.Rooms[i].Seats = rows, cols, seats
			f.Rooms[i].Door, f.Rooms[i].Desk = &api.Spot{Row: 0, Col: 1}, &api.Spot{Row: 0, Col: cols}
		}
	}
	return f
}

// Numbered labels a seat by its number.
func Numbered(n int) string { return fmt.Sprintf("%02d", n) }
