package deploy

import (
	"log/slog"
	"testing"

	"labswarm/api"
)

// TestBudget: the bars of the design over machines and cells, and some figures.
func TestBudget(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		ram, cell  int64
		compressed bool
		want       memory
	}{
		{512 * mib, mib, false, memory{42, 0}},
		{16 << 30, mib, false, memory{52, 0}},
		{16 << 30, 4 * mib, false, memory{13, 0}},
		{256 * mib, 4 * mib, false, memory{8, 0}},
		{512 * mib, mib, true, memory{17, 512*mib/12 - 17*mib}},
		{1 << 30, mib, true, memory{34, 1<<30/12 - 34*mib}},
		{2 << 30, mib, true, memory{44, 68 * mib}},
		{2 << 30, 256 << 10, true, memory{179, 112*mib - 179*256<<10}},
		{64 << 30, 4 * mib, true, memory{11, 68 * mib}},
		{256 * mib, 4 * mib, true, memory{8, 4 * mib}},
	} {
		if got := budget(tt.ram, tt.cell, tt.compressed); got != tt.want {
			t.Errorf("budget(%d MiB, cells of %d KiB, %v) = %+v; want %+v", tt.ram/mib, tt.cell>>10, tt.compressed, got, tt.want)
		}
	}
	for _, ram := range []int64{0, 256 * mib, 512 * mib, 1 << 30, 2<<30 - 1, 2 << 30, 4 << 30, 64 << 30} {
		for _, cell := range []int64{256 << 10, mib, 2 * mib, 4 * mib} {
			for _, compressed := range []bool{false, true} {
				m := budget(ram, cell, compressed)
				all := int64(m.buffers)*cell + m.frames
				limit := max(ram/ramShare, minBuffers*cell+cell)
				if compressed {
					limit = min(limit, 112*mib) // RSS 160 MiB with the heap; 128 MiB is the bar at 2 GiB
				} else {
					limit = min(limit, 64*mib) // RSS 96 MiB
				}
				if m.buffers < minBuffers || all > limit || compressed != (m.frames > 0) {
					t.Errorf("budget(%d MiB, cells of %d KiB, %v) = %+v, %d MiB; want at most %d", ram/mib, cell>>10, compressed, m, all/mib, limit/mib)
				}
			}
		}
	}
}

func TestCompressed(t *testing.T) {
	nics := func(mbps int) []api.NIC {
		return []api.NIC{{Name: "eth0", SpeedMbps: 40_000}, {Name: "eth1", SpeedMbps: mbps, Boot: true}}
	}
	for _, tt := range []struct {
		policy string
		nics   []api.NIC
		bus    string
		want   bool
	}{
		{"", nics(1000), "nvme", true}, {"", nics(0), "nvme", true}, {"", nil, "nvme", true},
		{"", nics(10_000), "nvme", false}, {"", nics(10_000), "virtio", false}, {"", nics(10_000), "sata", true}, {"", nics(10_000), "usb", true}, {"", nics(25_000), "mmc", true},
		{"on", nics(10_000), "nvme", true}, {"off", nics(1000), "sata", false},
	} {
		s := &session{cfg: Config{Log: slog.New(slog.DiscardHandler)}, frames: tt.policy}
		if got := s.compressed(tt.nics, api.Disk{Bus: tt.bus}); got != tt.want {
			t.Errorf("compressed(%q, %+v, %s) = %v; want %v", tt.policy, tt.nics, tt.bus, got, tt.want)
		}
	}
}
