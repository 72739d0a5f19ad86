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
	Cells         Cells     `json:"cells"`           // of all proven hosts together
	Hosts         []Host    `json:"hosts"`
	Samples       []Sample  `json:"samples,omitempty"` // figures over time, oldest first; none of jobs that the server did not see to their end
}

// Cells tells what was on disks already and what travelled.
type Cells struct {
	Total          int     `json:"total"`
	Kept           int     `json:"kept"`    // found right on the disk
	Fetched        int     `json:"fetched"` // in all attempts
	FetchedPercent float64 `json:"fetched_percent"`
	BytesFromSeed  int64   `json:"bytes_from_seed"`
	BytesFromPeers int64   `json:"bytes_from_peers"`
}

// add adds a host.
func (c *Cells) add(h Host) {
	c.Total += h.CellsTotal
	c.Kept += max(0, min(h.CellsKept, h.CellsTotal-h.CellsWritten)) // what an earlier attempt fetched was not there before
	c.Fetched += h.CellsWritten
	c.BytesFromSeed += h.BytesFromSeed
	c.BytesFromPeers += h.BytesFromPeers
	if c.Total > 0 {
		c.FetchedPercent = math.Round(1000*float64(c.Fetched)/float64(c.Total)) / 10
	}
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
	CellsTotal     int       `json:"cells_total"`   // of the image
	CellsWritten   int       `json:"cells_written"` // fetched, in all attempts
	CellsKept      int       `json:"cells_kept"`    // found right on the disk by the last attempt
	Verified       bool      `json:"verified"`      // read back and equal to the image
	LocalOS        bool      `json:"local_os"`      // the installed system was seen on the network
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
			BytesFromSeed: s.BytesFromSeed, BytesFromPeers: s.BytesFromPeers, CellsTotal: j.Cells, CellsWritten: s.CellsWritten, CellsKept: s.CellsKept,
			Verified: s.Verified, LocalOS: s.OSSeen, Code: s.Code, Error: s.Error, Timeline: []Entry{}, PONR: s.PONR, Warnings: s.Warnings,
		}
		for _, e := range s.Timeline {
			h.Timeline = append(h.Timeline, Entry{TS: seconds(e.At.Sub(j.Created)), Event: e.Event})
		}
		if h.Verified {
			r.Cells.add(h)
		}
		r.Hosts = append(r.Hosts, h)
	}
	return r
}

// seconds rounds to milliseconds, so that equal runs give equal bytes.
func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }
