package component

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/internal/units"
	"labswarm/tui/snapshot"
)

// Facts is the first line of a host: who it is.
func Facts(h *snapshot.Host) string {
	ip, fw := h.LastIP, h.Firmware
	parts := []string{h.Name, h.MAC}
	if h.Slot != nil {
		ip, fw = either(h.Slot.LastIP, ip), either(h.Slot.Firmware, fw)
	}
	parts = append(parts, either(ip, "no address yet"), either(fw, "firmware not seen"), Disk(h))
	if h.Exclude {
		parts = append(parts, "excluded from jobs")
	}
	return strings.Join(parts, "  ")
}

// Disk names the disk of the job, else the one the admin chose, else the only
// one that was seen.
func Disk(h *snapshot.Host) string {
	if h.Slot != nil && h.Slot.Disk != nil {
		d := h.Slot.Disk
		return strings.Join(nonEmpty(d.Model, units.FormatBytes(d.Bytes), either(d.Serial, d.WWN)), " ")
	}
	if h.Disk != "" {
		return "disk " + h.Disk
	}
	return "disk not seen"
}

// Doing is the second line: state, progress, and for how long.
func Doing(h *snapshot.Host, stale bool, now time.Time) string {
	s := h.Slot
	if s == nil {
		if h.LastSeen.IsZero() {
			return "in no job; never seen on the network"
		}
		return "in no job; last seen " + Clock(h.LastSeen, now)
	}
	parts := []string{string(s.State)}
	switch {
	case snapshot.IsSilent(s):
		parts = append(parts, fmt.Sprintf("silent %s, last: %s", coarse(time.Duration(s.SilentS)*time.Second), Percent(s.Percent)))
	case h.Group == snapshot.Writing || s.Percent > 0 && !s.State.Ended():
		parts = append(parts, Percent(s.Percent))
		if s.RateBps > 0 {
			parts = append(parts, Figure(units.FormatRate(s.RateBps), stale))
		}
	}
	if !s.Since.IsZero() {
		parts = append(parts, "since "+Clock(s.Since, now))
	}
	if s.Attempt > 1 {
		parts = append(parts, fmt.Sprintf("attempt %d", s.Attempt))
	}
	if s.Verified {
		parts = append(parts, "read back and equal")
	}
	if p := Path(h); p != "" {
		parts = append(parts, p)
	}
	return strings.Join(parts, "  ")
}

// Path says where the data comes from, "" when nothing is known.
func Path(h *snapshot.Host) string {
	s := h.Slot
	if s == nil || s.Parent == "" {
		return ""
	}
	out := "from " + s.Parent
	if len(s.Fallbacks) > 0 {
		out += ", else " + strings.Join(s.Fallbacks, " ")
	}
	return out
}

// Children are the hosts of a job that a host feeds now, by name.
func Children(j *api.Job, host string) []string {
	var out []string
	if j == nil {
		return nil
	}
	for i := range j.Slots {
		if j.Slots[i].Parent == host {
			out = append(out, j.Slots[i].Host)
		}
	}
	slices.SortFunc(out, snapshot.Natural)
	return out
}

// Trouble is the sentence that matters most: the error with its code and what
// it means for the disk, else what the host waits for, "" if nothing.
func Trouble(h *snapshot.Host) string {
	s := h.Slot
	if s == nil {
		return ""
	}
	if s.Error == "" && s.Code == "" {
		return s.Detail
	}
	out := either(s.Error, "no sentence was reported")
	if s.Code != "" {
		out = "code " + s.Code + "  " + out
	}
	if s.State.Ended() && !s.State.Good() {
		if s.PONR {
			return out + " (the old content of the disk is gone; nothing more will be written)"
		}
		return out + " (nothing was written to the disk)"
	}
	return out
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func nonEmpty(list ...string) []string {
	out := list[:0]
	for _, s := range list {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}
