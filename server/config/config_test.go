package config

import (
	"errors"
	"strings"
	"testing"
)

func TestFillNamesEveryFault(t *testing.T) {
	c := Default()
	c.DHCP, c.BootStyle, c.Frames, c.SeedRateBps, c.AgentPort = "dhcp", "loud", "maybe", -1, 70000
	err := c.Fill()
	var ce *Error
	if !errors.As(err, &ce) || ce.ExitCode() != 78 {
		t.Fatalf("Fill = %v; want *Error with exit code 78", err)
	}
	for _, want := range []string{"--state-dir", "--lab-if", "--boot-style", "--frames", "--dhcp-range", "rate", "70000"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
}

func TestFillDefaults(t *testing.T) {
	c := Default()
	c.StateDir, c.Interface = "x", "lo"
	if err := c.Fill(); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(c.StateDir, "/x") || !strings.HasSuffix(c.BootDir, "/x/boot") || c.Name == "" || c.AgentPort != 7440 {
		t.Errorf("filled in: %+v", c)
	}
}

func TestParseRange(t *testing.T) {
	if a, b, err := ParseRange("10.0.0.1 - 10.0.0.9"); err != nil || a.String() != "10.0.0.1" || b.String() != "10.0.0.9" {
		t.Errorf("ParseRange = %v, %v, %v", a, b, err)
	}
	for _, bad := range []string{"", "10.0.0.1", "10.0.0.9-10.0.0.1", "x-y", "fe80::1-fe80::2"} {
		if _, _, err := ParseRange(bad); err == nil {
			t.Errorf("ParseRange(%q) accepted", bad)
		}
	}
}
