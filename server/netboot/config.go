package netboot

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"labswarm/server/netboot/bootfile"
	"labswarm/server/netboot/dhcp"
)

// Config is what a Server needs to know.
type Config struct {
	Interface       string     // lab interface; no default: the wrong one hands boot files to the office
	ServerIP        netip.Addr // our IPv4 address on Interface; invalid = its first IPv4 address
	Mode            string     // ModeDHCP, ModeProxy or ModeOff
	AgentPort       int        // TCP port of the agent API, 0 = 7440
	KeyID           string     // key id of the server key, for labswarm.kid
	PoolStart       netip.Addr // first address of the pool (mode dhcp)
	PoolEnd         netip.Addr // last address of the pool, inclusive
	Router          netip.Addr // option 3 in mode dhcp, invalid = none
	DNS             netip.Addr // option 6 in mode dhcp, invalid = none
	ProxyStyle      string     // "offer" (also ""), "4011" or "menu"
	AnswerRS        bool       // answer router solicitations with an empty RA
	ExtraKernelArgs string     // appended to every agent command line
	LeaseFile       string     // JSON file of the leases in mode dhcp, "" = RAM only
	Log             *slog.Logger
	CountDHCP       func(kind, result string) // told of each DHCP packet: its type; answered, silent, bad or dropped. nil = nobody
	CountTFTP       func(result string)       // told of each transfer: ok, ended (by the client), refused or failed. nil = nobody

	// Ports for tests, 0 = the real ones.
	DHCPPort, ProxyPort, TFTPPort, HTTPPort int
}

// validate reports every fault at once.
func (c Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Interface == "" {
		bad("no lab interface: name it with --lab-if (interfaces here: %s)", interfaceNames())
	}
	switch c.Mode {
	case ModeDHCP:
		if !c.PoolStart.Is4() || !c.PoolEnd.Is4() || c.PoolEnd.Less(c.PoolStart) {
			bad("mode dhcp needs an address pool, the lower IPv4 address first; got %v to %v", c.PoolStart, c.PoolEnd)
		}
	case ModeProxy, ModeOff:
	default:
		bad("mode %q: want dhcp, proxy or off", c.Mode)
	}
	switch c.ProxyStyle {
	case "", dhcp.StyleOffer, dhcp.Style4011, dhcp.StyleMenu:
	default:
		bad("proxy style %q: want offer, 4011 or menu", c.ProxyStyle)
	}
	if c.ServerIP.IsValid() && !c.ServerIP.Is4() {
		bad("server address %s is not IPv4", c.ServerIP)
	}
	for _, a := range []netip.Addr{c.Router, c.DNS} {
		if a.IsValid() && !a.Is4() {
			bad("address %s is not IPv4", a)
		}
	}
	if !bootfile.ValidKernelArgs(c.ExtraKernelArgs) {
		bad("kernel arguments %q: only [0-9A-Za-z.,:_=/@+-] and single blanks are allowed", c.ExtraKernelArgs)
	}
	if c.KeyID == "" {
		bad("no key id of the server key")
	}
	return errors.Join(errs...)
}

func interfaceNames() string {
	list, err := net.Interfaces()
	if err != nil {
		return "unknown"
	}
	var names []string
	for _, i := range list {
		if i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// findInterface returns the lab interface and our address on it with its
// prefix length.
func findInterface(name string, want netip.Addr) (*net.Interface, netip.Prefix, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, netip.Prefix{}, fmt.Errorf("find lab interface %q: %w (interfaces here: %s)", name, err, interfaceNames())
	}
	if ifi.Flags&net.FlagUp == 0 {
		return nil, netip.Prefix{}, fmt.Errorf("use lab interface %s: it is down: bring it up with `ip link set %s up`", name, name)
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return nil, netip.Prefix{}, fmt.Errorf("read addresses of %s: %w", name, err)
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !p.Addr().Is4() {
			continue
		}
		if !want.IsValid() || p.Addr() == want {
			return ifi, p, nil
		}
	}
	if want.IsValid() {
		return nil, netip.Prefix{}, fmt.Errorf("use address %s: interface %s does not have it", want, name)
	}
	return nil, netip.Prefix{}, fmt.Errorf("use lab interface %s: it has no IPv4 address: give it one with `ip address add ADDRESS/BITS dev %s`", name, name)
}

// lastAddr is the broadcast address of an IPv4 prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}
