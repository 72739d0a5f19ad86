// Package dhcp answers boot clients as DHCP server, as proxyDHCP server beside
// the site's own, and on port 4011 (PXE 2.1, RFC 2131, RFC 4578). What a packet
// is (Classify) and what it gets (Reply) are pure functions; Server is the
// socket loop around them. It takes no boot decision: that comes from the desk.
// Called by server/netboot.
package dhcp

import (
	"bytes"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"labswarm/server/inventory/ident"
)

// Class says what kind of boot client option 60 names.
type Class uint8

const (
	// ClassNone is no boot client: an installed system, a printer, our agent.
	ClassNone Class = iota
	// ClassPXE is PXEClient: files by TFTP.
	ClassPXE
	// ClassHTTP is HTTPClient: UEFI HTTP boot (UEFI 2.8, 24.7).
	ClassHTTP
)

// agentUserClass is the user class (option 77) of our own agent.
const agentUserClass = "labswarm-agent"

// Client is what a packet says about its sender.
type Client struct {
	MAC         string // canonical, "" = not usable
	UUID        string // option 97 as text in wire order, "" = none
	Arch        uint16 // option 93, first entry; 0 = BIOS or missing
	Class       Class
	IPXE        bool // user class iPXE: gets the script, never a boot file again
	Agent       bool // our own agent: an address, never boot fields
	UserClass   string
	VendorClass string
	Hostname    string // option 12
}

// Boots reports whether the client wants boot files.
func (c Client) Boots() bool { return c.Class != ClassNone && !c.Agent }

// InstalledOS reports whether the packet shows a running system. u-root's
// dhclient ("PXE UROOT") is somebody's initramfs.
func (c Client) InstalledOS() bool {
	return c.Class == ClassNone && !c.Agent && !strings.HasPrefix(c.VendorClass, "PXE ")
}

// Acceptable reports whether a packet may be looked at: a request of an
// Ethernet client that came to us directly. Relayed packets (giaddr) are not
// served: the lab interface is the only place we answer on, and a reply to a
// forged relay address would leave it.
func Acceptable(m *dhcpv4.DHCPv4) bool {
	return m.OpCode == dhcpv4.OpcodeBootRequest && m.HWType == iana.HWTypeEthernet &&
		len(m.ClientHWAddr) == 6 && (m.GatewayIPAddr == nil || m.GatewayIPAddr.IsUnspecified())
}

// Classify reads the sender's kind and identity. It accepts anything the
// decoder accepts; what it cannot read stays empty.
func Classify(m *dhcpv4.DHCPv4) Client {
	c := Client{
		VendorClass: printable(m.Options.Get(dhcpv4.OptionClassIdentifier)),
		Hostname:    printable(m.Options.Get(dhcpv4.OptionHostName)),
	}
	if mac, err := ident.MACFromBytes(m.ClientHWAddr); err == nil {
		c.MAC = mac
	}
	if u, err := ident.UUIDFromWire(m.Options.Get(dhcpv4.OptionClientMachineIdentifier)); err == nil {
		c.UUID = u
	}
	if a := m.Options.Get(dhcpv4.OptionClientSystemArchitectureType); len(a) >= 2 {
		c.Arch = uint16(a[0])<<8 | uint16(a[1])
	}
	// The whole text is PXEClient:Arch:00007:UNDI:003000, iPXE from undionly
	// sends the bare word, u-root sends "PXE UROOT": match this prefix only.
	switch {
	case strings.HasPrefix(c.VendorClass, "PXEClient"):
		c.Class = ClassPXE
	case strings.HasPrefix(c.VendorClass, "HTTPClient"):
		c.Class = ClassHTTP
	}
	// Option 77 is length-prefixed by RFC 3004, but iPXE has sent the bare
	// word for years; looking for the word in the raw bytes covers both.
	user := m.Options.Get(dhcpv4.OptionUserClassInformation)
	c.UserClass = printable(user)
	c.IPXE = bytes.Contains(user, []byte("iPXE"))
	c.Agent = bytes.Contains(user, []byte(agentUserClass))
	return c
}

// printable returns the printable ASCII of an option, at most 63 bytes: it goes
// to the log and to people's screens.
func printable(b []byte) string {
	out := make([]byte, 0, min(len(b), 63))
	for _, x := range b {
		if x >= 0x20 && x < 0x7f && len(out) < 63 {
			out = append(out, x)
		}
	}
	return string(out)
}

// addr turns a packet's address field into a valid netip address, or the zero
// value for none and 0.0.0.0.
func addr(ip []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Addr{}
	}
	if a = a.Unmap(); a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
