package job

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labswarm/api"
)

// night is a slot under random events, with what must stay true over its life.
type night struct {
	j       *Job
	s       Slot
	now     time.Time
	fence   uint64
	boots   int
	granted map[string]uint64 // order -> fence
	last    uint64            // fence granted last
	wild    int               // 0 to 1: how seldom the lawful event comes
}

func (n *night) apply(t *rapid.T, ev Event) {
	before := n.s
	next, _, err := Apply(n.j, n.s, ev, n.now)
	if err != nil {
		if next.State != before.State || next.PONR != before.PONR {
			t.Fatalf("%T was refused (%v) and changed %s to %s", ev, err, before.State, next.State)
		}
		return
	}
	n.s = next
	n.check(t, before, ev)
}

func (n *night) check(t *rapid.T, before Slot, ev Event) {
	s := n.s
	c, isCommence := ev.(Commence)
	_, again := ev.(Retry)
	switch {
	case again && (before.State.Good() || before.Live() || s.State != api.StatePending || s.Session != nil):
		t.Fatalf("retry led from %s to %s", before.State, s.State)
	case before.State.Ended() && !s.State.Ended() && !again:
		t.Fatalf("end state %s left for %s by %T", before.State, s.State, ev)
	case before.State.Ended() && !before.State.Good() && s.State != before.State && !again:
		t.Fatalf("%s became %s", before.State, s.State)
	case before.Final && !s.Final && !again:
		t.Fatalf("no longer final after %T", ev)
	case isCommence && s.PONR && !before.PONR && (!n.j.Paused.IsZero() || !n.now.Before(n.j.NotAfter) || n.now.Before(n.j.NotBefore) || !n.now.Add(c.Needs).Before(n.j.NotAfter.Add(1))):
		t.Fatalf("commence at %s in a window %s to %s, paused %v, %s needed", n.now, n.j.NotBefore, n.j.NotAfter, !n.j.Paused.IsZero(), c.Needs)
	case isCommence && s.State == api.StateWriting && before.State != api.StateWriting && n.j.OnEnd == OnEndHold && !n.now.Before(n.j.NotAfter):
		t.Fatalf("work began after the window under policy hold")
	case s.Late && (n.j.OnEnd != OnEndHold || !s.PONR):
		t.Fatalf("held for the window's end: %s, ponr %v, policy %q", s.State, s.PONR, n.j.OnEnd)
	case before.PONR && !s.PONR:
		t.Fatalf("the point of no return was forgotten by %T", ev)
	case s.PONR && !before.PONR && !isCommence:
		t.Fatalf("%T passed the point of no return", ev)
	case wrote(s.State) && (!s.PONR || s.Session == nil || s.Session.Fence == 0):
		t.Fatalf("%s without a commence", s.State)
	case s.State.Good() && (!s.Verified || !s.PONR):
		t.Fatalf("%s: verified %v, ponr %v", s.State, s.Verified, s.PONR)
	case s.Verified && !before.Verified && ev.(Done).Result.Readback != n.j.Readback:
		t.Fatalf("verified with a wrong digest")
	case s.Hard > n.j.MaxHard:
		t.Fatalf("%d enrolments", s.Hard)
	case s.PONR && (s.State == api.StateSkipped || s.State == api.StateCancelled || s.State == api.StateNoShow):
		t.Fatalf("half-written host ended as %s", s.State)
	}
	if isCommence && s.Session.Fence != before.Session.Fence {
		if old, ok := n.granted[c.OrderID]; ok {
			t.Fatalf("order %s commenced twice: %d and %d", c.OrderID, old, c.Fence)
		}
		if c.Fence <= n.last {
			t.Fatalf("fence %d after %d", c.Fence, n.last)
		}
		n.granted[c.OrderID], n.last = c.Fence, c.Fence
	}
}

// lawful is the event that brings a good night one step on.
func (n *night) lawful() Event {
	boot := fmt.Sprint(n.boots)
	switch n.s.State {
	case api.StatePending:
		return Arm{}
	case api.StateArmed, api.StateWaking, api.StateHeld:
		if n.j.Wake && n.s.Wakes == 0 {
			return Waken{}
		}
		return Boot{Proto: "http", Silent: true}
	case api.StateBooting:
		n.boots++
		ev := Enrol{Session: session(fmt.Sprint(n.boots)), Disk: &api.Disk{}}
		ev.Session.Floor = n.fence
		return ev
	case api.StateEnrolled:
		return Report{BootID: "boot" + boot, State: api.StateChecking}
	case api.StateChecking:
		n.fence++
		return commence(boot, n.fence)
	case api.StateWriting:
		return Report{BootID: "boot" + boot, State: api.StateVerifying}
	case api.StateVerifying, api.StateFinalising:
		return result(boot, n.s.Session.Fence, "good")
	case api.StateDone:
		return Gone{BootID: "boot" + boot}
	}
	return Sighting{OS: true, Silent: true}
}

// draw makes a random event; most of them lawful at some time.
func (n *night) draw(t *rapid.T) Event {
	if rapid.IntRange(0, 2).Draw(t, "go on") > n.wild {
		return n.lawful()
	}
	// Mostly the present boot, mostly sensible words: else no night gets far.
	boot := fmt.Sprint(max(0, n.boots-rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2}).Draw(t, "boot")))
	states := append(api.AllStates(), api.StateChecking, api.StateChecking, api.StateWriting, api.StateVerifying, api.StateVerifying, api.StateFinalising)
	switch rapid.IntRange(0, 17).Draw(t, "event") {
	case 0:
		return Arm{}
	case 16, 17:
		return n.person(t)
	case 1, 2:
		return Boot{Proto: "dhcp", Silent: rapid.Bool().Draw(t, "silent")}
	case 3:
		return Initramfs{}
	case 4, 5:
		if n.s.State != api.StateBooting && rapid.IntRange(0, 3).Draw(t, "odd enrolment") > 0 {
			return Boot{Proto: "http", Silent: true}
		}
		n.boots++
		ev := Enrol{Session: session(fmt.Sprint(n.boots)), Disk: &api.Disk{}}
		ev.Session.Floor = n.fence
		if rapid.IntRange(0, 9).Draw(t, "nodisk") == 0 {
			ev.Code, ev.Text = api.CodeDiskNotFound, "no disk"
		}
		return ev
	case 6, 7, 8:
		return Report{BootID: "boot" + boot, State: rapid.SampledFrom(states).Draw(t, "state")}
	case 9, 10:
		n.fence++ // as the store: a number is used up even when refused
		c := commence(boot, n.fence)
		c.Needs = time.Duration(rapid.SampledFrom([]int{0, 0, 1, 59}).Draw(t, "needs")) * time.Minute
		return c
	case 11:
		fence := uint64(0)
		if n.s.Session != nil {
			fence = n.s.Session.Fence
		}
		d := result(boot, fence, rapid.SampledFrom([]string{"good", "good", "good", "good", "bad", ""}).Draw(t, "readback"))
		d.Result.OK = rapid.IntRange(0, 4).Draw(t, "ok") > 0
		return d
	case 12:
		return Gone{BootID: "boot" + boot}
	case 13:
		return Sighting{OS: rapid.Bool().Draw(t, "os"), Silent: rapid.Bool().Draw(t, "silent")}
	case 14:
		if rapid.IntRange(0, 5).Draw(t, "rare") < 5 {
			return Conflict{Text: "x"}
		}
		return rapid.SampledFrom([]Event{Arm{}, Arm{}, Cancel{By: "x"}, Hold{Code: api.CodeHeld, Text: "x"}, Skip{Reason: "x"}}).Draw(t, "stop")
	}
	return Tick{Heard: n.now.Add(-time.Duration(rapid.IntRange(0, 1200).Draw(t, "heard")) * time.Second),
		Moved: n.now.Add(-time.Duration(rapid.IntRange(0, 1200).Draw(t, "moved")) * time.Second)}
}

// person is what people and the job do. What they do to the job itself happens
// at once, as in the server: the job's record is committed first.
func (n *night) person(t *rapid.T) Event {
	silent := rapid.Bool().Draw(t, "silent")
	switch rapid.IntRange(0, 8).Draw(t, "person") {
	case 0:
		n.j.Paused, n.j.PausedBy = n.now, "x"
		return Tick{Heard: n.now, Moved: n.now}
	case 1, 2:
		n.j.Paused = time.Time{}
		return Resume{}
	case 3:
		if n.j.NotAfter.Before(t0.Add(3 * time.Hour)) {
			n.j.NotAfter = n.j.NotAfter.Add(20 * time.Minute)
		}
		return Extend{Silent: silent}
	case 4:
		return Release{By: "x", Silent: silent}
	case 5:
		return Retry{By: "x"}
	case 6, 7:
		return Hold{Code: api.CodeHeld, Text: "x"}
	}
	return Waken{}
}

func TestModel(t *testing.T) {
	reached := map[api.State]int{}
	nights := func(t *rapid.T) {
		j := sample()
		if rapid.Bool().Draw(t, "poweroff") {
			j.After = "poweroff"
		}
		j.OnEnd = rapid.SampledFrom([]string{"", OnEndFinish, OnEndHold}).Draw(t, "on window end")
		j.Wake = rapid.Bool().Draw(t, "wake")
		if rapid.IntRange(0, 3).Draw(t, "later") == 0 {
			j.NotBefore = t0.Add(10 * time.Minute)
		}
		n := &night{j: j, s: New(j, []api.Host{{Name: "a"}}, t0)[0], now: t0, granted: map[string]uint64{}, fence: 10, wild: rapid.IntRange(0, 1).Draw(t, "wild")}
		for range rapid.IntRange(20, 120).Draw(t, "steps") {
			n.now = n.now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 5, 30, 300}).Draw(t, "wait")) * time.Second)
			n.apply(t, n.draw(t))
			reached[n.s.State]++
		}
		// Left alone, every slot ends: windows, overruns and deadlines see to it.
		for range 20 {
			n.now = n.now.Add(30 * time.Minute)
			n.apply(t, Tick{})
		}
		if !n.s.Final || Result(j, []Slot{n.s}) == "" {
			t.Fatalf("the slot never ended: %s since %s", n.s.State, n.s.Since)
		}
	}
	for range 20 { // of 100 nights each
		rapid.Check(t, nights)
	}
	// The model must have teeth: it has to get through to the end states.
	for _, st := range []api.State{api.StateWaking, api.StateWriting, api.StateDone, api.StateConfirmed, api.StateHeld, api.StateFailed} {
		if reached[st] == 0 {
			t.Errorf("no random night reached %s: %v", st, reached)
		}
	}
}

func TestAllStatesAreKnownToResult(t *testing.T) {
	for _, st := range api.AllStates() {
		if got := Active(st) && st.Ended(); got {
			t.Errorf("%s is active and ended", st)
		}
	}
	if !slices.Contains(api.AllStates(), api.StateHeld) {
		t.Error("HELD is not listed")
	}
}
