package cli

import (
	"fmt"

	"labswarm/api"
	"labswarm/internal/units"
)

// cells is what a PC found on its disk and what it had to fetch. Fetched counts every attempt of the job, so a PC that was
// switched off in the middle has kept less than its last look at the disk said.
func cells(s api.Slot, total int) (kept, fetched int) {
	return max(0, min(s.CellsKept, total-s.CellsWritten)), s.CellsWritten
}

// cellsLine says in words what a PC had and what it fetched; "" before that is known.
func cellsLine(s api.Slot, total int) string {
	k, f := cells(s, total)
	if k+f == 0 || total == 0 {
		return ""
	}
	if f == 0 {
		return fmt.Sprintf("all %d cells were on its disk, none fetched", total)
	}
	return fmt.Sprintf("%d cells: %d kept, %d fetched (%s from the server, %s from other PCs)", total, k, f,
		units.FormatBytes(s.BytesFromSeed), units.FormatBytes(s.BytesFromPeers))
}

// cellsOfJob is the same for all PCs that were proven.
func cellsOfJob(j api.Job) string {
	var n, total, kept, fetched int
	var seed, peers int64
	for _, s := range j.Slots {
		if !s.Verified {
			continue
		}
		k, f := cells(s, j.Cells)
		n, total, kept, fetched = n+1, total+j.Cells, kept+k, fetched+f
		seed, peers = seed+s.BytesFromSeed, peers+s.BytesFromPeers
	}
	if total == 0 {
		return ""
	}
	return fmt.Sprintf("%d PCs of %d cells: %.1f %% of the cells were on their disks, %.1f %% were fetched (%s from the server, %s from other PCs)",
		n, j.Cells, 100*float64(kept)/float64(total), 100*float64(fetched)/float64(total), units.FormatBytes(seed), units.FormatBytes(peers))
}
