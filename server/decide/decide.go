// Package decide says what a booting PC gets: its local disk, the agent, a
// hold screen, or nothing. It is the only place of that decision: every boot
// protocol (DHCP, proxyDHCP, port 4011, TFTP, HTTP, iPXE and GRUB scripts)
// collects facts, calls Decide and renders the action it returns.
//
// The package is pure: no network, no store, no clock, no logging. It is called
// by the daemon, which gathers the Facts inside one store transaction.
package decide

// Action is what a booting PC gets. The zero value is Local, so that a
// forgotten assignment boots the local disk.
type Action uint8

const (
	// Local boots the PC's own disk.
	Local Action = iota
	// Ignore gives no answer at all (unknown PC, proxyDHCP).
	Ignore
	// Enrol boots the enrol profile of the agent, which holds no disk writer.
	Enrol
	// Agent boots the agent, which asks for its order.
	Agent
	// Hold shows a text and asks again later; it never boots a disk whose
	// content is half written.
	Hold
)

// String returns the lower-case name used in logs and metrics.
func (a Action) String() string {
	switch a {
	case Local:
		return "local"
	case Ignore:
		return "ignore"
	case Enrol:
		return "enrol"
	case Agent:
		return "agent"
	case Hold:
		return "hold"
	}
	return "invalid"
}

// Proto names the boot protocol that asks.
type Proto string

// The protocols. ProtoDHCP is port 67 in mode dhcp, ProtoProxy is port 67 in
// mode proxy; both proxy protocols may stay silent without costing the PC its
// address, which is why row 5 of the table tells them apart.
const (
	ProtoDHCP     Proto = "dhcp"
	ProtoProxy    Proto = "proxy"
	Proto4011     Proto = "proxy4011"
	ProtoTFTP     Proto = "tftp"
	ProtoHTTPIPXE Proto = "http-ipxe"
	ProtoHTTPGRUB Proto = "http-grub"
	ProtoHTTPFile Proto = "http-file"
)

// Protos returns every protocol, for tests and metrics.
func Protos() []Proto {
	return []Proto{ProtoDHCP, ProtoProxy, Proto4011, ProtoTFTP, ProtoHTTPIPXE, ProtoHTTPGRUB, ProtoHTTPFile}
}

// proxy reports whether silence on p leaves the PC its address.
func (p Proto) proxy() bool { return p == ProtoProxy || p == Proto4011 }

// Identity is the result of resolving the evidence of a boot request to a host.
type Identity uint8

const (
	// Unknown: no host has this evidence. The zero value.
	Unknown Identity = iota
	// Known: exactly one host.
	Known
	// Ambiguous: MAC and UUID point to different hosts.
	Ambiguous
	// Quarantined: the same identity was live in two boots at once.
	Quarantined
	// Self: the server's own machine.
	Self
)

// Flags are the admin's marks on a host.
type Flags struct {
	Exclude    bool // never booted by us, never a target
	RescueLive bool // flag rescue with a ticket that has not expired
}

// Phase is the part of a slot's state that matters for booting. The daemon
// maps the job machine's states onto it.
type Phase uint8

const (
	// PhasePending: the job is saved, its window has not opened. The zero value.
	PhasePending Phase = iota
	// PhaseLive: ARMED, WAKING, BOOTING, ENROLLED, CHECKING, WRITING,
	// VERIFYING, FINALISING.
	PhaseLive
	// PhaseHeld: HELD, needs a person.
	PhaseHeld
	// PhaseFailed: FAILED.
	PhaseFailed
	// PhaseEnded: DONE, REBOOTING, CONFIRMED, SKIPPED, CANCELLED, NO_SHOW.
	PhaseEnded
)

// SlotView is what Decide needs of a host's slot in a job.
type SlotView struct {
	Phase        Phase
	PONR         bool // commence was committed: the disk's old content is gone
	DiskBootable bool // the disk holds a system known to boot
	AttemptsLeft bool // neither attempt counter is used up
	FinishPolicy bool // on_window_end = finish; false = hold
	InOverrun    bool // now <= not_after + max_overrun
}

// Session is what is known of this boot (MAC and UUID within 90 s).
type Session struct {
	AnsweredLocal bool // an earlier answer in this boot was Local
}

// Facts is everything Decide looks at. The zero value decides Local.
type Facts struct {
	Identity    Identity
	Flags       Flags
	Slot        *SlotView // nil = the host is in no live job
	Learn       bool      // learn mode is open for the PC's subnet
	Paused      bool      // the slot's job is paused
	StoreOK     bool      // the store answered in time
	Maintenance bool      // the server is in maintenance
	WindowOpen  bool      // the job's window is open now
	Session     *Session  // nil = first request of this boot
	Proto       Proto
}

// Decision is the answer. Profile names the initramfs profile of Agent and
// Enrol ("" = the normal agent). Reason is stable and goes to the log.
type Decision struct {
	Action  Action
	Profile string
	Reason  Reason
}

// Reason says which row of the table answered.
type Reason string

// Reasons, in the order of the rows of control.md section 4.
const (
	ReasonStore     Reason = "store_unreadable"
	ReasonMaint     Reason = "maintenance"
	ReasonSelf      Reason = "self"
	ReasonQuarant   Reason = "quarantined"
	ReasonAmbiguous Reason = "ambiguous"
	ReasonExcluded  Reason = "excluded"
	ReasonSticky    Reason = "refused_this_boot"
	ReasonLearn     Reason = "learn"
	ReasonUnknown   Reason = "unknown_host"
	ReasonRescue    Reason = "rescue"
	ReasonNoJob     Reason = "no_live_job"
	ReasonWindow    Reason = "window_closed"
	ReasonPaused    Reason = "job_paused"
	ReasonHeld      Reason = "held"
	ReasonAttempts  Reason = "attempts_used_up"
	ReasonArmed     Reason = "armed"
	ReasonResume    Reason = "resume"
	ReasonHold      Reason = "disk_not_bootable"
	ReasonDefault   Reason = "default"
)

// Profiles of Agent and Enrol answers.
const (
	ProfileAgent  = ""
	ProfileRescue = "rescue"
	ProfileEnrol  = "enrol"
)

// Decide returns the action for f. The first matching row of control.md
// section 4 wins; anything not listed is Local.
func Decide(f Facts) Decision {
	if d, done := decideHost(f); done { // rows 1-6
		return d
	}
	s := f.Slot
	if s == nil || s.Phase == PhasePending || s.Phase == PhaseEnded { // row 7
		return local(ReasonNoJob)
	}
	if !s.PONR { // row 8, and row 7 for FAILED before the point of no return
		if r := refusal(f); r != "" {
			return local(r)
		}
	}
	if s.Phase == PhaseLive && s.AttemptsLeft { // row 9
		if f.WindowOpen {
			return agent(s.PONR)
		}
		if s.PONR && s.FinishPolicy && s.InOverrun {
			return agent(true)
		}
	}
	if s.PONR && !s.DiskBootable && stuck(f) { // row 10
		return Decision{Action: Hold, Reason: ReasonHold}
	}
	if s.Phase == PhaseFailed {
		return local(ReasonNoJob) // row 7: an end state
	}
	return local(ReasonDefault) // row 11
}

// decideHost applies rows 1 to 6, which do not look at the slot.
func decideHost(f Facts) (Decision, bool) {
	switch {
	case !f.StoreOK:
		return local(ReasonStore), true
	case f.Maintenance:
		return local(ReasonMaint), true
	case f.Identity == Self:
		return local(ReasonSelf), true
	case f.Identity == Quarantined:
		return local(ReasonQuarant), true
	case f.Identity == Ambiguous:
		return local(ReasonAmbiguous), true
	case f.Flags.Exclude:
		return local(ReasonExcluded), true
	case f.Session != nil && f.Session.AnsweredLocal:
		return local(ReasonSticky), true
	}
	if f.Identity != Known { // Unknown, and any value that is not in the list
		switch {
		case f.Learn && f.Identity == Unknown:
			return Decision{Action: Enrol, Profile: ProfileEnrol, Reason: ReasonLearn}, true
		case f.Proto.proxy():
			return Decision{Action: Ignore, Reason: ReasonUnknown}, true
		}
		return local(ReasonUnknown), true
	}
	if f.Flags.RescueLive {
		return Decision{Action: Agent, Profile: ProfileRescue, Reason: ReasonRescue}, true
	}
	return Decision{}, false
}

// refusal returns why a slot that has not passed the point of no return must
// boot local (row 8), or "".
func refusal(f Facts) Reason {
	switch {
	case f.Slot.Phase == PhaseFailed:
		return ReasonNoJob
	case f.Slot.Phase == PhaseHeld:
		return ReasonHeld
	case !f.WindowOpen:
		return ReasonWindow
	case f.Paused:
		return ReasonPaused
	case !f.Slot.AttemptsLeft:
		return ReasonAttempts
	}
	return ""
}

// stuck reports the third condition of row 10: no agent boot can finish the
// half-written disk now.
func stuck(f Facts) bool {
	s := f.Slot
	return !s.AttemptsLeft || s.Phase == PhaseFailed || s.Phase == PhaseHeld || (!f.WindowOpen && !s.FinishPolicy)
}

func local(r Reason) Decision { return Decision{Action: Local, Reason: r} }

func agent(resume bool) Decision {
	if resume {
		return Decision{Action: Agent, Profile: ProfileAgent, Reason: ReasonResume}
	}
	return Decision{Action: Agent, Profile: ProfileAgent, Reason: ReasonArmed}
}
