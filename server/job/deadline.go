package job

import (
	"fmt"
	"time"

	"labswarm/api"
)

// tick applies the deadlines. Every live state has one, so every slot ends, at
// the latest when the job's overrun does. PENDING waits for Arm: whose turn it
// is depends on the other hosts (Armable).
func (c *change) tick(e Tick) {
	s := &c.s
	if s.Final {
		return
	}
	if s.Live() && c.windowEnd() {
		return
	}
	heard := later(s.Since, e.Heard)
	idle, inState := c.now.Sub(heard), c.now.Sub(s.Since)
	switch s.State {
	case api.StateWaking:
		if inState >= WakeEvery && s.Wakes >= WakeRounds {
			c.to(api.StateArmed, fmt.Sprintf("not woken: no sign of life after %d rounds of magic packets; switch it on by hand", s.Wakes))
		}
	case api.StateBooting:
		if inState >= bootLimit {
			c.backToArmed(fmt.Sprintf("no agent within %s of the boot", bootLimit))
		}
	case api.StateEnrolled:
		if idle >= enrolLimit {
			c.backToArmed(fmt.Sprintf("the agent was not heard of for %s", enrolLimit))
		}
	case api.StateChecking:
		if !c.j.Paused.IsZero() && !s.PONR {
			break // it waits for the job, not for its disk
		}
		c.slow("checking its disk", inState)
	case api.StateWriting, api.StateCapturing:
		c.stalled(e)
	case api.StateVerifying:
		if s.capture() { // the server reads back, and says how far it is
			c.stalled(e)
			break
		}
		c.slow("reading back its disk", inState)
	case api.StateFinalising:
		if inState >= finishLimit {
			c.hold(api.CodeHeld, fmt.Sprintf("finishing takes longer than %s: look at the host, then switch it off and on to resume", finishLimit), true)
		}
	case api.StateDone:
		if idle >= lingerLimit {
			c.leave(fmt.Sprintf("not heard of for %s after DONE", lingerLimit))
		}
	case api.StateRebooting:
		if inState >= rebootLimit {
			s.Unseen, s.Final = true, true
			c.to(api.StateDone, fmt.Sprintf("not seen within %s of its reboot: verified, but nobody saw it start", rebootLimit))
		}
	}
}

// stalled holds a host whose figures do not change.
func (c *change) stalled(e Tick) {
	if moved := later(c.s.Since, e.Moved); c.now.Sub(moved) >= stallLimit {
		c.hold(api.CodeHeld, fmt.Sprintf("no progress for %s: look at the host, then switch it off and on to resume", stallLimit), true)
	}
}

// windowEnd ends slots when the job's time is over.
func (c *change) windowEnd() bool {
	s := &c.s
	if c.now.Before(c.j.NotAfter) {
		return false
	}
	if ended, judged := c.captureWindow(); judged {
		return ended
	}
	switch {
	case s.PONR && !c.j.InOverrun(c.now):
		text := "the job's window and its overrun ended before the disk was finished"
		if s.State == api.StateHeld {
			text = "held until the job's end: " + s.Error
		}
		c.fail(api.CodeHeld, text)
	case s.PONR && c.j.OnEnd == OnEndHold && s.State != api.StateHeld:
		c.hold(api.CodeHeld, "the job's window ended while its disk was half written (policy hold): `labswarm job extend` lets it finish", false)
		s.Late = true
	case s.PONR:
		return false
	case s.State == api.StatePending:
		s.Error = "the job's window ended before it was its turn"
		c.to(api.StateSkipped, s.Error)
	case s.State == api.StateArmed || s.State == api.StateWaking:
		s.Error = "never seen while the job's window was open"
		if s.Wakes > 0 {
			s.Error += fmt.Sprintf("; not woken by %d rounds of magic packets", s.Wakes)
		}
		c.to(api.StateNoShow, s.Error)
	case s.State == api.StateHeld:
		c.fail(api.CodeHeld, "held until the job's end: "+s.Error)
	default:
		s.Error = "the job's window ended before it began to write"
		c.to(api.StateSkipped, s.Error)
	}
	return true
}

func (c *change) backToArmed(why string) {
	if !c.s.AttemptsLeft(c.j) {
		c.exhausted()
		return
	}
	c.to(api.StateArmed, why)
}

// slow holds a host whose disk takes longer than any working disk would.
func (c *change) slow(what string, inState time.Duration) {
	limit := time.Duration(float64(c.j.DiskBytes)/checkRate*float64(time.Second)) + checkSlack
	if inState >= limit {
		cure := "its disk is untouched; look at the host, cancel the job and make a new one"
		if c.s.PONR {
			cure = "look at the host, then switch it off and on to resume"
		}
		c.hold(api.CodeHeld, fmt.Sprintf("%s takes longer than %s: %s", what, limit.Round(time.Second), cure), true)
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
