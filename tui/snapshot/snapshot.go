// Package snapshot is the picture of the server that the screens draw: rooms,
// their hosts, and for each host its slot in the job that matters now.
//
// A Snapshot is immutable: package feed builds a new one for every change, the
// screens only read. All text in it is clean (Clean). It holds no
// clock: how old the picture is follows from Heard and the caller's now.
package snapshot

import (
	"time"

	"labswarm/api"
)

// Link is the state of the connection to the server.
type Link uint8

// Connecting until the first full picture, then Live or Lost.
const (
	Connecting Link = iota
	Live
	Lost
)

// SilentAfter is how long a host may miss reports before it is drawn as
// silent, in seconds.
const SilentAfter = 10

// Group is a coarse class of states, for counts and colours.
type Group uint8

// The groups, worst first: the order in which exceptions are listed.
const (
	Failed Group = iota
	Held
	Silent
	NoShow
	Writing // writing, reading back, finishing
	Waiting // armed up to checking
	Left    // skipped, cancelled
	Good    // proven
	Idle    // in no job
	Groups
)

// Host is one PC with its slot.
type Host struct {
	api.Host
	Job   *api.Job  // nil: in no job that the server still lists
	Slot  *api.Slot // of Job; nil with it
	Group Group
}

// Room is a classroom with its hosts in natural order.
type Room struct {
	Name   string
	Hosts  []Host
	Job    *api.Job    // live, else the newest; nil: none
	Counts [Groups]int // hosts by group
	Widest int         // columns of the longest host name
	Map    *SeatMap    // nil: nobody drew one
}

// Snapshot is one picture.
type Snapshot struct {
	Server api.ServerInfo
	Rooms  []Room
	Hosts  int         // in all rooms
	Jobs   []*api.Job  // newest first
	Log    []api.Event // the newest of the event log, oldest first; shared, never changed

	// Rates holds, by job, its rate over time in bytes per second, oldest first,
	// evenly spaced; NaN = nothing was heard.
	Rates map[uint64]Rates

	Link  Link
	Cause string    // why the link was lost
	Heard time.Time // when the server last said something, by this machine's clock
	Full  bool      // a full picture was read at least once
}

// Rates is a job's rate over time. Immutable.
type Rates struct {
	Begin time.Time     // of the first sample
	Every time.Duration // between two samples
	Bps   []float64
}

// Job returns a job, or nil.
func (s *Snapshot) Job(id uint64) *api.Job {
	for _, j := range s.Jobs {
		if j.ID == id {
			return j
		}
	}
	return nil
}

// Host finds a host by name, in any room.
func (s *Snapshot) Host(name string) (*Room, *Host) {
	for i := range s.Rooms {
		if k, ok := s.Rooms[i].Find(name); ok {
			return &s.Rooms[i], &s.Rooms[i].Hosts[k]
		}
	}
	return nil, nil
}

// Find returns the index of a room, or false.
func (s *Snapshot) Find(room string) (int, bool) {
	for i := range s.Rooms {
		if s.Rooms[i].Name == room {
			return i, true
		}
	}
	return 0, false
}

// Find returns the index of a host in the room, or false.
func (r *Room) Find(host string) (int, bool) {
	for i := range r.Hosts {
		if r.Hosts[i].Name == host {
			return i, true
		}
	}
	return 0, false
}

// SameAs reports whether two pictures differ in nothing but Heard. It is cheap:
// pictures that were joined from the same facts share their rooms.
func (s *Snapshot) SameAs(o *Snapshot) bool {
	if s.Link != o.Link || s.Cause != o.Cause || s.Full != o.Full || s.Server != o.Server || len(s.Rooms) != len(o.Rooms) {
		return false
	}
	if len(s.Log) != len(o.Log) || len(s.Log) > 0 && s.Log[len(s.Log)-1].Seq != o.Log[len(o.Log)-1].Seq || len(s.Jobs) != len(o.Jobs) {
		return false
	}
	return (len(s.Rooms) == 0 || &s.Rooms[0] == &o.Rooms[0]) && (len(s.Jobs) == 0 || s.Jobs[0] == o.Jobs[0])
}

// Stale reports whether rates and times left are not to be trusted.
func (s *Snapshot) Stale(now time.Time) bool {
	return s.Link == Lost || s.Age(now) > staleAfter
}

// Age is the time since the server last said something.
func (s *Snapshot) Age(now time.Time) time.Duration {
	if s.Heard.IsZero() {
		return 0
	}
	return max(0, now.Sub(s.Heard))
}

// Offline reports whether the picture is so old that its time is shown.
func (s *Snapshot) Offline(now time.Time) bool {
	return s.Age(now) > offlineAfter
}

// A server says something every two seconds at least.
const (
	staleAfter   = 6 * time.Second
	offlineAfter = time.Minute
)

// IsSilent reports whether a report of the slot is overdue. It is an age, not
// a state: the slot keeps its state.
func IsSilent(s *api.Slot) bool {
	return s.SilentS > SilentAfter && !s.State.Ended()
}

// GroupOf returns the group of a slot; nil is Idle.
func GroupOf(s *api.Slot) Group {
	switch {
	case s == nil:
		return Idle
	case s.State == api.StateFailed:
		return Failed
	case s.State == api.StateHeld:
		return Held
	case IsSilent(s):
		return Silent
	case s.State == api.StateNoShow:
		return NoShow
	case s.State == api.StateSkipped, s.State == api.StateCancelled:
		return Left
	case s.State.Good():
		return Good
	case s.State == api.StateWriting, s.State == api.StateVerifying, s.State == api.StateFinalising:
		return Writing
	}
	return Waiting
}

// Mark returns the two characters of a slot: its state, the percentage while
// it writes, "??" while it is silent, ".." without a job.
func Mark(s *api.Slot) string {
	switch {
	case s == nil:
		return ".."
	case IsSilent(s):
		return "??"
	case s.State == api.StateWriting:
		return twoDigits(s.Percent)
	}
	return s.State.Mark()
}

func twoDigits(p float64) string {
	n := 0
	if p > 0 { // false for NaN
		n = int(min(p, 99))
	}
	return digits[2*n : 2*n+2]
}

const digits = "00010203040506070809" +
	"10111213141516171819" +
	"20212223242526272829" +
	"30313233343536373839" +
	"40414243444546474849" +
	"50515253545556575859" +
	"60616263646566676869" +
	"70717273747576777879" +
	"80818283848586878889" +
	"90919293949596979899"
