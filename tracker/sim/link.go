package sim

import "time"

// link is one direction of a cable: first come, first served.
type link struct {
	rate float64       // bytes per second
	busy time.Duration // until when it is taken
	sent int64         // bytes that have entered it
}

// carry books n bytes on every link of a way and returns when the last of them
// is through: each link works on them as soon as it is free, the slowest counts.
func carry(now time.Duration, way []*link, n int) time.Duration {
	end := now
	for _, l := range way {
		l.busy = max(l.busy, now) + seconds(float64(n)/l.rate)
		l.sent += int64(n)
		end = max(end, l.busy)
	}
	return end
}

// way lists the links from one host to another.
func (s *Sim) way(from, to *host) []*link {
	w := make([]*link, 0, 4)
	w = append(w, &from.up)
	if from.room != to.room {
		if from.room != nil {
			w = append(w, &from.room.out)
		}
		if to.room != nil {
			w = append(w, &to.room.in)
		}
	}
	return append(w, &to.down)
}

// room is a switch.
type room struct {
	name    string
	in, out link
	cut     bool
	healed  time.Duration // when the last cut ended
}

// split reports whether a and b cannot reach each other now. The server is
// outside of all rooms.
func split(a, b *room) bool {
	return a != b && (a != nil && a.cut || b != nil && b.cut)
}
