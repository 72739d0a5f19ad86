package job

import (
	"fmt"

	"labswarm/api"
)

// KindCapture is the Kind of a job that reads the disk of one host and makes an image of it. Its slot never passes a
// point of no return: no event of a capture leads to a state that writes.
//
//	ARMED -> BOOTING -> ENROLLED -> CHECKING -> CAPTURING -> VERIFYING -> DONE -> REBOOTING -> CONFIRMED
//
// CHECKING: the agent reads table and used maps; CAPTURING: cells travel; VERIFYING: the server reads the image back
// and publishes it.
const KindCapture = "capture"

// IsCapture reports whether the job reads a disk instead of writing disks.
func (j *Job) IsCapture() bool { return j.Kind == KindCapture }

func (s *Slot) capture() bool { return s.Kind == KindCapture }

// Captured: the server has published the image.
type Captured struct {
	BootID string
	Detail string
}

func (Captured) event() {}

// reportCapture follows the word of an agent that captures.
func (c *change) reportCapture(e Report) error {
	from := c.s.State
	switch e.State {
	case api.StateChecking, api.StateCapturing, api.StateVerifying:
	case api.StateWriting, api.StateFinalising:
		return &RefusedError{Code: api.CodeStaleFence, Text: fmt.Sprintf("the agent reports %s, but a capture never writes", e.State)}
	default:
		return nil
	}
	resumed := from == api.StateBooting || from == api.StateArmed || from == api.StateHeld && c.s.Silence
	if e.State == from || !Active(from) && !resumed {
		return nil
	}
	why := e.Detail
	if why == "" {
		why = "reported by the agent"
	}
	if resumed {
		c.s.Code, c.s.Error = "", ""
		why = "the agent is heard of again"
	}
	c.to(e.State, why)
	return nil
}

// captured ends a capture well. It is the server's own word, not the agent's.
func (c *change) captured(e Captured) error {
	s := &c.s
	if !s.capture() || !s.Live() || s.Session == nil || s.Session.BootID != e.BootID {
		return &RefusedError{Code: api.CodeStaleFence, Text: fmt.Sprintf("the image is complete, but the host is %s", s.State)}
	}
	s.Verified, s.Code, s.Error = true, "", ""
	c.to(api.StateDone, e.Detail)
	return nil
}

// captureWindow judges a capture at the end of its window: one that is at work may go on for the overrun.
func (c *change) captureWindow() (ended, judged bool) {
	if !c.s.capture() || (c.s.State != api.StateCapturing && c.s.State != api.StateVerifying) {
		return false, false
	}
	if c.j.InOverrun(c.now) {
		return false, true
	}
	c.fail(api.CodeHeld, "the job's window and its overrun ended before the disk was captured; no image was made, the disk was not touched")
	return true, true
}
