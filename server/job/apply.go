package job

import (
	"fmt"
	"time"

	"labswarm/api"
)

// change collects what one event does to a slot.
type change struct {
	j     *Job
	s     Slot
	now   time.Time
	lines []Line
}

// Apply returns the slot after an event, and what to tell people. A
// *RefusedError leaves the slot as it was. An event that does not matter in
// the present state returns the slot unchanged and no error. The caller must
// commit the returned slot before it answers anybody.
func Apply(j *Job, s Slot, ev Event, now time.Time) (Slot, []Line, error) {
	c := &change{j: j, s: s, now: now}
	var err error
	switch e := ev.(type) {
	case Arm:
		if s.State == api.StatePending && j.Admits(false, now) == nil {
			c.to(api.StateArmed, "armed: the next network boot starts the agent")
		}
	case Skip:
		err = c.skip(e)
	case Boot:
		err = c.boot(e)
	case Initramfs:
		if s.Live() && (s.State == api.StateBooting || Active(s.State) || s.State == api.StateHeld) {
			c.s.Soft++
			c.s.note(now, fmt.Sprintf("initramfs fetched, boot %d of %d", c.s.Soft, j.MaxSoft))
		}
	case Enrol:
		err = c.enrol(e)
	case Report:
		err = c.report(e)
	case Commence:
		err = c.commence(e)
	case Done:
		err = c.result(e)
	case Captured:
		err = c.captured(e)
	case Gone:
		c.gone(e)
	case Sighting:
		c.sighting(e)
	case Conflict:
		c.conflict(e)
	case Hold:
		c.holdBy(e)
	case Release, Retry, Resume, Extend, Waken:
		err = c.person(ev)
	case Cancel:
		c.cancel(e)
	case Tick:
		c.tick(e)
	default:
		err = &RefusedError{Code: api.CodeInternal, Text: fmt.Sprintf("event %T is not known", ev)}
	}
	if err != nil {
		return s, nil, err
	}
	return c.s, c.lines, nil
}

// to moves to a state and notes it. End states never leave, except along
// DONE -> REBOOTING -> CONFIRMED and back to DONE (unconfirmed).
func (c *change) to(st api.State, why string) {
	c.s.State, c.s.Since = st, c.now
	if st != api.StateHeld {
		c.s.HeldIn, c.s.Silence, c.s.Late = "", false, false
	}
	c.s.note(c.now, string(st)+": "+why)
	level := "info"
	switch st {
	case api.StateFailed:
		level, c.s.Final = "error", true
	case api.StateHeld, api.StateNoShow:
		level = "warn"
	}
	switch st {
	case api.StateSkipped, api.StateCancelled, api.StateNoShow, api.StateConfirmed:
		c.s.Final = true
	}
	c.lines = append(c.lines, Line{Level: level, Code: "slot_" + lower(st), Text: string(st) + ": " + clip(why)})
}

func (c *change) warn(code, text string) {
	c.s.note(c.now, text)
	c.lines = append(c.lines, Line{Level: "warn", Code: code, Text: clip(text)})
}

func lower(st api.State) string {
	b := []byte(st)
	for i, ch := range b {
		if ch >= 'A' && ch <= 'Z' {
			b[i] = ch + 'a' - 'A'
		}
	}
	return string(b)
}

func (c *change) fail(code, text string) {
	c.s.Code, c.s.Error = code, clipTo(text, maxErrorText)
	c.to(api.StateFailed, text)
}

func (c *change) hold(code, text string, silence bool) {
	from := c.s.State
	c.s.Code, c.s.Error = code, clip(text)
	c.to(api.StateHeld, text)
	c.s.HeldIn, c.s.Silence = from, silence
}

// exhausted ends a slot whose attempts are used up.
func (c *change) exhausted() {
	text := fmt.Sprintf("gave up after %d enrolments and %d boots", c.s.Hard, c.s.Soft)
	if c.s.PONR {
		text += "; its disk is half written: boot it in a new job"
	}
	c.fail(api.CodeAttempts, text)
}

// boot takes the host to BOOTING. An agent that is still talking is not
// interrupted: a forged packet must not end its session.
func (c *change) boot(e Boot) error {
	s := &c.s
	if !s.Live() || s.State == api.StatePending {
		return &RefusedError{Code: api.CodeNoOrder, Text: "no live job for this host"}
	}
	switch {
	case !s.AttemptsLeft(c.j):
		c.exhausted()
		return nil
	case s.State == api.StateArmed || s.State == api.StateWaking:
		c.to(api.StateBooting, "boot files asked for by "+e.Proto)
	case s.State == api.StateHeld:
		if !Resumable(s) {
			return &RefusedError{Code: api.CodeHeld, Text: "the host is held: " + s.Error}
		}
		c.s.Code, c.s.Error = "", ""
		c.to(api.StateBooting, "switched on again; resumes")
	case Active(s.State) && e.Silent:
		c.warn("host_rebooted", fmt.Sprintf("rebooted during %s", s.State))
		c.to(api.StateBooting, "boot files asked for by "+e.Proto)
	}
	return nil
}

// Resumable reports whether a HELD slot goes on by itself when the host boots
// again: its disk is half written, or only read, and it was held for silence only.
func Resumable(s *Slot) bool {
	return s.State == api.StateHeld && s.Silence && (s.PONR || s.capture())
}

func (c *change) conflict(e Conflict) {
	if Active(c.s.State) {
		c.warn("identity_conflict", e.Text)
	}
}

func (c *change) cancel(e Cancel) {
	switch {
	case !c.s.Live():
	case c.s.PONR:
		c.warn("cancel_late", "cancelled by "+e.By+" after its point of no return: it finishes")
	default:
		c.s.Error = "cancelled by " + e.By
		c.to(api.StateCancelled, "by "+e.By+"; its disk was not touched")
	}
}

// gone is the agent's farewell.
func (c *change) gone(e Gone) {
	if c.s.State != api.StateDone || c.s.Final || c.s.Session == nil || c.s.Session.BootID != e.BootID {
		return
	}
	c.leave("the agent said so")
}

// leave follows DONE: the agent has gone.
func (c *change) leave(why string) {
	if c.j.After == "poweroff" {
		c.s.Final = true
		c.s.note(c.now, "powered off: "+why)
		return
	}
	c.to(api.StateRebooting, why)
}

// sighting notes the host without its agent.
func (c *change) sighting(e Sighting) {
	s := &c.s
	if s.State == api.StateWaking && e.OS {
		c.to(api.StateArmed, "it is on and its own system runs: restart it, so that it boots from the network")
		return
	}
	if !s.State.Good() || (s.State == api.StateDone && !e.Silent && !s.Final) {
		return // the agent is still up: whatever was seen is not the new system
	}
	if s.State != api.StateConfirmed {
		s.Unseen = false
		c.to(api.StateConfirmed, e.Detail)
	}
	if e.OS && !s.OSSeen {
		s.OSSeen = true
		s.note(c.now, "installed system seen: "+e.Detail)
	}
}
