//go:build integration

package link

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"

	"labswarm/internal/testreq"
)

const inside = "LABSWARM_TEST_INSIDE" // set in the part of a test that runs in its namespace

// inNamespace runs the rest of the test in a network namespace of its own with
// a pair of interfaces, cli0 and srv0, and reports whether this is that rest.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		return true
	}
	testreq.Root(t)
	ip := testreq.Tool(t, "ip", "iproute2")
	ns := fmt.Sprintf("lsw-link-%d", os.Getpid())
	run := func(args ...string) {
		if out, err := exec.CommandContext(t.Context(), ip, args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	run("netns", "add", ns)
	t.Cleanup(func() {
		if out, err := exec.Command(ip, "netns", "del", ns).CombinedOutput(); err != nil {
			t.Errorf("remove namespace: %v: %s", err, out)
		}
	})
	run("-n", ns, "link", "add", "cli0", "type", "veth", "peer", "name", "srv0")
	run("-n", ns, "addr", "add", "10.99.0.1/24", "dev", "srv0")
	run("-n", ns, "link", "set", "srv0", "up")
	cmd := exec.CommandContext(t.Context(), ip, "netns", "exec", ns, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=90s")
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in the namespace: %v\n%s", err, out)
	}
	return false
}

// TestLeaseIsRenewedAndGivenUp: a short lease is renewed at T1; when the server
// is away until the end of the lease, the address goes, and a new one is taken
// when it is back.
func TestLeaseIsRenewedAndGivenUp(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	var host, requests, discovers, silent atomic.Int32
	host.Store(50)
	srv, err := server4.NewServer("srv0", nil, func(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
		if silent.Load() != 0 {
			return
		}
		if uc := m.UserClass(); len(uc) != 1 || uc[0] != UserClass {
			t.Errorf("user class %q", uc)
		}
		if id := m.Options.Get(dhcpv4.OptionClientIdentifier); len(id) != 7 || id[0] != 1 || !bytes.Equal(id[1:], m.ClientHWAddr) {
			t.Errorf("client identifier %x", id)
		}
		typ := dhcpv4.MessageTypeOffer
		switch m.MessageType() {
		case dhcpv4.MessageTypeDiscover:
			discovers.Add(1)
		case dhcpv4.MessageTypeRequest:
			requests.Add(1)
			typ = dhcpv4.MessageTypeAck
		}
		rep, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(typ), dhcpv4.WithYourIP(net.IPv4(10, 99, 0, byte(host.Load()))),
			dhcpv4.WithServerIP(net.IPv4(10, 99, 0, 1)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 99, 0, 1))),
			dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(10))
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := conn.WriteTo(rep.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 68}); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve() }()
	defer func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		<-served
	}()
	cli, err := netlink.LinkByName("cli0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	ctx, cancel := context.WithTimeout(t.Context(), 80*time.Second)
	defer cancel()
	up, err := Find(ctx, cli.Attrs().HardwareAddr.String(), log, func(string) {})
	if err != nil || up.Name != "cli0" || !up.Boot {
		t.Fatalf("Find = %+v, %v", up, err)
	}
	c, err := Acquire(ctx, up, log, func(string) {})
	if err != nil || c.IP().String() != "10.99.0.50" {
		t.Fatalf("Acquire = %v, %v", c, err)
	}
	asked := discovers.Load() // more than one on a machine too busy to answer at once
	done := make(chan error, 1)
	rctx, stop := context.WithCancel(ctx)
	go func() { done <- c.Run(rctx) }()
	until(t, "a renewal", func() bool { return requests.Load() >= 2 })
	if n := discovers.Load() - asked; n != 0 {
		t.Errorf("%d DISCOVERs for a renewal", n)
	}
	silent.Store(1)
	host.Store(60)
	until(t, "the address to go", func() bool { return !strings.Contains(addresses(t), "10.99.0.5") })
	silent.Store(0)
	until(t, "a new address", func() bool { return strings.Contains(addresses(t), "10.99.0.60") })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func addresses(t *testing.T) string {
	t.Helper()
	l, err := netlink.LinkByName("cli0")
	if err != nil {
		t.Fatal(err)
	}
	list, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(list)
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 600 {
		if f() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}
