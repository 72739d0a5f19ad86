// Package job is the state machine of one host in one job ("slot"): which
// events lead where, what must be committed before what, when something ends,
// and when a disk may be given up for writing. It is pure: no network, no
// store, no clock; the caller commits the returned slot before it acts.
// Called by server/daemon.
package job

import (
	"encoding/json"
	"time"

	"labswarm/api"
)

// Limits and deadlines (control.md 2.1).
const (
	DefaultHard   = 3                // enrolments with matching evidence
	DefaultSoft   = 6                // boots that fetched the initramfs
	DefaultLife   = 4 * time.Hour    // window of a job when none is given: one forgotten in the evening is over before the morning
	MaxOverrun    = 2 * time.Hour    // for hosts past the point of no return
	LongOverrun   = 8 * time.Hour    // the same when no window was given: whoever began by day may finish
	SilentAfter   = 10 * time.Second // a report was due and did not come
	bootLimit     = 5 * time.Minute  // BOOTING
	enrolLimit    = time.Minute      // ENROLLED without a word
	stallLimit    = 15 * time.Minute // WRITING without progress
	finishLimit   = 10 * time.Minute // FINALISING
	rebootLimit   = 10 * time.Minute // REBOOTING without a sighting
	lingerLimit   = time.Minute      // DONE without a word: the agent is gone
	checkSlack    = 5 * time.Minute
	checkRate     = 40_000_000 // bytes per second a disk reads at the very least
	maxTimeline   = 100        // entries kept per slot
	maxReportText = 300        // bytes of an agent's own words that are kept per entry of the timeline
	maxErrorText  = 2000       // bytes of what ended a slot: all findings about a disk
)

// Job is one deployment, or one capture. Everything but Ended, Result, Cancelled,
// Paused, NotAfter and SeedSent is fixed when it is created; so are Version and the
// figures of the image, but for a capture, which has them when it is done.
type Job struct {
	ID        uint64        `json:"id"`
	Kind      string        `json:"kind,omitempty"` // "" = deployment, KindCapture
	Image     string        `json:"image"`
	Version   string        `json:"version"`
	Room      string        `json:"room"`
	Hosts     []string      `json:"hosts"`
	Created   time.Time     `json:"created"`
	NotBefore time.Time     `json:"not_before,omitzero"` // zero = at once
	NotAfter  time.Time     `json:"not_after"`
	Overrun   time.Duration `json:"overrun"`
	After     string        `json:"after"`                 // reboot, poweroff
	Personal  string        `json:"personalise,omitempty"` // require, try, off; "" = require, of a job made before there was a choice
	MaxHard   int           `json:"max_hard"`
	MaxSoft   int           `json:"max_soft"`
	Policy

	CellBytes      int64      `json:"cell_bytes"`
	Cells          int        `json:"cells"`
	BytesShipped   int64      `json:"bytes_shipped"`
	DiskBytes      int64      `json:"disk_bytes"` // of the image's source disk
	MinBytes       int64      `json:"min_bytes"`
	Sector         int        `json:"sector"`
	Disk           string     `json:"disk_rule,omitempty"` // which disk of each host, beside the host's own rule
	Replace        []string   `json:"replace,omitempty"`   // kinds of foreign data that may be overwritten
	Own            []api.Mark `json:"own,omitempty"`       // containers that the image itself brings
	InfoHash       string     `json:"infohash"`
	Scope          string     `json:"scope"` // of the peers' certificates: random, shared by jobs that are live on one image at the same time
	ManifestDigest string     `json:"manifest_digest"`
	Readback       string     `json:"readback"` // what a right disk reads back as

	Force []string `json:"force,omitempty"` // of a capture: guards that are overridden
	Base  string   `json:"base,omitempty"`  // of a capture: version whose cells are not sent again

	Cancelled time.Time `json:"cancelled,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	Result    string    `json:"result"`
	SeedSent  int64     `json:"seed_sent"`
	SeedWire  int64     `json:"seed_wire,omitempty"`
}

// WindowOpen reports whether new work may begin, as far as the clock goes.
func (j *Job) WindowOpen(now time.Time) bool {
	return j.Cancelled.IsZero() && !now.Before(j.NotBefore) && now.Before(j.NotAfter)
}

// InOverrun reports whether a host past the point of no return may still finish.
func (j *Job) InOverrun(now time.Time) bool { return now.Before(j.NotAfter.Add(j.Overrun)) }

// Slot is one host in one job.
type Slot struct {
	Job   uint64    `json:"job"`
	Kind  string    `json:"kind,omitempty"` // of the job
	Host  string    `json:"host"`
	Room  string    `json:"room"`
	MAC   string    `json:"mac"`
	State api.State `json:"state"`
	Since time.Time `json:"since"`
	Hard  int       `json:"hard"` // enrolments
	Soft  int       `json:"soft"` // boots that fetched the initramfs
	PONR  bool      `json:"ponr"`

	Session *Session `json:"session,omitempty"` // of the last enrolment

	Firmware string    `json:"firmware,omitempty"` // bios, uefi, secureboot
	Disk     *api.Disk `json:"disk,omitempty"`
	HeldIn   api.State `json:"held_in,omitempty"`  // the state that was left for HELD
	Silence  bool      `json:"silence,omitempty"`  // HELD because nothing was heard: a new boot resumes it
	Late     bool      `json:"late,omitempty"`     // HELD because the window ended: more time releases it
	Wakes    int       `json:"wakes,omitempty"`    // rounds of magic packets
	Retries  int       `json:"retries,omitempty"`  // by people
	Code     string    `json:"code,omitempty"`     // errcode of FAILED, HELD, SKIPPED
	Error    string    `json:"error,omitempty"`    // sentence for people
	ReadOut  string    `json:"read_out,omitempty"` // code on the PC's screen
	Verified bool      `json:"verified,omitempty"` // read back and equal to the manifest
	OSSeen   bool      `json:"os_seen,omitempty"`  // the installed system was seen on the network
	Unseen   bool      `json:"unseen,omitempty"`   // nobody saw it start within the deadline
	Final    bool      `json:"final,omitempty"`    // nothing more is waited for

	Warnings []string `json:"warnings,omitempty"`  // of the agent, about a disk that is right
	HostKeys []string `json:"host_keys,omitempty"` // public SSH keys that the agent made, "type base64"

	Counters Counters            `json:"counters"`
	Timeline []api.TimelineEntry `json:"timeline"`
}

// Session is one boot of the agent, from its enrolment on.
type Session struct {
	BootID     string          `json:"boot_id"`
	Cert       string          `json:"cert"` // hex SHA-256 of the client certificate's public key
	Nonce      string          `json:"nonce"`
	PeerPort   int             `json:"peer_port"`
	LinkMbps   int             `json:"link_mbps,omitempty"` // of the interface it booted from, 0 = unknown
	IP         string          `json:"ip"`
	OrderID    string          `json:"order_id"`
	Order      json.RawMessage `json:"order"` // the signed envelope as it is sent
	Floor      uint64          `json:"floor"` // FenceFloor of the order
	Fence      uint64          `json:"fence"` // of the granted commence, 0 = none
	PlanDigest string          `json:"plan_digest,omitempty"`
	Commence   json.RawMessage `json:"commence,omitempty"` // the signed answer, for a repeated question
	Result     string          `json:"result,omitempty"`   // digest of the accepted result, for a repeated one
}

// Counters come from results and are summed over the attempts.
type Counters struct {
	CellsWritten   int   `json:"cells_written"`
	CellsKept      int   `json:"cells_kept"` // of the last attempt
	BytesFromSeed  int64 `json:"bytes_from_seed"`
	BytesFromPeers int64 `json:"bytes_from_peers"`
	AgentRSSBytes  int64 `json:"agent_rss_bytes"` // greatest seen
}

// Line is something worth telling people.
type Line struct {
	Level string // info, warn, error
	Code  string
	Text  string
}

// Live reports whether a host in this state may still be written.
func (s *Slot) Live() bool { return !s.State.Ended() }

// AttemptsLeft reports whether another boot into the agent makes sense.
func (s *Slot) AttemptsLeft(j *Job) bool { return s.Soft < j.MaxSoft && s.Hard < j.MaxHard }

// Active reports whether an agent is at work in this state.
func Active(s api.State) bool {
	switch s {
	case api.StateEnrolled, api.StateChecking, api.StateCapturing, api.StateWriting, api.StateVerifying, api.StateFinalising:
		return true
	}
	return false
}

// wrote reports whether the state lies behind commence.
func wrote(s api.State) bool {
	return s == api.StateWriting || s == api.StateVerifying || s == api.StateFinalising
}

// New returns the slots of a job: one per host, PENDING.
func New(j *Job, hosts []api.Host, now time.Time) []Slot {
	out := make([]Slot, 0, len(hosts))
	for _, h := range hosts {
		s := Slot{Job: j.ID, Kind: j.Kind, Host: h.Name, Room: h.Room, MAC: h.MAC, State: api.StatePending, Since: now}
		s.note(now, "job created")
		out = append(out, s)
	}
	return out
}

// Result says whether a job has ended and how: "" while a slot is not final.
func Result(j *Job, slots []Slot) string {
	good, cancelled := 0, 0
	for i := range slots {
		if !slots[i].Final {
			return ""
		}
		if slots[i].State.Good() {
			good++
		}
		if slots[i].State == api.StateCancelled {
			cancelled++
		}
	}
	switch {
	case good == len(slots) && good > 0:
		return "ok"
	case !j.Cancelled.IsZero() && cancelled > 0:
		return "cancelled"
	case good > 0:
		return "partial"
	}
	return "failed"
}

// note adds a timeline entry. A full timeline keeps its beginning and its end.
func (s *Slot) note(now time.Time, text string) {
	e := api.TimelineEntry{At: now.UTC(), Event: clip(text)}
	tl := append([]api.TimelineEntry{}, s.Timeline...) // slots are values: never share the array
	if len(tl) >= maxTimeline {
		tl = append(tl[:maxTimeline/2], tl[maxTimeline/2+1:]...)
	}
	s.Timeline = append(tl, e)
}

func clip(text string) string { return clipTo(text, maxReportText) }

func clipTo(text string, n int) string {
	if len(text) > n {
		return text[:n] + "..."
	}
	return text
}
