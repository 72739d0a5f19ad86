package bootenv

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
)

// Cmdline is what the kernel command line tells the agent: where the server
// is, by which key it is known and on which NIC the machine booted. Nothing in
// it can start a write.
type Cmdline struct {
	Server netip.AddrPort // labswarm.server
	KeyID  string         // labswarm.kid: 16 hex digits
	BootIF string         // MAC of the boot NIC, lower case with colons; "" = not told
}

var keyID = regexp.MustCompile(`^[0-9a-f]{16}$`)

// ParseCmdline reads a kernel command line; words it does not know are the
// kernel's. It fails when the server or its key is missing or malformed.
func ParseCmdline(text string) (Cmdline, error) {
	var c Cmdline
	for _, word := range strings.Fields(text) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "labswarm.server":
			a, err := netip.ParseAddrPort(value)
			if err != nil || a.Port() == 0 || a.Addr().IsUnspecified() {
				return c, fmt.Errorf("kernel command line: labswarm.server=%.64q is not ADDRESS:PORT", value)
			}
			c.Server = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		case "labswarm.kid":
			if !keyID.MatchString(value) {
				return c, fmt.Errorf("kernel command line: labswarm.kid=%.64q is not 16 hex digits", value)
			}
			c.KeyID = value
		case "BOOTIF":
			c.BootIF = ParseBootIF(value)
		}
	}
	if !c.Server.IsValid() || c.KeyID == "" {
		return c, fmt.Errorf("kernel command line has no labswarm.server and labswarm.kid: boot this machine through the labswarm server")
	}
	return c, nil
}

// ParseBootIF reads the MAC of the boot NIC as PXELINUX ("01-aa-bb-.."), GRUB
// and iPXE write it: with or without the hardware type, hyphens or colons, any
// letter case. It returns "" for anything else.
func ParseBootIF(value string) string {
	s := strings.ToLower(strings.ReplaceAll(value, "-", ":"))
	if len(s) == 20 && strings.HasPrefix(s, "01:") { // hardware type 1, Ethernet
		s = s[3:]
	}
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 {
		return ""
	}
	return mac.String()
}
