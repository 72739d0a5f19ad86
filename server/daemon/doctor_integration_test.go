//go:build integration

package daemon

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/internal/testnet"
	"labswarm/internal/testreq"
	"labswarm/server/config"
)

// TestDoctor lets the real server examine itself on a LAN with a router, and then looks from outside of it, with a second boot
// server in the LAN: that one, and who holds the ports, must be found.
func TestDoctor(t *testing.T) {
	if dir := os.Getenv("DAEMON_DOCTOR"); dir != "" {
		cfg := config.Default()
		cfg.StateDir, cfg.Interface = dir, testnet.Bridge
		d, err := DoctorAlone(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(string(raw))
		os.Exit(0)
	}
	testreq.Root(t)
	testreq.Tool(t, "ip", "iproute2")
	dnsmasq := testreq.Tool(t, "dnsmasq", "dnsmasq-base")
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "boot"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"shimx64.efi", "grubx64.efi", "undionly.kpxe", "snponly.efi", "ipxe.efi", "vmlinuz", "initrd.img"} {
		if err := os.WriteFile(filepath.Join(dir, "boot", f), []byte("content of "+f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n, err := testnet.New(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := n.Router(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	l := &lan{t: t, net: n, dir: dir}
	l.serve()
	cli := client.New(filepath.Join(dir, "labswarm.sock"))
	defer cli.Close()
	d, err := cli.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want(t, d, map[string]string{"nic": "ok", "ports": "ok", "dhcp": "ok", "firewall": "ok", "walk": "ok", "boot": "ok", "pins": "ok", "broadcast": "ok", "images": "ok", "fsync": ""})
	if c := find(d, "dhcp"); !strings.Contains(c.Text, testnet.RouterIP) {
		t.Errorf("the router is not named: %+v", c)
	}

	h, err := n.AddHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rogue := h.Command(t.Context(), dnsmasq, "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--bind-interfaces", "--no-ping",
		"--dhcp-range=10.77.0.200,10.77.0.210,1h", "--dhcp-boot=pxelinux.0", "--pid-file=", "--dhcp-leasefile="+filepath.Join(dir, "rogue.leases"))
	out, err := rogue.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := testnet.Start(rogue)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	}()
	for sc := bufio.NewScanner(out); sc.Scan() && !strings.Contains(sc.Text(), "IP range"); {
	}
	cmd := n.Command(t.Context(), os.Args[0], "-test.run=^TestDoctor$")
	cmd.Env = append(os.Environ(), "DAEMON_DOCTOR="+dir)
	raw, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	want(t, d, map[string]string{"server": "warn", "ports": "fail", "pxe_foreign": "fail", "dhcp": "warn"})
	if c := find(d, "pxe_foreign"); !strings.Contains(c.Text, h.IP) || !strings.Contains(c.Text, "pxelinux.0") {
		t.Errorf("the second boot server is not named: %+v", c)
	}
	if c := find(d, "ports"); !strings.Contains(c.Text, "udp 67 by") || !strings.Contains(c.Text, "pid") {
		t.Errorf("the holder of port 67 is not named: %+v", c)
	}
}

func find(d api.Checkup, name string) api.Check {
	for _, c := range d.Checks {
		if c.Name == name {
			return c
		}
	}
	return api.Check{}
}

// want compares results by name; "" = it must be there.
func want(t *testing.T, d api.Checkup, results map[string]string) {
	t.Helper()
	for name, r := range results {
		if c := find(d, name); c.Name == "" || (r != "" && c.Result != r) {
			t.Errorf("%s is %+v; want %s", name, c, r)
		}
	}
}
