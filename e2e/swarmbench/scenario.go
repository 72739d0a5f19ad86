package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Disturbances of a scenario.
const (
	disturbKill      = "kill"       // SIGKILL one host in the middle at half time
	disturbCut       = "cut"        // cut one host's link at half time
	disturbLate      = "late"       // a quarter of the hosts begins after 30 % of the ideal time
	disturbSlow      = "slow"       // the second host's link has a tenth of the rate, nobody knows
	disturbSlowHead  = "slow-head"  // the same for the first host, the only one that the seed feeds
	disturbSlowKnown = "slow-known" // the second host's, and it reports its link's speed
	disturbPartition = "partition"  // the link between two rooms is down for 20 s
)

const partitionTime = 20 * time.Second

// Kinds of payload.
const (
	dataRandom = "random" // does not compress
	dataUsr    = "usr"    // an ext4 image of files from /usr
	dataSparse = "sparse" // zeros, and scenario.fresh cells that compress by half
)

// scenario is one room, one payload and at most one disturbance; one table row
// for each contender.
type scenario struct {
	name        string
	n           int
	mbit        float64 // of every link, 0 = unshaped
	mib         int     // payload
	cellKiB     int
	data        string
	rooms       int // 2: the second half of the hosts stands behind an uplink of link rate
	disturbance string
	fresh       int // > 0: every host holds the image already, but for so many cells
	bad         int // hosts that hold the image from the start with wrong bytes in it
	badShare    float64
	schemes     []string
}

// plain is a scenario in one room with random bytes.
func plain(name string, n int, mbit float64, mib, cellKiB int, schemes ...string) scenario {
	return scenario{name: name, n: n, mbit: mbit, mib: mib, cellKiB: cellKiB, data: dataRandom, rooms: 1, schemes: schemes}
}

// with returns sc with a disturbance and a name that says so.
func (sc scenario) with(disturbance string) scenario {
	sc.name, sc.disturbance = disturbance, disturbance
	if disturbance == disturbPartition {
		sc.rooms = 2
	}
	return sc
}

// ideal is payload over link rate; a second when unshaped.
func (sc scenario) ideal() time.Duration {
	if sc.mbit == 0 {
		return time.Second
	}
	return time.Duration(float64(sc.bytes()) * 8 / (sc.mbit * 1e6) * float64(time.Second))
}

// bytes travel to each host: the payload, or the part it does not hold.
func (sc scenario) bytes() int64 {
	if sc.fresh > 0 {
		return int64(sc.fresh) * int64(sc.cellKiB) << 10
	}
	return int64(sc.mib) << 20
}

func (sc scenario) cells() int { return sc.mib << 10 / sc.cellKiB }

// wantsFrames says that somebody sends this payload compressed.
func (sc scenario) wantsFrames() bool {
	return slices.ContainsFunc(schemes(), func(s scheme) bool { return s.zip && slices.Contains(sc.schemes, s.name) })
}

// isLate says that host i is among the last quarter and that quarter is late.
func (sc scenario) isLate(i int) bool {
	return sc.disturbance == disturbLate && i > sc.n-sc.lateHosts()
}

// lateHosts is how many hosts come late.
func (sc scenario) lateHosts() int {
	if sc.disturbance != disturbLate {
		return 0
	}
	return max(1, sc.n/4)
}

// slowHost is the host with the slow link, 0 = none.
func (sc scenario) slowHost() int {
	switch sc.disturbance {
	case disturbSlowHead:
		return 1
	case disturbSlow, disturbSlowKnown:
		return 2
	}
	return 0
}

// isBad says that host i serves wrong bytes. The bad ones are the first: they
// are there, complete, before the others begin.
func (sc scenario) isBad(i int) bool { return i >= 1 && i <= sc.bad }

// roomOf is the room of host i, counted from 0; the seed is in the first.
func (sc scenario) roomOf(i int) int {
	if sc.rooms < 2 || i == 0 {
		return 0
	}
	return (i - 1) * sc.rooms / sc.n
}

// check refuses what cannot run.
func (sc scenario) check() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("scenario %s: "+format, append([]any{sc.name}, a...)...)
	}
	switch {
	case sc.n < 1 || sc.n > 2000:
		return bad("%d hosts: want 1 to 2000", sc.n)
	case sc.mbit < 0 || sc.mib < 1 || sc.cellKiB < 16 || sc.mib<<10%sc.cellKiB != 0:
		return bad("rate, payload and cell must be positive, and the payload whole cells")
	case sc.disturbance != "" && (sc.mbit == 0 || sc.n < 2):
		return bad("disturbances need shaped links and at least 2 hosts")
	case sc.rooms == 2 && sc.n < 2:
		return bad("two rooms need two hosts")
	case sc.bad >= sc.n && sc.bad > 0:
		return bad("all hosts are bad")
	}
	for _, s := range sc.schemes {
		if !slices.ContainsFunc(schemes(), func(x scheme) bool { return x.name == s }) {
			return bad("contender %q is not known", s)
		}
	}
	return nil
}

// Contenders of the raw table that can run at any size. http and aria2-ours are
// stars: their time grows with N.
var rivals = []string{"libtorrent", "libtorrent-tuned", "aria2", "anacrolix", "udpcast"}

// raw is the raw table's scenario with n hosts.
func raw(n int, schemes ...string) scenario {
	return plain(fmt.Sprintf("raw n%d", n), n, 100, 256, 256, append([]string{"ours"}, schemes...)...)
}

// presets are the scenarios of `make bench-swarm BENCH_SWARM="name ..."`, in the
// order in which `--list` prints them.
func presets() []preset {
	wide := plain("raw n100", 100, 15, 64, 64, "ours")
	zip := plain("frames n16", 16, 100, 256, 256, "ours", "ours-z", "ours-tls-z")
	zip.data = dataUsr
	rooms := plain("2 rooms", 16, 100, 256, 256, "ours")
	rooms.rooms = 2
	dis := plain("", 16, 100, 256, 256, "ours")
	p := []preset{
		{"raw", "ours raw at 1, 2, 4, 8 and 16 hosts, 256 MiB at 100 Mbit/s; multicast beside it", []scenario{
			raw(1, "udpcast", "http"), raw(2, "udpcast"), raw(4, "http"), raw(8, "udpcast"), raw(16, "ours-tls")}},
		{"rivals", "the other programs at 4 and 16 hosts, the same payload", []scenario{
			plain("raw n4", 4, 100, 256, 256, rivals...), plain("raw n16", 16, 100, 256, 256, rivals...)}},
		{"wide", "100 hosts at 15 Mbit/s, 64 MiB in 64 KiB cells", []scenario{wide}},
		{"frames", "compressed cells: 16 hosts, an ext4 image of /usr", []scenario{zip}},
		{"rooms", "two rooms of 8 with one uplink of link rate", []scenario{rooms}},
		{"disturb", "one host killed, cut off, slow (known or not), a quarter late; a partition", []scenario{
			dis.with(disturbKill), dis.with(disturbCut), dis.with(disturbSlowKnown), dis.with(disturbSlow),
			dis.with(disturbSlowHead), dis.with(disturbLate), dis.with(disturbPartition)}},
		{"poison", "hosts that serve wrong bytes: 1 of 4 at 1 %, 5 of 6 at 100 %", poison()},
		{"memory", "peak memory of a host with 262144 cells", memory()},
	}
	var standard []scenario
	for _, x := range p {
		standard = append(standard, x.scenarios...)
	}
	all := rivals
	all = append(slices.Clone(all), "http", "aria2-ours")
	return append(p,
		preset{"standard", "all of the above, 25 minutes", grouped(standard)},
		preset{"full", "standard, and every program at every size, 75 minutes", grouped(append(slices.Clone(standard),
			plain("raw n1", 1, 100, 256, 256, all...), plain("raw n2", 2, 100, 256, 256, all...), plain("raw n4", 4, 100, 256, 256, all...),
			plain("raw n8", 8, 100, 256, 256, all...), plain("raw n16", 16, 100, 256, 256, all...)))},
		preset{"quick", "a look at everything in two minutes; too short to be a figure", quick()},
		preset{"engine", "1 -> 1 and 1 -> 3 unshaped, 1 GiB", engine()},
	)
}

// preset is a named list of scenarios.
type preset struct {
	name, about string
	scenarios   []scenario
}

// poison are the two cases of bad sources.
func poison() []scenario {
	few := plain("1 of 4 bad at 1 %", 4, 100, 64, 64, "ours")
	few.bad, few.badShare = 1, 0.01
	many := plain("5 of 6 bad at 100 %", 6, 100, 64, 64, "ours")
	many.bad, many.badShare = 5, 1
	return []scenario{few, many}
}

// memory compares a large image with a small one: the same cells travel.
func memory() []scenario {
	var out []scenario
	for _, cells := range []int{1024, 262144} {
		sc := scenario{name: fmt.Sprintf("memory %d cells", cells), n: 2, mib: cells, cellKiB: 1024, data: dataSparse, rooms: 1,
			fresh: 256, schemes: []string{"ours", "ours-z"}}
		out = append(out, sc)
	}
	return out
}

// engine is what `make bench-engine` runs.
func engine() []scenario {
	var out []scenario
	for _, data := range []string{dataRandom, dataUsr} {
		for _, n := range []int{1, 3} {
			sc := plain(fmt.Sprintf("1 -> %d", n), n, 0, 1024, 1024, "ours", "ours-tls", "ours-z", "ours-tls-z")
			if sc.data = data; data == dataRandom {
				sc.schemes = append(sc.schemes, "libtorrent-tuned", "anacrolix", "http")
			}
			out = append(out, sc)
		}
	}
	return out
}

// quick has one small scenario of each kind.
func quick() []scenario {
	small := plain("raw n4", 4, 100, 32, 64, "ours", "libtorrent-tuned", "udpcast")
	zip := plain("frames n4", 4, 100, 32, 64, "ours-z")
	zip.data = dataUsr
	rooms := plain("2 rooms", 4, 100, 32, 64, "ours")
	rooms.rooms = 2
	dis := plain("", 4, 100, 32, 64, "ours")
	bad := poison()[0]
	bad.mib = 32
	list := []scenario{small, zip, rooms, dis.with(disturbKill), dis.with(disturbSlowKnown), bad, memory()[1]}
	for i := range list {
		list[i].name = "quick " + list[i].name
	}
	return list
}

// grouped joins scenarios of one name, so that their rows stand side by side and
// nothing runs twice.
func grouped(list []scenario) []scenario {
	var out []scenario
	for _, sc := range list {
		i := slices.IndexFunc(out, func(o scenario) bool { return o.name == sc.name })
		if i < 0 {
			sc.schemes = slices.Clone(sc.schemes)
			out = append(out, sc)
			continue
		}
		for _, s := range sc.schemes {
			if !slices.Contains(out[i].schemes, s) {
				out[i].schemes = append(out[i].schemes, s)
			}
		}
	}
	return out
}

// choose returns the scenarios of the named presets.
func choose(names []string) ([]scenario, error) {
	var out []scenario
	all := presets()
	for _, name := range names {
		i := slices.IndexFunc(all, func(p preset) bool { return p.name == name })
		if i < 0 {
			var known []string
			for _, p := range all {
				known = append(known, p.name)
			}
			return nil, fmt.Errorf("preset %q is not known; there are %s", name, strings.Join(known, ", "))
		}
		out = append(out, all[i].scenarios...)
	}
	return grouped(out), nil
}
