package hosts

import (
	"slices"
	"time"

	"labswarm/tui/screen"
	"labswarm/tui/screen/list"
)

// sortBySeen puts the hosts that were not seen for longest first.
func sortBySeen(lines []list.Line, in screen.In) {
	seen := map[string]time.Time{}
	for i := range in.S.Rooms {
		for k := range in.S.Rooms[i].Hosts {
			h := &in.S.Rooms[i].Hosts[k]
			seen[h.Name] = h.LastSeen
		}
	}
	slices.SortStableFunc(lines, func(a, b list.Line) int { return seen[a.Key].Compare(seen[b.Key]) })
}
