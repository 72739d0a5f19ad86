package job

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"labswarm/api"
)

// room makes slots h1.. in the given states.
func room(j *Job, states ...api.State) []Slot {
	var out []Slot
	j.Hosts = nil
	for i, st := range states {
		name := fmt.Sprintf("h%d", i+1)
		j.Hosts = append(j.Hosts, name)
		out = append(out, Slot{Host: name, State: st, Since: t0})
	}
	return out
}

func TestAdmits(t *testing.T) {
	open, end := t0, t0.Add(time.Hour)
	for _, tt := range []struct {
		name string
		set  func(*Job)
		ponr bool
		at   time.Time
		want string // part of the refusal, "" = admitted
	}{
		{"open", nil, false, open, ""},
		{"before it opens", func(j *Job) { j.NotBefore = t0.Add(time.Minute) }, false, open, "not opened"},
		{"as it opens", func(j *Job) { j.NotBefore = t0 }, false, open, ""},
		{"a moment before its end", nil, false, end.Add(-1), ""},
		{"at its end", nil, false, end, "closed"},
		{"half written, at its end", nil, true, end, ""},
		{"half written, policy hold", func(j *Job) { j.OnEnd = OnEndHold }, true, end, "closed"},
		{"half written, policy hold, still open", func(j *Job) { j.OnEnd = OnEndHold }, true, end.Add(-1), ""},
		{"half written, overrun used up", nil, true, end.Add(MaxOverrun), "closed"},
		{"paused", func(j *Job) { j.Paused, j.PausedBy = t0, "eva" }, false, open, "paused by eva"},
		{"paused, half written", func(j *Job) { j.Paused = t0 }, true, open, ""},
		{"cancelled", func(j *Job) { j.Cancelled = t0 }, false, open, "cancelled"},
		{"cancelled, half written", func(j *Job) { j.Cancelled = t0 }, true, open, ""},
	} {
		j := sample()
		if tt.set != nil {
			tt.set(j)
		}
		err := j.Admits(tt.ponr, tt.at)
		var r *RefusedError
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (!errors.As(err, &r) || r.Code != api.CodeNotNow || !strings.Contains(r.Text, tt.want)):
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}

// TestCommenceOnlyWhatFits: a host is not begun when it would not be ready in
// time; one that is half written already is.
func TestCommenceOnlyWhatFits(t *testing.T) {
	j := sample()
	s := must(t, j, enrolled(t, j), Report{BootID: "boot1", State: api.StateChecking}, t0)
	ask := commence("1", 11)
	for needs, ok := range map[time.Duration]bool{0: true, time.Hour: true, time.Hour + 1: false, -1: true} {
		ask.Needs = needs
		next, _, err := Apply(j, s, ask, t0)
		var late *TooLateError
		var r *RefusedError
		if ok != (err == nil) || ok != next.PONR || !ok && (!errors.As(err, &late) || !errors.As(err, &r) || r.Code != api.CodeNotNow) {
			t.Errorf("%s needed of an hour: ponr %v, %v", needs, next.PONR, err)
		}
	}
	s.PONR, ask.Needs = true, 3*time.Hour
	if next := must(t, j, s, ask, t0); next.State != api.StateWriting {
		t.Errorf("a half-written host is %s; want WRITING", next.State)
	}
}

func TestNeeds(t *testing.T) {
	const gb = 1_000_000_000
	for _, tt := range []struct {
		name string
		w    Work
		secs int // 0 = not known
	}{
		{"gigabit link", Work{Write: 10 * gb, Verify: 20 * gb, Disk: 500_000_000, Link: 1000}, 100 + 40 + 30},
		{"the swarm is slower than the link", Work{Write: 10 * gb, Verify: 20 * gb, Disk: 500_000_000, Link: 1000, Swarm: 50_000_000}, 200 + 40 + 30},
		{"the link is slower than the swarm", Work{Write: 10 * gb, Verify: 20 * gb, Disk: 500_000_000, Link: 100, Swarm: 50_000_000}, 1000 + 40 + 30},
		{"a slow disk", Work{Write: 10 * gb, Verify: 20 * gb, Disk: 100_000_000, Link: 1000}, 200 + 200 + 30},
		{"nothing to write", Work{Verify: 20 * gb, Disk: 500_000_000}, 40 + 30},
		{"an unknown disk is the slowest that works", Work{Verify: 4 * gb}, 100 + 30},
		{"no idea of the network", Work{Write: 1, Verify: 1}, 0},
	} {
		d, ok := tt.w.Needs()
		if ok != (tt.secs > 0) || ok && int(d.Round(time.Second)/time.Second) != tt.secs {
			t.Errorf("%s: %s, %v; want %d s", tt.name, d, ok, tt.secs)
		}
	}
}

func TestArmable(t *testing.T) {
	p, a, w, c, f, k := api.StatePending, api.StateArmed, api.StateWriting, api.StateConfirmed, api.StateFailed, api.StateSkipped
	for _, tt := range []struct {
		name   string
		canary int
		states []api.State
		want   string
		wait   string
	}{
		{"all at once", 0, []api.State{p, p, p}, "h1 h2 h3", ""},
		{"two go first", 2, []api.State{p, p, p, p}, "h1 h2", "h1 goes first"},
		{"one is still at work", 2, []api.State{c, w, p}, "", "h2 goes first and is WRITING"},
		{"both are seen booting", 2, []api.State{c, c, p, p}, "h3 h4", ""},
		{"DONE is not enough", 1, []api.State{api.StateDone, p}, "", "DONE"},
		{"one failed", 1, []api.State{f, p, p}, "", "h1 goes first and is FAILED"},
		{"one taken out makes room for the next", 1, []api.State{k, p, p}, "h2", "h2 goes first"},
		{"more than there are", 9, []api.State{p, p}, "h1 h2", "goes first"},
		{"nobody waits", 1, []api.State{a, a}, "", ""},
	} {
		j := sample()
		slots := room(j, tt.states...)
		j.Canary = tt.canary
		hosts, wait := Armable(j, slots, t0)
		if strings.Join(hosts, " ") != tt.want || !strings.Contains(wait, tt.wait) || (tt.wait == "") != (wait == "") {
			t.Errorf("%s: %v, %q; want %s, %q", tt.name, hosts, wait, tt.want, tt.wait)
		}
		j.Paused, j.PausedBy = t0, "eva"
		if hosts, wait := Armable(j, slots, t0); hosts != nil || slices.Contains(tt.states, p) && !strings.Contains(wait, "eva") {
			t.Errorf("%s, paused: %v, %q", tt.name, hosts, wait)
		}
	}
}

func TestTooMany(t *testing.T) {
	j := sample()
	slots := room(j, api.StateFailed, api.StateFailed, api.StateWriting, api.StateFailed)
	for limit, want := range map[int]bool{0: false, 2: true, 3: true, 4: false} {
		j.MaxFailures = limit
		if got := TooMany(j, slots); (got != "") != want {
			t.Errorf("3 failures, limit %d: %q", limit, got)
		}
	}
	if j.MaxFailures, j.Forgiven = 3, 1; TooMany(j, slots) != "" {
		t.Error("a failure that was forgiven counts")
	}
}

func TestWaking(t *testing.T) {
	j := sample()
	j.Wake = true
	s := must(t, j, New(j, []api.Host{{Name: "a"}}, t0)[0], Arm{}, t0)
	now := t0
	for round := 1; round <= WakeRounds; round++ {
		if due := WakeDue(j, []Slot{s}, now); len(due) != 1 {
			t.Fatalf("round %d is not due: %v", round, due)
		}
		s = must(t, j, s, Waken{}, now)
		state(t, s, api.StateWaking)
		now = now.Add(WakeEvery - time.Second)
		if due := WakeDue(j, []Slot{s}, now); due != nil {
			t.Fatalf("round %d is due after %s", round+1, now.Sub(t0))
		}
		s = must(t, j, s, Tick{}, now)
		state(t, s, api.StateWaking)
		now = now.Add(time.Second)
	}
	awake := must(t, j, s, Boot{Proto: "dhcp"}, now)
	state(t, awake, api.StateBooting)
	state(t, must(t, j, s, Sighting{OS: true}, now), api.StateArmed)
	s = must(t, j, s, Tick{}, now)
	state(t, s, api.StateArmed)
	if due := WakeDue(j, []Slot{s}, now.Add(time.Hour)); due != nil {
		t.Error("woken for ever")
	}
	s = must(t, j, s, Tick{}, t0.Add(time.Hour))
	state(t, s, api.StateNoShow)
	if !strings.Contains(s.Error, "not woken by 3 rounds") {
		t.Errorf("NO_SHOW says %q", s.Error)
	}
	slots := room(j, api.StateArmed, api.StateArmed, api.StatePending, api.StateBooting)
	slots[1].Soft = 1 // it booted already: it is on
	if due := WakeDue(j, slots, t0); !slices.Equal(due, []string{"h1"}) {
		t.Errorf("due: %v; want h1", due)
	}
	j.Paused = t0
	if due := WakeDue(j, slots, t0); due != nil {
		t.Errorf("woken by a paused job: %v", due)
	}
}

// TestHoldAtTheWindowsEnd: nothing that stopped begins again until the job gets
// more time; the writer itself is not interrupted.
func TestHoldAtTheWindowsEnd(t *testing.T) {
	j := sample()
	j.OnEnd = OnEndHold
	w := must(t, j, writing(t, j), Report{BootID: "boot1", State: api.StateWriting}, t0)
	end := t0.Add(time.Hour)
	s := must(t, j, w, Tick{Heard: end, Moved: end}, end)
	state(t, s, api.StateHeld)
	refused(t, j, s, Boot{Silent: true}, end, api.CodeHeld)
	refused(t, j, s, Release{By: "eva"}, end, api.CodeNotNow)
	state(t, must(t, j, s, result("1", 11, "good"), end), api.StateDone)
	state(t, must(t, j, s, Tick{}, end.Add(MaxOverrun)), api.StateFailed)
	j.NotAfter = end.Add(time.Hour)
	state(t, must(t, j, s, Extend{}, end), api.StateWriting)
	again := must(t, j, s, Extend{Silent: true}, end)
	state(t, again, api.StateArmed)
	state(t, must(t, j, again, Boot{Silent: true}, end), api.StateBooting)
	byHand := must(t, j, s, Hold{Code: api.CodeHeld, Text: "by eva"}, end)
	state(t, must(t, j, byHand, Extend{}, end), api.StateHeld)
}

func TestPersons(t *testing.T) {
	j := sample()
	e := enrolled(t, j)
	held := must(t, j, e, Hold{Code: api.CodeHeld, Text: "by eva"}, t0)
	state(t, held, api.StateHeld)
	state(t, must(t, j, held, Release{By: "eva"}, t0), api.StateEnrolled)
	state(t, must(t, j, held, Release{By: "eva", Silent: true}, t0), api.StateArmed)
	refused(t, j, e, Release{By: "eva"}, t0, api.CodeConflict)
	w := writing(t, j)
	refused(t, j, w, Skip{By: "eva", Reason: "x"}, t0, api.CodeConflict)
	state(t, must(t, j, w, Skip{Reason: "not a person"}, t0), api.StateWriting)
	skipped := must(t, j, e, Skip{By: "eva", Reason: "by eva"}, t0)
	state(t, skipped, api.StateSkipped)
	refused(t, j, skipped, Skip{By: "eva"}, t0, api.CodeConflict)
	refused(t, j, w, Retry{By: "eva"}, t0, api.CodeConflict)
	refused(t, j, must(t, j, w, result("1", 11, "good"), t0), Retry{By: "eva"}, t0, api.CodeConflict)

	failed := must(t, j, w, result("1", 11, "bad"), t0)
	state(t, failed, api.StateFailed)
	again := must(t, j, failed, Retry{By: "eva"}, t0)
	state(t, again, api.StatePending)
	if !again.PONR || again.Final || again.Hard != 0 || again.Session != nil || again.Retries != 1 || len(again.Timeline) <= 1 {
		t.Errorf("retried: %+v", again)
	}
	// The agent of before has no say any more.
	refused(t, j, again, Report{BootID: "boot1", State: api.StateVerifying}, t0, api.CodeNoSession)
	refused(t, j, again, commence("1", 12), t0, api.CodeNoSession)
	refused(t, j, failed, Retry{By: "eva"}, t0.Add(time.Hour), api.CodeNotNow)
	ended := *j
	ended.Ended = t0
	refused(t, &ended, failed, Retry{By: "eva"}, t0, api.CodeConflict)
}

// TestPauseWaits: a host that is kept from commencing is not held for being slow.
func TestPauseWaits(t *testing.T) {
	j := sample()
	s := must(t, j, enrolled(t, j), Report{BootID: "boot1", State: api.StateChecking}, t0)
	j.Paused, j.PausedBy = t0, "eva"
	refused(t, j, s, commence("1", 11), t0, api.CodeNotNow)
	later := t0.Add(30 * time.Minute)
	s = must(t, j, s, Tick{Heard: later, Moved: later}, later)
	state(t, s, api.StateChecking)
	state(t, must(t, j, New(j, []api.Host{{Name: "b"}}, t0)[0], Arm{}, t0), api.StatePending)
	j.Paused = time.Time{}
	s = must(t, j, s, Resume{}, later)
	state(t, must(t, j, s, Tick{Heard: later, Moved: later}, later.Add(time.Second)), api.StateChecking)
	state(t, must(t, j, s, commence("1", 11), later), api.StateWriting)
}

func BenchmarkApply(b *testing.B) {
	j := sample()
	s := New(j, []api.Host{{Name: "a"}}, t0)[0]
	for b.Loop() {
		next, _, err := Apply(j, s, Arm{}, t0)
		if err != nil || next.State != api.StateArmed {
			b.Fatal(next.State, err)
		}
	}
}
