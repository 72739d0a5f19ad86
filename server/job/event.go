package job

import (
	"encoding/json"
	"time"

	"labswarm/api"
)

// Event is something that happened to a slot. The set is closed.
type Event interface{ event() }

// Arm: the window is open, the host may netboot.
type Arm struct{}

// Skip takes a host out before it began. By: a person asks for it, who is told
// when it is too late.
type Skip struct {
	Reason string
	By     string
}

// Boot: a boot request of this host is about to be answered "agent".
type Boot struct {
	Proto  string // for the timeline
	Silent bool   // the agent of the last enrolment, if any, was not heard of for SilentAfter
}

// Initramfs: the whole initramfs went to the host, for the first time in this
// boot session. It is the soft attempt counter's event.
type Initramfs struct{}

// Enrol: an agent with matching evidence over TLS. Session carries the issued
// order, unless no disk can be named: then Code and Text say why and the slot
// fails before anything was written.
type Enrol struct {
	Session  Session
	Firmware string
	Disk     *api.Disk
	Lost     Counters // what the boot before this one had reported and never confirmed
	Code     string
	Text     string
}

// Report: the agent says which state it is in.
type Report struct {
	BootID string
	State  api.State
	Detail string
}

// Commence: the agent asks for the point of no return.
type Commence struct {
	OrderID    string
	BootID     string
	Cert       string
	PlanDigest string
	Plan       api.PlanCounts
	Needs      time.Duration   // estimate until the disk is finished, 0 = unknown
	Fence      uint64          // the next number of the store
	Envelope   json.RawMessage // signed with that number
}

// Done: the agent's result.
type Done struct {
	Cert   string
	Result api.Result
	Digest string // of the result's bytes, to know a repeated one
}

// Gone: the agent's last words before reboot or power-off.
type Gone struct{ BootID string }

// Sighting: the host was seen without the agent. OS: its installed system
// spoke on the network; otherwise a boot request was answered "local".
type Sighting struct {
	OS     bool
	Silent bool // as in Boot
	Detail string
}

// Conflict: two boots of this identity are live at once.
type Conflict struct{ Text string }

// Hold: something only a person can judge (for example a restored store).
type Hold struct{ Code, Text string }

// Release: a person lets a held host go on. Silent: as in Boot.
type Release struct {
	By     string
	Silent bool
}

// Retry: a person gives a host that ended without the image another chance.
type Retry struct{ By string }

// Resume: the job's pause has ended. Deadlines of those who waited begin anew.
type Resume struct{}

// Extend: the job's window was made longer. Silent: as in Boot.
type Extend struct{ Silent bool }

// Waken: magic packets are about to be sent to the host.
type Waken struct{}

// Cancel: the job was cancelled.
type Cancel struct{ By string }

// Tick applies the deadlines. Heard is when the agent last reported, Moved when
// its figures last changed; both zero = not since the server started.
type Tick struct {
	Heard time.Time
	Moved time.Time
}

func (Arm) event()       {}
func (Skip) event()      {}
func (Boot) event()      {}
func (Initramfs) event() {}
func (Enrol) event()     {}
func (Report) event()    {}
func (Commence) event()  {}
func (Done) event()      {}
func (Gone) event()      {}
func (Sighting) event()  {}
func (Conflict) event()  {}
func (Hold) event()      {}
func (Release) event()   {}
func (Retry) event()     {}
func (Resume) event()    {}
func (Extend) event()    {}
func (Waken) event()     {}
func (Cancel) event()    {}
func (Tick) event()      {}

// RefusedError says that an event is not lawful in this state. The slot is
// unchanged.
type RefusedError struct {
	Code string // api error code
	Text string
}

// Error is the sentence for people.
func (e *RefusedError) Error() string { return e.Text }
