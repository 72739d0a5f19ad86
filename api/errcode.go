package api

import "fmt"

// Stable error codes. Classes with a two-letter prefix are shown on the
// terminal's screen to be read out (design: console, section 5).
const (
	CodeNoLink       = "NL"
	CodeNoAddress    = "NA"
	CodeNoServer     = "NS"
	CodeServerKey    = "TR"
	CodeNoOrder      = "NO"
	CodeDiskNotFound = "DN"
	CodeDiskTooSmall = "DS"
	CodeDiskWrite    = "DW"
	CodeDiskRead     = "DR"
	CodeVerify       = "VF"
	CodeMemory       = "RM" // the memory failed its test
	CodeCorrupt      = "CC" // cells come wrong from the server again and again, and the memory has not failed its test
	CodeNoSource     = "SW"
	CodeCrash        = "CR"
	CodeHeld         = "HO"
	CodeBadOrder     = "OR" // the order was refused by the agent
	CodeBadImage     = "IM" // manifest, signature or torrent do not fit together
	CodeGuard        = "GU" // something speaks against an image of this disk
	CodeCapture      = "CA" // what was captured does not fit together
	CodeDiskSector   = "DZ" // 512/4096 logical sector mismatch
	CodeAmbiguous    = "DA" // more than one disk fits
	CodeDiskForeign  = "DF" // it is part of a RAID, a pool, or encrypted, and the job does not say to replace that
	CodeDiskNew      = "DC" // the disk is not one that was seen in this PC before
	CodePersonalise  = "PE" // the disk is right, but the PC's own name and keys could not be put on it

	CodeUsage        = "usage"
	CodeNotFound     = "not_found"
	CodeConflict     = "conflict"
	CodeHostBusy     = "host_busy"
	CodeConfirm      = "confirm_mismatch"
	CodePlanStale    = "plan_stale" // the facts have changed since the plan was made
	CodeNotNow       = "not_now"
	CodeStaleFence   = "stale_fence"
	CodeIdempotency  = "idempotency_mismatch"
	CodeInternal     = "internal"
	CodeUnknownHost  = "unknown_host"
	CodeAttempts     = "attempts_used_up"
	CodeNoSession    = "no_session"
	CodeTooManyTries = "too_many"
	CodeNoSpace      = "no_space"  // the server's disk is full
	CodeBadToken     = "bad_token" // no relay has this token
)

// Problem is the body of every error answer (RFC 9457,
// application/problem+json).
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Code   string `json:"code"`
	Detail string `json:"detail"` // what was tried, on what, why, what can be done
}

// Error makes Problem usable as an error.
func (p *Problem) Error() string {
	if p.Detail != "" {
		return fmt.Sprintf("%s (%s)", p.Detail, p.Code)
	}
	return fmt.Sprintf("%s (%s)", p.Title, p.Code)
}

// Fault is an error with a stable code, for people and for callers that
// branch. The agent reports its Code and Text to the server.
type Fault struct {
	Code string
	Text string // what happened, on what, and what happens next
	Err  error
}

// Error joins the sentence and its cause.
func (f *Fault) Error() string {
	if f.Err != nil {
		return f.Text + ": " + f.Err.Error()
	}
	return f.Text
}

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }
