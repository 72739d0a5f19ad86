package sched

// MaxQueue is how many requests a parent keeps per child, announced as reqq.
const MaxQueue = 1024

// Answer is what becomes of a request that a child has sent.
type Answer int

// The answers.
const (
	Queue  Answer = iota // it is sent when its turn comes
	Refuse               // BEP 6 reject
	HangUp               // the child breaks the protocol
)

// Admit decides on a request: serving is whether the child is unchoked, held
// whether we can send the piece, queued how many requests of it wait, fast
// whether it understands a reject.
func Admit(serving, held bool, queued int, fast bool) Answer {
	switch {
	case !serving || !held:
		return Refuse
	case queued < MaxQueue:
		return Queue
	case fast:
		return Refuse
	default:
		return HangUp
	}
}

// Next takes the request to serve now off the queue of a child: the oldest one
// whose piece is still held. The ones before it, which are to be refused, go to
// refuse; ok is false when nothing is left.
func Next[R any](queue []R, held func(R) bool, refuse func(R)) (next R, rest []R, ok bool) {
	for len(queue) > 0 {
		next, queue = queue[0], queue[1:]
		if held(next) {
			return next, queue, true
		}
		refuse(next)
	}
	var none R
	return none, queue, false
}

// Unchoke reports whether a child is to be unchoked: one that is interested, as
// soon as it is known what it can do. Who serves whom is the tracker's
// decision, so there is no tit-for-tat here.
func Unchoke(interested, ready, serving bool) bool { return interested && ready && !serving }
