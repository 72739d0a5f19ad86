package schedule

import "time"

// Resolve turns a wall time of a local date into an instant. A wall time that
// comes twice is the earlier one; one that the clocks skip is the first instant
// after the gap. time.Date does not say which it takes, and Time.ZoneBounds
// has been seen to stand still in years that a zone's rule describes. date is a
// midnight in UTC, min is in minutes after midnight.
func Resolve(date time.Time, min int, loc *time.Location) time.Time {
	wall := date.Unix() + int64(min)*60 // as if the zone were UTC
	offset := func(at int64) int64 {
		_, off := time.Unix(at, 0).In(loc).Zone()
		return int64(off)
	}
	const reach, step = 26 * 3600, 3600 // offsets go from -12 to +14 hours
	best, gap := int64(0), int64(0)
	found := false
	for at := wall - reach; at <= wall+reach; at += step {
		off := offset(at)
		if t := wall - off; offset(t) == off && (!found || t < best) {
			best, found = t, true
		}
		if at+off <= wall { // local time has not reached it yet
			gap = at
		}
	}
	if found {
		return time.Unix(best, 0).In(loc)
	}
	low, high := gap, gap+step // the clocks jump over it in between
	for high-low > 1 {
		if mid := (low + high) / 2; mid+offset(mid) <= wall {
			low = mid
		} else {
			high = mid
		}
	}
	return time.Unix(high, 0).In(loc)
}
