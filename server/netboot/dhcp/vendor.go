package dhcp

import "net/netip"

// Sub-options of option 43 for PXE clients (PXE 2.1, table 2-1).
const (
	subDiscoveryControl = 6
	subBootServers      = 8
	subBootMenu         = 9
	subMenuPrompt       = 10
	subBootItem         = 71
	subEnd              = 255
)

// bootServerType is our entry in the boot menu; the high bit marks a
// vendor-defined type.
const bootServerType = 0x8001

func sub(code byte, data ...byte) []byte { return append([]byte{code, byte(len(data))}, data...) }

// vendorDirect: discovery control bit 3, "take the file from this offer, no
// discovery, no menu".
func vendorDirect() []byte { return append(sub(subDiscoveryControl, 8), subEnd) }

// vendorMenu: no broadcast, no multicast, listed servers only; one boot server,
// one menu line, prompt with timeout 0.
func vendorMenu(server netip.Addr) []byte {
	const hi, lo = bootServerType >> 8, bootServerType & 0xff
	ip := server.As4()
	const title = "labswarm"
	b := sub(subDiscoveryControl, 7)
	b = append(b, sub(subBootServers, append([]byte{hi, lo, 1}, ip[:]...)...)...)
	b = append(b, sub(subBootMenu, append([]byte{hi, lo, byte(len(title))}, title...)...)...)
	b = append(b, sub(subMenuPrompt, append([]byte{0}, "netboot"...)...)...)
	return append(b, subEnd)
}

// vendorItem echoes the boot item the client chose; OVMF wants it back.
func vendorItem(item []byte) []byte { return append(sub(subBootItem, item...), subEnd) }

// bootItem finds sub-option 71 (four bytes) in a client's option 43.
func bootItem(v []byte) []byte {
	for i := 0; i+1 < len(v) && v[i] != subEnd; {
		if v[i] == 0 { // padding has no length
			i++
			continue
		}
		n := int(v[i+1])
		if i+2+n > len(v) {
			return nil
		}
		if v[i] == subBootItem && n == 4 {
			return v[i+2 : i+6]
		}
		i += 2 + n
	}
	return nil
}
