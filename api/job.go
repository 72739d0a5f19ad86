package api

import "time"

// JobPolicy says when a job may work and what becomes of hosts that are not
// ready by then. The zero value: at once, for 4 hours.
type JobPolicy struct {
	NotBefore   time.Time `json:"not_before,omitzero"`     // the window opens; zero = at once
	NotAfter    time.Time `json:"not_after,omitzero"`      // the window closes: no host begins any more; zero = JobCreate.ExpiresInS, or 4 h after it opened
	OnWindowEnd string    `json:"on_window_end,omitempty"` // of half-written hosts: finish (default), hold
	MaxOverrunS int64     `json:"max_overrun_s,omitempty"` // seconds they may take longer; 0 = 2 h, without a window 8 h
	Canary      int       `json:"canary,omitempty"`        // so many hosts go first and must be CONFIRMED before the others are armed
	MaxFailures string    `json:"max_failures,omitempty"`  // "3" or "10%": so many failed hosts pause the job; "" = never
	Wake        bool      `json:"wake,omitempty"`          // switch the hosts on by magic packets
}

// JobConfirm is what a person has seen and agreed to.
type JobConfirm struct {
	PlanDigest   string `json:"plan_digest,omitempty"`   // JobPlan.PlanDigest
	ConfirmHosts int    `json:"confirm_hosts,omitempty"` // JobPlan.Erase
}

// JobSteer is the part of Job that people may change while it lives, and what it waits for.
type JobSteer struct {
	NotBefore   time.Time `json:"not_before,omitzero"`
	OnWindowEnd string    `json:"on_window_end"` // finish, hold
	MaxOverrunS int64     `json:"max_overrun_s"`
	Canary      int       `json:"canary,omitempty"`
	MaxFailures int       `json:"max_failures,omitempty"` // hosts, 0 = never
	Wake        bool      `json:"wake,omitempty"`
	Paused      time.Time `json:"paused,omitzero"`
	PausedBy    string    `json:"paused_by,omitempty"`
	Schedule    string    `json:"schedule,omitempty"` // whose run it is
	Waiting     string    `json:"waiting,omitempty"`  // what PENDING hosts wait for, a sentence
}

// JobExtend gives a job more time: POST /v1/jobs/{id}/extend.
type JobExtend struct {
	NotAfter time.Time `json:"not_after"` // later than the present one
}

// What a person may do to one host of a job: POST /v1/jobs/{id}/hosts/{host}/{act}.
const (
	ActRetry   = "retry"   // a host that ended without the image gets another chance
	ActSkip    = "skip"    // leave it out; only before its point of no return
	ActHold    = "hold"    // do not go on until it is released
	ActRelease = "release" // go on
)

// RoutePlans is the dry run of a job: POST JobCreate -> JobPlan.
const RoutePlans = "/v1/plans"
