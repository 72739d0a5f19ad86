package api

import "fmt"

// Stable error codes. Classes with a two-letter prefix are shown on the
// terminal's screen to be read out (design: console, section 5).
const (
	CodeNoLink       = "NL" // no network cable or link
	CodeNoAddress    = "NA" // no address from DHCP
	CodeNoServer     = "NS" // the server was not reached
	CodeServerKey    = "TR" // the server has another key than the pinned one
	CodeNoOrder      = "NO" // no order for this host
	CodeDiskNotFound = "DN" // the disk is absent or not the one named
	CodeDiskTooSmall = "DS" // the disk is smaller than the image needs
	CodeDiskWrite    = "DW" // the disk cannot be written
	CodeDiskRead     = "DR" // the disk cannot be read
	CodeVerify       = "VF" // what was read back differs from the image
	CodeMemory       = "RM" // the memory failed its test
	CodeCorrupt      = "CC" // cells come wrong from the server again and again, and the memory has not failed its test
	CodeNoSource     = "SW" // no source for the data
	CodeCrash        = "CR" // the agent crashed
	CodeHeld         = "HO" // held for a person
	CodeBadOrder     = "OR" // the order was refused by the agent
	CodeBadImage     = "IM" // manifest, signature or torrent do not fit together
	CodeGuard        = "GU" // something speaks against an image of this disk
	CodeCapture      = "CA" // what was captured does not fit together
	CodeDiskSector   = "DZ" // 512/4096 logical sector mismatch
	CodeAmbiguous    = "DA" // more than one disk fits
	CodeDiskForeign  = "DF" // it is part of a RAID, a pool, or encrypted, and the job does not say to replace that
	CodeDiskNew      = "DC" // the disk is not one that was seen in this PC before
	CodePersonalise  = "PE" // the disk is right, but the PC's own name and keys could not be put on it

	CodeUsage        = "usage"                // the request cannot be understood
	CodeNotFound     = "not_found"            // there is no such thing
	CodeConflict     = "conflict"             // what is there speaks against it
	CodeHostBusy     = "host_busy"            // the host is in a job that has not ended
	CodeConfirm      = "confirm_mismatch"     // the typed name is not the one asked for
	CodePlanStale    = "plan_stale"           // the facts have changed since the plan was made
	CodeNotNow       = "not_now"              // not in this state; later perhaps
	CodeStaleFence   = "stale_fence"          // the order was used, or a newer one exists
	CodeIdempotency  = "idempotency_mismatch" // the Idempotency-Key was used for another request
	CodeAnswerLost   = "answer_lost"          // a request with this Idempotency-Key was carried out, and its answer is not kept
	CodePrecondition = "precondition_failed"  // somebody else changed it since it was read (If-Match)
	CodeNotAllowed   = "not_allowed"          // the caller's role or rooms do not allow it
	CodeInternal     = "internal"             // a fault of the server; its log says more
	CodeUnknownHost  = "unknown_host"         // the inventory does not know this computer
	CodeAttempts     = "attempts_used_up"     // the host was tried as often as the job allows
	CodeNoSession    = "no_session"           // this boot holds no order
	CodeTooManyTries = "too_many"             // too many requests from this address
	CodeNoSpace      = "no_space"             // the server's disk is full
	CodeBadToken     = "bad_token"            // no token was shown, or it is not known, ended or revoked
)

// Problem is the body of every error answer (RFC 9457,
// application/problem+json).
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Code   string `json:"code"`
	Detail string `json:"detail"` // what was tried, on what, why, what can be done
	// RequestID is the call's name in the server's log and in the audit log.
	RequestID string `json:"request_id,omitempty"`
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
