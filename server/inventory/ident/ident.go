// Package ident turns the identity evidence of a PC into one spelling: MAC
// addresses, SMBIOS UUIDs (whose byte order vendors disagree about) and serial
// numbers with the junk that factories leave in them. It is pure text work:
// resolving evidence to a host is the job of server/inventory. Called by
// server/netboot, server/inventory and server/daemon on bytes from the network,
// so nothing here panics.
package ident

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// ParseMAC returns the canonical spelling (lower case, colons) of an Ethernet
// address written with colons, hyphens, dots or nothing between the digits. An
// address that cannot be a NIC's own (group bit, all zero) is an error.
func ParseMAC(s string) (string, error) {
	if len(s) > 32 {
		return "", fmt.Errorf("parse MAC: %d characters are too many", len(s))
	}
	digits, ok := macDigits(s)
	if !ok {
		return "", fmt.Errorf("parse MAC %q: want six bytes like 52:54:00:12:34:56", s)
	}
	raw, err := hex.DecodeString(digits)
	if err != nil {
		return "", fmt.Errorf("parse MAC %q: want hexadecimal digits", s)
	}
	return MACFromBytes(raw)
}

// macDigits strips the separators of the three usual spellings and refuses
// mixed ones, so that "5254:0012-3456" is not taken for an address.
func macDigits(s string) (string, bool) {
	switch {
	case len(s) == 12:
		return s, true
	case len(s) == 17 && (s[2] == ':' || s[2] == '-'):
		for i := 2; i < 17; i += 3 {
			if s[i] != s[2] {
				return "", false
			}
		}
		return strings.ReplaceAll(s, s[2:3], ""), true
	case len(s) == 14 && s[4] == '.' && s[9] == '.':
		return strings.ReplaceAll(s, ".", ""), true
	}
	return "", false
}

// MACFromBytes returns the canonical spelling of a six-byte address, with the
// same refusals as ParseMAC.
func MACFromBytes(raw []byte) (string, error) {
	if len(raw) != 6 {
		return "", fmt.Errorf("parse MAC: %d bytes, want 6", len(raw))
	}
	if raw[0]&1 != 0 {
		return "", fmt.Errorf("parse MAC % x: a group address is no NIC's own", raw)
	}
	if [6]byte(raw) == ([6]byte{}) {
		return "", fmt.Errorf("parse MAC % x: the zero address is no NIC's own", raw)
	}
	const digit = "0123456789abcdef"
	out := make([]byte, 0, 17)
	for i, b := range raw {
		if i > 0 {
			out = append(out, ':')
		}
		out = append(out, digit[b>>4], digit[b&15])
	}
	return string(out), nil
}

// ParseBootIF reads the BOOTIF argument that PXE loaders write: the ARP
// hardware type 01 and the address, with hyphens or colons, any case.
func ParseBootIF(s string) (string, error) {
	if len(s) != 20 || !strings.HasPrefix(s, "01") || (s[2] != '-' && s[2] != ':') {
		return "", fmt.Errorf("parse BOOTIF %.40q: want 01-aa-bb-cc-dd-ee-ff", s)
	}
	return ParseMAC(s[3:])
}

// Hyphens returns a canonical MAC with hyphens, the spelling of BOOTIF.
func Hyphens(mac string) string { return strings.ReplaceAll(mac, ":", "-") }

// ParseUUID returns the canonical text (lower case, 8-4-4-4-12) of a UUID
// written with or without hyphens and braces. The byte order is kept as written.
func ParseUUID(s string) (string, error) {
	if len(s) > 48 {
		return "", fmt.Errorf("parse UUID: %d characters are too many", len(s))
	}
	t := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(s), "{"), "}")
	if len(t) == 36 {
		if t[8] != '-' || t[13] != '-' || t[18] != '-' || t[23] != '-' {
			return "", fmt.Errorf("parse UUID %q: want 8-4-4-4-12 digits", s)
		}
		t = t[:8] + t[9:13] + t[14:18] + t[19:23] + t[24:]
	}
	if len(t) != 32 {
		return "", fmt.Errorf("parse UUID %q: want 32 hexadecimal digits", s)
	}
	raw, err := hex.DecodeString(t)
	if err != nil {
		return "", fmt.Errorf("parse UUID %q: want hexadecimal digits", s)
	}
	return uuidText([16]byte(raw)), nil
}

// UUIDFromWire returns the text of a DHCP client machine identifier (option 97,
// RFC 4578 2.3): type 0 and 16 bytes; 16 bare bytes are accepted too. The text
// is in wire order: vendors differ in the first three fields, so compare it
// with SameUUID only.
func UUIDFromWire(b []byte) (string, error) {
	if len(b) == 17 && b[0] == 0 {
		b = b[1:]
	}
	if len(b) != 16 {
		return "", fmt.Errorf("parse option 97: %d bytes, want 00 and 16 bytes", len(b))
	}
	return uuidText([16]byte(b)), nil
}

func uuidText(u [16]byte) string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// SwapUUID returns the other spelling of a canonical UUID: the first three
// fields byte-swapped, because SMBIOS 2.6 and later store them little-endian
// and not every firmware turns them round. Text that is no UUID comes back
// unchanged. SwapUUID(SwapUUID(u)) == u.
func SwapUUID(u string) string {
	c, err := ParseUUID(u)
	if err != nil {
		return u
	}
	swap := func(s string) string { // of hexadecimal byte pairs
		b := []byte(s)
		for i, j := 0, len(b)-2; i < j; i, j = i+2, j-2 {
			b[i], b[i+1], b[j], b[j+1] = b[j], b[j+1], b[i], b[i+1]
		}
		return string(b)
	}
	return swap(c[:8]) + "-" + swap(c[9:13]) + "-" + swap(c[14:18]) + c[18:]
}

// UUIDKey returns one key for both spellings of a UUID: the smaller of the two
// texts. Index hosts by it. Text that is no UUID gives "".
func UUIDKey(u string) string {
	c, err := ParseUUID(u)
	if err != nil {
		return ""
	}
	return min(c, SwapUUID(c))
}

// SameUUID reports whether a and b are the same UUID in either byte order.
// Nothing equals a text that is no UUID.
func SameUUID(a, b string) bool {
	k := UUIDKey(a)
	return k != "" && k == UUIDKey(b)
}
