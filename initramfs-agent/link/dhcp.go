package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
)

// UserClass is option 77 (RFC 3004) of the agent's requests: the server tells
// by it that this is not the installed system coming up.
const UserClass = "labswarm-agent"

const minLease = 10 * time.Second // shorter leases are renewed as if they were this long

// Client keeps one adapter's address.
type Client struct {
	up    Up
	log   *slog.Logger
	lease *nclient4.Lease
	addr  *netlink.Addr
	got   time.Time // monotonic, of the last ACK
}

// Times of a lease: RFC 2131, 4.4.5.
type times struct{ t1, t2, end time.Duration }

func leaseTimes(ack *dhcpv4.DHCPv4) times {
	end := max(ack.IPAddressLeaseTime(time.Hour), minLease)
	t := times{t1: ack.IPAddressRenewalTime(end / 2), t2: ack.IPAddressRebindingTime(end / 8 * 7), end: end}
	// A server that sends nonsense gets the defaults.
	if t.t1 <= 0 || t.t1 >= end {
		t.t1 = end / 2
	}
	if t.t2 <= t.t1 || t.t2 >= end {
		t.t2 = t.t1 + (end-t.t1)*3/4
	}
	return t
}

// Acquire asks for an address until it has one or ctx ends; say is told how
// long that takes.
func Acquire(ctx context.Context, up Up, log *slog.Logger, say func(string)) (*Client, error) {
	c := &Client{up: up, log: log}
	start := time.Now()
	for wait := time.Second; ; wait = min(2*wait, 15*time.Second) {
		err := c.discover(ctx)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		log.Warn("no address by DHCP yet", "nic", up.Name, "err", err)
		say(fmt.Sprintf("no answer from a DHCP server for %d s", int(time.Since(start).Seconds())))
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// IP is the present address.
func (c *Client) IP() net.IP {
	if c.addr == nil {
		return nil
	}
	return c.addr.IP
}

// Run renews the lease until ctx ends. When the server lets it run out, the
// address is taken away and a new one is asked for: going on with an expired
// one would share it with another machine.
func (c *Client) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		t := leaseTimes(c.lease.ACK)
		wait(ctx, time.Until(c.got.Add(t.t1)))
		if c.renewUntil(ctx, c.got.Add(t.end), t) || ctx.Err() != nil {
			continue
		}
		c.log.Warn("the lease ran out", "nic", c.up.Name)
		c.drop()
		for ctx.Err() == nil && c.discover(ctx) != nil {
			wait(ctx, 2*time.Second)
		}
	}
	return nil
}

// renewUntil tries, at halving distances as RFC 2131 4.4.5 has it, until the
// lease ends. A NAK ends it at once. The request goes out as a broadcast, so
// that the server's substitute may answer too.
func (c *Client) renewUntil(ctx context.Context, end time.Time, t times) bool {
	for time.Now().Before(end) && ctx.Err() == nil {
		err := c.renew(ctx)
		if err == nil {
			return true
		}
		c.log.Warn("lease not renewed", "nic", c.up.Name, "err", err)
		var nak *nclient4.ErrNak
		if errors.As(err, &nak) {
			return false
		}
		wait(ctx, min(max(time.Until(end)/2, time.Second), t.end/4))
	}
	return false
}

func (c *Client) client() (*nclient4.Client, error) {
	return nclient4.New(c.up.Name, nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(2), nclient4.WithHWAddr(c.up.MAC))
}

// modifiers make this the same client as the iPXE that ran before (option 61 =
// 01 + MAC), so that a pool is not eaten twice, and not a PXE client.
func (c *Client) modifiers() []dhcpv4.Modifier {
	return []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{1}, c.up.MAC...))), // RFC 2132, 9.14
		dhcpv4.WithUserClass(UserClass, true),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionIPAddressLeaseTime,
			dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue),
	}
}

func (c *Client) discover(ctx context.Context) (err error) {
	cl, err := c.client()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.Close()) }()
	lease, err := cl.Request(ctx, c.modifiers()...)
	if err != nil {
		return err
	}
	return c.apply(lease)
}

func (c *Client) renew(ctx context.Context) (err error) {
	cl, err := c.client()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.Close()) }()
	lease, err := cl.Renew(ctx, c.lease, c.modifiers()...)
	if err != nil {
		return err
	}
	return c.apply(lease)
}

// apply sets address and default route; an address that changed replaces the
// old one.
func (c *Client) apply(lease *nclient4.Lease) error {
	ack := lease.ACK
	mask := ack.SubnetMask()
	if ack.YourIPAddr.To4() == nil || ack.YourIPAddr.IsUnspecified() {
		return errors.New("the DHCP server's ACK has no address")
	}
	if mask == nil {
		mask = ack.YourIPAddr.DefaultMask()
	}
	nl, err := netlink.LinkByIndex(c.up.index)
	if err != nil {
		return fmt.Errorf("find adapter %s: %w", c.up.Name, err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ack.YourIPAddr, Mask: mask}}
	if c.addr != nil && !c.addr.Equal(*addr) {
		c.log.Warn("the address has changed", "nic", c.up.Name, "old", c.addr.IP.String(), "new", addr.IP.String())
		c.drop()
	}
	if err := netlink.AddrReplace(nl, addr); err != nil {
		return fmt.Errorf("set address %s on %s: %w", addr.IPNet, c.up.Name, err)
	}
	c.lease, c.addr, c.got = lease, addr, time.Now()
	if gw := ack.Router(); len(gw) > 0 {
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: c.up.index, Gw: gw[0]}); err != nil {
			c.log.Warn("default route not set", "gateway", gw[0].String(), "err", err)
		}
	}
	return nil
}

func (c *Client) drop() {
	if c.addr == nil {
		return
	}
	if nl, err := netlink.LinkByIndex(c.up.index); err == nil {
		if err := netlink.AddrDel(nl, c.addr); err != nil {
			c.log.Warn("old address not removed", "nic", c.up.Name, "err", err)
		}
	}
	c.addr = nil
}

// wait pauses for d or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
