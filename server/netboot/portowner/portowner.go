// Package portowner says which process holds a port, so that "address already
// in use" names the culprit and the cure. It only reads /proc. Called by
// server/netboot when a bind fails, and fit for any other listener.
package portowner

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Owner is a process that holds a socket.
type Owner struct {
	PID  int
	Name string     // from /proc/PID/comm
	Addr netip.Addr // the address it is bound to
}

// BusyError is a failed bind of a port that somebody holds.
type BusyError struct {
	Network string // "udp" or "tcp"
	Port    int
	Owners  []Owner // empty when no process could be told (other namespace, no right)
	Err     error   // the bind's error, EADDRINUSE
}

// Error names the port, the processes and the cure.
func (e *BusyError) Error() string {
	what := fmt.Sprintf("bind %s port %d: in use", e.Network, e.Port)
	if len(e.Owners) == 0 {
		return what + fmt.Sprintf(" by a process that cannot be told from here: `ss -lnp 'sport = :%d'` as root names it; stop it and start again", e.Port)
	}
	var names []string
	for _, o := range e.Owners {
		names = append(names, fmt.Sprintf("%s (pid %d, on %s)", o.Name, o.PID, o.Addr))
	}
	return what + " by " + strings.Join(names, ", ") + ": " + cure(e.Port, e.Owners[0].Name)
}

// Unwrap returns the bind's own error.
func (e *BusyError) Unwrap() error { return e.Err }

func cure(port int, name string) string {
	switch {
	case name == "labswarm":
		return "another labswarm serves here; end it first"
	case name == "dnsmasq" && port == 67:
		return "use --dhcp off and point dnsmasq at this server, or stop dnsmasq (systemctl stop dnsmasq), or bind it to another interface (bind-interfaces)"
	case port == 67 || port == 4011:
		return "stop that DHCP service, or serve with --dhcp off"
	default:
		return fmt.Sprintf("stop it (for a service: systemctl stop %s) and start again", name)
	}
}

// Explain turns an EADDRINUSE of a bind into a *BusyError; any other error (and
// nil) comes back unchanged. network is "udp" or "tcp".
func Explain(err error, network string, port int) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	owners, _ := Find(network, port) // the bind error is what matters; the names are a courtesy
	return &BusyError{Network: network, Port: port, Owners: owners, Err: err}
}

// Find lists the processes of this network namespace that are bound to a port.
// Processes it may not look into are left out.
func Find(network string, port int) ([]Owner, error) {
	sockets := map[string]netip.Addr{} // by inode
	for _, suffix := range []string{"", "6"} {
		if err := readTable("/proc/thread-self/net/"+network+suffix, network, port, sockets); err != nil {
			return nil, err
		}
	}
	if len(sockets) == 0 {
		return nil, nil
	}
	return holders(sockets)
}

// readTable collects the inodes bound to port. A missing table (no IPv6) is empty.
func readTable(path, network string, port int, into map[string]netip.Addr) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read socket table: %w", err)
	}
	parseTable(f, network, port, into)
	return f.Close()
}

// parseTable reads the format of proc(5): "sl local_address rem_address st ...
// inode" with addresses as little-endian 32-bit groups in hexadecimal.
func parseTable(r io.Reader, network string, port int, into map[string]netip.Addr) {
	const listen = "0A" // TCP_LISTEN
	sc := bufio.NewScanner(r)
	sc.Scan() // heading
	for sc.Scan() {
		w := strings.Fields(sc.Text())
		if len(w) < 10 || (network == "tcp" && w[3] != listen) {
			continue
		}
		addr, p, ok := parseAddr(w[1])
		if ok && p == port && w[9] != "0" {
			into[w[9]] = addr
		}
	}
}

func parseAddr(s string) (netip.Addr, int, bool) {
	a, p, ok := strings.Cut(s, ":")
	if !ok {
		return netip.Addr{}, 0, false
	}
	port, err := strconv.ParseUint(p, 16, 16)
	if err != nil {
		return netip.Addr{}, 0, false
	}
	raw, err := hex.DecodeString(a)
	if err != nil || len(raw)%4 != 0 {
		return netip.Addr{}, 0, false
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
	}
	ip, ok := netip.AddrFromSlice(raw)
	return ip.Unmap(), int(port), ok
}

// holders looks for the inodes among the open files of all processes.
func holders(sockets map[string]netip.Addr) ([]Owner, error) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []Owner
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		fds, err := os.ReadDir(filepath.Join("/proc", p.Name(), "fd"))
		if err != nil {
			continue // ended meanwhile, or not ours to see
		}
		for _, fd := range fds {
			link, err := os.Readlink(filepath.Join("/proc", p.Name(), "fd", fd.Name()))
			if err != nil {
				continue
			}
			inode, found := strings.CutPrefix(link, "socket:[")
			addr, held := sockets[strings.TrimSuffix(inode, "]")]
			if found && held {
				out = append(out, Owner{PID: pid, Name: comm(p.Name()), Addr: addr})
				break
			}
		}
	}
	return out, nil
}

func comm(pid string) string {
	b, err := os.ReadFile(filepath.Join("/proc", pid, "comm"))
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}
