package dhcp

import (
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"labswarm/server/decide"
	"labswarm/server/netboot/bootfile"
	"labswarm/server/netboot/bootreq"
)

// Architectures of option 93 (RFC 4578 2.1 and the IANA registry). Firmware
// uses 7 for x64, the registry once said 9: both are treated alike.
const (
	ArchBIOS    = 0
	ArchIA32    = 6
	ArchX64BC   = 7
	ArchX64     = 9
	ArchX64HTTP = 16
)

// Styles of a proxy OFFER.
const (
	StyleOffer = "offer" // the file is in the OFFER: fewest steps
	Style4011  = "4011"  // no file: the client asks port 4011
	StyleMenu  = "menu"  // no file, a boot menu with one entry, for stubborn ROMs
)

// maxFileField is what fits the file field of the BOOTP header with its final
// zero (RFC 2131 2).
const maxFileField = 127

// Site is what replies say about this server.
type Site struct {
	Server    netip.Addr // option 54, siaddr, sname
	Proxy     bool       // the site's own DHCP gives addresses
	Mask      net.IPMask // option 1
	Router    netip.Addr // option 3, invalid = none
	DNS       netip.Addr // option 6, invalid = none
	LeaseTime time.Duration
	Style     string // StyleOffer (also ""), Style4011 or StyleMenu
	Scripts   *bootfile.Scripts
}

// Query is one packet to answer.
type Query struct {
	Msg    *dhcpv4.DHCPv4
	Client Client
	At4011 bool       // it came to port 4011
	Lease  netip.Addr // address for the client, mode dhcp only; invalid = none
}

// Reply renders an answer: a pure function of its arguments. ok is false when
// the packet gets no answer. The fields are those of design table 2.2.
func Reply(s Site, q Query, a bootreq.Answer) (r *dhcpv4.DHCPv4, ok bool) {
	kind, ok := replyType(s, q)
	if !ok {
		return nil, false
	}
	file := bootName(s, q.Client, a)
	boot := q.Client.Boots() && file != "" && wantsBoot(s, q, a)
	if (s.Proxy || q.At4011) && !boot {
		return nil, false
	}
	r, err := dhcpv4.NewReplyFromRequest(q.Msg)
	if err != nil {
		return nil, false
	}
	r.UpdateOption(dhcpv4.OptMessageType(kind))
	r.UpdateOption(dhcpv4.OptServerIdentifier(s.Server.AsSlice()))
	if !s.Proxy && !q.At4011 {
		setAddress(s, q, r)
	}
	if boot {
		setBoot(s, q, a, file, r)
	}
	return r, true
}

// replyType says whether a message is for us, and what answers it.
func replyType(s Site, q Query) (dhcpv4.MessageType, bool) {
	if id := addr(q.Msg.ServerIdentifier()); id.IsValid() && id != s.Server {
		return 0, false // another server was chosen
	}
	t := q.Msg.MessageType()
	switch {
	case q.At4011:
		return dhcpv4.MessageTypeAck, t == dhcpv4.MessageTypeRequest || t == dhcpv4.MessageTypeInform
	case t == dhcpv4.MessageTypeDiscover:
		return dhcpv4.MessageTypeOffer, s.Proxy || q.Lease.IsValid()
	case t == dhcpv4.MessageTypeRequest:
		// In proxy mode a REQUEST on port 67 is the client's word to the
		// router, which reaches us as a broadcast: never ours.
		return dhcpv4.MessageTypeAck, !s.Proxy && q.Lease.IsValid()
	}
	return 0, false
}

// wantsBoot says whether an answer carries boot fields. Port 4011 is only asked
// by clients that want a file now, so Local chains there instead of silence.
func wantsBoot(s Site, q Query, a bootreq.Answer) bool {
	switch a.Decision.Action {
	case decide.Agent, decide.Enrol, decide.Hold:
		return true
	case decide.Ignore:
		return false
	default: // Local
		switch {
		case q.At4011:
			return true
		case s.Proxy:
			return a.BootStyle == bootreq.StyleChain
		default: // an unknown PC gets an address without boot fields
			return a.BootStyle == bootreq.StyleChain || (a.BootStyle != bootreq.StyleSilent && a.Host != "")
		}
	}
}

// bootName is what the client loads next: a TFTP name, a URL for HTTPClient,
// the script's URL for iPXE (loop breaker: iPXE never gets a boot file again).
// "" = no files for this architecture.
func bootName(s Site, c Client, a bootreq.Answer) string {
	var name string
	switch {
	case !Supported(c.Arch):
		return ""
	case c.IPXE:
		name = s.Scripts.BootURL(c.MAC, c.UUID)
	case c.Class == ClassHTTP:
		name = s.Scripts.FileURL(nbp(a, bootfile.NameShim))
	case c.Arch == ArchBIOS:
		name = nbp(a, bootfile.NameUndionly)
	default:
		name = nbp(a, bootfile.NameShim)
	}
	if len(name) > maxFileField {
		return ""
	}
	return name
}

func nbp(a bootreq.Answer, def string) string {
	if a.NBP != "" {
		return a.NBP
	}
	return def
}

// Supported reports whether we have boot files for an architecture: BIOS and
// x64. ia32, ARM and the rest boot their own disk.
func Supported(arch uint16) bool {
	switch arch {
	case ArchBIOS, ArchX64BC, ArchX64, ArchX64HTTP:
		return true
	}
	return false
}

func setAddress(s Site, q Query, r *dhcpv4.DHCPv4) {
	r.YourIPAddr = q.Lease.AsSlice()
	r.UpdateOption(dhcpv4.OptSubnetMask(s.Mask))
	if s.Router.IsValid() {
		r.UpdateOption(dhcpv4.OptRouter(s.Router.AsSlice()))
	}
	if s.DNS.IsValid() {
		r.UpdateOption(dhcpv4.OptDNS(s.DNS.AsSlice()))
	}
	r.UpdateOption(dhcpv4.OptIPAddressLeaseTime(s.LeaseTime))
}

func setBoot(s Site, q Query, a bootreq.Answer, file string, r *dhcpv4.DHCPv4) {
	// Firmware drops an offer without its own class.
	class := "PXEClient"
	if q.Client.Class == ClassHTTP {
		class = "HTTPClient"
	}
	r.UpdateOption(dhcpv4.OptClassIdentifier(class))
	if id := q.Msg.Options.Get(dhcpv4.OptionClientMachineIdentifier); len(id) > 0 {
		r.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, id)) // byte for byte
	}
	r.ServerIPAddr = s.Server.AsSlice()
	vendor := vendorDirect()
	switch style := offerStyle(s, q, a); style {
	case Style4011:
		return // no file and no option 43: the client asks port 4011
	case StyleMenu:
		r.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, vendorMenu(s.Server)))
		return
	}
	r.ServerHostName = s.Server.String()
	r.BootFileName = file
	r.UpdateOption(dhcpv4.OptTFTPServerName(s.Server.String()))
	r.UpdateOption(dhcpv4.OptBootFileName(file))
	if q.Client.Class != ClassPXE {
		return
	}
	if item := bootItem(q.Msg.Options.Get(dhcpv4.OptionVendorSpecificInformation)); q.At4011 && item != nil {
		vendor = vendorItem(item)
	}
	r.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, vendor))
}

// offerStyle is StyleOffer except for the proxy OFFER to plain PXE firmware.
func offerStyle(s Site, q Query, a bootreq.Answer) string {
	if !s.Proxy || q.At4011 || q.Client.IPXE || q.Client.Class != ClassPXE {
		return StyleOffer
	}
	if a.ProxyStyle != "" {
		return a.ProxyStyle
	}
	return s.Style
}

// Destination says where a reply goes: to the client's own address at the port
// it sent from (BIOS ROMs ask 4011 from port 68, OVMF from 4011), else to
// everybody at port 68. An address that is not the packet's source could be
// forged, so it gets no unicast.
func Destination(m *dhcpv4.DHCPv4, from netip.AddrPort) netip.AddrPort {
	ci := addr(m.ClientIPAddr)
	if ci.IsValid() && ci == from.Addr().Unmap() {
		return netip.AddrPortFrom(ci, from.Port())
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), dhcpv4.ClientPort)
}

// Nak refuses an address (RFC 2131 4.3.2).
func Nak(s Site, m *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, bool) {
	r, err := dhcpv4.NewReplyFromRequest(m)
	if err != nil {
		return nil, false
	}
	r.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeNak))
	r.UpdateOption(dhcpv4.OptServerIdentifier(s.Server.AsSlice()))
	return r, true
}
