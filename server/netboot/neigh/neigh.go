// Package neigh reads the kernel's IPv4 neighbour (ARP) table of one interface,
// so that a TFTP or HTTP client without a MAC in its request can be told by its
// address. It sends nothing. Called by server/netboot.
package neigh

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"labswarm/server/inventory/ident"
)

const (
	maxAge    = time.Second            // a hit may be this old
	missAge   = 100 * time.Millisecond // a miss reads again, but not per packet of a flood
	maxStored = 8192                   // entries kept of one reading
)

// Table caches the neighbour table of one interface.
type Table struct {
	ifIndex int

	mu     sync.Mutex
	readAt time.Time
	macs   map[netip.Addr]string
}

// New returns a table for the interface with this index.
func New(ifIndex int) *Table { return &Table{ifIndex: ifIndex} }

// Lookup returns the canonical MAC of ip, if the kernel knows it now.
func (t *Table) Lookup(ip netip.Addr) (string, bool) {
	t.mu.Lock()
	mac, ok := t.macs[ip]
	age := time.Since(t.readAt)
	t.mu.Unlock()
	if (ok && age < maxAge) || (!ok && age < missAge) {
		return mac, ok
	}
	fresh, err := read(t.ifIndex)
	if err != nil {
		return mac, ok // an old entry is better than none
	}
	t.mu.Lock()
	t.macs, t.readAt = fresh, time.Now()
	t.mu.Unlock()
	mac, ok = fresh[ip]
	return mac, ok
}

func read(ifIndex int) (map[netip.Addr]string, error) {
	list, err := netlink.NeighList(ifIndex, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("read neighbour table: %w", err)
	}
	out := make(map[netip.Addr]string, len(list))
	for _, n := range list {
		ip, ok := netip.AddrFromSlice(n.IP)
		if !ok || len(out) >= maxStored {
			continue
		}
		if mac, err := ident.MACFromBytes(n.HardwareAddr); err == nil {
			out[ip.Unmap()] = mac
		}
	}
	return out, nil
}
