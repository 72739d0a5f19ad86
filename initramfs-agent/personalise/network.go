package personalise

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"strings"

	"labswarm/api"
	"labswarm/initramfs-agent/volume"
)

// Files of a fixed address, one per service that may be in charge.
const (
	networkdFile = "etc/systemd/network/05-labswarm.network"
	nmFile       = "etc/NetworkManager/system-connections/labswarm.nmconnection"
	ifupdownFile = "etc/network/interfaces"
	ifupdownDir  = "etc/network/interfaces.d"
	resolvFile   = "etc/resolv.conf"
)

// Network adds the PC's fixed address to a plan, for the service that configures the network of this system. It goes by
// the card's MAC address; ifupdown, which knows no MACs, by the one interface that it configures already.
func Network(p *Plan, r Root, h Host) error {
	n := h.Network
	if n == nil {
		return nil
	}
	if err := n.Check(); err != nil {
		return fmt.Errorf("fixed address: %w", err)
	}
	mac, err := net.ParseMAC(h.MAC)
	if err != nil || len(mac) != 6 {
		return fmt.Errorf("fixed address: %q is no MAC address", h.MAC)
	}
	service, err := networkService(r)
	if err != nil {
		return err
	}
	switch service {
	case "ifupdown":
		err = ifupdown(p, r, n)
	case "NetworkManager":
		if err = p.folders(r, path.Dir(nmFile)); err == nil {
			p.set(Change{Path: nmFile, Content: []byte(nmProfile(n, mac.String())), Meta: volume.Meta{Mode: 0o600}, Exact: true})
		}
		return err // it writes resolv.conf itself
	case "systemd-networkd":
		if err = p.folders(r, path.Dir(networkdFile)); err == nil {
			p.set(Change{Path: networkdFile, Content: []byte(networkdUnit(n, mac.String())), Meta: plainFile, Exact: true})
		}
	default:
		return errors.New("fixed address: this system has none of NetworkManager, systemd-networkd and ifupdown with an interface")
	}
	if err != nil {
		return fmt.Errorf("fixed address by %s: %w", service, err)
	}
	return resolvConf(p, r, n)
}

// networkService says who configures the network. NetworkManager leaves alone what ifupdown configures, so that one counts
// first; a service counts when it is enabled.
func networkService(r Root) (string, error) {
	files, err := stanzas(r)
	if err != nil {
		return "", err
	}
	if has, err := either(r, "usr/sbin/ifup", "sbin/ifup"); err != nil || has && len(files) > 0 {
		return "ifupdown", err
	}
	const wants = "etc/systemd/system/multi-user.target.wants/"
	for _, s := range []string{"NetworkManager", "systemd-networkd"} {
		if has, err := either(r, wants+s+".service"); err != nil || has {
			return s, err
		}
	}
	return "", nil
}

// either tells whether one of some paths is a file or a link.
func either(r Root, paths ...string) (bool, error) {
	for _, p := range paths {
		if k, _, err := r.Lstat(p); err != nil {
			return false, err
		} else if k == volume.File || k == volume.Link {
			return true, nil
		}
	}
	return false, nil
}

func networkdUnit(n *api.Network, mac string) string {
	var b strings.Builder
	b.WriteString("# Made by labswarm from the host record.\n[Match]\nMACAddress=" + mac + "\n\n[Network]\nDHCP=no\nAddress=" + n.Address + "\n")
	if n.Gateway != "" {
		b.WriteString("Gateway=" + n.Gateway + "\n")
	}
	for _, d := range n.DNS {
		b.WriteString("DNS=" + d + "\n")
	}
	return b.String()
}

// nmProfile is a keyfile (nm-settings-keyfile(5)). Its UUID is the same each time for the same card.
func nmProfile(n *api.Network, mac string) string {
	s := sha256.Sum256([]byte("labswarm network " + mac))
	s[6], s[8] = s[6]&0x0f|0x80, s[8]&0x3f|0x80 // RFC 9562, version 8: made in a way of one's own
	id := fmt.Sprintf("%x-%x-%x-%x-%x", s[0:4], s[4:6], s[6:8], s[8:10], s[10:16])
	var b strings.Builder
	b.WriteString("# Made by labswarm from the host record.\n[connection]\nid=labswarm\nuuid=" + id +
		"\ntype=ethernet\nautoconnect=true\nautoconnect-priority=999\n\n[ethernet]\nmac-address=" + strings.ToUpper(mac) +
		"\n\n[ipv4]\nmethod=manual\naddress1=" + n.Address)
	if n.Gateway != "" {
		b.WriteString("," + n.Gateway)
	}
	b.WriteString("\n")
	four, six := "", ""
	for _, d := range n.DNS {
		if a, err := netip.ParseAddr(d); err == nil && a.Is4() {
			four += d + ";"
		} else {
			six += d + ";"
		}
	}
	if four != "" {
		b.WriteString("dns=" + four + "\n")
	}
	b.WriteString("\n[ipv6]\nmethod=auto\n")
	if six != "" {
		b.WriteString("dns=" + six + "\n")
	}
	return b.String()
}

// stanzas returns the files of ifupdown, resolved, that configure an interface other than lo for IPv4.
func stanzas(r Root) (map[string]string, error) {
	out := map[string]string{}
	look := []string{ifupdownFile}
	names, err := r.Names(ifupdownDir)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		look = append(look, path.Join(ifupdownDir, n))
	}
	for _, f := range look {
		at, k, _, err := resolve(r, f)
		if err != nil {
			return nil, err
		}
		if k != volume.File {
			continue
		}
		b, err := r.ReadFile(at)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			if ifaceOf(line) != "" {
				out[at] = string(b)
			}
		}
	}
	return out, nil
}

// ifaceOf returns the interface whose IPv4 address a line of interfaces(5) begins to describe; "" for all other lines.
func ifaceOf(line string) string {
	if f := strings.Fields(line); len(f) >= 4 && f[0] == "iface" && f[2] == "inet" && f[1] != "lo" {
		return f[1]
	}
	return ""
}

func ifupdown(p *Plan, r Root, n *api.Network) error {
	files, err := stanzas(r)
	if err != nil {
		return err
	}
	if len(files) != 1 {
		return fmt.Errorf("%d files of /%s configure an interface; want one", len(files), path.Dir(ifupdownFile))
	}
	for at, old := range files {
		text, err := Interfaces(old, n)
		if err != nil {
			return fmt.Errorf("/%s: %w", at, err)
		}
		p.drop(at)
		p.put(at, []byte(text), plainFile)
	}
	return nil
}

// addressWords are the options of a stanza that say its address (interfaces(5)); all others stay.
var addressWords = map[string]bool{"address": true, "netmask": true, "broadcast": true, "gateway": true, "dns-nameservers": true,
	"dns-nameserver": true, "hostname": true, "client": true, "leasetime": true, "metric": true, "pointopoint": true}

// Interfaces returns the file with the one IPv4 stanza made static. Two would be a guess.
func Interfaces(old string, n *api.Network) (string, error) {
	var out []string
	seen, inside := 0, false
	for _, line := range strings.Split(strings.TrimSuffix(old, "\n"), "\n") {
		if strings.HasSuffix(line, `\`) {
			return "", errors.New("it has continued lines, which labswarm does not change")
		}
		f := strings.Fields(line)
		switch name := ifaceOf(line); {
		case name != "":
			seen, inside = seen+1, true
			out = append(out, "iface "+name+" inet static", "\taddress "+n.Address)
			if n.Gateway != "" {
				out = append(out, "\tgateway "+n.Gateway)
			}
			if len(n.DNS) > 0 {
				out = append(out, "\tdns-nameservers "+strings.Join(n.DNS, " "))
			}
			continue
		case len(f) > 0 && (f[0] == "iface" || f[0] == "auto" || f[0] == "mapping" || f[0] == "rename" || f[0] == "template" || strings.HasPrefix(f[0], "allow-") ||
			strings.HasPrefix(f[0], "no-") || strings.HasPrefix(f[0], "source")):
			inside = false
		case inside && len(f) > 0 && addressWords[f[0]]:
			continue
		}
		out = append(out, line)
	}
	if seen != 1 {
		return "", fmt.Errorf("it describes %d interfaces; which one is meant cannot be told: want one", seen)
	}
	return strings.Join(out, "\n") + "\n", nil
}

// resolvConf names the servers where nothing else does: systemd-resolved and resolvconf write it from what was said above.
func resolvConf(p *Plan, r Root, n *api.Network) error {
	if len(n.DNS) == 0 {
		return nil
	}
	k, _, err := r.Lstat(resolvFile)
	if err != nil || k == volume.Link {
		return err
	}
	if has, err := either(r, "sbin/resolvconf", "usr/sbin/resolvconf"); err != nil || has {
		return err
	}
	if k != volume.File && k != volume.Nothing {
		return fmt.Errorf("/%s is not a file", resolvFile)
	}
	p.drop(resolvFile)
	p.put(resolvFile, []byte("# Made by labswarm from the host record.\nnameserver "+strings.Join(n.DNS, "\nnameserver ")+"\n"), plainFile)
	return nil
}
