package bootenv

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"labswarm/api/order"
)

func TestParseCmdline(t *testing.T) {
	const good = "quiet panic=10 labswarm.server=10.77.0.1:7440 labswarm.kid=0123456789abcdef"
	tests := []struct {
		name, text string
		bootIF     string
		wantErr    string
	}{
		{"plain", good, "", ""},
		{"boot NIC, pxelinux form", good + " BOOTIF=01-AA-BB-cc-dd-ee-ff console=ttyS0", "aa:bb:cc:dd:ee:ff", ""},
		{"boot NIC, bare", good + " BOOTIF=aa:bb:cc:dd:ee:ff", "aa:bb:cc:dd:ee:ff", ""},
		{"boot NIC, rubbish is ignored", good + " BOOTIF=01-aa-bb", "", ""},
		{"mapped address", "labswarm.server=[::ffff:10.0.0.1]:7440 labswarm.kid=0123456789abcdef", "", ""},
		{"no server", "quiet labswarm.kid=0123456789abcdef", "", "no labswarm.server"},
		{"no key", "labswarm.server=10.0.0.1:7440", "", "no labswarm.server and labswarm.kid"},
		{"name instead of address", "labswarm.server=lab:7440 labswarm.kid=0123456789abcdef", "", "ADDRESS:PORT"},
		{"port 0", "labswarm.server=10.0.0.1:0 labswarm.kid=0123456789abcdef", "", "ADDRESS:PORT"},
		{"key too short", "labswarm.server=10.0.0.1:7440 labswarm.kid=0123", "", "16 hex"},
		{"key in capitals", "labswarm.server=10.0.0.1:7440 labswarm.kid=0123456789ABCDEF", "", "16 hex"},
		{"empty", "", "", "no labswarm.server"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ParseCmdline(tt.text)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("ParseCmdline(%q) = %v; want an error with %q", tt.text, err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.BootIF != tt.bootIF || c.Server.Addr().Is4In6() || c.KeyID != "0123456789abcdef" {
				t.Errorf("ParseCmdline(%q) = %+v; want boot NIC %q", tt.text, c, tt.bootIF)
			}
		})
	}
}

func TestParsePins(t *testing.T) {
	key := bytes.Repeat([]byte{7}, ed25519.PublicKeySize)
	k := base64.StdEncoding.EncodeToString(key)
	p, err := ParsePins(fmt.Appendf(nil, `{"server_keys":["%s"],"image_keys":["%s","%s"]}`, k, k, k))
	if err != nil || len(p.ServerKeys) != 1 || len(p.ImageKeys) != 2 {
		t.Fatalf("ParsePins = %v, %v; want 1 server key and 2 image keys", p, err)
	}
	if p.ServerKey(order.KeyID(key)) == nil || p.ServerKey("0000000000000000") != nil {
		t.Error("ServerKey does not pick by key id")
	}
	for _, bad := range []string{
		``, `{}`, `[]`, `{"server_keys":[],"image_keys":[]}`,
		`{"server_keys":["` + k + `"],"image_keys":["short"]}`,
		`{"server_keys":["` + k + `"],"image_keys":["` + k + `"],"more":1}`,
		`{"server_keys":["` + k + `"],"image_keys":["` + k + `"]} x`,
		`{"server_keys":["` + k[:40] + `"],"image_keys":["` + k + `"]}`,
	} {
		if _, err := ParsePins([]byte(bad)); err == nil {
			t.Errorf("ParsePins(%q) was accepted", bad)
		}
	}
}

func TestActiveChoice(t *testing.T) {
	for text, want := range map[string]string{
		"none [integrity] confidentiality\n": "integrity", "[none] integrity": "none", "none": "", "": "", "[x": "",
	} {
		if got := activeChoice(text); got != want {
			t.Errorf("activeChoice(%q) = %q; want %q", text, got, want)
		}
	}
}

func FuzzParsePins(f *testing.F) {
	f.Add([]byte(`{"server_keys":["AAAA"],"image_keys":[]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := ParsePins(raw)
		if err != nil {
			return
		}
		for _, k := range append(p.ServerKeys, p.ImageKeys...) {
			if len(k) != ed25519.PublicKeySize {
				t.Errorf("accepted a key of %d bytes", len(k))
			}
		}
	})
}

func FuzzParseCmdline(f *testing.F) {
	f.Add("labswarm.server=10.0.0.1:7440 labswarm.kid=0123456789abcdef BOOTIF=01-aa-bb-cc-dd-ee-ff")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCmdline(text)
		if err == nil && (!c.Server.IsValid() || len(c.KeyID) != 16) {
			t.Errorf("ParseCmdline(%q) accepted %+v", text, c)
		}
	})
}

func TestCPUTicks(t *testing.T) {
	for _, tt := range []struct {
		line        string
		busy, total uint64
	}{
		{"cpu  10 1 20 500 40 3 2 5 7 0", 41, 581},
		{"cpu 1 2 3 4", 6, 10},
		{"cpu0 1 2 3 4 5", 0, 0},
		{"cpu 1 2 3 x", 0, 0},
		{"", 0, 0},
	} {
		if busy, total := cpuTicks(tt.line); busy != tt.busy || total != tt.total {
			t.Errorf("cpuTicks(%q) = %d, %d; want %d, %d", tt.line, busy, total, tt.busy, tt.total)
		}
	}
	if busy, total := CPUTicks(); busy == 0 || total < busy {
		t.Errorf("CPUTicks() = %d, %d on this machine", busy, total)
	}
}
