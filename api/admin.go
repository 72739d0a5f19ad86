// Package api holds the wire types of labswarm: what the server, the agent,
// the console and the command line say to each other, and the stable error
// codes. It imports the standard library only, so that each side can use it.
package api

import "time"

// Host is one PC in the inventory.
type Host struct {
	Name    string    `json:"name"` // computer name, unique
	Room    string    `json:"room"`
	MAC     string    `json:"mac"`
	UUID    string    `json:"uuid"`           // SMBIOS UUID, "" = not known yet
	Disk    string    `json:"disk,omitempty"` // disk rule (docs/OPERATIONS.md); "" = the only disk that fits
	Exclude bool      `json:"exclude,omitempty"`
	Style   string    `json:"boot_style,omitempty"` // "", silent, chain
	Network *Network  `json:"network,omitempty"`    // fixed address of its own Linux; nil = as the image has it
	Added   time.Time `json:"added"`
	HostPlace
	LastSeen time.Time `json:"last_seen,omitzero"`
	LastIP   string    `json:"last_ip,omitempty"`
	Firmware string    `json:"firmware,omitempty"`
	Secure   bool      `json:"secure_boot,omitempty"`
	Evidence *Evidence `json:"evidence,omitempty"` // from the last enrolment
}

// Editable is what a person can change of a host, without what the server saw:
// its ETag is made of this.
func (h Host) Editable() Host {
	h.Added, h.LastSeen, h.LastIP, h.Firmware, h.Secure, h.Evidence = time.Time{}, time.Time{}, "", "", false, nil
	h.Claimed, h.Quarantined, h.PendingMACs, h.KnownDisks, h.NotUnique = false, "", nil, nil, nil
	return h
}

// Image describes one version in the image store.
type Image struct {
	Name         string    `json:"name"`
	Version      string    `json:"version"`
	Created      time.Time `json:"created"`
	DiskBytes    int64     `json:"disk_bytes"`
	MinBytes     int64     `json:"min_bytes"` // smallest target disk
	UsedBytes    int64     `json:"used_bytes"`
	CellBytes    int64     `json:"cell_bytes"`
	Cells        int       `json:"cells"`         // data cells
	BytesShipped int64     `json:"bytes_shipped"` // cells x cell size
	InfoHash     string    `json:"infohash"`
	Digest       string    `json:"manifest_digest"` // hex SHA-256 of manifest.json
	Label        string    `json:"label"`           // gpt or mbr
	Boot         string    `json:"boot"`            // bios, uefi, both, unknown
	Partitions   []string  `json:"partitions"`      // one line each, for people
	Forced       []string  `json:"forced,omitempty"`
}

// JobCreate asks for a job: POST /v1/jobs. The Idempotency-Key header makes a
// repeated request harmless.
type JobCreate struct {
	Image       string   `json:"image"`                 // name or name/version
	Version     string   `json:"version"`               // "" = newest
	Room        string   `json:"room"`                  // all hosts of a room, or
	Hosts       []string `json:"hosts"`                 // named hosts
	Confirm     string   `json:"confirm"`               // the typed room name; for named hosts the image name (JobPlan.ConfirmText)
	After       string   `json:"after"`                 // reboot (default), poweroff
	Personalise string   `json:"personalise,omitempty"` // require (default), try, off
	ExpiresInS  int64    `json:"expires_in_s"`          // length of the window, in place of not_after; 0 = 4 h
	MaxAttempts int      `json:"max_attempts"`          // 0 = 3
	DryRun      bool     `json:"dry_run"`               // plan only, nothing is stored
	Disk        string   `json:"disk,omitempty"`        // disk rule for all its hosts, beside each host's own
	// ReplaceForeign lists the kinds of foreign data that may be overwritten
	// (Mark.Kind). Without them a disk that holds any is refused.
	ReplaceForeign []string `json:"replace_foreign,omitempty"`
	// ConfirmProtected names each of JobPlan.Protected again: they are written
	// only then.
	ConfirmProtected []string `json:"confirm_protected,omitempty"`
	JobPolicy
	JobConfirm
}

// Job is one deployment, or a capture, with its slots. A capture has a Version
// when it is done.
type Job struct {
	ID           uint64    `json:"id"`
	Kind         string    `json:"kind,omitempty"` // "" = deployment, KindCapture
	Image        string    `json:"image"`
	Version      string    `json:"version"`
	Room         string    `json:"room"`
	Created      time.Time `json:"created"`
	NotAfter     time.Time `json:"not_after"`
	Ended        time.Time `json:"ended,omitzero"`
	Result       string    `json:"result"` // "" while live; ok, partial, failed, cancelled
	After        string    `json:"after"`
	Personalise  string    `json:"personalise"` // require, try, off
	CellBytes    int64     `json:"cell_bytes"`
	Cells        int       `json:"cells"`
	BytesShipped int64     `json:"bytes_shipped"`   // per host, at most
	SeedSent     int64     `json:"seed_bytes_sent"` // bytes of the image: a compressed cell counts as the cell
	SeedWire     int64     `json:"seed_wire_bytes"` // the same as they travelled
	Slots        []Slot    `json:"slots"`
	EtaS         int64     `json:"eta_s"` // seconds to the last host written, -1 = not known
	Percent      float64   `json:"percent"`
	RateBps      int64     `json:"rate_bps"` // all hosts together
	JobSteer
}

// Slot is one host in one job.
type Slot struct {
	Host      string    `json:"host"`
	MAC       string    `json:"mac"`
	State     State     `json:"state"`
	Since     time.Time `json:"since"`
	Attempt   int       `json:"attempt"` // enrolments with matching evidence
	PONR      bool      `json:"ponr"`    // point of no return passed: the old content is gone
	Percent   float64   `json:"percent"` // of the present phase
	RateBps   int64     `json:"rate_bps"`
	Code      string    `json:"code,omitempty"`
	Error     string    `json:"error,omitempty"`
	ReadOut   string    `json:"read_out,omitempty"` // the code on the PC's screen: Code and four characters
	Detail    string    `json:"detail,omitempty"`
	SilentS   int       `json:"silent_s,omitempty"` // seconds since the last report while one was due
	Disk      *Disk     `json:"disk,omitempty"`
	Firmware  string    `json:"firmware,omitempty"` // bios, uefi, secureboot
	LastIP    string    `json:"last_ip,omitempty"`
	Verified  bool      `json:"verified"`            // read back and equal to the manifest
	OSSeen    bool      `json:"os_seen,omitempty"`   // the installed system spoke on the network
	Unseen    bool      `json:"unseen,omitempty"`    // DONE, but nobody saw it start within the deadline
	Warnings  []string  `json:"warnings,omitempty"`  // of growing and personalising a disk that is right
	HostKeys  []string  `json:"host_keys,omitempty"` // public SSH keys made for this host, "type base64"
	Parent    string    `json:"parent,omitempty"`
	Fallbacks []string  `json:"fallbacks,omitempty"`

	CellsWritten   int   `json:"cells_written"`
	CellsKept      int   `json:"cells_kept"`
	BytesFromSeed  int64 `json:"bytes_from_seed"`
	BytesFromPeers int64 `json:"bytes_from_peers"`
	AgentRSSBytes  int64 `json:"agent_rss_bytes,omitempty"`

	Timeline []TimelineEntry `json:"timeline,omitempty"` // in GET /v1/jobs/{id} only
}

// TimelineEntry is one event in the life of a slot.
type TimelineEntry struct {
	At    time.Time `json:"at"`
	Event string    `json:"event"`
}

// Event is one line of the event log. Log events have a Seq; ticks have none.
type Event struct {
	Seq   uint64    `json:"seq,omitempty"`
	Time  time.Time `json:"time"`
	Level string    `json:"level"` // info, warn, error
	Code  string    `json:"code"`
	Job   uint64    `json:"job,omitempty"`
	Host  string    `json:"host,omitempty"`
	Room  string    `json:"room,omitempty"`
	Text  string    `json:"text"`
}

// Tick is a progress snapshot: coalesced, never stored.
type Tick struct {
	Time time.Time `json:"time"`
	Jobs []Job     `json:"jobs"` // live jobs and those ended in the last minutes, newest first
}

// ServerInfo answers GET /v1/server.
type ServerInfo struct {
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	Started   time.Time `json:"started"`
	Interface string    `json:"interface"`
	DHCP      string    `json:"dhcp"`
	Address   string    `json:"address"`
	KeyID     string    `json:"key_id"`
	Ready     bool      `json:"ready"` // all sockets bound and the store open
	Hosts     int       `json:"hosts"`
	LiveJobs  int       `json:"live_jobs"`
	Learn     *Learn    `json:"learn,omitempty"` // learn mode, while it is open
	Questions int       `json:"questions"`       // that wait for an answer
}

// Routes of the admin socket (HTTP over the unix socket
// <state-dir>/labswarm.sock). Lists come as JSON arrays.
const (
	RouteServer  = "/v1/server" // GET ServerInfo
	RouteRooms   = "/v1/rooms"  // GET []Room
	RouteHosts   = "/v1/hosts"  // GET []Host; POST Host (add or change); /{name} GET, DELETE
	RouteImages  = "/v1/images" // GET []Image; /{name}/capture POST CaptureCreate -> Job
	RouteJobs    = "/v1/jobs"   // GET []Job (newest first, without timelines); POST JobCreate -> Job or JobPlan; /{id} GET Job; /{id}/report GET; /{id}/cancel POST
	RouteRelays  = "/v1/relays" // GET []Relay; POST RelayAdd -> RelayToken; /{name} DELETE
	RouteAdminEv = "/v1/events" // GET SSE: "event: log" with id, "event: tick"; ?since=SEQ
)
