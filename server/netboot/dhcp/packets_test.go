package dhcp

import (
	"encoding/binary"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// The packets below have the options, the order and the values of the clients
// they are named after. The UUID reads differently in the two byte orders.
var (
	testMAC  = []byte{0x52, 0x54, 0x00, 0x77, 0x00, 0x01}
	testUUID = []byte{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
)

const testUUIDText = "00112233-4455-6677-8899-aabbccddeeff"

// opt is one DHCP option on the wire.
func opt(code byte, data ...byte) []byte { return append([]byte{code, byte(len(data))}, data...) }

func text(code byte, s string) []byte { return opt(code, []byte(s)...) }

// raw builds a BOOTP request (RFC 951, 2131) with the options as given.
func raw(ciaddr [4]byte, flags uint16, opts ...[]byte) []byte {
	p := make([]byte, 236)
	p[0], p[1], p[2] = 1, 1, 6
	copy(p[4:8], []byte{0xde, 0xad, 0xbe, 0xef})
	binary.BigEndian.PutUint16(p[8:], 4) // secs
	binary.BigEndian.PutUint16(p[10:], flags)
	copy(p[12:], ciaddr[:])
	copy(p[28:], testMAC)
	p = append(p, 99, 130, 83, 99)
	for _, o := range opts {
		p = append(p, o...)
	}
	p = append(p, 255)
	for len(p) < 300 {
		p = append(p, 0)
	}
	return p
}

var noAddr [4]byte

func uuidOpt() []byte     { return opt(97, append([]byte{0}, testUUID...)...) }
func clientIDOpt() []byte { return opt(61, append([]byte{1}, testMAC...)...) }

// ipxeParams is iPXE's parameter list, pxeParams that of PXE firmware.
var (
	ipxeParams = []byte{1, 3, 6, 7, 12, 15, 17, 26, 43, 60, 66, 67, 119, 128, 129, 130, 131, 132, 133, 134, 135, 175, 203}
	pxeParams  = []byte{1, 2, 3, 4, 5, 6, 12, 13, 15, 17, 18, 22, 23, 28, 40, 41, 42, 43, 50, 51, 54, 58, 59, 60, 66, 67, 97, 128, 129, 130, 131, 132, 133, 134, 135}
)

// pxeROM: a BIOS option ROM that is not iPXE.
func pxeROM(msg byte, more ...[]byte) []byte {
	o := [][]byte{opt(53, msg), opt(55, pxeParams...), opt(57, 0x04, 0xec), uuidOpt(), opt(93, 0, 0), opt(94, 1, 2, 1),
		text(60, "PXEClient:Arch:00000:UNDI:002001")}
	return raw(noAddr, 0x8000, append(o, more...)...)
}

// ipxeROM: iPXE in the ROM of a NIC. It sends option 77 as the bare word.
func ipxeROM(msg byte, more ...[]byte) []byte {
	o := [][]byte{opt(53, msg), opt(57, 0x05, 0xc0), opt(93, 0, 0), opt(94, 1, 2, 1), text(60, "PXEClient:Arch:00000:UNDI:002001"),
		text(77, "iPXE"), opt(55, ipxeParams...), opt(175, 0xb1, 5, 1, 0x1a, 0xf4, 0x10, 0x00, 0xeb, 3, 1, 0, 0, 0x17, 1, 1, 0x22, 1, 1), clientIDOpt(), uuidOpt()}
	return raw(noAddr, 0, append(o, more...)...)
}

// undionly: iPXE chained from a ROM sends the bare class and, in the spelling of
// RFC 3004, a length before the user class.
func undionly(msg byte, more ...[]byte) []byte {
	o := [][]byte{opt(53, msg), opt(57, 0x05, 0xc0), opt(93, 0, 0), opt(94, 1, 2, 1), text(60, "PXEClient"),
		opt(77, 4, 'i', 'P', 'X', 'E'), opt(55, ipxeParams...), clientIDOpt(), uuidOpt()}
	return raw(noAddr, 0, append(o, more...)...)
}

// snponly: iPXE as a UEFI program.
func snponly(msg byte, more ...[]byte) []byte {
	o := [][]byte{opt(53, msg), opt(57, 0x05, 0xc0), opt(93, 0, 7), opt(94, 1, 3, 10), text(60, "PXEClient:Arch:00007:UNDI:003010"),
		text(77, "iPXE"), opt(55, ipxeParams...), clientIDOpt(), uuidOpt()}
	return raw(noAddr, 0, append(o, more...)...)
}

func ovmfPXE(msg byte, arch byte, more ...[]byte) []byte {
	o := [][]byte{opt(53, msg), opt(57, 0x05, 0xc0), opt(55, pxeParams...), uuidOpt(), opt(94, 1, 3, 0), opt(93, 0, arch),
		text(60, "PXEClient:Arch:00007:UNDI:003000")}
	return raw(noAddr, 0x8000, append(o, more...)...)
}

func ovmfHTTP(msg byte, more ...[]byte) []byte {
	o := [][]byte{opt(53, msg), opt(57, 0x05, 0xc0), opt(55, 1, 3, 6, 12, 15, 43, 60, 67, 97), uuidOpt(), opt(94, 1, 3, 0), opt(93, 0, 16),
		text(60, "HTTPClient:Arch:00016:UNDI:003000")}
	return raw(noAddr, 0x8000, append(o, more...)...)
}

// uroot: u-root's dhclient, which our agent is built on.
func uroot(msg byte, more ...[]byte) []byte {
	o := [][]byte{opt(53, msg), opt(55, 1, 3, 15, 6), text(60, "PXE UROOT"), clientIDOpt()}
	return raw(noAddr, 0, append(o, more...)...)
}

// debianOS: dhclient of an installed system.
func debianOS(msg byte, more ...[]byte) []byte {
	o := [][]byte{opt(53, msg), text(12, "lab-07"), opt(55, 1, 28, 2, 3, 15, 6, 119, 12, 44, 47, 26, 121, 42)}
	return raw(noAddr, 0, append(o, more...)...)
}

func parse(t testing.TB, b []byte) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		t.Fatalf("decode test packet: %v", err)
	}
	return m
}
