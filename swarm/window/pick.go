package window

import "time"

// Ahead is how far, in bytes, a child may ask beyond its lowest missing piece
// (swarm.md section 3).
const Ahead = 64 << 20

// Size is the window in pieces of pieceLen bytes. At least 8, so that big
// pieces still overlap fetching, hashing and writing.
func Size(pieceLen int64) int { return int(max(Ahead/max(pieceLen, 1), 8)) }

// Query is one question to Pick.
type Query struct {
	Have   *Set // what we hold
	Source *Set // what the source holds
	// Busy: being fetched already, from anybody. It takes a place in the window.
	Busy func(piece int) bool
	// Barred: must not come from this source. It takes no place in the window,
	// so that pieces waiting for somebody else cannot stop the flow.
	Barred func(piece int) bool
	Window int // pieces
	Max    int // pieces wanted
}

// Pick returns the pieces to ask the source for: ascending, missing here, held
// there, free, and among the lowest Window obtainable missing ones. Obtainable
// pieces are counted, not indexes: one piece that nobody has yet must not stop
// everything behind it (swarm.md section 6).
func Pick(q Query) []int {
	if q.Max <= 0 || q.Window <= 0 {
		return nil
	}
	var out []int
	open := 0
	obtainable(q.Have, q.Source, func(p int) bool {
		if q.Barred != nil && q.Barred(p) {
			return true
		}
		open++
		if q.Busy == nil || !q.Busy(p) {
			out = append(out, p)
		}
		return open < q.Window && len(out) < q.Max
	})
	return out
}

// Depth is how many bytes a child keeps asked for at one source: at least twice
// what the line holds (rate x RTT) and two pieces, so that the parent never
// waits for a request; at most two seconds of its own rate, so that a slow
// child does not queue up work it cannot take; never below two blocks.
// rateBps is 0 as long as it is not known.
func Depth(rateBps int64, rtt time.Duration, pieceLen int64, block int) int64 {
	const floor = 1 << 20 // bytes; covers 5 ms of RTT at 200 MB/s before the rate is known
	d := max(2*int64(float64(rateBps)*rtt.Seconds()), 2*pieceLen, floor)
	if rateBps > 0 {
		d = min(d, 2*rateBps)
	}
	return max(d, 2*int64(block))
}

// Backoff is the wait before trying a source again after its n-th failure in a
// row (n from 1): 1, 2, 4, 8, 15, 15 ... seconds.
func Backoff(n int) time.Duration {
	const most = 15 * time.Second
	if n < 1 {
		return 0
	}
	if n > 4 {
		return most
	}
	return min(time.Second<<(n-1), most)
}

// Candidate is one source of an assignment, in its order.
type Candidate struct {
	Rejected  bool      // left before: lost, slow or sending wrong bytes
	NotBefore time.Time // backoff: not to be tried earlier
}

// Choose returns the index of the source to use now: the first that has not
// been rejected and may be tried, else the first that may be tried, else -1 and
// the time until which there is nothing to do (zero when there is no candidate).
func Choose(cs []Candidate, now time.Time) (int, time.Time) {
	best := -1
	var wait time.Time
	for i, c := range cs {
		if c.NotBefore.After(now) {
			if wait.IsZero() || c.NotBefore.Before(wait) {
				wait = c.NotBefore
			}
			continue
		}
		if !c.Rejected {
			return i, time.Time{}
		}
		if best < 0 {
			best = i
		}
	}
	if best >= 0 {
		return best, time.Time{}
	}
	return -1, wait
}
