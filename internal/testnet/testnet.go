// Package testnet makes a school's LAN inside this machine: a network namespace
// with a bridge, one tap per virtual terminal, and if wanted a second namespace
// with dnsmasq as the school's router. Nothing reaches the machine's own network.
//
// It does not start terminals (package testvm does) and is no part of the
// product: tests and the virtual classroom (e2e/classroom) use it. It needs root
// and the ip command.
package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Addresses of the classroom LAN 10.77.0.0/24.
const (
	ServerIP = "10.77.0.1"   // of the bridge, where the server listens
	RouterIP = "10.77.0.254" // of the school's router, when there is one
	Bridge   = "br0"         // interface name inside the namespace
)

// ErrNeeds is wrapped by every error that means "this machine lacks something":
// root, a command, a device. The text names it and the cure.
var ErrNeeds = errors.New("this machine cannot run the virtual classroom")

// Net is one LAN. Close removes it.
type Net struct {
	// Name of the namespace that holds bridge and taps.
	Name   string
	router string   // namespace of the router, "" = none
	hosts  []string // namespaces of AddHost
	dhcp   *Process
	log    *os.File
}

var sequence atomic.Int64 // several LANs of one process

// Check reports, as an error wrapping ErrNeeds, what is missing to make a LAN.
func Check() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: needs root to make network namespaces; run it with sudo", ErrNeeds)
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("%w: command ip not found; install package iproute2", ErrNeeds)
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fmt.Errorf("%w: /dev/net/tun is missing; load the module tun or allow the device in this container", ErrNeeds)
	}
	return nil
}

// New makes a namespace with a bridge at ServerIP/24 and taps t0 to t<taps-1>.
// It first removes what processes that died without Close left behind.
func New(ctx context.Context, taps int) (*Net, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	if err := sweep(ctx); err != nil {
		return nil, err
	}
	start, err := startTime(os.Getpid())
	if err != nil {
		return nil, err
	}
	n := &Net{Name: fmt.Sprintf("%s%d-%d-%d", prefix, os.Getpid(), start, sequence.Add(1))}
	if err := run(ctx, "ip", "netns", "add", n.Name); err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", n.Name, err)
	}
	cmds := []string{
		"link set lo up",
		"link add " + Bridge + " type bridge stp_state 0 forward_delay 0",
		"addr add " + ServerIP + "/24 dev " + Bridge,
		"link set " + Bridge + " up",
		"route add default dev " + Bridge, // lets broadcasts to 255.255.255.255 find the LAN
	}
	for i := range taps {
		tap := Tap(i)
		cmds = append(cmds, "tuntap add "+tap+" mode tap", "link set "+tap+" master "+Bridge+" up")
	}
	for _, c := range cmds {
		if err := run(ctx, "ip", append([]string{"-n", n.Name}, strings.Fields(c)...)...); err != nil {
			return nil, errors.Join(fmt.Errorf("set up LAN: ip %s: %w", c, err), n.Close())
		}
	}
	return n, nil
}

// Tap is the name of the tap of terminal i, counted from 0.
func Tap(i int) string { return "t" + strconv.Itoa(i) }

// Command prepares a command that runs inside the LAN's namespace, to be started
// with Start.
func (n *Net) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.Name, name}, args...)...)
}

// Router starts the school's router in a second namespace on a veth: dnsmasq as a
// plain DHCP server that knows nothing of netboot, leases .50 to .99. Its log and
// lease file go to dir.
func (n *Net) Router(ctx context.Context, dir string) error {
	if n.router != "" {
		return errors.New("start router: this LAN has one already")
	}
	bin, err := exec.LookPath("dnsmasq")
	if err != nil {
		return fmt.Errorf("%w: dnsmasq not found, it plays the school's router; install package dnsmasq-base", ErrNeeds)
	}
	n.router = n.Name + "-r"
	if err := run(ctx, "ip", "netns", "add", n.router); err != nil {
		n.router = ""
		return fmt.Errorf("make network namespace of the router: %w", err)
	}
	for _, c := range []string{
		"-n " + n.Name + " link add vr type veth peer name vr0 netns " + n.router,
		"-n " + n.Name + " link set vr master " + Bridge + " up",
		"-n " + n.router + " link set lo up",
		"-n " + n.router + " addr add " + RouterIP + "/24 dev vr0",
		"-n " + n.router + " link set vr0 up",
	} {
		if err := run(ctx, "ip", strings.Fields(c)...); err != nil {
			return fmt.Errorf("connect router: ip %s: %w", c, err)
		}
	}
	if n.log, err = os.Create(filepath.Join(dir, "dnsmasq.log")); err != nil {
		return fmt.Errorf("make router log: %w", err)
	}
	// The LAN outlives ctx of this call, so the command does not hang on it.
	// --no-daemon rather than -k: otherwise dnsmasq changes its credentials, and the
	// kernel then forgets the parent-death signal (prctl(2)).
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "ip", "netns", "exec", n.router, bin, "--no-daemon", "--conf-file=/dev/null",
		"--port=0", "--interface=vr0", "--bind-interfaces", "--dhcp-range=10.77.0.50,10.77.0.99,1h",
		"--dhcp-authoritative", "--log-dhcp", "--log-facility=-", "--pid-file=",
		"--dhcp-leasefile="+filepath.Join(dir, "dnsmasq.leases"))
	cmd.Stdout, cmd.Stderr = n.log, n.log
	if n.dhcp, err = Start(cmd); err != nil {
		return fmt.Errorf("start dnsmasq: %w", err)
	}
	select {
	case <-n.dhcp.Done():
		b, _ := os.ReadFile(n.log.Name()) // only colours the error
		return fmt.Errorf("start dnsmasq: it ended at once: %s", strings.TrimSpace(string(b)))
	case <-time.After(300 * time.Millisecond):
		return nil
	}
}

// Close ends the router and every process still inside the LAN, then removes it.
func (n *Net) Close() error {
	var errs []error
	if n.dhcp != nil {
		errs = append(errs, n.dhcp.Kill())
		n.dhcp = nil
	}
	if n.log != nil {
		errs = append(errs, n.log.Close())
		n.log = nil
	}
	// The work is short and must happen even when the caller's context has ended.
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if n.router != "" {
		errs = append(errs, remove(ctx, n.router))
		n.router = ""
	}
	for _, h := range n.hosts {
		errs = append(errs, remove(ctx, h))
	}
	n.hosts = nil
	errs = append(errs, remove(ctx, n.Name))
	return errors.Join(errs...)
}

// remove kills what runs in namespace name and deletes it; one that is gone is fine.
func remove(ctx context.Context, name string) error {
	for range 50 {
		out, err := exec.CommandContext(ctx, "ip", "netns", "pids", name).Output()
		pids := strings.Fields(string(out))
		if err != nil || len(pids) == 0 {
			break
		}
		for _, p := range pids {
			if pid, err := strconv.Atoi(p); err == nil && pid > 1 && pid != os.Getpid() {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	if _, err := os.Stat("/run/netns/" + name); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := run(ctx, "ip", "netns", "del", name); err != nil {
		return fmt.Errorf("remove network namespace %s: %w", name, err)
	}
	return nil
}

// run runs a command; its error carries what the command said.
func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
