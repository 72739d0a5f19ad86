//go:build integration

package daemon

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"labswarm/api"
	"labswarm/internal/testreq"
	"labswarm/server/decide"
	"labswarm/server/netboot"
	"labswarm/server/netboot/bootfile"
)

// randomPC is a PC that boots from the network. host is the one record its evidence may stand for, "" = none: it is
// unknown, or its evidence contradicts itself.
type randomPC struct {
	host, mac, uuid, ip string
	http                *http.Client
}

// randomLab is real netboot, desk and engine on loopback, and an oracle that reads only the admin API.
type randomLab struct {
	*site
	rng   *rand.Rand
	pcs   []randomPC
	armed map[string]bool
	live  []uint64 // jobs

	boot   *netboot.Server
	ports  [4]int // DHCP, proxy, TFTP, HTTP
	heard  chan string
	wrong  []string
	handed map[string]int // agents handed out by way
	asked  map[string]int
}

// TestRandomBootRequests: bar R11. 10,000 requests by every protocol against random states of jobs and hosts: the
// agent, its script, its kernel and its initramfs go to hosts with a live slot only.
func TestRandomBootRequests(t *testing.T) {
	testreq.Root(t)
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		t.Setenv("TMPDIR", "/dev/shm")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	l := &randomLab{site: newSite(t), rng: rand.New(rand.NewPCG(seed, 2)), handed: map[string]int{}, asked: map[string]int{}}
	l.fleet()
	const rounds, perRound = 40, 250
	round := func(d netboot.Decider) { // each is a server anew: the boot sessions of the round before, in which a refusal sticks, are forgotten
		l.restart()
		if d == nil {
			d = l.srv.engine
		}
		stop := l.open(d)
		l.arm()
		for i := range perRound {
			if i%25 == 24 {
				l.change()
			}
			l.request()
		}
		stop()
	}
	for range rounds {
		round(nil)
	}
	for _, w := range l.wrong {
		t.Error(w)
	}
	for _, way := range ways {
		if l.asked[way] < 500 || (l.handed[way] == 0) {
			t.Errorf("%s: %d requests, %d times the agent: the test proves nothing about it", way, l.asked[way], l.handed[way])
		}
	}
	t.Logf("requests %v, agents %v", l.asked, l.handed)
	if l.wrong = nil; !t.Failed() {
		if round(&lenient{}); len(l.wrong) == 0 {
			t.Error("a desk that takes some refusals for the agent is not found: the test proves nothing")
		}
		t.Logf("negative control: %d wrong answers found in %d requests", len(l.wrong), perRound)
	}
}

// lenient is the negative control: one answer in ten is the agent, whatever the engine would say.
type lenient struct{ n atomic.Int64 }

func (d *lenient) DecideBoot(context.Context, netboot.Request) (a netboot.Answer) {
	if d.n.Add(1)%10 == 0 {
		a.Decision.Action = decide.Agent
	}
	return a
}

func (*lenient) Sighting(netboot.Sighting) {}
func (*lenient) InitramfsFetched(string)   {}

// ways are all ways to the agent.
var ways = []string{"dhcp", "4011", "tftp script", "tftp kernel", "tftp initramfs", "http ipxe", "http grub", "http kernel", "http initramfs"}

// fleet makes 14 hosts; the last two are in no job, ever, and share their evidence with others.
func (l *randomLab) fleet() {
	add := func(host, mac, uuid string) {
		ip := fmt.Sprintf("127.3.0.%d", len(l.pcs)+1)
		l.pcs = append(l.pcs, randomPC{host, mac, uuid, ip, bootClient(ip)})
	}
	var hosts []api.Host
	for i := range 14 {
		h, err := l.cli.PutHost(l.t.Context(), randomHost(i, false))
		if err != nil {
			l.t.Fatal(err)
		}
		hosts = append(hosts, h)
		switch {
		case i < 8:
			add(h.Name, h.MAC, h.UUID)
		case i < 12: // an old ROM
			add(h.Name, h.MAC, "")
		}
	}
	add("", hosts[12].MAC, hosts[0].UUID)
	add("", hosts[13].MAC, "99999999-4455-6677-8899-aabbccddeeff")
	for i := range 6 {
		add("", fmt.Sprintf("52:54:00:88:00:%02x", i), []string{"", fmt.Sprintf("88888888-4455-6677-8899-aabbccddee%02x", i)}[i%2])
	}
}

func randomHost(i int, exclude bool) api.Host {
	return api.Host{Name: fmt.Sprintf("h%02d", i), Room: "r1", MAC: fmt.Sprintf("52:54:00:00:07:%02x", i), UUID: fmt.Sprintf("00112233-4455-6677-8899-aabbccdd07%02x", i),
		Style: "silent", Exclude: exclude} // silent: a boot file by DHCP is the way to the agent
}

// open starts netboot on ports of its own.
func (l *randomLab) open(d netboot.Decider) (stop func()) {
	t := l.t
	dir := t.TempDir()
	for _, f := range []string{"shimx64.efi", "grubx64.efi", "undionly.kpxe", "snponly.efi", "ipxe.efi", "vmlinuz", "initrd.img"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("content of "+f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pins, err := bootfile.PinsJSON([][]byte{l.srv.keys.ServerPublic()}, [][]byte{l.srv.keys.ImagePublic()})
	if err != nil {
		t.Fatal(err)
	}
	files, err := bootfile.Load(dir, pins)
	if err != nil {
		t.Fatal(err)
	}
	k := killBar{t: t.(*testing.T)}
	k.freePorts()
	l.ports, l.heard = k.ports, make(chan string, 1)
	heard := l.heard
	cfg := netboot.Config{Interface: "lo", ServerIP: netip.MustParseAddr("127.0.0.1"), Mode: netboot.ModeProxy, AgentPort: 7440, KeyID: "00", Log: slog.New(slog.DiscardHandler),
		DHCPPort: l.ports[0], ProxyPort: l.ports[1], TFTPPort: l.ports[2], HTTPPort: l.ports[3], CountDHCP: func(_, result string) { heard <- result }}
	if l.boot, err = netboot.New(cfg, files, d); err == nil {
		err = l.boot.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.boot.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// arm begins a round: all earlier jobs are cancelled, and about two thirds of the hosts are in two new ones.
func (l *randomLab) arm() {
	l.look()
	for _, id := range l.live {
		if _, err := l.cli.CancelJob(l.t.Context(), id); err != nil {
			l.t.Fatal(err)
		}
	}
	var sets [3][]string // the last is in no job
	for i := range 12 {
		if _, err := l.cli.PutHost(l.t.Context(), randomHost(i, l.rng.IntN(12) == 0)); err != nil {
			l.t.Fatal(err)
		}
		n := l.rng.IntN(len(sets))
		sets[n] = append(sets[n], fmt.Sprintf("h%02d", i))
	}
	for _, set := range sets[:2] { // refused when one is excluded, or none is left
		_, _ = l.cli.CreateJob(l.t.Context(), api.JobCreate{Image: l.image, Hosts: set, Confirm: l.image})
	}
	l.look()
}

// change does something that an admin may do at any time, and looks at what is armed now.
func (l *randomLab) change() {
	ctx, t := l.t.Context(), l.t
	i := l.rng.IntN(12)
	name := fmt.Sprintf("h%02d", i)
	pick := func() uint64 {
		if len(l.live) == 0 {
			return 0
		}
		return l.live[l.rng.IntN(len(l.live))]
	}
	// Each may be refused: the host has a job, the job is not paused...
	switch l.rng.IntN(10) {
	case 0, 1, 2, 3:
		_, _ = l.cli.CreateJob(ctx, api.JobCreate{Image: l.image, Hosts: []string{name, fmt.Sprintf("h%02d", (i+1)%12)}, Confirm: l.image})
	case 4, 5:
		_, _ = l.cli.CancelJob(ctx, pick())
	case 6:
		_, _ = l.cli.PauseJob(ctx, pick())
	case 7:
		_, _ = l.cli.ResumeJob(ctx, pick())
	case 8:
		_, _ = l.cli.PutHost(ctx, randomHost(i, true))
	case 9:
		_, _ = l.cli.PutHost(ctx, randomHost(i, false))
	}
	l.look()
	if t.Failed() {
		t.FailNow()
	}
}

// look reads from the admin API which hosts may get the agent.
func (l *randomLab) look() {
	ctx := l.t.Context()
	hosts, err := l.cli.Hosts(ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	jobs, err := l.cli.Jobs(ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	l.armed, l.live = map[string]bool{}, nil
	for _, j := range jobs {
		if j.Result != "" {
			continue
		}
		l.live = append(l.live, j.ID)
		for _, sl := range j.Slots {
			switch sl.State {
			case api.StateArmed, api.StateWaking, api.StateBooting:
				l.armed[sl.Host] = j.Paused.IsZero()
			}
		}
	}
	for _, h := range hosts {
		if h.Exclude {
			delete(l.armed, h.Name)
		}
	}
}

// request is one random question.
func (l *randomLab) request() {
	pc, way := l.pcs[l.rng.IntN(len(l.pcs))], ways[l.rng.IntN(len(ways))]
	l.asked[way]++
	var agent bool
	switch kind, what, _ := strings.Cut(way, " "); {
	case kind == "dhcp":
		agent = l.dhcp(pc, false)
	case kind == "4011": // gives its loader to every PC of the inventory: who asks there wants a file now, and the script decides
		if l.dhcp(pc, true) {
			l.handed[way]++
			if strings.HasPrefix(pc.mac, "52:54:00:88") {
				l.wrong = append(l.wrong, "4011 answers the unknown PC "+pc.mac)
			}
		}
	case kind == "tftp":
		agent = l.tftp(pc, map[string]string{"script": "/host/" + pc.mac + ".cfg", "kernel": "vmlinuz", "initramfs": "initrd.img"}[what])
	default:
		path := map[string]string{"ipxe": "boot.ipxe?mac=" + pc.mac, "grub": "host.cfg?mac=" + pc.mac, "kernel": "vmlinuz", "initramfs": "initrd.img"}[what]
		if pc.uuid != "" {
			path += strings.Replace("&uuid="+pc.uuid, "&", map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")], 1)
		}
		agent = l.web(pc, path)
	}
	if !agent {
		return
	}
	l.handed[way]++
	if pc.host == "" || !l.armed[pc.host] {
		l.wrong = append(l.wrong, fmt.Sprintf("%s: PC %s %q of host %q was handed the agent; armed: %v", way, pc.mac, pc.uuid, pc.host, l.armed))
	}
}

// isAgent: kernel or initramfs themselves, or a script that names the kernel.
func isAgent(b []byte) bool {
	return bytes.Contains(b, []byte("content of vmlinuz")) || bytes.Contains(b, []byte("content of initrd.img")) || bytes.Contains(b, []byte("/vmlinuz"))
}

func (l *randomLab) web(pc randomPC, path string) bool {
	req, err := http.NewRequestWithContext(l.t.Context(), "GET", fmt.Sprintf("http://127.0.0.1:%d/%s", l.ports[3], path), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	res, err := pc.http.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return res.StatusCode == http.StatusOK && isAgent(b)
}

// tftp fetches a file from the PC's own address, which the library's client cannot: RFC 1350, 2347, 2348.
func (l *randomLab) tftp(pc randomPC, name string) bool {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(pc.ip)})
	if err != nil {
		l.t.Fatal(err)
	}
	defer c.Close()
	to := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: l.ports[2]}
	out := []byte("\x00\x01" + name + "\x00octet\x00blksize\x001428\x00")
	var file bytes.Buffer
	buf := make([]byte, 1500)
	for {
		if _, err := c.WriteToUDP(out, to); err != nil {
			l.t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			l.t.Fatal(err)
		}
		n, from, err := c.ReadFromUDP(buf)
		if err != nil {
			l.t.Fatalf("tftp %s: %v", name, err)
		}
		to = from // the transfer's own port
		switch buf[1] {
		case 3: // DATA
			file.Write(buf[4:n])
			out = []byte{0, 4, buf[2], buf[3]}
			if n < 4+1428 {
				if _, err := c.WriteToUDP(out, to); err != nil {
					l.t.Fatal(err)
				}
				return isAgent(file.Bytes())
			}
		case 6: // OACK
			out = []byte{0, 4, 0, 0}
		default: // ERROR: refused
			return false
		}
	}
}

// dhcp asks ports 67 or 4011 from the PC's own address. A reply is waited for only when the server says that it sent one.
func (l *randomLab) dhcp(pc randomPC, at4011 bool) bool {
	t := l.t
	mac, err := net.ParseMAC(pc.mac)
	if err != nil {
		t.Fatal(err)
	}
	kind, port := dhcpv4.MessageTypeDiscover, l.ports[0]
	if at4011 {
		kind, port = dhcpv4.MessageTypeRequest, l.ports[1]
	}
	mods := []dhcpv4.Modifier{dhcpv4.WithHwAddr(mac), dhcpv4.WithClientIP(net.ParseIP(pc.ip)), dhcpv4.WithMessageType(kind),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000")), dhcpv4.WithOption(dhcpv4.OptClientArch(iana.EFI_BC))}
	if pc.uuid != "" {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, wireUUID(t, pc.uuid))))
	}
	m, err := dhcpv4.New(mods...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(pc.ip)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(m.ToBytes()); err != nil {
		t.Fatal(err)
	}
	select {
	case result := <-l.heard:
		if result != "answered" {
			return false
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a DHCP packet is lost")
	}
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	r, err := dhcpv4.FromBytes(buf[:n])
	if err != nil {
		t.Fatal(err)
	}
	return r.BootFileName != ""
}

// wireUUID is option 97: type 0 and the bytes of SMBIOS, whose first three fields are little-endian.
func wireUUID(t testing.TB, uuid string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	if err != nil || len(b) != 16 {
		t.Fatalf("%s: %v", uuid, err)
	}
	return append([]byte{0, b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6]}, b[8:]...)
}
