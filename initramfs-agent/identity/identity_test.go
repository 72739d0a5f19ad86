package identity

import (
	"os"
	"path/filepath"
	"testing"

	"labswarm/api"
)

func TestUUID(t *testing.T) {
	for in, want := range map[string]string{
		"11111111-2222-3333-4444-555555555501\n": "11111111-2222-3333-4444-555555555501",
		"ABCDEF01-2222-3333-4444-555555555501":   "abcdef01-2222-3333-4444-555555555501",
		"00000000-0000-0000-0000-000000000000":   "",
		"FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF":   "",
		"03000200-0400-0500-0006-000700080009":   "",
		"not-a-uuid":                             "",
		"":                                       "",
	} {
		if got := UUID(in); got != want {
			t.Errorf("UUID(%q) = %q; want %q", in, got, want)
		}
	}
	const u = "00112233-4455-6677-8899-aabbccddeeff"
	if got := SwapUUID(u); got != "33221100-5544-7766-8899-aabbccddeeff" || SwapUUID(got) != u {
		t.Errorf("SwapUUID(%s) = %s", u, got)
	}
	if SwapUUID("x") != "" {
		t.Error("SwapUUID of rubbish is not empty")
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		" PF2ABC \n": "PF2ABC", "To Be Filled By O.E.M.": "", "Default string": "", "0000000": "", "": "", "None": "",
		"xxxx": "", "a\x00\x1bb": "ab", "System Serial Number": "",
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%q) = %q; want %q", in, got, want)
		}
	}
}

func TestCollectUsesStandInOnlyWhereGiven(t *testing.T) {
	sys := t.TempDir()
	dir := filepath.Join(sys, "class", "dmi", "id")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"product_uuid": "11111111-2222-3333-4444-555555555501\n", "product_serial": "S1\n", "sys_vendor": "None"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e := Source{Sys: sys}.Collect(nil, nil)
	if e.UUID != "11111111-2222-3333-4444-555555555501" || e.Serial != "S1" || e.Vendor != "" || e.UptimeMs <= 0 || e.AgentRSSByte <= 0 {
		t.Errorf("Collect = %+v", e)
	}
	e = Source{Sys: sys, StandIn: &api.Evidence{Serial: "X"}}.Collect(nil, nil)
	if e.Serial != "X" || e.UUID != "11111111-2222-3333-4444-555555555501" {
		t.Errorf("Collect with a stand-in = %+v", e)
	}
}
