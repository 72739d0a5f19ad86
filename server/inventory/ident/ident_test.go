package ident

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// asym reads differently in the two byte orders; a palindromic UUID would hide
// a missing swap.
const (
	asym    = "00112233-4455-6677-8899-aabbccddeeff"
	swapped = "33221100-5544-7766-8899-aabbccddeeff"
)

func TestParseMAC(t *testing.T) {
	for _, s := range []string{"52:54:00:AB:cd:01", "52-54-00-ab-CD-01", "5254.00ab.cd01", "525400ABCD01"} {
		got, err := ParseMAC(s)
		if err != nil || got != "52:54:00:ab:cd:01" {
			t.Errorf("ParseMAC(%q) = %q, %v; want 52:54:00:ab:cd:01", s, got, err)
		}
	}
	for _, s := range []string{"", "52:54:00:ab:cd", "52:54:00:ab:cd:01:02", "52:54-00:ab:cd:01", "zz:54:00:ab:cd:01",
		"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "5254:00ab:cd01", "52:54:00:ab:cd:0/", strings.Repeat("0", 99)} {
		if got, err := ParseMAC(s); err == nil {
			t.Errorf("ParseMAC(%q) = %q; want an error", s, got)
		}
	}
}

func TestParseBootIF(t *testing.T) {
	for _, s := range []string{"01-52-54-00-ab-cd-01", "01:52:54:00:AB:CD:01"} {
		if got, err := ParseBootIF(s); err != nil || got != "52:54:00:ab:cd:01" {
			t.Errorf("ParseBootIF(%q) = %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"52-54-00-ab-cd-01", "06-52-54-00-ab-cd-01", "01", ""} {
		if got, err := ParseBootIF(s); err == nil {
			t.Errorf("ParseBootIF(%q) = %q; want an error", s, got)
		}
	}
	if got := Hyphens("52:54:00:ab:cd:01"); got != "52-54-00-ab-cd-01" {
		t.Errorf("Hyphens = %q", got)
	}
}

func TestUUIDBothByteOrders(t *testing.T) {
	if got := SwapUUID(asym); got != swapped {
		t.Errorf("SwapUUID(%s) = %s; want %s", asym, got, swapped)
	}
	if !SameUUID(asym, swapped) || !SameUUID(strings.ToUpper(asym), "{"+swapped+"}") {
		t.Error("the two byte orders of one UUID are not the same")
	}
	if SameUUID(asym, "00112233-4455-6677-8899-aabbccddee00") {
		t.Error("two different UUIDs are the same")
	}
	if SameUUID("", "") || SameUUID("rubbish", "rubbish") {
		t.Error("text that is no UUID equals something")
	}
	wire := []byte{0, 0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	got, err := UUIDFromWire(wire)
	if err != nil || got != swapped {
		t.Errorf("UUIDFromWire = %q, %v; want %s", got, err, swapped)
	}
	for _, b := range [][]byte{nil, wire[:16], append([]byte{1}, wire[1:]...), append(wire, 0)} {
		if u, err := UUIDFromWire(b); err == nil && len(b) != 16 {
			t.Errorf("UUIDFromWire(% x) = %s; want an error", b, u)
		}
	}
}

func TestJunk(t *testing.T) {
	for _, u := range []string{"", "x", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
		"03000200-0400-0500-0006-000700080009", "00020003-0004-0005-0006-000700080009"} {
		if !JunkUUID(u) {
			t.Errorf("JunkUUID(%q) = false", u)
		}
	}
	if JunkUUID(asym) {
		t.Error("JunkUUID calls a good UUID junk")
	}
	for _, s := range []string{"", "  ", "To Be Filled By O.E.M.", "Default string", "System Serial Number", "None",
		"Not Specified", "0123456789", "0000000", "xxxx", "."} {
		if !JunkSerial(s) || NormSerial(s) != "" {
			t.Errorf("JunkSerial(%q) = false", s)
		}
	}
	if JunkSerial("PF1ABC23") || NormSerial("  PF1\tABC \n") != "PF1 ABC" {
		t.Error("a good serial is lost")
	}
	if !SameSerial(" pf1abc23", "PF1ABC23 ") || SameSerial("None", "none") {
		t.Error("SameSerial: want equal without case and blanks, and junk equal to nothing")
	}
}

func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
		u := uuidText(raw)
		if SwapUUID(SwapUUID(u)) != u {
			t.Fatalf("swapping %s twice changes it", u)
		}
		if UUIDKey(u) != UUIDKey(SwapUUID(u)) || !SameUUID(u, SwapUUID(u)) {
			t.Fatalf("the spellings of %s have two keys", u)
		}
		if got, err := UUIDFromWire(raw[:]); err != nil || got != u {
			t.Fatalf("UUIDFromWire(%s) = %s, %v", u, got, err)
		}
	})
}

// FuzzText: no input panics, and what is accepted is a fixed point.
func FuzzText(f *testing.F) {
	f.Add("52:54:00:ab:cd:01", []byte(asym))
	f.Add("{"+asym+"}", []byte{0})
	f.Add("01-52-54-00-ab-cd-01", bytes.Repeat([]byte{0xff}, 17))
	f.Fuzz(func(t *testing.T, s string, b []byte) {
		if m, err := ParseMAC(s); err == nil {
			if again, err := ParseMAC(m); err != nil || again != m {
				t.Fatalf("ParseMAC(%q) = %q is not canonical", s, m)
			}
		}
		if m, err := ParseBootIF(s); err == nil && len(m) != 17 {
			t.Fatalf("ParseBootIF(%q) = %q", s, m)
		}
		if u, err := ParseUUID(s); err == nil {
			if again, err := ParseUUID(u); err != nil || again != u {
				t.Fatalf("ParseUUID(%q) = %q is not canonical", s, u)
			}
		}
		if u, err := UUIDFromWire(b); err == nil && len(u) != 36 {
			t.Fatalf("UUIDFromWire(% x) = %q", b, u)
		}
		_, _, _, _ = JunkUUID(s), JunkSerial(s), NormSerial(s), SwapUUID(s)
	})
}
