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

// TestEarly: children are told once of a piece that will be here in a moment, may
// wait for it that long and no longer, and again once it is here.
func TestEarly(t *testing.T) {
	c := NewChild(nil, nil, 1<<20)
	f := &Fetch{Piece: 7, block: 128 << 10, state: make([]uint8, 8), got: 1}
	now := time.Unix(1000, 0)
	var e Early
	if h := e.Holding(7, false, now); h != Missing {
		t.Errorf("before: %v; want Missing", h)
	}
	c.meter.wireRate = 1 << 20 // bytes per second: 7 blocks take 0.875 s
	if e.Tell(c, f, now) {
		t.Error("told 0.875 s too early")
	}
	f.got = 6 // the rest takes 0.25 s
	if !e.Tell(c, f, now) || e.Tell(c, f, now) {
		t.Error("want to be told once, 0.25 s ahead")
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
	if e.Tell(c, f, now) {
		t.Error("told of a piece that came wrong before")
	}
	c.meter.wireRate, f.Piece = 0, 8
	if !e.Tell(c, f, now) {
		t.Error("the first piece ever is not told of")
	}
}
