//go:build integration

package testnet

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"labswarm/internal/testreq"
)

func exists(name string) bool {
	_, err := os.Stat("/run/netns/" + name)
	return err == nil
}

// TestLAN makes a LAN with a router, reaches the router from the server's place, and
// expects everything gone after Close; the leftovers of a dead owner too, but not
// the namespaces of others.
func TestLAN(t *testing.T) {
	testreq.Root(t)
	testreq.Tool(t, "ip", "iproute2")
	testreq.Tool(t, "dnsmasq", "dnsmasq-base")
	testreq.Tool(t, "ping", "iputils-ping")
	testreq.File(t, "/dev/net/tun", "modprobe tun")
	dead, foreign := prefix+"2000000000-1-1", "labswarmtest-foreign"
	for _, ns := range []string{dead, foreign} {
		if err := run(t.Context(), "ip", "netns", "add", ns); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := exec.Command("ip", "netns", "del", foreign).Run(); err != nil { // after the end of the context of the test
			t.Error(err)
		}
	})
	n, err := New(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if exists(dead) {
		t.Error("the namespace of a dead owner is still there")
	}
	if err := n.Router(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	out, err := n.Command(t.Context(), "ping", "-c", "1", "-W", "5", RouterIP).CombinedOutput()
	if err != nil {
		t.Errorf("ping of the router: %v\n%s", err, out)
	}
	out, err = n.Command(t.Context(), "ip", "-br", "link").Output()
	for _, want := range []string{Bridge, Tap(0), Tap(1)} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("interface %s is missing (%v):\n%s", want, err, out)
		}
	}
	a, err := n.AddHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.AddHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{b.IP, ServerIP} {
		if out, err := a.Command(t.Context(), "ping", "-c", "1", "-W", "5", to).CombinedOutput(); err != nil {
			t.Errorf("ping from a host to %s: %v\n%s", to, err, out)
		}
	}
	// A process that stays inside must not keep the namespace.
	p, err := Start(n.Command(t.Context(), "sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	name, router := n.Name, n.router
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if exists(name) || exists(router) || exists(a.Name) || exists(b.Name) {
		t.Errorf("%s, %s or a host of it is still there after Close", name, router)
	}
	if !exists(foreign) {
		t.Error("a foreign namespace was removed")
	}
}
