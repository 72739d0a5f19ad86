package control

import (
	"cmp"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"

	"labswarm/api"
)

// Holder is a host of a live job that has cells of an image on its disk.
type Holder struct {
	Host   string
	Addr   netip.AddrPort // where it serves them
	Have   int            // cells
	Proven bool           // all of them were read back
}

// holderSilence is for how long a host that says nothing still counts as there.
const holderSilence = 15 * time.Second

// Holders lists the hosts that serve cells of an image now, the best first: proven disks, then those that have most. They
// know the server by PeerPass.
func (e *Engine) Holders(infoHash [20]byte) []Holder {
	ih, now := hex.EncodeToString(infoHash[:]), time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []Holder
	for k, m := range e.members {
		l := e.live[k]
		if m.infoHash != ih || l == nil || !l.ip.IsValid() || l.peerPort < 1 || l.peerPort > 65535 || l.progress.BootID != m.bootID {
			continue
		}
		if now.Sub(l.heard) > holderSilence || !l.progress.InSwarm || l.progress.CellsHave == 0 {
			continue
		}
		out = append(out, Holder{Host: k.host, Addr: netip.AddrPortFrom(l.ip, uint16(l.peerPort)), Have: l.progress.CellsHave,
			Proven: l.progress.State == api.StateDone})
	}
	slices.SortFunc(out, func(a, b Holder) int {
		if a.Proven != b.Proven {
			if a.Proven {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.Have, a.Have), strings.Compare(a.Host, b.Host))
	})
	return out
}
