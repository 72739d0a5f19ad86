package report

import (
	"slices"
	"strings"
	"unicode"

	"labswarm/api"
)

// Class is what a host's user finds in the morning.
type Class int

// Classes, the worst first: that is their order in every document.
const (
	NotUsable Class = iota // its old content is gone and the new one is not there
	OldImage               // its disk was not touched
	Busy                   // not at its end yet
	Ready                  // written, read back, equal
)

// String is the class for people.
func (c Class) String() string {
	return [...]string{api.GroupNotUsable, api.GroupOldImage, api.GroupBusy, api.GroupReady}[c]
}

// Class of a host.
func (h *Host) Class() Class {
	switch {
	case h.State.Good():
		return Ready
	case !h.State.Ended() && h.State != api.StateHeld:
		return Busy
	case h.PONR:
		return NotUsable
	}
	return OldImage
}

// Why is the sentence behind a host that is not Ready, without what could drive a terminal.
func (h *Host) Why() string {
	why := strings.ToLower(string(h.State))
	if h.Code != "" {
		why += " (" + h.Code + ")"
	}
	if h.Error != "" {
		why += ": " + h.Error
	}
	return Plain(why)
}

// Verdict of the whole job, one word.
func (r *Report) Verdict() string {
	if r.Result == "" {
		return "LIVE"
	}
	return strings.ToUpper(Plain(r.Result))
}

// Of lists the hosts of a class, by name.
func (r *Report) Of(c Class) []Host {
	var out []Host
	for _, h := range r.Hosts {
		if h.Class() == c {
			out = append(out, h)
		}
	}
	slices.SortStableFunc(out, func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Plain drops what is no printable character: names and errors come from machines in the room.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case !unicode.IsPrint(r) || r == '\u2028' || r == '\u2029':
			return -1
		}
		return r
	}, s)
}

// Span is one state of a host, seconds after the job's creation.
type Span struct {
	State    api.State
	From, To float64
}

// spans reads the states out of the timeline; end is the job's, seconds.
func (h *Host) spans(end float64) []Span {
	var out []Span
	for _, e := range h.Timeline {
		s := api.State(strings.TrimRight(strings.SplitN(e.Event, " ", 2)[0], ":,"))
		if !states[s] {
			continue
		}
		if n := len(out); n > 0 {
			out[n-1].To = e.TS
		}
		out = append(out, Span{State: s, From: e.TS, To: max(e.TS, end)})
	}
	if n := len(out); n > 0 && (h.State.Ended() || h.State == api.StateDone) {
		out[n-1].To = out[n-1].From
	}
	return out
}

var states = map[api.State]bool{
	api.StatePending: true, api.StateArmed: true, api.StateWaking: true, api.StateBooting: true, api.StateEnrolled: true, api.StateChecking: true,
	api.StateCapturing: true, api.StateWriting: true, api.StateVerifying: true, api.StateFinalising: true, api.StateDone: true, api.StateRebooting: true,
	api.StateConfirmed: true, api.StateSkipped: true, api.StateCancelled: true, api.StateNoShow: true, api.StateFailed: true, api.StateHeld: true,
}

// Figures are the sums at the end of a report.
type Figures struct {
	Hosts, Ready, Booted, Attempts int
	Asked                          int       // for their own disk, and were not seen running
	Copies                         float64   // of the image, sent by the server
	FromServer, FromPeers          int64     // bytes
	Phases                         []Phase   // medians, in the order of a deployment
	Slowest                        string    // host that took the longest from writing to the end, "" = none
	SlowestS, MedianS              float64   // seconds
	took                           []float64 // of Ready hosts
}

// Phase is the median time of the hosts in a state.
type Phase struct {
	State api.State
	S     float64 // seconds
}

// Figures sums up.
func (r *Report) Figures() Figures {
	f := Figures{Hosts: len(r.Hosts)}
	if r.Image.BytesShipped > 0 {
		f.Copies = float64(r.SeedBytesSent) / float64(r.Image.BytesShipped)
	}
	byState := map[api.State][]float64{}
	for i := range r.Hosts {
		h := &r.Hosts[i]
		f.FromServer, f.FromPeers, f.Attempts = f.FromServer+h.BytesFromSeed, f.FromPeers+h.BytesFromPeers, f.Attempts+h.Attempts
		switch {
		case h.LocalOS:
			f.Booted++
		case h.State == api.StateConfirmed:
			f.Asked++
		}
		var took float64
		for _, s := range h.spans(r.DurationS) {
			byState[s.State] = append(byState[s.State], s.To-s.From)
			switch s.State {
			case api.StateWriting, api.StateVerifying, api.StateFinalising:
				took += s.To - s.From
			}
		}
		if h.Class() != Ready {
			continue
		}
		f.Ready++
		f.took = append(f.took, took)
		if f.Slowest == "" || took > f.SlowestS {
			f.Slowest, f.SlowestS = h.Name, took
		}
	}
	f.MedianS = median(f.took)
	for _, s := range []api.State{api.StateWaking, api.StateBooting, api.StateChecking, api.StateCapturing, api.StateWriting, api.StateVerifying, api.StateFinalising, api.StateRebooting} {
		if len(byState[s]) > 0 {
			f.Phases = append(f.Phases, Phase{s, median(byState[s])})
		}
	}
	return f
}

// median of a list, 0 when it is empty.
func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(list))
	return s[len(s)/2]
}
