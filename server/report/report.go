// Package report makes the run report of a job: one document with every host,
// its figures and its timeline. The form is stable, other tools read it; new
// fields may be added. Pure. Called by server/daemon for GET
// /v1/jobs/{id}/report.
package report

import (
	"math"
	"time"

	"labswarm/api"
)

// Report is a job's run report.
type Report struct {
	Job           uint64    `json:"job"`
	Kind          string    `json:"kind,omitempty"` // "" = deployment, capture
	Room          string    `json:"room"`
	Result        string    `json:"result"` // "" while the job is live
	Created       time.Time `json:"created"`
	Image         Image     `json:"image"`
	SeedBytesSent int64     `json:"seed_bytes_sent"` // bytes of the image: a compressed cell counts as the cell
	SeedWireBytes int64     `json:"seed_wire_bytes"` // the same as they travelled
	DurationS     float64   `json:"duration_s"`      // from the job's creation to its end, or to now
	Hosts         []Host    `json:"hosts"`
	Samples       []Sample  `json:"samples,omitempty"` // figures over time, oldest first; none of jobs that the server did not see to their end
}

// Image names what was deployed.
type Image struct {
	Name         string `json:"name"`
	Version      string `json:"version"`
	BytesShipped int64  `json:"bytes_shipped"` // per host, at most
	Cells        int    `json:"cells"`
}

// Host is one host of the job.
type Host struct {
	Name           string    `json:"name"`
	MAC            string    `json:"mac"`
	Firmware       string    `json:"firmware"`
	State          api.State `json:"state"`
	Attempts       int       `json:"attempts"`
	BytesFromSeed  int64     `json:"bytes_from_seed"`
	BytesFromPeers int64     `json:"bytes_from_peers"`
	CellsWritten   int       `json:"cells_written"`
	CellsKept      int       `json:"cells_kept"`
	Verified       bool      `json:"verified"` // read back and equal to the image
	LocalOS        bool      `json:"local_os"` // the installed system was seen on the network
	Code           string    `json:"code,omitempty"`
	Error          string    `json:"error"`
	Timeline       []Entry   `json:"timeline"`
	PONR           bool      `json:"ponr,omitempty"` // its old content is gone
	Warnings       []string  `json:"warnings,omitempty"`
}

// Sample is a look at all hosts together.
type Sample struct {
	TS     float64 `json:"t_s"` // seconds after the job's creation
	Server int64   `json:"bytes_from_seed"`
	Peers  int64   `json:"bytes_from_peers"`
}

// Entry is one event, t_s seconds after the job's creation.
type Entry struct {
	TS    float64 `json:"t_s"`
	Event string  `json:"event"`
}

// Make builds the report of a job with its timelines.
func Make(j api.Job, now time.Time) Report {
	end := j.Ended
	if end.IsZero() {
		end = now
	}
	r := Report{
		Job: j.ID, Kind: j.Kind, Room: j.Room, Result: j.Result, Created: j.Created,
		Image:         Image{Name: j.Image, Version: j.Version, BytesShipped: j.BytesShipped, Cells: j.Cells},
		SeedBytesSent: j.SeedSent, SeedWireBytes: j.SeedWire, DurationS: seconds(end.Sub(j.Created)), Hosts: []Host{},
	}
	for _, s := range j.Slots {
		h := Host{
			Name: s.Host, MAC: s.MAC, Firmware: s.Firmware, State: s.State, Attempts: s.Attempt,
			BytesFromSeed: s.BytesFromSeed, BytesFromPeers: s.BytesFromPeers, CellsWritten: s.CellsWritten, CellsKept: s.CellsKept,
			Verified: s.Verified, LocalOS: s.OSSeen, Code: s.Code, Error: s.Error, Timeline: []Entry{}, PONR: s.PONR, Warnings: s.Warnings,
		}
		for _, e := range s.Timeline {
			h.Timeline = append(h.Timeline, Entry{TS: seconds(e.At.Sub(j.Created)), Event: e.Event})
		}
		r.Hosts = append(r.Hosts, h)
	}
	return r
}

// seconds rounds to milliseconds, so that equal runs give equal bytes.
func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }
