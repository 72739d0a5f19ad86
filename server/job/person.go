package job

import (
	"fmt"

	"labswarm/api"
)

// person applies what people, or the job as a whole, want of one host.
func (c *change) person(ev Event) error {
	switch e := ev.(type) {
	case Release:
		return c.release(e)
	case Retry:
		return c.retry(e)
	case Resume:
		if c.s.State == api.StateEnrolled || c.s.State == api.StateChecking {
			c.s.Since = c.now
			c.s.note(c.now, "the job goes on")
		}
	case Extend:
		if c.s.State == api.StateHeld && c.s.Late {
			c.goOn("the job's window was extended", e.Silent)
		}
	case Waken:
		if (c.s.State == api.StateArmed || c.s.State == api.StateWaking) && c.j.Admits(c.s.PONR, c.now) == nil {
			c.s.Wakes++
			c.to(api.StateWaking, fmt.Sprintf("magic packets, round %d of %d", c.s.Wakes, WakeRounds))
		}
	}
	return nil
}

func (c *change) refuse(code, format string, a ...any) error {
	return &RefusedError{Code: code, Text: fmt.Sprintf(format, a...)}
}

// skip takes a host out that has not given up its disk.
func (c *change) skip(e Skip) error {
	s := &c.s
	switch {
	case s.Live() && !s.PONR:
		s.Error = clip(e.Reason)
		c.to(api.StateSkipped, e.Reason)
	case e.By == "":
	case s.PONR:
		return c.refuse(api.CodeConflict, "skip %s: it is %s and past the point of no return: its old content is gone, and only finishing makes it boot", s.Host, s.State)
	default:
		return c.refuse(api.CodeConflict, "skip %s: it is %s already", s.Host, s.State)
	}
	return nil
}

// holdBy stops a host until a person releases it. An agent that writes is not
// interrupted: that would leave a disk that boots nothing.
func (c *change) holdBy(e Hold) {
	s := &c.s
	switch {
	case !s.Live():
	case s.State != api.StateHeld:
		c.hold(e.Code, e.Text, false)
	case s.Silence || s.Late:
		s.Silence, s.Late, s.Error = false, false, clip(e.Text)
		s.note(c.now, e.Text)
	}
}

func (c *change) release(e Release) error {
	s := &c.s
	if s.State != api.StateHeld {
		return c.refuse(api.CodeConflict, "release %s: it is %s, not HELD", s.Host, s.State)
	}
	if s.HeldIn != api.StatePending {
		if err := c.j.Admits(s.PONR, c.now); err != nil {
			return c.refuse(api.CodeNotNow, "release %s: %v; `labswarm job extend` or `job resume` first", s.Host, err)
		}
	}
	c.goOn("released by "+e.By, e.Silent)
	return nil
}

// goOn leaves HELD: to where it was while its agent still talks, else to a new boot.
func (c *change) goOn(why string, silent bool) {
	s := &c.s
	s.Code, s.Error = "", ""
	switch {
	case s.HeldIn == api.StatePending:
		c.to(api.StatePending, why)
	case Active(s.HeldIn) && !silent && wrote(s.HeldIn) == (s.Session != nil && s.Session.Fence != 0):
		c.to(s.HeldIn, why)
	default:
		c.backToArmed(why + ": the next network boot starts the agent")
	}
}

// retry makes a new slot of an ended one. What is true of the disk stays true:
// a half-written one is still not bootable.
func (c *change) retry(e Retry) error {
	old := c.s
	switch {
	case !c.j.Ended.IsZero() || !c.j.Cancelled.IsZero():
		return c.refuse(api.CodeConflict, "retry %s: job %d has ended or was cancelled: make a new job", old.Host, c.j.ID)
	case old.Live() || old.State.Good():
		return c.refuse(api.CodeConflict, "retry %s: it is %s; only hosts that ended without the image can be retried", old.Host, old.State)
	case !c.now.Before(c.j.NotAfter):
		return c.refuse(api.CodeNotNow, "retry %s: the window of job %d is closed: `labswarm job extend` first", old.Host, c.j.ID)
	}
	c.s = Slot{Job: old.Job, Kind: old.Kind, Host: old.Host, Room: old.Room, MAC: old.MAC, PONR: old.PONR, Counters: old.Counters,
		Firmware: old.Firmware, Disk: old.Disk, Timeline: old.Timeline, Retries: old.Retries + 1}
	c.to(api.StatePending, "retried by "+e.By)
	return nil
}
