package sched

import (
	"slices"
	"testing"
	"time"
)

func TestAdmit(t *testing.T) {
	for _, c := range []struct {
		serving bool
		piece   Holding
		fast    bool
		queued  int
		want    Answer
	}{
		{true, Held, true, 0, Queue},
		{true, Coming, true, 0, Queue},
		{true, Held, false, MaxQueue - 1, Queue},
		{false, Held, true, 0, Refuse},
		{false, Coming, true, 0, Refuse},
		{true, Missing, true, 0, Refuse},
		{true, Held, true, MaxQueue, Refuse},
		{true, Held, false, MaxQueue, HangUp},
	} {
		if got := Admit(c.serving, c.piece, c.queued, c.fast); got != c.want {
			t.Errorf("Admit(serving %v, piece %v, queued %d, fast %v) = %v; want %v", c.serving, c.piece, c.queued, c.fast, got, c.want)
		}
	}
}

func TestNext(t *testing.T) {
	held := func(i int) Holding { return Holding(i % 10) } // the last digit says it
	for _, c := range []struct {
		queue, rest, refused []int
		next                 int
		ok                   bool
	}{
		{queue: []int{12, 22, 30}, next: 12, ok: true, rest: []int{22, 30}},
		{queue: []int{10, 20, 32, 40}, next: 32, ok: true, rest: []int{40}, refused: []int{10, 20}},
		{queue: []int{11, 20, 31, 42, 51, 62}, next: 42, ok: true, rest: []int{11, 31, 51, 62}, refused: []int{20}},
		{queue: []int{11, 20, 31}, rest: []int{11, 31}, refused: []int{20}},
		{queue: []int{10, 20}, refused: []int{10, 20}},
		{},
	} {
		var refused []int
		next, rest, ok := Next(slices.Clone(c.queue), held, func(i int) { refused = append(refused, i) })
		if next != c.next || ok != c.ok || !slices.Equal(rest, c.rest) || !slices.Equal(refused, c.refused) {
			t.Errorf("Next(%v) = %d, %v, %v, refused %v; want %d, %v, %v, %v", c.queue, next, rest, ok, refused, c.next, c.rest, c.ok, c.refused)
		}
	}
}

// TestEarly: children are told of a piece that was asked for, may wait for it that
// long and no longer, and are not told of one that came wrong before.
func TestEarly(t *testing.T) {
	c := NewChild(nil, nil, 1<<20)
	now := time.Unix(1000, 0)
	var e Early
	if h := e.Holding(7, false, now); h != Missing {
		t.Errorf("before: %v; want Missing", h)
	}
	if !e.Tell(c, 7, now) {
		t.Error("not told")
	}
	if e.Tell(c, 3, now); !slices.Equal(e.Told(), []int{3, 7}) {
		t.Errorf("a child that joins now is told of %v; want 3, 7", e.Told())
	}
	for _, s := range []struct {
		after time.Duration
		held  bool
		want  Holding
	}{{0, false, Coming}, {Patience - 1, false, Coming}, {Patience, false, Missing}, {Patience, true, Held}} {
		if h := e.Holding(7, s.held, now.Add(s.after)); h != s.want {
			t.Errorf("after %v, held %v: %v; want %v", s.after, s.held, h, s.want)
		}
	}
	e.Forget(7)
	if h := e.Holding(7, false, now); h != Missing {
		t.Errorf("forgotten: %v; want Missing", h)
	}
	c.bars[7] = &bar{}
	if e.Tell(c, 7, now) {
		t.Error("told of a piece that came wrong before")
	}
}

// TestQuiet: a parent that says it waits is not mute, but words alone are not
// believed for ever from one that holds what was asked for.
func TestQuiet(t *testing.T) {
	at := func(d time.Duration) time.Time { return time.Unix(1000, 0).Add(d) }
	for _, c := range []struct {
		waits time.Duration // when it said so; bytes came at 0
		now   time.Duration
		want  time.Duration
		lacks bool // what was asked for
	}{
		{-time.Second, 3 * time.Second, 3 * time.Second, false},
		{2 * time.Second, 3 * time.Second, time.Second, false},
		{7 * time.Second, waitTime - 1, waitTime - 1 - 7*time.Second, false},
		{7 * time.Second, waitTime, waitTime, false},
		{7 * time.Second, waitTime, waitTime - 7*time.Second, true},
		{-time.Second, waitTime, waitTime, true},
	} {
		l := NewLink(nil, nil, 2, 1, 1)
		l.lastRx, l.waits, l.order = at(0), at(c.waits), []*Fetch{{Piece: 1}}
		if !c.lacks {
			l.Has(1)
		}
		if got := l.quiet(at(c.now)); got != c.want {
			t.Errorf("waits said at %v: quiet at %v for %v; want %v", c.waits, c.now, got, c.want)
		}
	}
	if Patience >= waitTime {
		t.Error("a parent may wait longer than its child believes it")
	}
}
