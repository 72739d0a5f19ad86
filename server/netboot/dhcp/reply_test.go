package dhcp

import (
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"labswarm/server/decide"
	"labswarm/server/netboot/bootfile"
	"labswarm/server/netboot/bootreq"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	discover = 1
	request  = 3
)

func testSite(t testing.TB, proxy bool, style string) Site {
	t.Helper()
	srv := netip.MustParseAddr("10.77.0.1")
	sc, err := bootfile.NewScripts(bootfile.Site{IP: srv, KeyID: "0011223344556677"})
	if err != nil {
		t.Fatal(err)
	}
	return Site{Server: srv, Proxy: proxy, Mask: net.CIDRMask(24, 32), Router: netip.MustParseAddr("10.77.0.254"),
		DNS: netip.MustParseAddr("10.77.0.253"), LeaseTime: time.Hour, Style: style, Scripts: sc}
}

func answer(a decide.Action, style string) bootreq.Answer {
	return bootreq.Answer{Decision: decide.Decision{Action: a}, Host: "lab-01", BootStyle: style}
}

var (
	agent      = answer(decide.Agent, "")
	hold       = answer(decide.Hold, "")
	local      = answer(decide.Local, "")
	localChain = answer(decide.Local, bootreq.StyleChain)
	localQuiet = answer(decide.Local, bootreq.StyleSilent)
	ignore     = answer(decide.Ignore, "")
	enrol      = answer(decide.Enrol, "")
	unknown    = bootreq.Answer{}
	lease      = netip.MustParseAddr("10.77.0.101")
)

// row is one case: what comes in, in which mode, and whether an answer goes out.
type row struct {
	name   string
	pkt    []byte
	proxy  bool
	style  string
	at4011 bool
	a      bootreq.Answer
	silent bool   // no answer at all
	file   string // boot file of the answer, "" = none
	vendor string // option 43 in hexadecimal
}

const (
	scriptURL = "http://10.77.0.1/boot.ipxe?mac=52:54:00:77:00:01&uuid=" + testUUIDText
	direct    = "060108ff"
	menuHex   = "0601070807800101" + "0a4d0001" + "090b800108" + "6c6162737761726d" + "0a0800" + "6e6574626f6f74" + "ff"
)

func rows() []row {
	otherServer := opt(54, 10, 77, 0, 254)
	ourServer := opt(54, 10, 77, 0, 1)
	item := opt(43, 0x47, 4, 0x80, 1, 0, 0, 0xff)
	return []row{
		{name: "dhcp-offer-pxe-rom", pkt: pxeROM(discover), a: agent, file: "undionly.kpxe", vendor: direct},
		{name: "dhcp-ack-pxe-rom", pkt: pxeROM(request, ourServer), a: agent, file: "undionly.kpxe", vendor: direct},
		{name: "dhcp-offer-ipxe-rom", pkt: ipxeROM(discover), a: agent, file: scriptURL, vendor: direct},
		{name: "dhcp-offer-undionly", pkt: undionly(discover), a: agent, file: scriptURL, vendor: direct},
		{name: "dhcp-offer-snponly", pkt: snponly(discover), a: agent, file: scriptURL, vendor: direct},
		{name: "dhcp-offer-ovmf-pxe", pkt: ovmfPXE(discover, 7), a: agent, file: "shimx64.efi", vendor: direct},
		{name: "dhcp-offer-ovmf-pxe-arch9", pkt: ovmfPXE(discover, 9), a: agent, file: "shimx64.efi", vendor: direct},
		{name: "dhcp-offer-ovmf-http", pkt: ovmfHTTP(discover), a: agent, file: "http://10.77.0.1/shimx64.efi"},
		{name: "dhcp-offer-hold", pkt: ovmfPXE(discover, 7), a: hold, file: "shimx64.efi", vendor: direct},
		{name: "dhcp-offer-local", pkt: ovmfPXE(discover, 7), a: local, file: "shimx64.efi", vendor: direct},
		{name: "dhcp-offer-local-silent", pkt: ovmfPXE(discover, 7), a: localQuiet},
		{name: "dhcp-offer-unknown", pkt: ovmfPXE(discover, 7), a: unknown},
		{name: "dhcp-offer-ignore", pkt: ovmfPXE(discover, 7), a: ignore},
		{name: "dhcp-offer-ia32", pkt: ovmfPXE(discover, 6), a: agent},
		{name: "dhcp-offer-arm64", pkt: ovmfPXE(discover, 11), a: agent},
		{name: "dhcp-offer-uroot", pkt: uroot(discover), a: agent},
		{name: "dhcp-offer-agent", pkt: pxeROM(discover, text(77, "labswarm-agent")), a: agent},
		{name: "dhcp-offer-os", pkt: debianOS(discover), a: agent},
		{name: "dhcp-request-for-other", pkt: pxeROM(request, otherServer), a: agent, silent: true},
		{name: "proxy-offer-pxe-rom", pkt: pxeROM(discover), proxy: true, a: agent, file: "undionly.kpxe", vendor: direct},
		{name: "proxy-offer-ipxe-rom", pkt: ipxeROM(discover), proxy: true, a: agent, file: scriptURL, vendor: direct},
		{name: "proxy-offer-ovmf-pxe", pkt: ovmfPXE(discover, 7), proxy: true, a: agent, file: "shimx64.efi", vendor: direct},
		{name: "proxy-offer-ovmf-http", pkt: ovmfHTTP(discover), proxy: true, a: agent, file: "http://10.77.0.1/shimx64.efi"},
		{name: "proxy-offer-style-4011", pkt: ovmfPXE(discover, 7), proxy: true, style: Style4011, a: agent},
		{name: "proxy-offer-style-menu", pkt: ovmfPXE(discover, 7), proxy: true, style: StyleMenu, a: agent, vendor: menuHex},
		{name: "proxy-offer-ipxe-style-menu", pkt: ipxeROM(discover), proxy: true, style: StyleMenu, a: agent, file: scriptURL, vendor: direct},
		{name: "proxy-offer-local-chain", pkt: ovmfPXE(discover, 7), proxy: true, a: localChain, file: "shimx64.efi", vendor: direct},
		{name: "proxy-offer-enrol", pkt: ovmfPXE(discover, 7), proxy: true, a: enrol, file: "shimx64.efi", vendor: direct},
		{name: "proxy-local", pkt: ovmfPXE(discover, 7), proxy: true, a: local, silent: true},
		{name: "proxy-ignore", pkt: ovmfPXE(discover, 7), proxy: true, a: ignore, silent: true},
		{name: "proxy-request", pkt: pxeROM(request, otherServer), proxy: true, a: agent, silent: true},
		{name: "proxy-request-ours", pkt: pxeROM(request, ourServer), proxy: true, a: agent, silent: true},
		{name: "proxy-arm64", pkt: ovmfPXE(discover, 11), proxy: true, a: agent, silent: true},
		{name: "proxy-os", pkt: debianOS(discover), proxy: true, a: agent, silent: true},
		{name: "proxy-agent", pkt: uroot(discover, text(77, "labswarm-agent")), proxy: true, a: agent, silent: true},
		{name: "4011-ack-ipxe-rom", pkt: ipxeROM(request), proxy: true, at4011: true, a: agent, file: scriptURL, vendor: direct},
		{name: "4011-ack-ovmf", pkt: ovmfPXE(request, 7), proxy: true, at4011: true, a: agent, file: "shimx64.efi", vendor: direct},
		{name: "4011-ack-ovmf-boot-item", pkt: ovmfPXE(request, 7, item), proxy: true, at4011: true, a: agent, file: "shimx64.efi", vendor: "470480010000ff"},
		{name: "4011-ack-style-menu", pkt: ovmfPXE(request, 7, item), proxy: true, style: StyleMenu, at4011: true, a: agent, file: "shimx64.efi", vendor: "470480010000ff"},
		{name: "4011-ack-local", pkt: ovmfPXE(request, 7), proxy: true, at4011: true, a: local, file: "shimx64.efi", vendor: direct},
		{name: "4011-ignore", pkt: ovmfPXE(request, 7), proxy: true, at4011: true, a: ignore, silent: true},
		{name: "4011-discover", pkt: ovmfPXE(discover, 7), proxy: true, at4011: true, a: agent, silent: true},
	}
}

func reply(t testing.TB, r row) (*dhcpv4.DHCPv4, bool) {
	m := parse(t, r.pkt)
	q := Query{Msg: m, Client: Classify(m), At4011: r.at4011}
	if !r.proxy {
		q.Lease = lease
	}
	return Reply(testSite(t, r.proxy, r.style), q, r.a)
}

// TestReplyGolden holds every row of design table 2.2 to its bytes, and states
// the fields that matter a second time.
func TestReplyGolden(t *testing.T) {
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) {
			got, ok := reply(t, r)
			if ok == r.silent {
				t.Fatalf("answered = %v; want %v", ok, !r.silent)
			}
			if r.silent {
				return
			}
			checkFields(t, r, got)
			golden(t, r.name, dump(r.pkt, got))
		})
	}
}

func checkFields(t *testing.T, r row, got *dhcpv4.DHCPv4) {
	t.Helper()
	if got.BootFileName != r.file || got.BootFileNameOption() != r.file {
		t.Errorf("file = %q, option 67 = %q; want %q twice", got.BootFileName, got.BootFileNameOption(), r.file)
	}
	if len(r.file) > 127 {
		t.Errorf("file name of %d bytes does not fit", len(r.file))
	}
	if v := hex.EncodeToString(got.Options.Get(dhcpv4.OptionVendorSpecificInformation)); v != r.vendor {
		t.Errorf("option 43 = %s; want %s", v, r.vendor)
	}
	if !got.ServerIdentifier().Equal(net.IPv4(10, 77, 0, 1)) {
		t.Errorf("option 54 = %v", got.ServerIdentifier())
	}
	wantIP := net.IPv4(10, 77, 0, 101)
	if r.proxy {
		wantIP = net.IPv4zero
		for _, c := range []dhcpv4.OptionCode{dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionIPAddressLeaseTime} {
			if got.Options.Has(c) {
				t.Errorf("proxy reply carries option %v", c)
			}
		}
	}
	if !got.YourIPAddr.Equal(wantIP) {
		t.Errorf("yiaddr = %v; want %v", got.YourIPAddr, wantIP)
	}
	boots := r.file != "" || r.style != "" && r.proxy
	if boots != got.Options.Has(dhcpv4.OptionClassIdentifier) {
		t.Errorf("option 60 present = %v; want %v", !boots, boots)
	}
	if boots {
		if id := got.Options.Get(dhcpv4.OptionClientMachineIdentifier); string(id) != "\x00"+string(testUUID) {
			t.Errorf("option 97 = % x is not the client's own", id)
		}
	}
}

// dump shows request and reply as hexadecimal and the reply's fields in words.
func dump(req []byte, m *dhcpv4.DHCPv4) string {
	var b strings.Builder
	fmt.Fprintf(&b, "request\n%sreply\n%s\n%s", hex.Dump(req), hex.Dump(m.ToBytes()), m.Summary())
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run with -update to make it)", err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("reply differs from %s (-want +got):\n%s", path, d)
	}
}

func TestClassify(t *testing.T) {
	mac := "52:54:00:77:00:01"
	for _, c := range []struct {
		name string
		pkt  []byte
		want Client
		os   bool
	}{
		{"ipxe rom", ipxeROM(discover), Client{MAC: mac, UUID: testUUIDText, Class: ClassPXE, IPXE: true, UserClass: "iPXE", VendorClass: "PXEClient:Arch:00000:UNDI:002001"}, false},
		{"undionly", undionly(discover), Client{MAC: mac, UUID: testUUIDText, Class: ClassPXE, IPXE: true, UserClass: "iPXE", VendorClass: "PXEClient"}, false},
		{"ovmf http", ovmfHTTP(discover), Client{MAC: mac, UUID: testUUIDText, Arch: 16, Class: ClassHTTP, VendorClass: "HTTPClient:Arch:00016:UNDI:003000"}, false},
		{"u-root", uroot(discover), Client{MAC: mac, VendorClass: "PXE UROOT"}, false},
		{"agent", uroot(discover, text(77, "labswarm-agent")), Client{MAC: mac, Agent: true, UserClass: "labswarm-agent", VendorClass: "PXE UROOT"}, false},
		{"installed system", debianOS(discover), Client{MAC: mac, Hostname: "lab-07"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Classify(parse(t, c.pkt))
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("Classify (-want +got):\n%s", d)
			}
			if got.InstalledOS() != c.os {
				t.Errorf("InstalledOS = %v; want %v", got.InstalledOS(), c.os)
			}
		})
	}
}

func TestAcceptable(t *testing.T) {
	good := ipxeROM(discover)
	change := func(at int, v byte) []byte {
		b := append([]byte(nil), good...)
		b[at] = v
		return b
	}
	for name, c := range map[string]struct {
		pkt  []byte
		want bool
	}{"request": {good, true}, "reply": {change(0, 2), false}, "not ethernet": {change(1, 6), false},
		"long address": {change(2, 8), false}, "relayed": {change(24, 10), false}} {
		if got := Acceptable(parse(t, c.pkt)); got != c.want {
			t.Errorf("Acceptable(%s) = %v; want %v", name, got, c.want)
		}
	}
}

func TestDestination(t *testing.T) {
	ci := [4]byte{10, 77, 0, 50}
	addr4011 := netip.MustParseAddrPort("10.77.0.50:4011")
	bcast := netip.MustParseAddrPort("255.255.255.255:68")
	for _, c := range []struct {
		name string
		ci   [4]byte
		from netip.AddrPort
		want netip.AddrPort
	}{
		{"no address yet", noAddr, netip.MustParseAddrPort("0.0.0.0:68"), bcast},
		{"OVMF asks 4011 from 4011", ci, addr4011, addr4011},
		{"BIOS ROM asks 4011 from 68", ci, netip.MustParseAddrPort("10.77.0.50:68"), netip.MustParseAddrPort("10.77.0.50:68")},
		{"ciaddr is not the source", ci, netip.MustParseAddrPort("10.77.0.66:68"), bcast},
	} {
		if got := Destination(parse(t, raw(c.ci, 0, opt(53, request))), c.from); got != c.want {
			t.Errorf("%s: Destination = %v; want %v", c.name, got, c.want)
		}
	}
}

func TestBootItem(t *testing.T) {
	for in, want := range map[string]string{"": "", "470480010000ff": "80010000", "00470480010000ff": "80010000",
		"060107470480010000": "80010000", "4704800100": "", "47058001000000": "", "ff470480010000": "", "47": ""} {
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(bootItem(b)); got != want {
			t.Errorf("bootItem(%s) = %s; want %s", in, got, want)
		}
	}
}

// FuzzPacket: no packet makes the decoder, Classify or Reply panic, and no reply
// breaks the rules that keep other clients and the router alone.
func FuzzPacket(f *testing.F) {
	for _, r := range rows() {
		f.Add(r.pkt, r.proxy, r.at4011, byte(r.a.Decision.Action))
	}
	f.Fuzz(func(t *testing.T, pkt []byte, proxy, at4011 bool, action byte) {
		m, err := dhcpv4.FromBytes(pkt)
		if err != nil || !Acceptable(m) {
			return
		}
		c := Classify(m)
		a := answer(decide.Action(action%6), []string{"", bootreq.StyleSilent, bootreq.StyleChain}[int(action/6)%3])
		q := Query{Msg: m, Client: c, At4011: at4011}
		if !proxy {
			q.Lease = lease
		}
		r, ok := Reply(testSite(t, proxy, ""), q, a)
		if !ok {
			return
		}
		back, err := dhcpv4.FromBytes(r.ToBytes())
		if err != nil {
			t.Fatalf("our reply does not decode: %v", err)
		}
		if back.TransactionID != m.TransactionID || back.OpCode != dhcpv4.OpcodeBootReply {
			t.Fatal("the reply is not one to this request")
		}
		if !c.Boots() && back.BootFileName != "" {
			t.Fatal("boot file for a client that does not boot")
		}
		if c.IPXE && back.BootFileName != "" && !strings.HasPrefix(back.BootFileName, "http://10.77.0.1/boot.ipxe") {
			t.Fatalf("iPXE got %q instead of the script: it would load itself for ever", back.BootFileName)
		}
		if proxy && (!back.YourIPAddr.IsUnspecified() || !at4011 && m.MessageType() != dhcpv4.MessageTypeDiscover) {
			t.Fatal("proxy mode gave an address or answered a REQUEST on port 67")
		}
		if a.Decision.Action == decide.Ignore && back.BootFileName != "" {
			t.Fatal("boot file for an ignored PC")
		}
	})
}
