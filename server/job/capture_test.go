package job

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labswarm/api"
)

func captureSample() *Job {
	j := sample()
	j.Kind, j.DiskBytes, j.Readback, j.InfoHash, j.Version = KindCapture, 0, "", "", ""
	return j
}

func TestCaptureFlow(t *testing.T) {
	j := captureSample()
	s := New(j, []api.Host{{Name: "a"}}, t0)[0]
	for _, step := range []struct {
		ev   Event
		want api.State
	}{
		{Arm{}, api.StateArmed},
		{Boot{Proto: "http", Silent: true}, api.StateBooting},
		{Enrol{Session: session("1"), Disk: &api.Disk{}}, api.StateEnrolled},
		{Report{BootID: "boot1", State: api.StateChecking}, api.StateChecking},
		{Report{BootID: "boot1", State: api.StateCapturing}, api.StateCapturing},
		{Boot{Proto: "dhcp"}, api.StateCapturing},             // forged, or a second NIC: the agent still talks
		{Boot{Proto: "dhcp", Silent: true}, api.StateBooting}, // the PC lost power
		{Enrol{Session: session("2"), Disk: &api.Disk{}}, api.StateEnrolled},
		{Report{BootID: "boot1", State: api.StateCapturing}, api.StateEnrolled}, // the old boot's last words: refused
		{Report{BootID: "boot2", State: api.StateCapturing}, api.StateCapturing},
		{Report{BootID: "boot2", State: api.StateVerifying}, api.StateVerifying},
		{Report{BootID: "boot2", State: api.StateWriting}, api.StateVerifying}, // refused
		{commence("2", 11), api.StateVerifying},                                // refused
		{Captured{BootID: "boot1"}, api.StateVerifying},                        // refused
		{Captured{BootID: "boot2", Detail: "lab/2026-11-21.1"}, api.StateDone},
		{Cancel{By: "x"}, api.StateDone},
		{Gone{BootID: "boot2"}, api.StateRebooting},
		{Sighting{OS: true, Silent: true}, api.StateConfirmed},
	} {
		next, _, err := Apply(j, s, step.ev, t0)
		if err == nil {
			s = next
		}
		if s.State != step.want || s.PONR {
			t.Fatalf("after %T: %s (%v), ponr %v; want %s", step.ev, s.State, err, s.PONR, step.want)
		}
	}
	if got := Result(j, []Slot{s}); got != "ok" {
		t.Errorf("Result = %q", got)
	}
}

func TestCaptureDeadlines(t *testing.T) {
	j := captureSample()
	at := func(st api.State) Slot {
		ses := session("1")
		return Slot{Job: 1, Kind: KindCapture, Host: "a", State: st, Since: t0, Session: &ses, Hard: 1}
	}
	for _, tt := range []struct {
		name  string
		state api.State
		after time.Duration
		moved time.Duration // after t0
		want  api.State
	}{
		{"cells come", api.StateCapturing, 50 * time.Minute, 45 * time.Minute, api.StateCapturing},
		{"none came for long", api.StateCapturing, time.Hour, 30 * time.Minute, api.StateHeld},
		{"server reads back", api.StateVerifying, 50 * time.Minute, 45 * time.Minute, api.StateVerifying},
		{"at the window's end", api.StateCapturing, j.NotAfter.Sub(t0) + time.Minute, j.NotAfter.Sub(t0), api.StateCapturing},
		{"at the overrun's end", api.StateCapturing, j.NotAfter.Sub(t0) + j.Overrun, j.NotAfter.Sub(t0) + j.Overrun, api.StateFailed},
		{"armed at the window's end", api.StateArmed, j.NotAfter.Sub(t0), 0, api.StateNoShow},
	} {
		now := t0.Add(tt.after)
		s, _, err := Apply(j, at(tt.state), Tick{Heard: now, Moved: t0.Add(tt.moved)}, now)
		if err != nil || s.State != tt.want {
			t.Errorf("%s: %s (%s), %v; want %s", tt.name, s.State, s.Error, err, tt.want)
		}
		if s.State == api.StateHeld {
			if s, _, err = Apply(j, s, Boot{Silent: true}, now); err != nil || s.State != api.StateBooting {
				t.Errorf("%s: switched on again: %s, %v; want it to resume", tt.name, s.State, err)
			}
		}
	}
}

// TestCaptureModel: whatever happens in whatever order, a capture never passes a point of no return, never reports a
// state that writes, is done by the server's word only, and ends.
func TestCaptureModel(t *testing.T) {
	reached := map[api.State]int{}
	rapid.Check(t, func(t *rapid.T) {
		j := captureSample()
		n := &night{j: j, s: New(j, []api.Host{{Name: "a"}}, t0)[0], now: t0, granted: map[string]uint64{}, fence: 10, wild: 1}
		for range rapid.IntRange(20, 150).Draw(t, "steps") {
			n.now = n.now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 5, 30, 300}).Draw(t, "wait")) * time.Second)
			ev := n.draw(t)
			boot := fmt.Sprintf("boot%d", n.boots)
			switch {
			case rapid.IntRange(0, 2).Draw(t, "capture") > 0 && (n.s.State == api.StateEnrolled || n.s.State == api.StateChecking || n.s.State == api.StateCapturing):
				ev = Report{BootID: boot, State: rapid.SampledFrom([]api.State{api.StateChecking, api.StateCapturing, api.StateVerifying}).Draw(t, "to")}
			case n.s.State == api.StateVerifying && rapid.Bool().Draw(t, "done"):
				ev = Captured{BootID: boot}
			}
			before := n.s
			next, _, err := Apply(j, n.s, ev, n.now)
			if err != nil {
				continue
			}
			n.s = next
			reached[next.State]++
			_, byServer := ev.(Captured)
			switch {
			case next.PONR || next.State == api.StateWriting || next.State == api.StateFinalising || next.Session != nil && next.Session.Fence != 0:
				t.Fatalf("%T led a capture from %s to %s, ponr %v", ev, before.State, next.State, next.PONR)
			case next.State.Good() && !before.State.Good() && !byServer:
				t.Fatalf("%T made a capture %s", ev, next.State)
			case before.State.Ended() && !next.State.Ended() && !isRetry(ev):
				t.Fatalf("end state %s left for %s by %T", before.State, next.State, ev)
			}
		}
		for range 40 {
			n.now = n.now.Add(30 * time.Minute)
			if next, _, err := Apply(j, n.s, Tick{Moved: n.now}, n.now); err == nil {
				n.s = next
			}
		}
		if !n.s.Final || Result(j, []Slot{n.s}) == "" {
			t.Fatalf("the capture never ended: %s since %s", n.s.State, n.s.Since)
		}
	})
	for _, st := range []api.State{api.StateCapturing, api.StateVerifying, api.StateDone, api.StateConfirmed, api.StateFailed} {
		if reached[st] == 0 {
			t.Errorf("no random capture reached %s: %v", st, reached)
		}
	}
}

func isRetry(ev Event) bool {
	_, ok := ev.(Retry)
	return ok
}
