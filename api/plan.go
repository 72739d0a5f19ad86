package api

import "time"

// Verdicts of a plan on one host.
const (
	VerdictGo     = "go"     // erased when it boots from the network
	VerdictWake   = "wake"   // the same, and it is switched on
	VerdictSkip   = "skip"   // in the room, but taken out
	VerdictRefuse = "refuse" // the job cannot be made with it
)

// JobPlanHost is one line of a dry run.
type JobPlanHost struct {
	Host    string   `json:"host"`
	Room    string   `json:"room"`
	Verdict string   `json:"verdict"`
	Reason  string   `json:"reason"`
	Risk    []string `json:"risk,omitempty"` // what a person should know first, one sentence each

	Disk       string `json:"disk"` // model, serial, size as last seen; "" = never seen
	DiskModel  string `json:"disk_model,omitempty"`
	DiskSerial string `json:"disk_serial,omitempty"`
	DiskBytes  int64  `json:"disk_bytes,omitempty"`
	Foreign    []Mark `json:"foreign,omitempty"` // on that disk, and given up by the job
	Fits       string `json:"fits"`              // yes, no, unknown

	Holds      string `json:"holds,omitempty"` // the version that was proven on it last, NAME/VERSION
	KeepCells  int    `json:"keep_cells"`      // estimate from that version
	FetchCells int    `json:"fetch_cells"`
	FetchBytes int64  `json:"fetch_bytes"`

	LinkMbps   int       `json:"link_mbps,omitempty"` // 0 = unknown
	LastSeen   time.Time `json:"last_seen,omitzero"`
	Firmware   string    `json:"firmware,omitempty"`
	SecureBoot bool      `json:"secure_boot,omitempty"`
	RAMBytes   int64     `json:"ram_bytes,omitempty"`
	NeedsS     int64     `json:"needs_s,omitempty"` // estimate from power-on to the end
	InWindow   bool      `json:"in_window"`         // by that estimate
}

// JobPlan is the answer to a dry run. Nothing is stored by it.
type JobPlan struct {
	Image   string        `json:"image"`
	Version string        `json:"version"`
	Bytes   int64         `json:"bytes"` // at most, per host
	Hosts   []JobPlanHost `json:"hosts"`

	PlanDigest  string    `json:"plan_digest"`         // over Facts: what POST /v1/jobs must name
	Erase       int       `json:"erase"`               // hosts with verdict go or wake: what JobConfirm.ConfirmHosts must be
	ConfirmText string    `json:"confirm_text"`        // what JobCreate.Confirm must be
	Protected   []string  `json:"protected,omitempty"` // hosts of flag protect that would be erased: JobCreate.ConfirmProtected must name them
	Facts       []string  `json:"facts"`               // a change of any makes the plan stale
	Request     JobCreate `json:"request"`             // what was asked

	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	OnWindowEnd string    `json:"on_window_end"`
	MaxOverrunS int64     `json:"max_overrun_s"`
	InWindow    int       `json:"in_window"` // of Erase, hosts that fit by estimate
	EtaMinS     int64     `json:"eta_min_s"` // seconds for all, once they are on
	EtaMaxS     int64     `json:"eta_max_s"`
	SeedBytes   int64     `json:"seed_bytes"` // what the server sends, estimate
	FreeBytes   int64     `json:"free_bytes"` // of the server's state folder
	Conflicts   []string  `json:"conflicts,omitempty"`
}
