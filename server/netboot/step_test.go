//go:build integration

package netboot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/iana"
	pin "github.com/pin/tftp/v3"
	"golang.org/x/net/ipv6"
)

// The steps run as child processes of the integration test, inside a namespace:
// LABSWARM_NETBOOT_STEP names the step, its arguments follow after blanks.
const stepEnv = "LABSWARM_NETBOOT_STEP"

const srv = "10.77.0.1"

var stepUUID = []byte{0, 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}

func runStep() bool {
	args := strings.Fields(os.Getenv(stepEnv))
	if len(args) == 0 {
		return false
	}
	steps := map[string]func([]string) error{"server": stepServer, "dhcp": stepDHCP, "lease": stepLease, "proxy": stepProxy, "4011": step4011,
		"silent": stepSilent, "tftp": stepTFTP, "tftperror": stepTFTPError, "http": stepHTTP, "rs": stepRS}
	step, ok := steps[args[0]]
	if !ok {
		fmt.Fprintln(os.Stderr, "no such step", args[0])
		os.Exit(2)
	}
	if err := step(args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, args[0]+":", err)
		os.Exit(1)
	}
	return true
}

// pxe are the modifiers that make a DISCOVER one of a boot client.
func pxe(arch iana.Arch, class string, more ...dhcpv4.Modifier) []dhcpv4.Modifier {
	return append([]dhcpv4.Modifier{
		dhcpv4.WithBroadcast(true),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier(class)),
		dhcpv4.WithOption(dhcpv4.OptClientArch(arch)),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, stepUUID)),
	}, more...)
}

func client() (*nclient4.Client, error) {
	return nclient4.New("eth0", nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(3))
}

// stepDHCP: full DORA as UEFI firmware, then as iPXE, in mode dhcp.
func stepDHCP([]string) error {
	c, err := client()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx := context.Background()
	lease, err := c.Request(ctx, pxe(iana.EFI_BC, "PXEClient:Arch:00007:UNDI:003000")...)
	if err != nil {
		return err
	}
	for name, m := range map[string]*dhcpv4.DHCPv4{"OFFER": lease.Offer, "ACK": lease.ACK} {
		if m.BootFileName != "shimx64.efi" || m.ServerIPAddr.String() != srv || m.YourIPAddr.String() != "10.77.0.100" ||
			!bytes.Equal(m.Options.Get(dhcpv4.OptionVendorSpecificInformation), []byte{6, 1, 8, 255}) {
			return fmt.Errorf("%s: %s", name, m.Summary())
		}
	}
	again, err := c.Request(ctx, pxe(iana.INTEL_X86PC, "PXEClient", dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("iPXE"))))...)
	if err != nil {
		return err
	}
	want := "http://10.77.0.1/boot.ipxe?mac=" + c.InterfaceAddr().String() + "&uuid=00112233-4455-6677-8899-aabbccddeeff"
	if again.ACK.BootFileName != want || !again.ACK.YourIPAddr.Equal(lease.ACK.YourIPAddr) {
		return fmt.Errorf("iPXE got %q at %v; want %q at the firmware's address", again.ACK.BootFileName, again.ACK.YourIPAddr, want)
	}
	agent, err := c.Request(ctx, dhcpv4.WithBroadcast(true), dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("labswarm-agent"))))
	if err != nil {
		return err
	}
	if agent.ACK.BootFileName != "" || !agent.ACK.YourIPAddr.Equal(lease.ACK.YourIPAddr) {
		return fmt.Errorf("the agent got %s", agent.ACK.Summary())
	}
	os1, err := c.Request(ctx, dhcpv4.WithBroadcast(true), dhcpv4.WithOption(dhcpv4.OptHostName("lab-07")))
	if err != nil {
		return err
	}
	if os1.ACK.BootFileName != "" {
		return fmt.Errorf("an installed system got %s", os1.ACK.Summary())
	}
	return nil
}

// stepLease: an installed system takes an address from the router.
func stepLease([]string) error {
	c, err := client()
	if err != nil {
		return err
	}
	defer c.Close()
	lease, err := c.Request(context.Background(), dhcpv4.WithBroadcast(true), dhcpv4.WithOption(dhcpv4.OptHostName("lab-07")))
	if err != nil {
		return err
	}
	if lease.ACK.ServerIdentifier().String() != "10.77.0.254" {
		return fmt.Errorf("lease came from %v", lease.ACK.ServerIdentifier())
	}
	fmt.Println(lease.ACK.YourIPAddr)
	return nil
}

func from(ip string) nclient4.Matcher {
	return nclient4.IsAll(nclient4.IsCorrectServer(net.ParseIP(ip)), nclient4.IsMessageType(dhcpv4.MessageTypeOffer))
}

// stepProxy: firmware beside the router: our OFFER has the file and no address,
// the router's has the address; the REQUEST goes to the router alone.
func stepProxy([]string) error {
	c, err := client()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx := context.Background()
	var offers [2]*dhcpv4.DHCPv4
	for i, who := range []string{srv, "10.77.0.254"} {
		d, err := dhcpv4.NewDiscovery(c.InterfaceAddr(), pxe(iana.EFI_BC, "PXEClient:Arch:00007:UNDI:003000")...)
		if err != nil {
			return err
		}
		if offers[i], err = c.SendAndRead(ctx, c.RemoteAddr(), d, from(who)); err != nil {
			return fmt.Errorf("no OFFER from %s: %w", who, err)
		}
	}
	if o := offers[0]; o.BootFileName != "shimx64.efi" || !o.YourIPAddr.IsUnspecified() || o.ClassIdentifier() != "PXEClient" {
		return fmt.Errorf("our OFFER: %s", o.Summary())
	}
	if o := offers[1]; o.BootFileName != "" || o.YourIPAddr.IsUnspecified() {
		return fmt.Errorf("the router's OFFER: %s", o.Summary())
	}
	lease, err := c.RequestFromOffer(ctx, offers[1], pxe(iana.EFI_BC, "PXEClient:Arch:00007:UNDI:003000")...)
	if err != nil {
		return err
	}
	fmt.Println(lease.ACK.YourIPAddr)
	return nil
}

// stepSilent: a boot client that is not to be served hears nothing from us.
func stepSilent([]string) error {
	c, err := nclient4.New("eth0", nclient4.WithTimeout(time.Second), nclient4.WithRetry(1))
	if err != nil {
		return err
	}
	defer c.Close()
	d, err := dhcpv4.NewDiscovery(c.InterfaceAddr(), pxe(iana.EFI_BC, "PXEClient:Arch:00007:UNDI:003000")...)
	if err != nil {
		return err
	}
	if o, err := c.SendAndRead(context.Background(), c.RemoteAddr(), d, from(srv)); err == nil {
		return fmt.Errorf("answered: %s", o.Summary())
	}
	return nil
}

// step4011 ADDRESS PORT: ask port 4011 from our own address and a given port;
// the answer must come back to that port.
func step4011(args []string) error {
	conn, err := net.Dial("udp4", srv+":4011")
	if err != nil {
		return err
	}
	local := conn.LocalAddr().(*net.UDPAddr).IP
	if err := conn.Close(); err != nil {
		return err
	}
	ifi, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	for _, port := range []int{68, 4011} {
		m, err := dhcpv4.New(append(pxe(iana.EFI_BC, "PXEClient:Arch:00007:UNDI:003000"), dhcpv4.WithHwAddr(ifi.HardwareAddr), dhcpv4.WithClientIP(local),
			dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
			dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, []byte{0x47, 4, 0x80, 1, 0, 0, 0xff})))...)
		if err != nil {
			return err
		}
		r, err := exchange(&net.UDPAddr{IP: local, Port: port}, m)
		if err != nil {
			return fmt.Errorf("from port %d: %w", port, err)
		}
		if r.MessageType() != dhcpv4.MessageTypeAck || r.BootFileName != "shimx64.efi" || !r.YourIPAddr.IsUnspecified() ||
			!bytes.Equal(r.Options.Get(dhcpv4.OptionVendorSpecificInformation), []byte{0x47, 4, 0x80, 1, 0, 0, 0xff}) {
			return fmt.Errorf("from port %d: %s", port, r.Summary())
		}
	}
	return nil
}

func exchange(local *net.UDPAddr, m *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error) {
	c, err := net.DialUDP("udp4", local, &net.UDPAddr{IP: net.ParseIP(srv), Port: 4011})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Write(m.ToBytes()); err != nil {
		return nil, err
	}
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	if err != nil {
		return nil, err
	}
	return dhcpv4.FromBytes(buf[:n])
}

func tftpGet(name string) ([]byte, error) {
	c, err := pin.NewClient(srv + ":69")
	if err != nil {
		return nil, err
	}
	c.SetBlockSize(1468)
	c.RequestTSize(true)
	c.SetTimeout(3 * time.Second)
	wt, err := c.Receive(name, "octet")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = wt.WriteTo(&b)
	return b.Bytes(), err
}

// stepTFTP MAC: the whole TFTP-only chain of GRUB 2.06.
func stepTFTP(args []string) error {
	for _, name := range []string{"shimx64.efi", "/grubx64.efi", "/grub/grub.cfg"} {
		if b, err := tftpGet(name); err != nil || len(b) == 0 {
			return fmt.Errorf("get %s: %d bytes, error %w", name, len(b), err)
		}
	}
	if b, err := tftpGet("/vmlinuz"); err == nil {
		return fmt.Errorf("kernel without a session: %d bytes", len(b))
	}
	cfg, err := tftpGet("/host/" + args[0] + ".cfg")
	if err != nil || !strings.Contains(string(cfg), "(tftp,10.77.0.1)/vmlinuz") {
		return fmt.Errorf("host.cfg = %q, error %w", cfg, err)
	}
	want := strings.Repeat("vmlinuz\n", 100_000)
	if b, err := tftpGet("/vmlinuz"); err != nil || string(b) != want {
		return fmt.Errorf("kernel: %d bytes, error %w", len(b), err)
	}
	if b, err := tftpGet("/initrd.img"); err != nil || len(b) < 1_000_000 {
		return fmt.Errorf("initramfs: %d bytes, error %w", len(b), err)
	}
	return nil
}

// stepTFTPError: names that do not exist get ERROR 1 at once.
func stepTFTPError([]string) error {
	for _, name := range []string{"revocations_sku.efi", "/grub/x86_64-efi/fs.lst", "../../etc/passwd"} {
		start := time.Now()
		_, err := tftpGet(name)
		if err == nil || !strings.Contains(err.Error(), "code=1") && !strings.Contains(err.Error(), "code: 1") {
			return fmt.Errorf("get %s: %w; want ERROR 1", name, err)
		}
		if d := time.Since(start); d > 2*time.Second {
			return fmt.Errorf("get %s: the ERROR took %v, so it came by a timeout", name, d)
		}
	}
	return nil
}

// stepHTTP MAC: iPXE's and GRUB 2.12's chain.
func stepHTTP(args []string) error {
	get := func(path string) (int, string, error) {
		resp, err := http.Get("http://" + srv + path)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
	for _, c := range []struct {
		path string
		code int
		has  string
	}{
		{"//grubx64.efi", 200, "grubx64.efi"}, {"/autoexec.ipxe", 200, "ifconf -c dhcp"}, {"/vmlinuz", 404, ""},
		{"/boot.ipxe", 200, "BOOTIF=01-" + strings.ReplaceAll(args[0], ":", "-")}, // told by its address alone
		{"/boot.ipxe?mac=" + args[0] + "&uuid=00112233-4455-6677-8899-aabbccddeeff", 200, "kernel http://10.77.0.1/vmlinuz "},
		{"/vmlinuz", 200, "vmlinuz\n"}, {"/initrd.img", 200, "initrd.img\n"},
		{"/host.cfg?mac=02:00:00:00:00:99", 200, "chainloader"}, {"/vmlinuz", 404, ""}, // an unknown PC takes over the address
	} {
		code, body, err := get(c.path)
		if err != nil || code != c.code || !strings.Contains(body, c.has) {
			return fmt.Errorf("GET %s: %d, %d bytes, %w; want %d and %q", c.path, code, len(body), err, c.code, c.has)
		}
	}
	return nil
}

// stepRS: a router solicitation is answered by one empty unicast RA.
func stepRS([]string) error {
	pc, err := net.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return err
	}
	defer pc.Close()
	c := ipv6.NewPacketConn(pc)
	ifi, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	var f ipv6.ICMPFilter
	f.SetAll(true)
	f.Accept(ipv6.ICMPTypeRouterAdvertisement)
	if err := errors.Join(c.SetICMPFilter(&f), c.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagDst, true), c.SetMulticastHopLimit(255), c.SetMulticastInterface(ifi)); err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for range 10 {
		dst := &net.IPAddr{IP: net.ParseIP("ff02::2"), Zone: "eth0"}
		if _, err := c.WriteTo([]byte{133, 0, 0, 0, 0, 0, 0, 0}, nil, dst); err != nil { // no address yet (duplicate address detection)
			time.Sleep(500 * time.Millisecond)
			continue
		}
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		n, cm, _, err := c.ReadFrom(buf)
		if err != nil {
			continue
		}
		if n != 16 || buf[0] != 134 || buf[4] != 64 || binary.BigEndian.Uint16(buf[6:]) != 0 || cm.HopLimit != 255 || !cm.Dst.IsLinkLocalUnicast() {
			return fmt.Errorf("advertisement % x, hop limit %d, to %v", buf[:n], cm.HopLimit, cm.Dst)
		}
		return nil
	}
	return errors.New("no router advertisement came")
}
