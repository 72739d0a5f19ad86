package job

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"labswarm/api"
)

var t0 = time.Date(2026, 11, 20, 2, 0, 0, 0, time.UTC)

func sample() *Job {
	return &Job{ID: 7, Created: t0, NotAfter: t0.Add(time.Hour), Overrun: MaxOverrun, After: "reboot", MaxHard: 3, MaxSoft: 6,
		DiskBytes: 6 << 30, MinBytes: 6 << 30, Sector: 512, Readback: "good"}
}

func session(n string) Session {
	return Session{BootID: "boot" + n, Cert: "cert" + n, Nonce: "n", OrderID: "order" + n, Order: json.RawMessage(`{}`), Floor: 10}
}

func must(t *testing.T, j *Job, s Slot, ev Event, now time.Time) Slot {
	t.Helper()
	next, _, err := Apply(j, s, ev, now)
	if err != nil {
		t.Fatalf("%T in %s: %v", ev, s.State, err)
	}
	return next
}

// refused wants an error with a code and an unchanged slot.
func refused(t *testing.T, j *Job, s Slot, ev Event, now time.Time, code string) {
	t.Helper()
	next, lines, err := Apply(j, s, ev, now)
	var r *RefusedError
	if !errors.As(err, &r) || r.Code != code {
		t.Errorf("%T in %s = %v; want refusal %s", ev, s.State, err, code)
	}
	if next.State != s.State || next.PONR != s.PONR || next.Hard != s.Hard || lines != nil {
		t.Errorf("%T in %s was refused and changed the slot", ev, s.State)
	}
}

func state(t *testing.T, s Slot, want api.State) {
	t.Helper()
	if s.State != want {
		t.Fatalf("state %s (%s); want %s", s.State, s.Error, want)
	}
}

func commence(n string, fence uint64) Commence {
	return Commence{OrderID: "order" + n, BootID: "boot" + n, Cert: "cert" + n, PlanDigest: "plan", Fence: fence}
}

func result(n string, fence uint64, readback string) Done {
	return Done{Cert: "cert" + n, Digest: "d" + n, Result: api.Result{BootID: "boot" + n, OrderID: "order" + n, Fence: fence, OK: true, Readback: readback}}
}

// enrolled is a slot whose first agent is up.
func enrolled(t *testing.T, j *Job) Slot {
	t.Helper()
	s := New(j, []api.Host{{Name: "a", MAC: "m"}}, t0)[0]
	s = must(t, j, s, Arm{}, t0)
	s = must(t, j, s, Boot{Proto: "dhcp"}, t0)
	s = must(t, j, s, Initramfs{}, t0)
	return must(t, j, s, Enrol{Session: session("1"), Disk: &api.Disk{}}, t0)
}

func writing(t *testing.T, j *Job) Slot {
	t.Helper()
	s := must(t, j, enrolled(t, j), Report{BootID: "boot1", State: api.StateChecking}, t0)
	return must(t, j, s, commence("1", 11), t0)
}

func TestGoodNight(t *testing.T) {
	j := sample()
	s := writing(t, j)
	state(t, s, api.StateWriting)
	if !s.PONR || s.Session.Fence != 11 || s.Hard != 1 || s.Soft != 1 {
		t.Fatalf("after commence: %+v", s)
	}
	for _, st := range []api.State{api.StateVerifying, api.StateFinalising} {
		s = must(t, j, s, Report{BootID: "boot1", State: st}, t0)
		state(t, s, st)
	}
	s = must(t, j, s, result("1", 11, "good"), t0)
	state(t, s, api.StateDone)
	if !s.Verified || s.Final || Result(j, []Slot{s}) != "" {
		t.Errorf("DONE: verified %v final %v", s.Verified, s.Final)
	}
	// While the agent still talks nothing on the wire can be the new system.
	same := must(t, j, s, Sighting{OS: true}, t0)
	state(t, same, api.StateDone)
	s = must(t, j, s, Gone{BootID: "boot1"}, t0)
	state(t, s, api.StateRebooting)
	s = must(t, j, s, Sighting{Detail: "pxe"}, t0)
	state(t, s, api.StateConfirmed)
	if s.OSSeen || !s.Final || Result(j, []Slot{s}) != "ok" {
		t.Errorf("CONFIRMED: %+v", s)
	}
	s = must(t, j, s, Sighting{OS: true, Detail: "dhcp"}, t0.Add(time.Hour))
	if !s.OSSeen {
		t.Error("the installed system was not noted")
	}
}

func TestCommenceVerdict(t *testing.T) {
	j := sample()
	base := must(t, j, enrolled(t, j), Report{BootID: "boot1", State: api.StateChecking}, t0)
	after := t0.Add(2 * time.Hour) // window closed, overrun open
	for name, tc := range map[string]struct {
		slot func(*Slot)
		ev   func(*Commence)
		now  time.Time
		code string
	}{
		"granted":                   {now: t0},
		"granted from ENROLLED":     {now: t0, slot: func(s *Slot) { s.State = api.StateEnrolled }},
		"granted late after PONR":   {now: after, slot: func(s *Slot) { s.PONR = true }},
		"other boot":                {now: t0, ev: func(c *Commence) { c.BootID = "x" }, code: api.CodeNoSession},
		"other certificate":         {now: t0, ev: func(c *Commence) { c.Cert = "x" }, code: api.CodeNoSession},
		"no session":                {now: t0, slot: func(s *Slot) { s.Session = nil }, code: api.CodeNoSession},
		"other order":               {now: t0, ev: func(c *Commence) { c.OrderID = "x" }, code: api.CodeStaleFence},
		"no order":                  {now: t0, ev: func(c *Commence) { c.OrderID = "" }, code: api.CodeStaleFence},
		"order used":                {now: t0, slot: func(s *Slot) { n := *s.Session; n.Fence = 11; s.Session = &n }, code: api.CodeStaleFence},
		"fence at the floor":        {now: t0, ev: func(c *Commence) { c.Fence = 10 }, code: api.CodeStaleFence},
		"no plan":                   {now: t0, ev: func(c *Commence) { c.PlanDigest = "" }, code: api.CodeStaleFence},
		"window closed":             {now: after, code: api.CodeNotNow},
		"overrun over":              {now: t0.Add(4 * time.Hour), slot: func(s *Slot) { s.PONR = true }, code: api.CodeNotNow},
		"ARMED":                     {now: t0, slot: func(s *Slot) { s.State = api.StateArmed }, code: api.CodeStaleFence},
		"WRITING without its fence": {now: t0, slot: func(s *Slot) { s.State = api.StateWriting }, code: api.CodeStaleFence},
		"HELD":                      {now: t0, slot: func(s *Slot) { s.State = api.StateHeld }, code: api.CodeStaleFence},
		"CANCELLED":                 {now: t0, slot: func(s *Slot) { s.State = api.StateCancelled }, code: api.CodeStaleFence},
		"DONE":                      {now: t0, slot: func(s *Slot) { s.State = api.StateDone }, code: api.CodeStaleFence},
	} {
		s, c := base, commence("1", 11)
		if tc.slot != nil {
			tc.slot(&s)
		}
		if tc.ev != nil {
			tc.ev(&c)
		}
		err := CommenceVerdict(j, &s, c, tc.now)
		var r *RefusedError
		switch {
		case tc.code == "" && err != nil:
			t.Errorf("%s: refused: %v", name, err)
		case tc.code != "" && (!errors.As(err, &r) || r.Code != tc.code):
			t.Errorf("%s: %v; want %s", name, err, tc.code)
		}
	}
	j.Cancelled = t0
	if CommenceVerdict(j, &base, commence("1", 11), t0) == nil {
		t.Error("granted in a cancelled job")
	}
}

func TestPowerCutResumes(t *testing.T) {
	j := sample()
	s := writing(t, j)
	// A packet while the agent talks must not disturb it.
	state(t, must(t, j, s, Boot{Proto: "dhcp", Silent: false}, t0), api.StateWriting)
	s = must(t, j, s, Boot{Proto: "dhcp", Silent: true}, t0)
	state(t, s, api.StateBooting)
	// It was forged: the agent reports again and goes on.
	state(t, must(t, j, s, Report{BootID: "boot1", State: api.StateWriting}, t0), api.StateWriting)
	// It was real: a new agent, a new order, a new fence.
	s = must(t, j, s, Enrol{Session: session("2"), Disk: &api.Disk{}, Lost: Counters{BytesFromSeed: 5}}, t0)
	state(t, s, api.StateEnrolled)
	if s.Hard != 2 || !s.PONR || s.Counters.BytesFromSeed != 5 {
		t.Errorf("second attempt: %+v", s)
	}
	refused(t, j, s, commence("1", 12), t0, api.CodeNoSession)
	refused(t, j, s, result("1", 11, "good"), t0, api.CodeNoSession)
	refused(t, j, s, Report{BootID: "boot1", State: api.StateWriting}, t0, api.CodeNoSession)
	s = must(t, j, s, commence("2", 12), t0)
	s = must(t, j, s, result("2", 12, "good"), t0)
	state(t, s, api.StateDone)
}

func TestAttemptsEnd(t *testing.T) {
	j := sample()
	s := writing(t, j)
	for _, n := range []string{"2", "3"} {
		s = must(t, j, s, Boot{Silent: true}, t0)
		s = must(t, j, s, Enrol{Session: session(n), Disk: &api.Disk{}}, t0)
	}
	s = must(t, j, s, Boot{Silent: true}, t0)
	state(t, s, api.StateFailed)
	if s.Code != api.CodeAttempts || !strings.Contains(s.Error, "half written") {
		t.Errorf("after the last attempt: %s %s", s.Code, s.Error)
	}
	// Boots that never enrol end too.
	s = must(t, j, New(j, []api.Host{{Name: "a"}}, t0)[0], Arm{}, t0)
	now := t0
	for range 20 {
		next, _, err := Apply(j, s, Boot{Silent: true}, now)
		if err != nil {
			break
		}
		s = must(t, j, next, Initramfs{}, now)
		now = now.Add(bootLimit)
		s = must(t, j, s, Tick{}, now)
	}
	state(t, s, api.StateFailed)
	if s.Soft != 6 || s.PONR {
		t.Errorf("boot loop ended with %d boots, PONR %v; want 6, false", s.Soft, s.PONR)
	}
}

func TestResultRules(t *testing.T) {
	j := sample()
	s := writing(t, j)
	bad := must(t, j, s, result("1", 11, "other"), t0)
	state(t, bad, api.StateFailed)
	if bad.Code != api.CodeVerify || bad.Verified {
		t.Errorf("wrong digest: %s verified=%v", bad.Code, bad.Verified)
	}
	refused(t, j, s, result("1", 12, "good"), t0, api.CodeStaleFence) // another fence
	wrongOrder := result("1", 11, "good")
	wrongOrder.Result.OrderID = "x"
	refused(t, j, s, wrongOrder, t0, api.CodeStaleFence)
	// Success without commence is no success.
	early := must(t, j, enrolled(t, j), result("1", 0, "good"), t0)
	state(t, early, api.StateFailed)
	// A failure keeps its code and words.
	failing := result("1", 11, "")
	failing.Result.OK, failing.Result.Code, failing.Result.Error = false, api.CodeDiskWrite, "cannot write at 18.3 GiB"
	f := must(t, j, s, failing, t0)
	if f.State != api.StateFailed || f.Code != api.CodeDiskWrite || f.Error != "cannot write at 18.3 GiB" || !f.Final {
		t.Errorf("failure: %s %s %s", f.State, f.Code, f.Error)
	}
	// Repeated: same result, same answer. Another one: refused.
	done := must(t, j, s, result("1", 11, "good"), t0)
	again := must(t, j, done, result("1", 11, "good"), t0.Add(time.Minute))
	if len(again.Timeline) != len(done.Timeline) {
		t.Error("a repeated result changed the slot")
	}
	other := result("1", 11, "good")
	other.Digest = "else"
	refused(t, j, done, other, t0, api.CodeStaleFence)
}

// TestIdentityOfAHost: what the agent says of the host's new identity is kept with a
// good result, in bounds, and only what can be a key.
func TestIdentityOfAHost(t *testing.T) {
	j := sample()
	s := writing(t, j)
	const key, print = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINs2LmrZIuUlLCKMnjtEFBbSRvVfYmhyYQ8wlRGRfb8m",
		"ssh-ed25519 SHA256:2Sb7Zi53N5SK2MRyHZLWhKZvst9MuAb6MxuTDvU7/MU" // as ssh-keygen -l prints it
	good := result("1", 11, "good")
	good.Result.HostKeys = []string{key, "ssh-ed25519 short", "ssh-ed25519 " + strings.Repeat("A", 60) + "\x1b[2J", "command=evil " + key}
	for range 20 {
		good.Result.Warnings = append(good.Result.Warnings, strings.Repeat("w", 1000))
	}
	done := must(t, j, s, good, t0)
	state(t, done, api.StateDone)
	if len(done.HostKeys) != 1 || done.HostKeys[0] != key || len(done.Warnings) != maxWarnings || len(done.Warnings[0]) > maxReportText+3 {
		t.Errorf("%d keys %q, %d warnings", len(done.HostKeys), done.HostKeys, len(done.Warnings))
	}
	told := false
	for _, e := range done.Timeline {
		told = told || e.Event == "SSH host key "+print
	}
	if !told {
		t.Errorf("no fingerprint in the timeline: %+v", done.Timeline)
	}
	// Personalisation that failed after the proof: not done, and said to be cheap to repeat.
	bad := result("1", 11, "good")
	bad.Result.OK, bad.Result.Code, bad.Result.Error = false, api.CodePersonalise, "cannot write /etc/hostname"
	f := must(t, j, s, bad, t0)
	state(t, f, api.StateFailed)
	if f.Verified || f.Code != api.CodePersonalise || !strings.Contains(f.Timeline[len(f.Timeline)-2].Event, "next to nothing to write") {
		t.Errorf("verified %v, code %s, timeline %+v", f.Verified, f.Code, f.Timeline)
	}
}

func TestFingerprint(t *testing.T) {
	if got := Fingerprint("not a key"); got != "" {
		t.Errorf("Fingerprint of nonsense = %q", got)
	}
}

func TestReportNeverPassesCommence(t *testing.T) {
	j := sample()
	s := enrolled(t, j)
	for _, st := range []api.State{api.StateWriting, api.StateVerifying, api.StateFinalising} {
		refused(t, j, s, Report{BootID: "boot1", State: st}, t0, api.CodeStaleFence)
	}
	for _, st := range []api.State{api.StateDone, api.StateConfirmed, api.StateFailed, "nonsense", ""} {
		state(t, must(t, j, s, Report{BootID: "boot1", State: st}, t0), api.StateEnrolled)
	}
	w := writing(t, j)
	state(t, must(t, j, w, Report{BootID: "boot1", State: api.StateChecking}, t0), api.StateWriting) // late
}

func TestCancel(t *testing.T) {
	j := sample()
	s := must(t, j, enrolled(t, j), Cancel{By: "x"}, t0)
	state(t, s, api.StateCancelled)
	w := must(t, j, writing(t, j), Cancel{By: "x"}, t0)
	state(t, w, api.StateWriting)
	j.Cancelled = t0
	w = must(t, j, w, result("1", 11, "good"), t0)
	state(t, w, api.StateDone)
}

func TestDeadlines(t *testing.T) {
	j := sample()
	tick := func(s Slot, after time.Duration, tk Tick) Slot { return must(t, j, s, tk, t0.Add(after)) }
	armed := must(t, j, New(j, []api.Host{{Name: "a"}}, t0)[0], Arm{}, t0)
	booting := must(t, j, armed, Boot{}, t0)
	w := writing(t, j)
	checking := must(t, j, enrolled(t, j), Report{BootID: "boot1", State: api.StateChecking}, t0)
	verifying := must(t, j, w, Report{BootID: "boot1", State: api.StateVerifying}, t0)
	finishing := must(t, j, verifying, Report{BootID: "boot1", State: api.StateFinalising}, t0)
	done := must(t, j, w, result("1", 11, "good"), t0)
	rebooting := must(t, j, done, Gone{BootID: "boot1"}, t0)
	heard := Tick{Heard: t0.Add(50 * time.Minute), Moved: t0.Add(50 * time.Minute)}
	for _, tc := range []struct {
		name  string
		s     Slot
		after time.Duration
		tick  Tick
		want  api.State
	}{
		{"ARMED waits", armed, 59 * time.Minute, Tick{}, api.StateArmed},
		{"ARMED, window ends", armed, time.Hour, Tick{}, api.StateNoShow},
		{"BOOTING too long", booting, 5 * time.Minute, Tick{}, api.StateArmed},
		{"ENROLLED silent", enrolled(t, j), time.Minute, Tick{}, api.StateArmed},
		{"ENROLLED talks", enrolled(t, j), 51 * time.Minute, Tick{Heard: t0.Add(51 * time.Minute)}, api.StateEnrolled},
		{"ENROLLED, window ends", enrolled(t, j), time.Hour, heard, api.StateSkipped},
		{"CHECKING within its size", checking, 7 * time.Minute, Tick{}, api.StateChecking},
		{"CHECKING too long", checking, 8 * time.Minute, Tick{}, api.StateHeld},
		{"WRITING moves", w, 51 * time.Minute, heard, api.StateWriting},
		{"WRITING stalls", w, 15 * time.Minute, Tick{}, api.StateHeld},
		{"WRITING past the window finishes", w, 61 * time.Minute, heard, api.StateWriting},
		{"WRITING past the overrun", w, 3*time.Hour + time.Minute, Tick{Moved: t0.Add(3 * time.Hour)}, api.StateFailed},
		{"VERIFYING too long", verifying, 8 * time.Minute, Tick{}, api.StateHeld},
		{"FINALISING too long", finishing, 10 * time.Minute, Tick{}, api.StateHeld},
		{"DONE lingers", done, 51 * time.Minute, Tick{Heard: t0.Add(51 * time.Minute)}, api.StateDone},
		{"DONE silent", done, time.Minute, Tick{}, api.StateRebooting},
		{"REBOOTING unseen", rebooting, 10 * time.Minute, Tick{}, api.StateDone},
	} {
		got := tick(tc.s, tc.after, tc.tick)
		if got.State != tc.want {
			t.Errorf("%s: %s; want %s", tc.name, got.State, tc.want)
		}
	}
	// Held for silence past PONR: a new boot resumes. Before PONR: a person.
	held := tick(w, 15*time.Minute, Tick{})
	if !Resumable(&held) {
		t.Error("a host held for silence past its point of no return cannot resume")
	}
	state(t, must(t, j, held, Boot{Silent: true}, t0.Add(20*time.Minute)), api.StateBooting)
	state(t, must(t, j, held, Report{BootID: "boot1", State: api.StateWriting}, t0.Add(20*time.Minute)), api.StateWriting)
	refused(t, j, tick(checking, 8*time.Minute, Tick{}), Boot{Silent: true}, t0.Add(20*time.Minute), api.CodeHeld)
	// Unconfirmed is final, and a late sighting still counts.
	unseen := tick(rebooting, 10*time.Minute, Tick{})
	if !unseen.Final || !unseen.Unseen {
		t.Errorf("unconfirmed: %+v", unseen)
	}
	state(t, must(t, j, unseen, Sighting{Detail: "x"}, t0.Add(time.Hour)), api.StateConfirmed)
	// After power-off nobody waits for a boot.
	j.After = "poweroff"
	off := must(t, j, done, Gone{BootID: "boot1"}, t0)
	if off.State != api.StateDone || !off.Final {
		t.Errorf("powered off: %s final=%v", off.State, off.Final)
	}
}

func TestPersonHoldStaysHeld(t *testing.T) {
	j := sample()
	s := must(t, j, writing(t, j), Hold{Code: api.CodeHeld, Text: "restored"}, t0)
	state(t, s, api.StateHeld)
	state(t, must(t, j, s, Report{BootID: "boot1", State: api.StateWriting}, t0), api.StateHeld)
	refused(t, j, s, Boot{Silent: true}, t0, api.CodeHeld)
	state(t, must(t, j, s, Tick{}, t0.Add(4*time.Hour)), api.StateFailed)
	// The disk is proven all the same if its agent finishes.
	state(t, must(t, j, s, result("1", 11, "good"), t0), api.StateDone)
}

func TestResultOfJob(t *testing.T) {
	end := func(st api.State) Slot { return Slot{State: st, Final: true} }
	for _, tc := range []struct {
		slots     []Slot
		cancelled bool
		want      string
	}{
		{[]Slot{end(api.StateConfirmed), end(api.StateDone)}, false, "ok"},
		{[]Slot{end(api.StateConfirmed), end(api.StateFailed)}, false, "partial"},
		{[]Slot{end(api.StateConfirmed), end(api.StateSkipped)}, false, "partial"},
		{[]Slot{end(api.StateNoShow), end(api.StateFailed)}, false, "failed"},
		{[]Slot{end(api.StateCancelled), end(api.StateConfirmed)}, true, "cancelled"},
		{[]Slot{end(api.StateConfirmed)}, true, "ok"},
		{[]Slot{end(api.StateConfirmed), {State: api.StateDone}}, false, ""},
	} {
		j := &Job{}
		if tc.cancelled {
			j.Cancelled = t0
		}
		if got := Result(j, tc.slots); got != tc.want {
			t.Errorf("Result(%v, cancelled=%v) = %q; want %q", tc.slots, tc.cancelled, got, tc.want)
		}
	}
}

func TestTimelineIsBounded(t *testing.T) {
	var s Slot
	for range 500 {
		s.note(t0, strings.Repeat("x", 1000))
	}
	raw, err := json.Marshal(s)
	if err != nil || len(s.Timeline) > maxTimeline || len(raw) > 48<<10 {
		t.Errorf("timeline of %d entries, %d bytes, %v", len(s.Timeline), len(raw), err)
	}
}
