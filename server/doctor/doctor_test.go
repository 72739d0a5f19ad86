package doctor

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"labswarm/api"
)

func worst(t *testing.T, what, want string, checks ...api.Check) {
	t.Helper()
	if got := api.Worst(checks); got != want {
		t.Errorf("%s: %s, want %s: %+v", what, got, want, checks)
	}
	for _, c := range checks {
		if (c.Advice == "") != (c.Result == api.CheckOK) || c.Name == "" || c.Text == "" {
			t.Errorf("%s: advice goes with warnings and failures only: %+v", what, c)
		}
	}
}

func TestJudgeDHCP(t *testing.T) {
	own, router, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.254"), netip.MustParseAddr("10.0.0.250")
	lease := netip.MustParseAddr("10.0.0.77")
	plain, boot, second := Answer{Server: router, Offers: lease}, Answer{Server: other, Boot: "evil.efi"}, Answer{Server: other, Offers: lease}
	for _, tt := range []struct {
		what, mode string
		answers    []Answer
		want       string
	}{
		{"router beside us", "proxy", []Answer{plain}, api.CheckOK},
		{"no router", "proxy", nil, api.CheckFail},
		{"no router, we give addresses", "dhcp", []Answer{{Server: own, Offers: lease}}, api.CheckOK},
		{"two give addresses", "dhcp", []Answer{{Server: own, Offers: lease}, plain}, api.CheckFail},
		{"two routers", "proxy", []Answer{plain, second}, api.CheckWarn},
		{"router with a boot file", "proxy", []Answer{{Server: router, Offers: lease, Boot: "pxelinux.0"}}, api.CheckFail},
		{"second boot server", "proxy", []Answer{plain, boot}, api.CheckFail},
		{"second boot server, mode off", "off", []Answer{plain, boot}, api.CheckFail},
		{"we arm a PC that nobody knows", "proxy", []Answer{plain, {Server: own, Boot: "shimx64.efi"}}, api.CheckFail},
	} {
		worst(t, tt.what, tt.want, judgeDHCP(tt.mode, own, tt.answers)...)
	}
	if c := judgeDHCP("proxy", own, []Answer{plain, boot}); !strings.Contains(c[0].Text, "10.0.0.250") || !strings.Contains(c[0].Text, "evil.efi") {
		t.Errorf("who it is, is not told: %+v", c)
	}
}

func TestJudge(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	ip := netip.MustParseAddr("10.0.0.1")
	good := nicFacts{up: true, carrier: true, mbps: 1000, duplex: "full", packets: 1e6, errors: 3}
	nic := func(change func(*nicFacts)) api.Check {
		f := good
		change(&f)
		return judgeNIC("eth0", ip, f)
	}
	for _, tt := range []struct {
		what, want string
		check      api.Check
	}{
		{"nic", api.CheckOK, nic(func(*nicFacts) {})},
		{"virtual nic", api.CheckOK, nic(func(f *nicFacts) { f.mbps, f.duplex = 0, "" })},
		{"nic down", api.CheckFail, nic(func(f *nicFacts) { f.up = false })},
		{"no link", api.CheckFail, nic(func(f *nicFacts) { f.carrier = false })},
		{"half duplex", api.CheckFail, nic(func(f *nicFacts) { f.duplex = "half" })},
		{"100 Mb/s", api.CheckWarn, nic(func(f *nicFacts) { f.mbps = 100 })},
		{"errors", api.CheckWarn, nic(func(f *nicFacts) { f.errors = 5000 })},
		{"firewall", api.CheckOK, judgeHeard(true, "eth0")},
		{"firewall drops", api.CheckFail, judgeHeard(false, "eth0")},
		{"neighbours", api.CheckOK, judgeNeigh(1024, 40)},
		{"neighbours near", api.CheckWarn, judgeNeigh(1024, 500)},
		{"neighbours over", api.CheckFail, judgeNeigh(1024, 1000)},
		{"clock", api.CheckOK, judgeClock(now, now.AddDate(-1, 0, 0), true)},
		{"clock alone", api.CheckWarn, judgeClock(now, time.Time{}, false)},
		{"clock of 1970", api.CheckFail, judgeClock(time.Unix(0, 0), now, true)},
		{"files", api.CheckOK, judgeFiles(65536, 500)},
		{"few files", api.CheckWarn, judgeFiles(1024, 40)},
		{"space", api.CheckOK, judgeSpace("/x", 100<<30, 500<<30)},
		{"little space", api.CheckWarn, judgeSpace("/x", 10<<30, 500<<30)},
		{"no space", api.CheckFail, judgeSpace("/x", 100<<20, 500<<30)},
		{"fsync", api.CheckOK, judgeFsync(5 * time.Millisecond)},
		{"slow fsync", api.CheckWarn, judgeFsync(50 * time.Millisecond)},
		{"floppy", api.CheckFail, judgeFsync(time.Second)},
		{"images", api.CheckOK, judgeImages([]Image{{Name: "a/1", Checked: now.AddDate(0, 0, -6)}}, 7*24*time.Hour, now)[0]},
		{"never scrubbed on purpose", api.CheckOK, judgeImages([]Image{{Name: "a/1"}}, 0, now)[0]},
		{"scrub late", api.CheckWarn, judgeImages([]Image{{Name: "a/1", Checked: now.AddDate(0, -1, 0)}}, 7*24*time.Hour, now)[0]},
		{"quarantine", api.CheckFail, judgeImages([]Image{{Name: "a/1", Checked: now, Quarantine: "cell 3"}}, 0, now)[0]},
		{"bad signature", api.CheckFail, judgeImages([]Image{{Name: "a/1", Err: "signature"}}, 0, now)[0]},
	} {
		worst(t, tt.what, tt.want, tt.check)
	}
}

// frame is an answer as it comes from the wire.
func frame(m *dhcpv4.DHCPv4) []byte {
	d := m.ToBytes()
	n := 28 + len(d)
	b := append([]byte{255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 8, 0, 0x45, 0, byte(n >> 8), byte(n), 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 250, 255, 255, 255, 255},
		0, 67, 0, 68, byte((n-20)>>8), byte(n-20), 0, 0)
	return append(b, d...)
}

func answer(t testing.TB) (*dhcpv4.DHCPv4, *dhcpv4.DHCPv4) {
	ask, err := discover(NewMAC())
	if err != nil {
		t.Fatal(err)
	}
	m, err := dhcpv4.NewReplyFromRequest(ask, dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 77)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 0, 251))))
	if err != nil {
		t.Fatal(err)
	}
	m.BootFileName = "evil\x1b[2J.efi"
	return ask, m
}

func TestParseFrame(t *testing.T) {
	ask, m := answer(t)
	a, match := parseFrame(frame(m), ask.TransactionID)
	if !match || a.Server.String() != "10.0.0.251" || a.Offers.String() != "10.0.0.77" || a.Boot != "evil[2J.efi" || a.MAC != "02:00:00:00:00:09" {
		t.Errorf("parsed %+v, %v", a, match)
	}
	if _, match := parseFrame(frame(m), dhcpv4.TransactionID{1}); match {
		t.Error("an answer to somebody else was taken")
	}
	if _, match := parseFrame(frame(ask), ask.TransactionID); match {
		t.Error("our own question was taken for an answer")
	}
	for n := range len(frame(m)) {
		parseFrame(frame(m)[:n], ask.TransactionID)
	}
}

func FuzzParseFrame(f *testing.F) {
	ask, m := answer(f)
	f.Add(frame(m))
	f.Fuzz(func(_ *testing.T, b []byte) { parseFrame(b, ask.TransactionID) })
}

// TestRunSurvives: a probe that breaks or cannot work is a failed check, never a lost checkup.
func TestRunSurvives(t *testing.T) {
	d := Run(t.Context(), Config{Interface: "no-such-if0", DHCP: "proxy", StateDir: t.TempDir(), BootDir: t.TempDir(),
		Images: func(context.Context) ([]Image, error) { panic("broken") }, PortOwner: func(string, int) ([]string, error) { return []string{"dnsmasq (pid 1)"}, nil }})
	if d.Result != api.CheckFail {
		t.Errorf("result %s", d.Result)
	}
	got := map[string]string{}
	for _, c := range d.Checks {
		got[c.Name] = c.Result
	}
	for _, name := range []string{"nic", "dhcp", "images", "ports", "boot"} {
		if got[name] != api.CheckFail {
			t.Errorf("%s is %q; want fail (%+v)", name, got[name], d.Checks)
		}
	}
	if got["space"] == "" || got["fsync"] == "" || got["clock"] == "" {
		t.Errorf("checks are missing: %v", got)
	}
}
