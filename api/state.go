package api

// State is the state of one host in one job ("slot"), docs/PROTOCOL.md.
//
//	PENDING -> ARMED -> BOOTING -> ENROLLED -> CHECKING =[commence]=> WRITING ->
//	VERIFYING -> FINALISING -> DONE -> REBOOTING -> CONFIRMED
//
// A capture goes CHECKING -> CAPTURING -> VERIFYING -> DONE and never writes;
// with SKIPPED, CANCELLED, NO_SHOW, FAILED as other ends and HELD as "needs a
// person".
type State string

// The states of a slot, in the order of a deployment.
const (
	StatePending    State = "PENDING"
	StateArmed      State = "ARMED"
	StateWaking     State = "WAKING"
	StateBooting    State = "BOOTING"
	StateEnrolled   State = "ENROLLED"
	StateChecking   State = "CHECKING"
	StateCapturing  State = "CAPTURING" // of a capture, in place of WRITING: cells travel to the server
	StateWriting    State = "WRITING"
	StateVerifying  State = "VERIFYING"
	StateFinalising State = "FINALISING"
	StateDone       State = "DONE"
	StateRebooting  State = "REBOOTING"
	StateConfirmed  State = "CONFIRMED"
	StateSkipped    State = "SKIPPED"
	StateCancelled  State = "CANCELLED"
	StateNoShow     State = "NO_SHOW"
	StateFailed     State = "FAILED"
	StateHeld       State = "HELD"
)

// AllStates lists every state, in the order of the state machine.
func AllStates() []State {
	return []State{
		StatePending, StateArmed, StateWaking, StateBooting, StateEnrolled, StateChecking,
		StateCapturing, StateWriting, StateVerifying, StateFinalising, StateDone, StateRebooting, StateConfirmed,
		StateSkipped, StateCancelled, StateNoShow, StateFailed, StateHeld,
	}
}

// Ended reports whether the deployment is over for this slot: nothing will be
// written any more. DONE and REBOOTING count: the disk is proven.
func (s State) Ended() bool {
	switch s {
	case StateDone, StateRebooting, StateConfirmed, StateSkipped, StateCancelled, StateNoShow, StateFailed:
		return true
	}
	return false
}

// Good reports whether the disk was proven equal to the image.
func (s State) Good() bool {
	return s == StateDone || s == StateRebooting || s == StateConfirmed
}

// Mark is the two-character mark of the console. WRITING is drawn as its
// percentage by the caller.
func (s State) Mark() string {
	switch s {
	case StatePending:
		return "--"
	case StateArmed:
		return "ar"
	case StateWaking:
		return "wk"
	case StateBooting:
		return "px"
	case StateEnrolled:
		return "ag"
	case StateChecking:
		return "ck"
	case StateCapturing:
		return "cp"
	case StateWriting:
		return "wr"
	case StateVerifying:
		return "vf"
	case StateFinalising:
		return "fi"
	case StateDone:
		return "ok"
	case StateRebooting:
		return "rb"
	case StateConfirmed:
		return "up"
	case StateSkipped:
		return "sk"
	case StateCancelled:
		return "ca"
	case StateNoShow:
		return "ns"
	case StateFailed:
		return "!!"
	case StateHeld:
		return "HO"
	}
	return "??"
}
