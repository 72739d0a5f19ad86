package classroom

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"labswarm/api"
)

// Report is the result of a run. Its JSON form is stable: other tools read it.
type Report struct {
	Image         ImageReport  `json:"image"`
	SeedBytesSent int64        `json:"seed_bytes_sent"` // by the server, all terminals together, in bytes of the image
	SeedWireBytes int64        `json:"seed_wire_bytes"` // the same as they travelled
	DurationS     float64      `json:"duration_s"`      // from the first power-on
	Hosts         []HostReport `json:"hosts"`
}

// ImageReport names what was deployed.
type ImageReport struct {
	Name         string `json:"name"`
	Version      string `json:"version"`
	BytesShipped int64  `json:"bytes_shipped"` // cells x cell size, per terminal at most
	Cells        int    `json:"cells"`
}

// HostReport is one terminal.
type HostReport struct {
	Name           string        `json:"name"`
	MAC            string        `json:"mac"`
	Firmware       string        `json:"firmware"`
	State          api.State     `json:"state"`
	Attempts       int           `json:"attempts"`
	BytesFromSeed  int64         `json:"bytes_from_seed"`
	BytesFromPeers int64         `json:"bytes_from_peers"`
	CellsWritten   int           `json:"cells_written"`
	CellsKept      int           `json:"cells_kept"`
	Verified       bool          `json:"verified"` // read back by the agent and equal to the manifest
	LocalOS        bool          `json:"local_os"` // the expected text came after the deployment's reboot
	Error          string        `json:"error"`
	Timeline       []EventReport `json:"timeline"`
}

// EventReport is one event, t_s seconds after the first power-on.
type EventReport struct {
	TS    float64 `json:"t_s"`
	Event string  `json:"event"`
}

// Good reports whether the terminal is confirmed and its own system was seen.
func (h HostReport) Good() bool {
	return h.State == api.StateConfirmed && h.Verified && h.LocalOS && h.Error == ""
}

// Good counts the terminals that came through.
func (r *Report) Good() int {
	if r == nil {
		return 0
	}
	n := 0
	for _, h := range r.Hosts {
		if h.Good() {
			n++
		}
	}
	return n
}

// Exit codes of a run, as labswarm's own.
const (
	ExitOK      = 0
	ExitFailed  = 1
	ExitPartial = 3
)

// ExitCode is 0 when every terminal came through, 3 when some did, 1 when none.
func (r *Report) ExitCode() int {
	switch good := r.Good(); {
	case r == nil || len(r.Hosts) == 0 || good == 0:
		return ExitFailed
	case good < len(r.Hosts):
		return ExitPartial
	default:
		return ExitOK
	}
}

// Copies is how many times the image left the server.
func (r *Report) Copies() float64 {
	if r.Image.BytesShipped == 0 {
		return 0
	}
	return float64(r.SeedBytesSent) / float64(r.Image.BytesShipped)
}

// Write stores the report, whole or not at all.
func (r *Report) Write(path string) (err error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".report-*")
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(append(b, '\n')); err != nil {
		return errors.Join(fmt.Errorf("write report: %w", err), f.Close())
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// timeline merges the server's events with what the classroom saw itself.
func timeline(zero time.Time, slot *api.Slot, own []api.TimelineEntry) []EventReport {
	all := slices.Clone(own)
	if slot != nil {
		all = append(all, slot.Timeline...)
	}
	slices.SortStableFunc(all, func(a, b api.TimelineEntry) int { return a.At.Compare(b.At) })
	out := []EventReport{}
	for _, e := range all {
		ms := e.At.Sub(zero).Milliseconds()
		out = append(out, EventReport{TS: float64(ms) / 1000, Event: e.Event})
	}
	return out
}
