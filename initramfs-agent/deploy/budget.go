package deploy

import (
	"labswarm/api"
	"labswarm/swarm/frame"
)

// Bounds of the data plane's memory, in bytes. With a Go heap of some 30 MiB they
// keep the agent below 96 MiB when cells travel plain and below 160 MiB when they
// travel compressed, whatever the size of the image.
const (
	maxPlain      = 52 << 20
	maxCompressed = 112 << 20
	ramShare      = 12 // the data plane takes this part of the machine's memory at most
	minBuffers    = 8  // below that the data plane does not run
)

// memory is how the data plane's memory is divided.
type memory struct {
	buffers int   // of one cell: being received, written, sent, and the cache of plain cells
	frames  int64 // bytes of compressed cells kept for the next host
}

// budget divides the data plane's memory on a machine with ram bytes, for cells of
// the given size. Compressed cells get three fifths: what the next host lags
// behind costs a third of the memory in that form.
func budget(ram, cell int64, compressed bool) memory {
	if !compressed {
		return memory{buffers: int(max(min(ram/ramShare, maxPlain)/cell, minBuffers))}
	}
	all := min(ram/ramShare, maxCompressed)
	n := max(all*2/5/cell, minBuffers)
	// Large cells in a small machine: the buffers come first.
	return memory{buffers: int(n), frames: max(all-n*cell, cell)}
}

// compressed decides whether cells travel compressed to this host: what the server
// says, or by the speed of the adapter and of the disk.
func (s *session) compressed(nics []api.NIC, d api.Disk) bool {
	s.mu.Lock()
	policy := s.frames
	s.mu.Unlock()
	mbps := linkMbps(nics)
	use := frame.Pays(policy, mbps, busRate(d.Bus))
	s.cfg.Log.Info("compressed cells", "use", use, "policy", first(policy, frame.Auto), "link_mbps", mbps, "disk_bus", d.Bus)
	return use
}

// linkMbps is the speed of the adapter the machine booted from, 0 when it is not
// known.
func linkMbps(nics []api.NIC) int {
	for _, n := range nics {
		if n.Boot {
			return n.SpeedMbps
		}
	}
	return 0
}

// busRate is what a disk on the given bus can take at most, bytes per second; 0
// when the bus is no bound.
func busRate(bus string) int64 {
	switch bus {
	case "sata":
		return 600e6 // 6 Gb/s, 8b/10b coded
	case "usb":
		return 500e6 // 5 Gb/s, 8b/10b coded
	case "mmc":
		return 400e6 // eMMC 5.1, HS400
	}
	return 0
}
