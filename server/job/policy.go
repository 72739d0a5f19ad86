package job

import (
	"fmt"
	"slices"
	"time"

	"labswarm/api"
)

// What becomes of a half-written disk when the window ends.
const (
	OnEndFinish = "finish" // it is finished, for the overrun at most
	OnEndHold   = "hold"   // nothing that stopped begins again; a person decides
)

// Waking a host.
const (
	WakeRounds = 3
	WakeEvery  = 5 * time.Minute // between rounds
)

// Policy is how a job is carried out. The zero value is that of records made
// before there was a choice.
type Policy struct {
	OnEnd       string    `json:"on_window_end,omitempty"` // finish, hold; "" = finish
	Canary      int       `json:"canary,omitempty"`        // so many hosts must be CONFIRMED before the others are armed
	MaxFailures int       `json:"max_failures,omitempty"`  // so many FAILED hosts pause the job, 0 = never
	Forgiven    int       `json:"forgiven,omitempty"`      // failures that a resume has accepted
	Wake        bool      `json:"wake,omitempty"`          // by magic packets
	Paused      time.Time `json:"paused,omitzero"`
	PausedBy    string    `json:"paused_by,omitempty"`
	Schedule    string    `json:"schedule,omitempty"` // whose run it is
}

// Admits says whether a host may go on towards its order and the point of no
// return. The error is a *RefusedError with CodeNotNow.
func (j *Job) Admits(ponr bool, now time.Time) error {
	notNow := func(format string, a ...any) error {
		return &RefusedError{Code: api.CodeNotNow, Text: fmt.Sprintf(format, a...)}
	}
	switch {
	case ponr && (!j.InOverrun(now) || j.late(now)):
		return notNow("the window of job %d is closed", j.ID)
	case ponr:
		return nil
	case !j.Cancelled.IsZero():
		return notNow("job %d was cancelled", j.ID)
	case now.Before(j.NotBefore):
		return notNow("the window of job %d has not opened yet", j.ID)
	case !now.Before(j.NotAfter):
		return notNow("the window of job %d is closed", j.ID)
	case !j.Paused.IsZero():
		return notNow("job %d is paused by %s", j.ID, j.PausedBy)
	}
	return nil
}

// late reports whether the window's end stops even half-written hosts.
func (j *Job) late(now time.Time) bool { return j.OnEnd == OnEndHold && !now.Before(j.NotAfter) }

// MayFinish reports whether a half-written host is to be finished now, or, if
// the window is still open, would be.
func (j *Job) MayFinish(now time.Time) bool { return !j.late(now) }

// TooLateError says that a host would not be ready when the window ends.
type TooLateError struct{ RefusedError }

// Unwrap makes it a *RefusedError, too.
func (e *TooLateError) Unwrap() error { return &e.RefusedError }

// fits refuses a host whose work would not end inside the window. One that is
// past the point of no return is finished rather than left unbootable.
func (j *Job) fits(ponr bool, needs time.Duration, now time.Time) error {
	if ponr || needs <= 0 || !now.Add(needs).After(j.NotAfter) {
		return nil
	}
	return &TooLateError{RefusedError{Code: api.CodeNotNow, Text: fmt.Sprintf("it needs about %s, and the job's window ends in %s: not begun, its disk is untouched",
		needs.Round(time.Second), j.NotAfter.Sub(now).Round(time.Second))}}
}

// Work is what is left to do on a host when it asks to commence.
type Work struct {
	Write  int64 // bytes to fetch and write
	Verify int64 // bytes of the image, read back
	Disk   int64 // bytes per second the disk was read with, 0 = unknown
	Swarm  int64 // bytes per second that hosts of the job get now, 0 = unknown
	Link   int   // Mb/s, 0 = unknown
}

const (
	finishSlack = 30 * time.Second // flushes, growing, names, the table
	linkShare   = 0.8              // of a link that data gets
	writeShare  = 0.5              // of the read rate a disk writes with
)

// Needs estimates how long a host's work takes. ok is false when nothing is
// known of how fast its data comes.
func (w Work) Needs() (d time.Duration, ok bool) {
	fetch := float64(w.Swarm)
	if link := float64(w.Link) * 125_000 * linkShare; link > 0 && (fetch == 0 || link < fetch) {
		fetch = link
	}
	if w.Write > 0 && fetch <= 0 {
		return 0, false
	}
	secs := 0.0
	if w.Write > 0 {
		if disk := float64(w.Disk) * writeShare; disk > 0 {
			fetch = min(fetch, disk)
		}
		secs += float64(w.Write) / fetch
	}
	read := float64(w.Disk)
	if read <= 0 {
		read = checkRate
	}
	secs += float64(w.Verify) / read
	return time.Duration(secs*float64(time.Second)) + finishSlack, true
}

// Armable lists the hosts whose turn it is to be armed, and says what the
// others that are PENDING wait for.
func Armable(j *Job, slots []Slot, now time.Time) (hosts []string, wait string) {
	pending := func(s Slot) bool { return s.State == api.StatePending }
	if !slices.ContainsFunc(slots, pending) {
		return nil, ""
	}
	if err := j.Admits(false, now); err != nil {
		return nil, err.Error()
	}
	ahead := canaries(j, slots)
	for _, s := range ahead {
		if s.State != api.StateConfirmed {
			wait = fmt.Sprintf("%s goes first and is %s: the others begin when it is %s", s.Host, s.State, api.StateConfirmed)
			break
		}
	}
	for _, s := range slots {
		first := slices.ContainsFunc(ahead, func(c Slot) bool { return c.Host == s.Host })
		if pending(s) && (wait == "" || first) {
			hosts = append(hosts, s.Host)
		}
	}
	return hosts, wait
}

// canaries returns the slots that go first, in the job's order. One that was
// taken out of the job makes room for the next.
func canaries(j *Job, slots []Slot) []Slot {
	var out []Slot
	for _, name := range j.Hosts {
		i := slices.IndexFunc(slots, func(s Slot) bool { return s.Host == name })
		if len(out) >= j.Canary {
			break
		}
		if i >= 0 && slots[i].State != api.StateSkipped && slots[i].State != api.StateCancelled {
			out = append(out, slots[i])
		}
	}
	return out
}

// TooMany says whether the failures so far stop the job, "" = they do not.
func TooMany(j *Job, slots []Slot) string {
	if n := Failures(slots); j.MaxFailures > 0 && n-j.Forgiven >= j.MaxFailures {
		return fmt.Sprintf("%d failed hosts (max_failures %d)", n, j.MaxFailures)
	}
	return ""
}

// Failures counts the hosts that failed.
func Failures(slots []Slot) int {
	n := 0
	for i := range slots {
		if slots[i].State == api.StateFailed {
			n++
		}
	}
	return n
}

// WakeDue lists the hosts that are to get magic packets now.
func WakeDue(j *Job, slots []Slot, now time.Time) []string {
	if !j.Wake || j.Admits(false, now) != nil {
		return nil
	}
	var out []string
	for i := range slots {
		if wakeDue(&slots[i], now) {
			out = append(out, slots[i].Host)
		}
	}
	return out
}

func wakeDue(s *Slot, now time.Time) bool {
	switch s.State {
	case api.StateArmed:
		return s.Wakes == 0 && s.Soft == 0 && s.Hard == 0
	case api.StateWaking:
		return s.Wakes < WakeRounds && now.Sub(s.Since) >= WakeEvery
	}
	return false
}
