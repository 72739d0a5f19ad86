package testnet

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// maxHosts keeps the addresses of hosts below the router's pool (.50 to .99).
const maxHosts = 39

// Host is a computer of its own on the LAN: a namespace with one interface on
// the bridge. It lives as long as its Net.
type Host struct {
	Name string // of the namespace
	IP   string // 10.77.0.11 and upwards
}

// AddHost joins one more computer to the LAN.
func (n *Net) AddHost(ctx context.Context) (*Host, error) {
	i := len(n.hosts) + 1
	if i > maxHosts {
		return nil, fmt.Errorf("add host: the LAN has %d already", maxHosts)
	}
	h := &Host{Name: fmt.Sprintf("%s-h%d", n.Name, i), IP: "10.77.0." + strconv.Itoa(10+i)}
	if err := run(ctx, "ip", "netns", "add", h.Name); err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", h.Name, err)
	}
	n.hosts = append(n.hosts, h.Name)
	port := "h" + strconv.Itoa(i)
	for _, c := range []string{
		"-n " + n.Name + " link add " + port + " type veth peer name eth0 netns " + h.Name,
		"-n " + n.Name + " link set " + port + " master " + Bridge + " up",
		"-n " + h.Name + " link set lo up",
		"-n " + h.Name + " addr add " + h.IP + "/24 dev eth0",
		"-n " + h.Name + " link set eth0 up",
		"-n " + h.Name + " route add default dev eth0", // clients that look for a way out find one
	} {
		if err := run(ctx, "ip", strings.Fields(c)...); err != nil {
			return nil, fmt.Errorf("connect host: ip %s: %w", c, err)
		}
	}
	return h, nil
}

// Command prepares a command that runs on this computer, to be started with
// Start.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.Name, name}, args...)...)
}
