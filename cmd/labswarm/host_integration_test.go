//go:build integration

package main

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"labswarm/api"
	"labswarm/internal/testnet"
	"labswarm/internal/testreq"
)

// TestHostSet runs the real programs: a field that is set changes, the others stay, and a rule that nobody
// understands changes nothing.
func TestHostSet(t *testing.T) {
	testreq.Root(t)
	testreq.Tool(t, "ip", "iproute2")
	c := newPlace(t)
	c.run("serve", nil, "serve", "--lab-if", testnet.Bridge, "--dhcp", "off", "--boot-dir", c.bootFiles())
	c.until("the server is ready", func() bool {
		info, err := c.cli.Server(t.Context())
		return err == nil && info.Ready
	})
	const uuid = "11111111-2222-3333-4444-555555555507"
	c.cmd("host", "add", "a01", "--room", "r1", "--mac", "02:00:00:00:00:07", "--uuid", uuid, "--disk", "S1")
	host := func() api.Host {
		h, err := c.cli.Host(t.Context(), "a01")
		if err != nil || h.UUID != uuid || h.MAC != "02:00:00:00:00:07" {
			t.Fatalf("host is %+v, %v", h, err)
		}
		return h
	}
	for _, step := range []struct {
		args       []string
		code       int
		disk, room string
		exclude    bool
		words      string // of the output
	}{
		{[]string{"--disk", "model=Samsung*,bus=nvme|sata,size=400G..600G"}, 0, "model=Samsung*,bus=nvme|sata,size=400G..600G", "r1", false, "disk rule model=Samsung*"},
		{[]string{"--exclude"}, 0, "model=Samsung*,bus=nvme|sata,size=400G..600G", "r1", true, ""},
		{[]string{"--disk", "bus=usb"}, 2, "model=Samsung*,bus=nvme|sata,size=400G..600G", "r1", true, "never written"},
		{[]string{"--disk", "size=500G"}, 2, "model=Samsung*,bus=nvme|sata,size=400G..600G", "r1", true, "400G..600G"},
		{nil, 2, "model=Samsung*,bus=nvme|sata,size=400G..600G", "r1", true, "nothing to change"},
		{[]string{"--room", "r2", "--exclude=false"}, 0, "model=Samsung*,bus=nvme|sata,size=400G..600G", "r2", false, ""},
		{[]string{"--disk", ""}, 0, "", "r2", false, ""},
	} {
		out, err := exec.CommandContext(t.Context(), "labswarm", append([]string{"host", "set", "a01", "--state-dir", c.dir}, step.args...)...).CombinedOutput()
		code := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		if code != step.code || !strings.Contains(string(out), step.words) {
			t.Errorf("host set %q: exit code %d; want %d and %q in:\n%s", step.args, code, step.code, step.words, out)
		}
		if h := host(); h.Disk != step.disk || h.Room != step.room || h.Exclude != step.exclude {
			t.Errorf("after host set %q: disk %q, room %q, excluded %v", step.args, h.Disk, h.Room, h.Exclude)
		}
	}
}
