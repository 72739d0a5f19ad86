//go:build integration

package netboot

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"labswarm/internal/testreq"
)

const clientMAC = "02:00:00:77:00:01"

// lab is three namespaces on one bridge: our server, the school's router, a PC.
type lab struct {
	t      *testing.T
	prefix string
	dir    string
	self   string
	leases string // the router's lease file
}

func (l *lab) ns(who string) string { return l.prefix + who }

func (l *lab) sh(args ...string) string {
	l.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (l *lab) in(who string, args ...string) string {
	l.t.Helper()
	return l.sh(append([]string{"ip", "netns", "exec", l.ns(who)}, args...)...)
}

// newLab builds the namespaces; they are removed also when the test fails.
func newLab(t *testing.T) *lab {
	t.Helper()
	testreq.Root(t)
	testreq.Tool(t, "ip", "iproute2")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, prefix: fmt.Sprintf("lsnb%d", os.Getpid()), dir: t.TempDir(), self: self}
	if err := writeBootFiles(l.dir); err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{"s", "r", "c"} {
		l.sh("ip", "netns", "add", l.ns(who))
		t.Cleanup(func() {
			if out, err := exec.Command("ip", "netns", "del", l.ns(who)).CombinedOutput(); err != nil {
				t.Errorf("remove namespace: %v\n%s", err, out)
			}
		})
		l.in(who, "ip", "link", "set", "lo", "up")
	}
	l.in("s", "ip", "link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0")
	l.in("s", "ip", "addr", "add", srv+"/24", "dev", "br0")
	l.in("s", "ip", "link", "set", "br0", "up")
	for _, who := range []string{"r", "c"} {
		l.in("s", "ip", "link", "add", "v"+who, "type", "veth", "peer", "name", "eth0", "netns", l.ns(who))
		l.in("s", "ip", "link", "set", "v"+who, "master", "br0", "up")
	}
	l.in("c", "ip", "link", "set", "eth0", "address", clientMAC)
	l.in("c", "ip", "link", "set", "eth0", "up")
	l.in("r", "ip", "addr", "add", "10.77.0.254/24", "dev", "eth0")
	l.in("r", "ip", "link", "set", "eth0", "up")
	return l
}

// step runs one client step in the PC's namespace and returns its output.
func (l *lab) step(args string) string {
	l.t.Helper()
	out, err := l.tryStep("c", args)
	if err != nil {
		l.t.Errorf("step %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(out)
}

func (l *lab) tryStep(who, args string) (string, error) {
	cmd := exec.Command("ip", "netns", "exec", l.ns(who), l.self)
	cmd.Env = append(os.Environ(), stepEnv+"="+args)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// address gives the PC an address, as its DHCP client would.
func (l *lab) address(ip string) {
	l.t.Helper()
	l.in("c", "ip", "addr", "flush", "dev", "eth0", "scope", "global")
	l.in("c", "ip", "addr", "add", ip+"/24", "dev", "eth0")
}

// server starts our server; stop ends it and returns its log and its events.
type server struct {
	cmd   *exec.Cmd
	stdin io.Closer
	log   *bytes.Buffer
	mu    sync.Mutex
	event []string
	done  chan struct{}
}

func (l *lab) server(mode string, decisions ...string) *server {
	l.t.Helper()
	s := &server{log: &bytes.Buffer{}, done: make(chan struct{})}
	s.cmd = exec.Command("ip", "netns", "exec", l.ns("s"), l.self)
	s.cmd.Env = append(os.Environ(), stepEnv+"=server "+l.dir+" "+mode+" "+strings.Join(decisions, " "))
	s.cmd.Stderr = s.log
	in, err := s.cmd.StdinPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	s.stdin = in
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	r := bufio.NewReader(out)
	line, err := firstLine(r)
	if line != "READY" {
		_ = s.cmd.Wait()
		l.t.Fatalf("server did not start: %q, %v\n%s", line, err, s.log)
	}
	go func() {
		defer close(s.done)
		for {
			line, err := firstLine(r)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.event = append(s.event, line)
			s.mu.Unlock()
		}
	}()
	return s
}

func (s *server) stop(t *testing.T) (events string) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	<-s.done
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("server ended with %v\n%s", err, s.log)
	}
	if t.Failed() {
		t.Logf("server log:\n%s", s.log)
	}
	return strings.Join(s.event, "\n")
}

// router starts the school's own DHCP server.
func (l *lab) router() (stop func()) {
	l.t.Helper()
	dnsmasq := testreq.Tool(l.t, "dnsmasq", "dnsmasq-base")
	l.leases = filepath.Join(l.dir, "router.leases")
	return l.dnsmasq("r", dnsmasq, "--interface=eth0", "--dhcp-range=10.77.0.50,10.77.0.99,1h", "--dhcp-leasefile="+l.leases)
}

func (l *lab) dnsmasq(who, path string, args ...string) (stop func()) {
	l.t.Helper()
	pidFile := filepath.Join(l.dir, who+".pid")
	cmd := exec.Command("ip", append([]string{"netns", "exec", l.ns(who), path, "-k", "--conf-file=/dev/null", "--port=0", "--bind-interfaces",
		"--dhcp-authoritative", "--no-ping", "--user=root", "--pid-file=" + pidFile, "--log-facility=" + filepath.Join(l.dir, who+".log")}, args...)...)
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	for range 100 { // the pid file is written once its sockets are bound
		if _, err := os.Stat(pidFile); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			l.t.Error(err)
		}
		_ = cmd.Wait() // ends by our signal
		_ = os.Remove(pidFile)
	}
}

// leaseTable is the router's lease file without the times.
func (l *lab) leaseTable() string {
	l.t.Helper()
	b, err := os.ReadFile(l.leases)
	if err != nil {
		l.t.Fatal(err)
	}
	var out []string
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		if w := strings.Fields(line); len(w) >= 4 {
			out = append(out, strings.Join(w[1:4], " "))
		}
	}
	return strings.Join(out, "\n")
}

func TestModeDHCP(t *testing.T) {
	l := newLab(t)
	s := l.server(ModeDHCP, clientMAC+"=agent")
	l.step("dhcp")
	l.address("10.77.0.100")
	l.step("rs")
	l.step("tftperror")
	l.step("http " + clientMAC)
	l.step("tftp " + clientMAC)
	events := s.stop(t)
	for _, w := range []string{"EVENT os " + clientMAC, "EVENT fetched " + clientMAC} {
		if !strings.Contains(events, w) {
			t.Errorf("events lack %q:\n%s", w, events)
		}
	}
	if n := strings.Count(events, "EVENT fetched"); n != 2 {
		t.Errorf("%d initramfs fetches were told; want 2 (TFTP and HTTP)", n)
	}
	kept, err := os.ReadFile(filepath.Join(l.dir, "leases.json"))
	if err != nil || !strings.Contains(string(kept), clientMAC) || !strings.Contains(string(kept), "10.77.0.100") {
		t.Errorf("lease file = %q, %v", kept, err)
	}
	again := l.server(ModeDHCP, clientMAC+"=agent") // the same address after a restart
	l.step("dhcp")
	again.stop(t)
}

// TestModeProxyBesideRouter: with us the router gives the same lease as without.
func TestModeProxyBesideRouter(t *testing.T) {
	l := newLab(t)
	stop := l.router()
	alone := l.step("lease")
	before := l.leaseTable()
	stop()
	if err := os.Remove(l.leases); err != nil {
		t.Fatal(err)
	}
	stop = l.router()
	defer stop()
	s := l.server(ModeProxy, clientMAC+"=agent")
	if ip := l.step("lease"); ip != alone {
		t.Errorf("beside us the router gives %s; alone %s", ip, alone)
	}
	if got := l.leaseTable(); got != before {
		t.Errorf("the router's leases beside us:\n%s\nalone:\n%s", got, before)
	}
	if ip := l.step("proxy"); ip != alone {
		t.Errorf("netboot beside us: the router gives %s; want %s", ip, alone)
	}
	l.address(alone)
	l.step("4011")
	l.step("rs")
	events := s.stop(t)
	s = l.server(ModeProxy, clientMAC+"=agent") // knows the PC from the neighbour table alone
	l.step("http " + clientMAC)
	l.step("tftp " + clientMAC)
	if n := strings.Count(l.leaseTable(), "\n") + 1; n != 1 {
		t.Errorf("the router holds %d leases; want 1:\n%s", n, l.leaseTable())
	}
	s.stop(t)
	if !strings.Contains(events, "EVENT os "+clientMAC) {
		t.Errorf("the installed system's DHCP was not seen:\n%s", events)
	}
	for _, decisions := range [][]string{nil, {clientMAC + "=local"}} { // unknown, and known but not armed
		s := l.server(ModeProxy, decisions...)
		l.step("silent")
		s.stop(t)
	}
	s = l.server(ModeProxy, clientMAC+"=chain")
	l.step("proxy")
	s.stop(t)
}

// TestPortInUse: the message names the process and the cure.
func TestPortInUse(t *testing.T) {
	l := newLab(t)
	dnsmasq := testreq.Tool(t, "dnsmasq", "dnsmasq-base")
	stop := l.dnsmasq("s", dnsmasq, "--interface=br0", "--dhcp-range=10.77.0.50,10.77.0.99,1h", "--dhcp-leasefile="+filepath.Join(l.dir, "x.leases"))
	defer stop()
	out, err := l.tryStep("s", "server "+l.dir+" proxy")
	if err == nil {
		t.Fatalf("the server started beside a DHCP server on its own port:\n%s", out)
	}
	for _, w := range []string{"udp port 67", "dnsmasq (pid ", "--dhcp off"} {
		if !strings.Contains(out, w) {
			t.Errorf("message lacks %q:\n%s", w, out)
		}
	}
	if out, err := l.tryStep("s", "server "+l.dir+" off"); err == nil { // ends at once: its stdin is empty
		t.Logf("mode off starts beside it: %s", out)
	} else {
		t.Errorf("mode off does not start beside a DHCP server: %v\n%s", err, out)
	}
}
