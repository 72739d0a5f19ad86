package sim

import "time"

// queue is the virtual clock: events in the order of time, and of being added.
type queue struct {
	now  time.Duration // since the start
	heap []event
	seq  uint64
}

type event struct {
	at  time.Duration
	seq uint64
	fn  func()
}

func (e *event) before(o *event) bool {
	return e.at < o.at || e.at == o.at && e.seq < o.seq
}

// after runs fn d from now.
func (q *queue) after(d time.Duration, fn func()) { q.at(q.now+max(d, 0), fn) }

// at runs fn at a time, now if that is over.
func (q *queue) at(at time.Duration, fn func()) {
	q.seq++
	e := event{max(at, q.now), q.seq, fn}
	q.heap = append(q.heap, e)
	i := len(q.heap) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !e.before(&q.heap[up]) {
			break
		}
		q.heap[i] = q.heap[up]
		i = up
	}
	q.heap[i] = e
}

// step runs the next event; false: there is none before limit.
func (q *queue) step(limit time.Duration) bool {
	if len(q.heap) == 0 || q.heap[0].at > limit {
		return false
	}
	e := q.heap[0]
	last := len(q.heap) - 1
	x := q.heap[last]
	q.heap[last] = event{}
	q.heap = q.heap[:last]
	if last > 0 {
		q.sink(x)
	}
	q.now = e.at
	e.fn()
	return true
}

// sink puts x into the place of the first event.
func (q *queue) sink(x event) {
	i, n := 0, len(q.heap)
	for {
		first := 4*i + 1
		if first >= n {
			break
		}
		least := first
		for c := first + 1; c < min(first+4, n); c++ {
			if q.heap[c].before(&q.heap[least]) {
				least = c
			}
		}
		if !q.heap[least].before(&x) {
			break
		}
		q.heap[i] = q.heap[least]
		i = least
	}
	q.heap[i] = x
}
