package sim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	gigabit   = 957     // Mb/s of payload on a 1 Gb/s link: 1000 / Overhead
	ssd       = 450     // MB/s
	mib       = 1 << 20 // bytes
	perRoom   = 30      // hosts
	lanLag    = 150 * time.Microsecond
	bootSpace = 300 * time.Millisecond // within which the hosts of a table row come
)

// Quiet is n equal hosts in rooms of 30 behind uplinks of the same rate, and a
// server of that rate: the law of the chain, nothing goes wrong.
func Quiet(n, cells int) *Scenario {
	s := &Scenario{Name: "quiet", Seed: uint64(n), Cells: cells, Cell: mib, Blocks: 1, SeedMbps: gigabit, SeedTold: true, Latency: lanLag}
	r := rand.New(rand.NewPCG(uint64(n), 1))
	s.rooms((n + perRoom - 1) / perRoom)
	for i := range n {
		s.Hosts = append(s.Hosts, Host{Room: i / perRoom, Mbps: gigabit, Told: true, DiskMBps: ssd, Join: chance(r, bootSpace)})
	}
	return s
}

// Names of the scenarios that Disturbed makes.
const (
	DisturbedName = "1 % die, 5 % slow"
	RoomsName     = "same, rooms of 30"
)

// Disturbed is Quiet with 1 % of the hosts dying and 5 % behind a link of a
// tenth of the speed, which the tracker knows, at random: all at one switch, or
// in rooms of 30 behind uplinks that a chain fills.
func Disturbed(n, cells int, seed uint64, inRooms bool) *Scenario {
	s := Quiet(n, cells)
	s.Name, s.Seed = RoomsName, seed
	if !inRooms {
		s.Name, s.Rooms = DisturbedName, s.Rooms[:1]
		for i := range s.Hosts {
			s.Hosts[i].Room = 0
		}
	}
	r := rand.New(rand.NewPCG(seed, 2))
	for i, k := range r.Perm(n) {
		h := &s.Hosts[k]
		switch {
		case i < max(n/100, 1):
			h.Faults = append(h.Faults, Fault{Kind: FaultKind(r.IntN(2)), At: chance(r, s.Ideal())})
		case i < max(n/100, 1)+max(n/20, 1):
			h.Mbps = gigabit / 10
		}
	}
	return s
}

// Bench is a scenario of the bench in network namespaces (e2e/swarmbench): n
// hosts at 100 Mb/s, cells of 256 KiB. name says what is wrong, nil for another
// one:
//
//   - slow: the second host to join has a tenth of the rate, and nobody knows;
//   - slow-known: the same, and it says so;
//   - slow-head: the first one has, which feeds all others, and nobody knows;
//   - partition: the second half stands in a room of its own, which is cut off
//     for 20 s after a third of the time.
func Bench(name string, n, cells int) *Scenario {
	const fast, slow, apart = 96, 10, 100 * time.Millisecond // Mb/s of payload on a link of 100 and 10 Mb/s
	s := &Scenario{Name: name, Seed: uint64(n), Cells: cells, Cell: mib / 4, Blocks: 8, SeedMbps: fast, SeedTold: true, Latency: lanLag}
	s.rooms(1)
	for i := range n {
		s.Hosts = append(s.Hosts, Host{Mbps: fast, Told: true, DiskMBps: ssd, Join: time.Duration(i) * time.Millisecond})
	}
	place := 1
	switch name {
	case "slow", "slow-known":
	case "slow-head":
		place = 0
	case "partition":
		s.rooms(1)
		for i := range s.Hosts {
			s.Hosts[i].Room = 2 * i / n
		}
		s.Cuts = []Cut{{Room: 1, At: s.Ideal() / 3, For: 20 * time.Second}}
		return s
	default:
		return nil
	}
	for i := place + 1; i < n; i++ {
		s.Hosts[i].Join += apart
	}
	h := &s.Hosts[min(place, n-1)]
	h.Mbps = slow
	if name != "slow-known" {
		h.Says = fast
	}
	return s
}

func (s *Scenario) rooms(n int) {
	for range n {
		s.Rooms = append(s.Rooms, Room{Name: fmt.Sprintf("r%02d", len(s.Rooms)), UplinkMbps: gigabit})
	}
}

func chance(r *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(d) + 1))
}

// Random is what a seed number stands for: a swarm of 1 to most hosts, quiet or
// with any mixture of failures.
func Random(seed uint64, most int) *Scenario {
	r := rand.New(rand.NewPCG(seed, 3))
	n := 1 + r.IntN(most)
	if r.IntN(3) > 0 {
		n = 1 + r.IntN(max(most/4, 1))
	}
	s := &Scenario{Name: "random", Seed: seed, Cell: []int64{mib / 4, mib, 4 * mib}[r.IntN(3)],
		Blocks: []int{1, 2, 4}[r.IntN(3)], SeedMbps: gigabit, SeedTold: r.IntN(2) == 0, Latency: lanLag}
	s.Cells = 100 + r.IntN(700)
	s.rooms(1 + r.IntN(4))
	usual := []int{94, gigabit, gigabit, 2300}[r.IntN(4)]
	if r.IntN(4) == 0 {
		s.SeedMbps = 10 * gigabit
	}
	told, disk := r.IntN(2) == 0, 80+r.IntN(300)
	for range n {
		s.Hosts = append(s.Hosts, Host{Room: r.IntN(len(s.Rooms)), Mbps: usual, Told: told, DiskMBps: disk + r.IntN(1500)})
	}
	boot := []time.Duration{s.quietBoot(), 3 * time.Second}[r.IntN(2)]
	for i := range s.Hosts {
		s.Hosts[i].Join = chance(r, boot)
	}
	for i := range s.Rooms {
		s.Rooms[i].UplinkMbps = max(usual, gigabit)
	}
	if r.IntN(4) > 0 {
		s.disturb(r)
	}
	return s
}

// disturb adds failures to a scenario.
func (s *Scenario) disturb(r *rand.Rand) {
	ideal := s.Ideal()
	some := func(one int) bool { return r.IntN(one) == 0 }
	share := func(part float64, do func(h *Host)) {
		for i := range s.Hosts {
			if r.Float64() < part {
				do(&s.Hosts[i])
			}
		}
	}
	if some(2) {
		share([]float64{0.01, 0.1}[r.IntN(2)], func(h *Host) {
			h.Faults = append(h.Faults, Fault{Kind: FaultKind(r.IntN(2)), At: h.Join + chance(r, ideal)})
		})
	}
	if some(2) {
		part, told := []int{2, 4, 10, 20}[r.IntN(4)], some(2)
		share(0.05, func(h *Host) { h.Mbps, h.Told = max(h.Mbps/part, 5), told })
	}
	if some(3) {
		share(0.05, func(h *Host) {
			h.Faults = append(h.Faults, Fault{Kind: Stall, At: h.Join + chance(r, ideal), For: time.Second + chance(r, 20*time.Second)})
		})
	}
	if some(3) {
		share(0.25, func(h *Host) { h.Join, h.Late = h.Join+ideal*3/10, true })
	}
	if some(4) {
		s.corrupt(r)
	}
	if some(5) {
		s.Cuts = append(s.Cuts, Cut{Room: r.IntN(len(s.Rooms)), At: chance(r, ideal), For: 20 * time.Second})
	}
	if some(5) {
		s.Outages = append(s.Outages, Outage{At: chance(r, ideal), For: 60 * time.Second, Process: some(2)})
	}
}

// corrupt makes some peers send wrong pieces: a quarter of them one in a
// hundred, or, in a small swarm, five of six every one.
func (s *Scenario) corrupt(r *rand.Rand) {
	part, wrong := 0.25, 0.01
	if r.IntN(3) == 0 {
		s.Hosts = s.Hosts[:min(len(s.Hosts), 6)]
		part, wrong = 5.0/6, 1
	}
	for _, k := range r.Perm(len(s.Hosts))[:int(part*float64(len(s.Hosts)))] {
		s.Hosts[k].Corrupt = wrong
	}
}
