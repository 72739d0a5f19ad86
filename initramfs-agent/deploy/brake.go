package deploy

import (
	"time"

	"labswarm/api"
	"labswarm/initramfs-agent/bootenv"
	"labswarm/swarm/peer"
)

// Shares from which on something counts as the brake.
const (
	linkFull = 0.85 // of the interface's speed in payload; headers take another 5 %
	cpuFull  = 0.90 // of all processors
)

// brakes finds out what in this machine limits the rate of reception, from one
// report to the next.
type brakes struct {
	at    time.Duration
	wire  int64 // payload bytes received, as they travelled
	busy  uint64
	total uint64
}

// load is what happened between two reports.
type load struct {
	queue int     // pieces received and not written yet, now
	share int     // pieces that may be so at once
	mbps  float64 // payload received
	link  int     // speed of the interface, Mb/s; 0 = unknown
	cpu   float64 // share of the processors' time that was used
}

// look takes the figures of this moment; pool is the number of piece buffers.
func (b *brakes) look(now time.Duration, st peer.Stats, pool, link int) string {
	busy, total := bootenv.CPUTicks()
	old := *b
	*b = brakes{at: now, wire: st.WireReceived, busy: busy, total: total}
	if old.at == 0 || now-old.at < 500*time.Millisecond {
		return ""
	}
	l := load{queue: st.Queue, share: pool / 2, link: link, mbps: float64(b.wire-old.wire) * 8 / 1e6 / (now - old.at).Seconds()}
	if total > old.total && busy >= old.busy {
		l.cpu = float64(busy-old.busy) / float64(total-old.total)
	}
	return l.brake()
}

// brake names the bottleneck. When half of the buffers that may wait are
// waiting, what comes after reception is the brake: the processor if it has no
// time left, else the disk. "" means that it lies elsewhere: with the parent,
// or on the way.
func (l load) brake() string {
	waiting := l.share > 0 && l.queue*2 >= l.share
	switch {
	case l.cpu >= cpuFull && (waiting || l.mbps > 0):
		return api.BrakeCPU
	case waiting:
		return api.BrakeDisk
	case l.link > 0 && l.mbps >= linkFull*float64(l.link):
		return api.BrakeLink
	}
	return ""
}

// bootLink is the speed of the interface this machine booted from, Mb/s, 0 =
// unknown.
func bootLink(ev api.Evidence) int {
	for _, n := range ev.NICs {
		if n.Boot || len(ev.NICs) == 1 {
			return n.SpeedMbps
		}
	}
	return 0
}
