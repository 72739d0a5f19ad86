package sim

import (
	"fmt"
	"time"
)

// Overhead is what a byte of payload costs on a real Ethernet link: frames of
// 1 538 bytes for 1 448 bytes of TCP payload, and the acknowledgements.
const Overhead = 1.045 // swarm.md, section 1

// Scenario is one run to play.
type Scenario struct {
	Seed  uint64 // of what chance remains: phases of timers, latencies, wrong pieces
	Name  string
	Cells int   // pieces of the image
	Cell  int64 // bytes of a piece
	// Blocks is how many requests a piece takes: the grain of the simulation.
	Blocks   int
	Rooms    []Room
	Hosts    []Host
	SeedMbps int  // payload rate of the seed's link
	SeedTold bool // the tracker knows it
	Outages  []Outage
	Cuts     []Cut
	Latency  time.Duration // one way
}

// Room is one switch with an uplink to the others.
type Room struct {
	Name       string
	UplinkMbps int // payload rate, either way
}

// Host is one PC.
type Host struct {
	Room     int           // index in Rooms
	Mbps     int           // payload rate of its link, either way
	Told     bool          // the tracker knows the rate
	Says     int           // with Told: the rate the tracker is told in place of Mbps; 0 = Mbps
	DiskMBps int           // what its disk writes, megabytes per second
	Join     time.Duration // when it comes
	Late     bool          // so late that it is no part of the quiet swarm
	Corrupt  float64       // part of the pieces it sends wrong
	Faults   []Fault
}

// says is the rate the tracker is told.
func (h Host) says() int {
	if h.Says > 0 {
		return h.Says
	}
	return h.Mbps
}

// Fault is something that happens to one host.
type Fault struct {
	Kind FaultKind
	At   time.Duration
	For  time.Duration // of a stall
}

// FaultKind says what happens.
type FaultKind int

// The faults of a host.
const (
	Killed   FaultKind = iota // the agent ends: its connections are reset
	PowerCut                  // no packet comes any more
	Stall                     // it does nothing for a while, its connections stay
)

func (k FaultKind) String() string { return [...]string{"killed", "power cut", "stall"}[k] }

// Outage is a time without the server.
type Outage struct {
	At, For time.Duration
	Process bool // the seed is down as well, and the tracker has forgotten everything
}

// Cut is a time in which a room reaches nobody outside, nor the server.
type Cut struct {
	Room    int
	At, For time.Duration
}

// Quiet reports whether nothing goes wrong in s, nobody is slow and all come
// within the time of a few pieces: then the number of copies is bounded as well.
// (Who comes later finds its room's hosts further on than it can follow: it is
// a late joiner, fetches from the end of a chain, and costs a copy.)
func (s *Scenario) Quiet() bool {
	first, last := s.Hosts[0].Join, s.Hosts[0].Join
	for _, h := range s.Hosts {
		first, last = min(first, h.Join), max(last, h.Join)
	}
	if last-first > s.quietBoot() {
		return false
	}
	for _, h := range s.Hosts {
		slow := h.Mbps < s.usual() || float64(h.DiskMBps)*1e6 < 1.1*bytesPerSecond(h.Mbps)
		if len(h.Faults) > 0 || h.Corrupt > 0 || h.Late || slow {
			return false
		}
	}
	return len(s.Outages)+len(s.Cuts) == 0
}

// quietBoot is the time in which the hosts of a quiet swarm come: that of 2 % of
// the pieces, or of 8 (tracker/plan counts who is so far behind as late).
func (s *Scenario) quietBoot() time.Duration {
	return s.Ideal() * time.Duration(max(8, s.Cells/50)) / time.Duration(s.Cells) * 9 / 10
}

// usual is the payload rate of a host that is not slow, Mb/s.
func (s *Scenario) usual() int {
	usual := 0
	for _, h := range s.Hosts {
		usual = max(usual, h.Mbps)
	}
	return usual
}

// Ideal is S over the payload rate of a usual host: what one host alone needs.
func (s *Scenario) Ideal() time.Duration {
	return seconds(float64(s.Cells) * float64(s.Cell) / bytesPerSecond(min(s.usual(), s.SeedMbps)))
}

// Limit is the longest time a run may take before it counts as hung: slow
// hosts, disks and every failure one after the other, with much air.
func (s *Scenario) Limit() time.Duration {
	slow := s.Ideal()
	for _, h := range s.Hosts {
		rate := min(bytesPerSecond(h.Mbps), float64(h.DiskMBps)*1e6)
		slow = max(slow, seconds(float64(s.Cells)*float64(s.Cell)/rate))
	}
	d := 2*slow + 120*time.Second
	for _, h := range s.Hosts {
		d = max(d, h.Join+2*slow+120*time.Second)
		for _, f := range h.Faults {
			d += 15*time.Second + f.For
		}
		if h.Corrupt > 0 {
			d += 30*time.Second + s.Ideal()
		}
	}
	for _, o := range s.Outages {
		d += o.For + 60*time.Second
	}
	for _, c := range s.Cuts {
		d += c.For + 60*time.Second
	}
	return d
}

func (s *Scenario) String() string {
	kinds := map[string]int{}
	for _, h := range s.Hosts {
		for _, f := range h.Faults {
			kinds[f.Kind.String()]++
		}
		if h.Late {
			kinds["late"]++
		}
		if h.Corrupt > 0 {
			kinds["corrupt"]++
		}
		if h.Mbps < s.usual() {
			kinds["slow"]++
		}
	}
	return fmt.Sprintf("%s seed %d: %d hosts, %d rooms, %d cells of %d KiB, outages %d, cuts %d, %v",
		s.Name, s.Seed, len(s.Hosts), len(s.Rooms), s.Cells, s.Cell>>10, len(s.Outages), len(s.Cuts), kinds)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func bytesPerSecond(mbps int) float64 { return float64(mbps) * 1e6 / 8 }
