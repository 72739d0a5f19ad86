package relays

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"

	"labswarm/api"
)

// Holder is a relay that serves all of a version.
type Holder struct {
	Name string
	Addr netip.AddrPort
}

// Holders lists the relays that are there and hold all of a version, by name.
func (b *Book) Holders(infoHash [20]byte) []Holder {
	ih := hex.EncodeToString(infoHash[:])
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Holder
	for _, r := range b.relays {
		if r.alive && slices.ContainsFunc(r.report.Images, func(m api.RelayImage) bool {
			return m.InfoHash == ih && m.Serving && m.Pieces > 0 && m.Have == m.Pieces
		}) {
			out = append(out, Holder{r.rec.Name, r.addr})
		}
	}
	slices.SortFunc(out, func(a, b Holder) int { return strings.Compare(a.Name, b.Name) })
	return out
}
