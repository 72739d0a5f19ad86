package daemon

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"labswarm/server/config"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"labswarm/server/inventory"
	"labswarm/server/inventory/ident"
	"labswarm/server/netboot/portowner"
)

// maxSocketPath is what sockaddr_un holds, unix(7).
const maxSocketPath = 107

// labAddr returns our first IPv4 address on the lab interface.
func labAddr(name string) (netip.Addr, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return netip.Addr{}, &config.Error{Err: fmt.Errorf("find lab interface %q: %w (interfaces here: %s)", name, err, interfaceNames())}
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("read addresses of %s: %w", name, err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, &config.Error{Err: fmt.Errorf("use lab interface %s: it has no IPv4 address: give it a fixed one first (ip addr add 10.0.0.1/24 dev %s)", name, name)}
}

// labPrefix is the subnet of our address on the lab interface; an address
// without one (it was taken away meanwhile) is a subnet of its own.
func labPrefix(name string, ip netip.Addr) netip.Prefix {
	if ifi, err := net.InterfaceByName(name); err == nil {
		addrs, err := ifi.Addrs()
		for _, a := range addrs {
			if p, perr := netip.ParsePrefix(a.String()); err == nil && perr == nil && p.Addr() == ip {
				return p
			}
		}
	}
	return netip.PrefixFrom(ip, ip.BitLen())
}

// sysNet is where the kernel lists its network interfaces.
const sysNet = "/sys/class/net"

// seedMbps is what the server can send, Mb/s: --seed-mbps, else the speed of
// the lab interface as the kernel reports it; never more than --seed-rate. 0 =
// unknown, as on most virtual interfaces: then one relay chain is fed.
func (s *server) seedMbps() int {
	mbps := s.cfg.SeedMbps
	if mbps == 0 {
		mbps = linkSpeed(sysNet, s.cfg.Interface)
	}
	if s.cfg.SeedRateBps > 0 && mbps > 0 {
		mbps = min(mbps, max(1, int(s.cfg.SeedRateBps*8/1_000_000)))
	}
	return mbps
}

// linkSpeed reads an interface's speed in Mb/s, 0 = unknown. A link that is
// down, or has no speed, says -1 or refuses the read.
func linkSpeed(dir, name string) int {
	raw, err := os.ReadFile(filepath.Join(dir, filepath.Base(name), "speed"))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

func interfaceNames() string {
	list, err := net.Interfaces()
	if err != nil {
		return "cannot be listed"
	}
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return strings.Join(names, ", ")
}

// listen binds a TCP port on the lab address and closes it again at the end.
func (s *server) listen(ctx context.Context, port int) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", net.JoinHostPort(s.ip.String(), strconv.Itoa(port)))
	if err != nil {
		return nil, portowner.Explain(err, "tcp", port)
	}
	s.onClose(l.Close)
	return l, nil
}

// portOf returns the port a TCP listener got.
func portOf(l net.Listener) uint16 {
	ap, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		return 0
	}
	return ap.Port()
}

// openAdmin binds the admin socket. The store's lock is ours, so a socket file
// that is there was left by a server that is gone.
func (s *server) openAdmin(ctx context.Context) error {
	path := filepath.Join(s.cfg.StateDir, "labswarm.sock")
	if len(path) > maxSocketPath {
		return fmt.Errorf("bind admin socket %s: the path has %d bytes, at most %d work: use a shorter --state-dir", path, len(path), maxSocketPath)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove old admin socket: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("bind admin socket: %w", err)
	}
	s.admin = l
	s.onClose(l.Close)
	if err := os.Chmod(path, 0o660); err != nil {
		return fmt.Errorf("protect admin socket: %w", err)
	}
	if err := s.shareSocket(path); err != nil {
		return err
	}
	return s.openRemote(ctx)
}

// certificate is self-signed over the server key: agents compare the key and
// look at nothing else, least of all at dates.
func certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "labswarm server"},
		NotBefore:    time.Unix(0, 0).UTC(),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"labswarm"},
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make server certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// ownIdentity collects what names this machine, so that it never becomes a
// target. What cannot be read is left out: the MACs alone protect it.
func ownIdentity() inventory.Self {
	var self inventory.Self
	if list, err := net.Interfaces(); err == nil {
		for _, i := range list {
			if mac, err := ident.MACFromBytes(i.HardwareAddr); err == nil {
				self.MACs = append(self.MACs, mac)
			}
		}
	}
	if raw, err := os.ReadFile("/sys/class/dmi/id/product_uuid"); err == nil {
		if u, err := ident.ParseUUID(string(raw)); err == nil {
			self.UUID = u
		}
	}
	return self
}
