package doctor

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"golang.org/x/sys/unix"
)

// Answer is one answer to our DISCOVER.
type Answer struct {
	Server netip.Addr // option 54, else the packet's source
	MAC    string     // of the frame
	Offers netip.Addr // address for the client, invalid = none
	Boot   string     // boot file or "PXE menu", "" = no boot offer
	After  time.Duration
}

// listenFor is how long answers are waited for: OVMF waits 4 s, routers that ping an address first take 3 s.
const listenFor = 4 * time.Second

// NewMAC is a random, locally administered MAC: no real PC has it.
func NewMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // never fails
	mac[0] = mac[0]&^1 | 2
	return mac
}

// Discover sends one PXE DISCOVER of a PC that does not exist, out of the interface and to ourselves, and collects every answer to it.
// enough ends the wait early, nil = never.
func Discover(ctx context.Context, ifName string, mac net.HardwareAddr, enough func() bool) ([]Answer, error) {
	ifi, err := net.InterfaceByName(ifName)
	if err != nil {
		return nil, fmt.Errorf("probe DHCP: %w", err)
	}
	// All packets, also those that leave: our own server's answers are among these.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(htons(unix.ETH_P_ALL)))
	if err != nil {
		return nil, fmt.Errorf("probe DHCP on %s: open packet socket: %w", ifName, err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written through it that could be lost
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifi.Index}); err != nil {
		return nil, fmt.Errorf("probe DHCP on %s: %w", ifName, err)
	}
	m, err := discover(mac)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := broadcast(ctx, ifName, m.ToBytes()); err != nil {
		return nil, err
	}
	return collect(ctx, fd, m.TransactionID, begun, enough)
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// discover is what a UEFI PC (x64) sends.
func discover(mac net.HardwareAddr) (*dhcpv4.DHCPv4, error) {
	uuid := make([]byte, 17)
	_, _ = rand.Read(uuid[1:]) // never fails
	m, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithBroadcast(true),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016")),
		dhcpv4.WithOption(dhcpv4.OptClientArch(iana.EFI_X86_64)),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientNetworkInterfaceIdentifier, []byte{1, 3, 16})),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, uuid)),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionTFTPServerName, dhcpv4.OptionBootfileName, dhcpv4.OptionVendorSpecificInformation))
	if err != nil {
		return nil, fmt.Errorf("make DHCP probe: %w", err)
	}
	return m, nil
}

// broadcast sends to 255.255.255.255:67 by UDP: the kernel gives such a packet also to this machine, through its firewall, as one that
// came in on this interface.
func broadcast(ctx context.Context, ifName string, data []byte) error {
	lc := net.ListenConfig{Control: func(_, _ string, c rawControl) error { return bindDevice(c, ifName) }}
	conn, err := lc.ListenPacket(ctx, "udp4", ":0")
	if err != nil {
		return fmt.Errorf("probe DHCP on %s: %w", ifName, err)
	}
	_, err = conn.WriteTo(data, &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ServerPort})
	if err = errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("probe DHCP on %s: %w", ifName, err)
	}
	return nil
}

// collect reads answers until the time is up.
func collect(ctx context.Context, fd int, xid dhcpv4.TransactionID, begun time.Time, enough func() bool) ([]Answer, error) {
	var out []Answer
	seen := map[netip.Addr]bool{}
	buf := make([]byte, 2048)
	end := begun.Add(listenFor)
	for ctx.Err() == nil && time.Now().Before(end) && (enough == nil || !enough()) {
		wait := min(time.Until(end), 100*time.Millisecond)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(wait/time.Millisecond)+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return out, fmt.Errorf("wait for DHCP answers: %w", err)
		}
		if n <= 0 {
			continue
		}
		n, _, err = unix.Recvfrom(fd, buf, 0)
		if err != nil {
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				continue
			}
			return out, fmt.Errorf("read DHCP answers: %w", err)
		}
		a, match := parseFrame(buf[:n], xid)
		if !match || seen[a.Server] {
			continue
		}
		seen[a.Server] = true
		a.After = time.Since(begun)
		out = append(out, a)
	}
	return out, nil
}

// parseFrame reads a DHCP answer to xid out of an Ethernet frame; anything else is no match.
func parseFrame(b []byte, xid dhcpv4.TransactionID) (a Answer, match bool) {
	const eth, ip, udp = 14, 20, 8
	if len(b) < eth+ip+udp || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_IP {
		return a, false
	}
	src := net.HardwareAddr(b[6:12]).String()
	b = b[eth:]
	head, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || head < ip || total > len(b) || total < head+udp || b[9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
		return a, false
	}
	from := netip.AddrFrom4([4]byte(b[12:16]))
	b = b[head:total]
	if port := binary.BigEndian.Uint16(b); port != dhcpv4.ServerPort && port != 4011 {
		return a, false
	}
	m, err := dhcpv4.FromBytes(b[udp:])
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply || m.TransactionID != xid {
		return a, false
	}
	a = Answer{Server: from, MAC: src}
	if id, valid := netip.AddrFromSlice(m.ServerIdentifier().To4()); valid {
		a.Server = id
	}
	if y, valid := netip.AddrFromSlice(m.YourIPAddr.To4()); valid && !y.IsUnspecified() {
		a.Offers = y
	}
	a.Boot = bootOffer(m)
	return a, true
}

// bootOffer names what a PC would boot from this answer, "" = nothing. The text is a stranger's: it is cut and cleaned.
func bootOffer(m *dhcpv4.DHCPv4) string {
	file := m.BootFileName
	if f := m.BootFileNameOption(); f != "" {
		file = f
	}
	switch {
	case file != "":
	case strings.HasPrefix(m.ClassIdentifier(), "PXEClient"):
		file = "PXE menu"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, file[:min(len(file), 128)])
}
