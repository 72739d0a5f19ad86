package sched

import (
	"maps"
	"slices"
	"time"
)

// MaxQueue is how many requests a parent keeps per child, announced as reqq.
const MaxQueue = 1024

// Patience is how long requests for a piece told of early may wait for it. As long
// the parent says again and again that it waits (Link.Waits).
const Patience = 5 * time.Second

// Holding is what a parent can do about a piece.
type Holding int

// What it can do.
const (
	Missing Holding = iota // not have it, nor soon
	Coming                 // it is on its way and was told of early
	Held                   // send it
)

// Early are the pieces that a parent has told its children of although it has only
// just asked for them itself. So their requests are there when the piece is: were
// they told then, word and request would each wait behind the data in front of
// them, and every hop would cost the time of three or four pieces in place of one.
// What is sent is whole and has been hashed, as ever. The zero value is ready.
type Early struct{ at map[int]time.Time }

// Tell reports whether children are to be told of a piece that c is about to ask
// for.
func (e *Early) Tell(c *Child, piece int, now time.Time) bool {
	if c.bars[piece] != nil {
		return false // what came wrong before is no good promise
	}
	if e.at == nil {
		e.at = map[int]time.Time{}
	}
	e.at[piece] = now
	return true
}

// Forget takes a piece off the list: it is here, or will not come.
func (e *Early) Forget(piece int) { delete(e.at, piece) }

// Told lists the pieces that are on their way, ascending: what a child that joins
// later is told.
func (e *Early) Told() []int { return slices.Sorted(maps.Keys(e.at)) }

// Holding says what can be done about a piece; held: it can be sent.
func (e *Early) Holding(piece int, held bool, now time.Time) Holding {
	if held {
		return Held
	}
	if at, told := e.at[piece]; told && now.Sub(at) < Patience {
		return Coming
	}
	return Missing
}

// Answer is what becomes of a request that a child has sent.
type Answer int

// The answers.
const (
	Queue  Answer = iota // it is sent when its turn comes
	Refuse               // BEP 6 reject
	HangUp               // the child breaks the protocol
)

// Admit decides on a request: serving is whether the child is unchoked, queued
// how many requests of it wait, fast whether it understands a reject.
func Admit(serving bool, piece Holding, queued int, fast bool) Answer {
	switch {
	case !serving || piece == Missing:
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
// whose piece is held. Those before it that wait for their piece stay; those
// whose piece is missing go to refuse. ok is false when nothing can be served.
func Next[R any](queue []R, holding func(R) Holding, refuse func(R)) (next R, rest []R, ok bool) {
	waiting := 0
	for i, r := range queue {
		switch holding(r) {
		case Held:
			if waiting == 0 { // as nearly always: no copying
				return r, queue[i+1:], true
			}
			return r, append(queue[:waiting], queue[i+1:]...), true
		case Coming:
			queue[waiting] = r
			waiting++
		case Missing:
			refuse(r)
		}
	}
	var none R
	return none, queue[:waiting], false
}

// Unchoke reports whether a child is to be unchoked: one that is interested, as
// soon as it is known what it can do. Who serves whom is the tracker's
// decision, so there is no tit-for-tat here.
func Unchoke(interested, ready, serving bool) bool { return interested && ready && !serving }
