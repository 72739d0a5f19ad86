package deploy

import (
	"testing"
	"time"

	"labswarm/api"
	"labswarm/swarm/peer"
)

func TestBrake(t *testing.T) {
	for name, tt := range map[string]struct {
		l    load
		want string
	}{
		"waits for its parent":   {load{queue: 1, share: 32, mbps: 300, link: 1000, cpu: 0.2}, ""},
		"link at its speed":      {load{queue: 1, share: 32, mbps: 940, link: 1000, cpu: 0.4}, api.BrakeLink},
		"slow link":              {load{queue: 0, share: 32, mbps: 94, link: 100, cpu: 0.1}, api.BrakeLink},
		"link not known":         {load{queue: 0, share: 32, mbps: 94, cpu: 0.1}, ""},
		"disk":                   {load{queue: 30, share: 32, mbps: 300, link: 1000, cpu: 0.3}, api.BrakeDisk},
		"disk as fast as link":   {load{queue: 20, share: 32, mbps: 930, link: 1000, cpu: 0.3}, api.BrakeDisk},
		"processor":              {load{queue: 30, share: 32, mbps: 300, link: 1000, cpu: 0.98}, api.BrakeCPU},
		"processor, no queue":    {load{queue: 0, share: 32, mbps: 300, link: 1000, cpu: 0.98}, api.BrakeCPU},
		"busy with other things": {load{queue: 0, share: 32, cpu: 1}, ""},
	} {
		if got := tt.l.brake(); got != tt.want {
			t.Errorf("%s: brake %q; want %q", name, got, tt.want)
		}
	}
}

// TestBrakesNeedTwoLooks: the first report has nothing to compare with.
func TestBrakesNeedTwoLooks(t *testing.T) {
	var b brakes
	if got := b.look(time.Second, peer.Stats{Queue: 32, WireReceived: 1 << 40}, 64, 100); got != "" {
		t.Errorf("first look: %q; want nothing", got)
	}
	// The processors of the machine that runs this test may be busy too.
	if got := b.look(3*time.Second, peer.Stats{Queue: 32, WireReceived: 1<<40 + 1<<20}, 64, 100); got != api.BrakeDisk && got != api.BrakeCPU {
		t.Errorf("with a full queue: %q; want disk or cpu", got)
	}
}

func TestBootLink(t *testing.T) {
	nics := []api.NIC{{Name: "a", SpeedMbps: 100}, {Name: "b", SpeedMbps: 1000, Boot: true}}
	for _, tt := range []struct {
		nics []api.NIC
		want int
	}{{nil, 0}, {nics, 1000}, {nics[:1], 100}, {append(nics[:1:1], nics[0]), 0}} {
		if got := bootLink(api.Evidence{NICs: tt.nics}); got != tt.want {
			t.Errorf("bootLink(%v) = %d; want %d", tt.nics, got, tt.want)
		}
	}
}
