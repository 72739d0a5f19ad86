// Package link brings up the machine's network: the adapter it booted from, an
// address by DHCP, and a lease that is kept renewed.
//
// It knows nothing of servers or orders. Called by main in an initramfs; an
// agent beside a running system uses the addresses that are there.
package link

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"labswarm/api"
)

const (
	bootNICWait = 5 * time.Second  // for the adapter the machine booted from
	carrierWait = 30 * time.Second // spanning tree keeps a port shut this long
	poll        = 100 * time.Millisecond
)

// Up is an adapter that is up and has carrier.
type Up struct {
	Name  string
	MAC   net.HardwareAddr
	Boot  bool // it is the one the machine booted from
	index int
}

// Find waits for the adapter with the MAC bootIF and brings it up. When it does
// not appear within 5 s, or bootIF is "", any adapter with carrier will do, in
// the order of their names. It fails with a Fault (NL) when no adapter has
// carrier in time. say is told what is being waited for.
func Find(ctx context.Context, bootIF string, log *slog.Logger, say func(string)) (Up, error) {
	start := time.Now()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		links, err := adapters()
		if err != nil {
			return Up{}, &api.Fault{Code: api.CodeNoLink, Text: "list network adapters", Err: err}
		}
		late := bootIF == "" || time.Since(start) > bootNICWait
		for _, l := range links {
			boot := mac(l).String() == bootIF
			if !boot && !late {
				continue
			}
			if err := netlink.LinkSetUp(l); err != nil {
				log.Warn("adapter cannot be brought up", "nic", l.Attrs().Name, "err", err)
				continue
			}
			if hasCarrier(l) {
				if !boot && bootIF != "" {
					log.Warn("another adapter than the one booted from is used", "nic", l.Attrs().Name, "wanted", bootIF)
				}
				return Up{Name: l.Attrs().Name, MAC: mac(l), Boot: boot, index: l.Attrs().Index}, nil
			}
		}
		if time.Since(start) > carrierWait {
			return Up{}, &api.Fault{Code: api.CodeNoLink, Text: noLink(links)}
		}
		say(fmt.Sprintf("waiting for the network link, %d s", int(time.Since(start).Seconds())))
		select {
		case <-ctx.Done():
			return Up{}, ctx.Err()
		case <-tick.C:
		}
	}
}

func noLink(links []netlink.Link) string {
	if len(links) == 0 {
		return "no network adapter was found: its driver may be missing from the initramfs"
	}
	names := ""
	for _, l := range links {
		names += " " + l.Attrs().Name
	}
	return "no network link after 30 s on" + names + ": check cable and switch port"
}

func adapters() ([]netlink.Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	links := slices.DeleteFunc(all, func(l netlink.Link) bool {
		return l.Attrs().Flags&net.FlagLoopback != 0 || l.Attrs().EncapType != "ether"
	})
	slices.SortFunc(links, func(a, b netlink.Link) int { return a.Attrs().Index - b.Attrs().Index })
	return links, nil
}

func mac(l netlink.Link) net.HardwareAddr {
	if p := l.Attrs().PermHWAddr; len(p) == 6 {
		return p
	}
	return l.Attrs().HardwareAddr
}

// hasCarrier asks again: the state in a list is from before it was brought up.
func hasCarrier(l netlink.Link) bool {
	now, err := netlink.LinkByIndex(l.Attrs().Index)
	if err != nil {
		return false
	}
	// kernel documentation, operstates: UNKNOWN is what drivers without carrier
	// detection report.
	s := now.Attrs().OperState
	return s == netlink.OperUp || s == netlink.OperUnknown && now.Attrs().RawFlags&0x10000 != 0 // IFF_LOWER_UP
}
