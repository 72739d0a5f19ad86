package api

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Network is the fixed IPv4 address that a PC's own Linux gets after a deployment. The boot network is DHCP's all the same.
type Network struct {
	Address string   `json:"address"`           // with its prefix: 10.0.7.21/24
	Gateway string   `json:"gateway,omitempty"` // "" = none
	DNS     []string `json:"dns,omitempty"`     // at most 3, as resolv.conf(5) takes
}

// Check returns an error that says what cannot be used. Addresses have one spelling.
func (n *Network) Check() error {
	p, err := netip.ParsePrefix(n.Address)
	if err != nil || !p.Addr().Is4() || p.String() != n.Address || p.Bits() < 8 || p.Bits() > 30 {
		return fmt.Errorf("address %.40q: want an IPv4 address with its prefix, such as 10.0.7.21/24", n.Address)
	}
	if !usable(p, p.Addr()) {
		return fmt.Errorf("address %s is that of the network itself or its broadcast address", n.Address)
	}
	if n.Gateway != "" {
		g, err := netip.ParseAddr(n.Gateway)
		if err != nil || g.String() != n.Gateway || !p.Contains(g) || !usable(p, g) || g == p.Addr() {
			return fmt.Errorf("gateway %.40q: want another address inside %s", n.Gateway, p.Masked())
		}
	}
	if len(n.DNS) > 3 {
		return fmt.Errorf("%d name servers; 3 are asked at most", len(n.DNS))
	}
	for i, d := range n.DNS {
		a, err := netip.ParseAddr(d)
		if err != nil || a.String() != d || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || slices.Contains(n.DNS[:i], d) {
			return fmt.Errorf("name server %.40q: want an IP address, each once", d)
		}
	}
	return nil
}

// usable tells whether an address of a network can be a machine's.
func usable(p netip.Prefix, a netip.Addr) bool {
	b, net := a.As4(), p.Masked().Addr().As4()
	all := true // host bits set
	for i := range 32 {
		if i >= p.Bits() && b[i/8]&(0x80>>(i%8)) == 0 {
			all = false
		}
	}
	return b != net && !all && !a.IsLoopback() && !a.IsMulticast() && !a.IsUnspecified()
}

// String is the address for people.
func (n *Network) String() string {
	s := n.Address
	if n.Gateway != "" {
		s += ", gateway " + n.Gateway
	}
	if len(n.DNS) > 0 {
		s += ", DNS " + strings.Join(n.DNS, " ")
	}
	return s
}
