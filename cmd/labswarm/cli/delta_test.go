package cli

import (
	"testing"

	"labswarm/api"
)

func TestCellsInWords(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name string
		s    api.Slot
		want string
	}{
		{"not looked yet", api.Slot{}, ""},
		{"delta", api.Slot{CellsKept: 960, CellsWritten: 40, BytesFromSeed: 10 * mib, BytesFromPeers: 30 * mib},
			"1000 cells: 960 kept, 40 fetched (10.0 MiB from the server, 30.0 MiB from other PCs)"},
		{"nothing to do", api.Slot{CellsKept: 1000}, "all 1000 cells were on its disk, none fetched"},
		{"two attempts", api.Slot{CellsKept: 600, CellsWritten: 1000, BytesFromSeed: 1000 * mib}, "1000 cells: 0 kept, 1000 fetched (1000 MiB from the server, 0 B from other PCs)"},
	} {
		if got := cellsLine(c.s, 1000); got != c.want {
			t.Errorf("%s: %q; want %q", c.name, got, c.want)
		}
	}
	j := api.Job{Cells: 1000, Slots: []api.Slot{
		{Verified: true, CellsKept: 960, CellsWritten: 40, BytesFromSeed: 40 * mib}, {Verified: true, CellsKept: 1000}, {CellsWritten: 5},
	}}
	if got, want := cellsOfJob(j), "2 PCs of 1000 cells: 98.0 % of the cells were on their disks, 2.0 % were fetched (40.0 MiB from the server, 0 B from other PCs)"; got != want {
		t.Errorf("job: %q; want %q", got, want)
	}
	if got := cellsOfJob(api.Job{Cells: 1000, Slots: []api.Slot{{CellsWritten: 5}}}); got != "" {
		t.Errorf("a job without a proven PC: %q", got)
	}
}
