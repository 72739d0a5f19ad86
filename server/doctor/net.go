package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"labswarm/api"
)

// checkDHCP asks the network who gives addresses and who offers boot files, and whether our own DHCP port hears what comes in.
func checkDHCP(ctx context.Context, cfg *Config) []api.Check {
	mac := NewMAC()
	answers, err := Discover(ctx, cfg.Interface, mac, nil)
	if err != nil {
		return []api.Check{fail("dhcp", err.Error(), "the doctor needs CAP_NET_RAW: run it as root, or ask the running server")}
	}
	out := judgeDHCP(cfg.DHCP, cfg.IP, answers)
	if cfg.Running && cfg.DHCP != "off" {
		out = append(out, judgeHeard(cfg.Heard(mac.String()), cfg.Interface))
	}
	return out
}

func judgeHeard(heard bool, ifName string) api.Check {
	if heard {
		return ok("firewall", "a broadcast to port 67 on %s reached the server (TCP ports can only be tried from another machine)", ifName)
	}
	return fail("firewall", "a broadcast to port 67 on "+ifName+" did not reach the server", "open udp 67, 69 and 4011 and tcp 80, 7440 and 7441 on "+ifName+" in this machine's firewall")
}

// judgeDHCP tells what the answers mean for our mode. own is our address.
func judgeDHCP(mode string, own netip.Addr, answers []Answer) []api.Check {
	var out []api.Check
	var givers []string
	for _, a := range answers {
		who := fmt.Sprintf("%s (%s)", a.Server, a.MAC)
		if a.Server == own {
			if a.Boot != "" && mode == "proxy" {
				out = append(out, fail("dhcp_own", "our own server offers "+a.Boot+" to a PC that does not exist", "this is a fault of labswarm: please report it"))
			}
			continue
		}
		if a.Boot != "" {
			out = append(out, fail("pxe_foreign", who+" also offers boot files ("+a.Boot+"): PCs take whichever answers first",
				"switch off its boot option (66, 67, PXE), unplug it, or block it by DHCP snooping"))
		}
		if a.Offers.IsValid() {
			givers = append(givers, who+fmt.Sprintf(" in %d ms", a.After.Milliseconds()))
		}
	}
	switch {
	case mode == "dhcp" && len(givers) > 0:
		out = append(out, fail("dhcp", "another server gives addresses: "+strings.Join(givers, ", "), "use dhcp = \"proxy\" beside it, or switch it off"))
	case mode == "dhcp":
		out = append(out, ok("dhcp", "no other server gives addresses"))
	case len(givers) == 0:
		out = append(out, fail("dhcp", "nobody gives addresses in this network within "+listenFor.String(), "look at the router's DHCP and its pool, or use dhcp = \"dhcp\""))
	case len(givers) > 1:
		out = append(out, warn("dhcp", "several servers give addresses: "+strings.Join(givers, ", "), "find out which of them belongs here"))
	default:
		out = append(out, ok("dhcp", "mode %s; addresses come from %s", mode, givers[0]))
	}
	return out
}

// checkPorts looks who is bound to the boot ports besides us.
func checkPorts(_ context.Context, cfg *Config) []api.Check {
	var held []string
	for _, p := range []struct {
		network string
		port    int
		boot    bool
	}{{"udp", 67, true}, {"udp", 4011, true}, {"udp", 69, false}, {"tcp", 80, false}} {
		if p.boot && cfg.DHCP == "off" {
			continue
		}
		who, err := cfg.PortOwner(p.network, p.port)
		if err != nil {
			return []api.Check{warn("ports", err.Error(), "run the doctor as root")}
		}
		for _, w := range who {
			held = append(held, fmt.Sprintf("%s %d by %s", p.network, p.port, w))
		}
	}
	if len(held) > 0 {
		return []api.Check{fail("ports", "held by others: "+strings.Join(held, ", "), "stop them: they take packets that are meant for the server")}
	}
	if cfg.Running {
		return []api.Check{ok("ports", "67, 69, 80 and 4011 are the server's, as far as its mode needs them")}
	}
	return []api.Check{ok("ports", "67, 69, 80 and 4011 are free")}
}

// nicFacts is what the kernel says of an interface.
type nicFacts struct {
	up, carrier     bool
	mbps            int // 0 = unknown
	duplex          string
	packets, errors int64
}

func checkNIC(_ context.Context, cfg *Config) []api.Check {
	dir := filepath.Join("/sys/class/net", filepath.Base(cfg.Interface))
	if _, err := os.Stat(dir); err != nil {
		return []api.Check{fail("nic", "there is no interface "+cfg.Interface, "name the classroom's interface with net.interfaces")}
	}
	word := func(name string) string {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "" // virtual interfaces refuse some of them
		}
		return strings.TrimSpace(string(raw))
	}
	num := func(name string) int64 {
		n, err := strconv.ParseInt(word(name), 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	var f nicFacts
	if ifi, err := net.InterfaceByName(cfg.Interface); err == nil {
		f.up = ifi.Flags&net.FlagUp != 0
	}
	f.carrier, f.mbps, f.duplex = word("carrier") == "1", int(max(0, num("speed"))), word("duplex")
	f.packets = num("statistics/rx_packets") + num("statistics/tx_packets")
	f.errors = num("statistics/rx_errors") + num("statistics/tx_errors") + num("statistics/rx_crc_errors")
	return []api.Check{judgeNIC(cfg.Interface, cfg.IP, f)}
}

func judgeNIC(name string, ip netip.Addr, f nicFacts) api.Check {
	speed := "speed unknown"
	if f.mbps > 0 {
		speed = fmt.Sprintf("%d Mb/s %s duplex", f.mbps, f.duplex)
	}
	switch {
	case !f.up:
		return fail("nic", name+" is switched off", "ip link set "+name+" up, and make that permanent")
	case !f.carrier:
		return fail("nic", name+" has no link", "cable, switch port")
	case f.duplex == "half":
		return fail("nic", name+": "+speed, "let both ends negotiate: half duplex loses packets under load")
	case f.mbps > 0 && f.mbps < 1000:
		return warn("nic", name+": "+speed, "mostly a bad cable: a server needs 1 Gb/s")
	case f.errors > 10 && f.errors > f.packets/100_000:
		return warn("nic", fmt.Sprintf("%s: %d errors in %d packets", name, f.errors, f.packets), "replace the cable, then the switch port")
	}
	return ok("nic", "%s is up with %s, %s, %d errors in %d packets", name, ip, speed, f.errors, f.packets)
}

// checkBroadcast sends an empty packet to the discard port of the whole subnet, as waking does.
func checkBroadcast(ctx context.Context, cfg *Config) []api.Check {
	if !cfg.Prefix.IsValid() || cfg.Prefix.Bits() > 30 {
		return []api.Check{warn("broadcast", "the network of "+cfg.Interface+" has no broadcast address", "wake PCs by hand, or by a relay in their network")}
	}
	b := cfg.Prefix.Masked().Addr().As4()
	for i := cfg.Prefix.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	to := netip.AddrPortFrom(netip.AddrFrom4(b), 9)
	lc := net.ListenConfig{Control: func(_, _ string, c rawControl) error { return bindDevice(c, cfg.Interface) }}
	conn, err := lc.ListenPacket(ctx, "udp4", ":0")
	if err == nil {
		_, err = conn.WriteTo(nil, net.UDPAddrFromAddrPort(to))
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		return []api.Check{fail("broadcast", fmt.Sprintf("send to %s: %v", to, err), "waking PCs needs broadcasts: look at address, netmask and firewall of "+cfg.Interface)}
	}
	return []api.Check{ok("broadcast", "%s can be sent to", to.Addr())}
}

// checkNeigh: when the kernel's table of neighbours overflows, packets to some PCs vanish without a word.
func checkNeigh(_ context.Context, cfg *Config) []api.Check {
	raw, err := os.ReadFile("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
	if err != nil {
		return []api.Check{ok("neigh", "the size of the neighbour table is not visible from here (a network namespace)")}
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return []api.Check{warn("neigh", "the size of the neighbour table is "+strings.TrimSpace(string(raw)), "look at sysctl net.ipv4.neigh.default.gc_thresh3")}
	}
	return []api.Check{judgeNeigh(n, cfg.Hosts)}
}

func judgeNeigh(table, hosts int) api.Check {
	// Others live in the network, too, and entries go only slowly.
	want := 2*hosts + 256
	advice := fmt.Sprintf("sysctl net.ipv4.neigh.default.gc_thresh3=%d gc_thresh2=%d gc_thresh1=%d, in /etc/sysctl.d", 2*want, want, want/2)
	switch {
	case table < hosts+64:
		return fail("neigh", fmt.Sprintf("the neighbour table holds %d entries for %d PCs: some would stall without a word", table, hosts), advice)
	case table < want:
		return warn("neigh", fmt.Sprintf("the neighbour table holds %d entries for %d PCs", table, hosts), advice)
	}
	return ok("neigh", "the neighbour table holds %d entries, %d PCs are known", table, hosts)
}

// since is a time span for people.
func since(t time.Time) string { return time.Since(t).Round(time.Minute).String() }
