package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"labswarm/internal/testnet"
)

const (
	ifName    = "eth0" // in every host's namespace
	portQueue = "512k" // port buffer of a cheap switch
	arpLimit  = 60     // hosts from which the ARP entries are static
	slowBy    = 10     // a slow host's link has this part of the rate
)

// room is one network: namespace 0 is the seed's, 1 to n the hosts', every link
// shaped at both ends. Each classroom is a bridge; all of them lie in a namespace
// of their own, and the second hangs on the first by an uplink of link rate.
type room struct {
	sc     scenario
	bridge string   // namespace of the bridges
	hosts  []string // namespace names
}

// addrOf is the address of host i, 0 being the seed.
func addrOf(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 78, byte((i + 1) >> 8), byte(i + 1)})
}

// newRoom builds the network. close must be called also when it fails.
func newRoom(ctx context.Context, sc scenario) (*room, error) {
	r := &room{sc: sc}
	var err error
	if r.bridge, err = testnet.OwnName("bridge"); err != nil {
		return r, err
	}
	if err := command(ctx, "", "ip", "netns", "add", r.bridge); err != nil {
		return r, err
	}
	var b strings.Builder
	for k := range max(sc.rooms, 1) {
		fmt.Fprintf(&b, "link add br%d type bridge stp_state 0 forward_delay 0 mcast_snooping 0\nlink set br%d up\n", k, k)
	}
	if sc.rooms > 1 {
		fmt.Fprintf(&b, "link add %s type veth peer name %s\nlink set %s master br0 up\nlink set %s master br1 up\n", uplink(0), uplink(1), uplink(0), uplink(1))
	}
	if err := command(ctx, b.String(), "ip", "-n", r.bridge, "-batch", "-"); err != nil {
		return r, err
	}
	if sc.rooms > 1 && sc.mbit > 0 {
		if err := command(ctx, shaping(uplink(0), sc.mbit)+shaping(uplink(1), sc.mbit), "tc", "-n", r.bridge, "-batch", "-"); err != nil {
			return r, err
		}
	}
	for i := range sc.n + 1 {
		rate := sc.mbit
		if i == sc.slowHost() && i > 0 {
			rate /= slowBy
		}
		if err := r.addHost(ctx, i, rate); err != nil {
			return r, err
		}
	}
	if sc.n > arpLimit {
		return r, r.staticARP(ctx)
	}
	return r, nil
}

// uplink is one end of the link between the rooms: the end in room k.
func uplink(k int) string { return "up" + strconv.Itoa(k) }

func (r *room) addHost(ctx context.Context, i int, mbit float64) error {
	ns, err := testnet.OwnName("h" + strconv.Itoa(i))
	if err != nil {
		return err
	}
	r.hosts = append(r.hosts, ns)
	if err := command(ctx, "", "ip", "netns", "add", ns); err != nil {
		return err
	}
	port := portOf(i)
	if err := command(ctx, fmt.Sprintf("link set lo up\nlink add %s address %s type veth peer name %s netns %s\naddr add %s/16 dev %s\nlink set %s up\nroute add 224.0.0.0/4 dev %s\n",
		ifName, macOf(i), port, r.bridge, addrOf(i), ifName, ifName, ifName), "ip", "-n", ns, "-batch", "-"); err != nil {
		return err
	}
	if err := command(ctx, fmt.Sprintf("link set %s master br%d up\n", port, r.sc.roomOf(i)), "ip", "-n", r.bridge, "-batch", "-"); err != nil {
		return err
	}
	if mbit <= 0 {
		return nil
	}
	if err := command(ctx, shaping(ifName, mbit), "tc", "-n", ns, "-batch", "-"); err != nil {
		return err
	}
	return command(ctx, shaping(port, mbit), "tc", "-n", r.bridge, "-batch", "-")
}

// shaping is the tc batch for one end of a link: htb sends at the link's rate,
// bfifo is the port's buffer (swarm.md section 7).
func shaping(dev string, mbit float64) string {
	rate := strconv.FormatFloat(mbit, 'f', -1, 64) + "mbit"
	return fmt.Sprintf("qdisc add dev %s root handle 1: htb default 10\n", dev) +
		fmt.Sprintf("class add dev %s parent 1: classid 1:10 htb rate %s ceil %s burst 64k cburst 64k quantum 60000\n", dev, rate, rate) +
		fmt.Sprintf("qdisc add dev %s parent 1:10 bfifo limit %s\n", dev, portQueue)
}

func portOf(i int) string { return "p" + strconv.Itoa(i) }

func macOf(i int) string { return fmt.Sprintf("02:4c:53:00:%02x:%02x", i>>8, i&0xff) }

// staticARP spares a large room the neighbour table's limit, which all
// namespaces share (swarm.md section 6).
func (r *room) staticARP(ctx context.Context) error {
	for i, ns := range r.hosts {
		var b strings.Builder
		for j := range r.hosts {
			if j != i {
				fmt.Fprintf(&b, "neigh replace %s lladdr %s dev %s nud permanent\n", addrOf(j), macOf(j), ifName)
			}
		}
		if err := command(ctx, b.String(), "ip", "-n", ns, "-batch", "-"); err != nil {
			return err
		}
	}
	return nil
}

// cut takes host i's link down, as if its cable was pulled.
func (r *room) cut(ctx context.Context, i int) error {
	return command(ctx, "", "ip", "-n", r.bridge, "link", "set", portOf(i), "down")
}

// unshape lets host i send and receive as fast as it can.
func (r *room) unshape(ctx context.Context, i int) error {
	if r.sc.mbit == 0 {
		return nil
	}
	return errors.Join(command(ctx, "", "tc", "-n", r.hosts[i], "qdisc", "del", "dev", ifName, "root"),
		command(ctx, "", "tc", "-n", r.bridge, "qdisc", "del", "dev", portOf(i), "root"))
}

// connect takes the link between the rooms down or up again.
func (r *room) connect(ctx context.Context, up bool) error {
	state := "down"
	if up {
		state = "up"
	}
	return command(ctx, "", "ip", "-n", r.bridge, "link", "set", uplink(0), state)
}

// sent is the number of bytes host i's interface has sent since it exists,
// frame headers and repetitions included.
func (r *room) sent(ctx context.Context, i int) (int64, error) {
	return counter(ctx, r.hosts[i], ifName)
}

// crossed is the number of bytes sent over the uplink: into the second room, and
// out of it. Nothing without one.
func (r *room) crossed(ctx context.Context) (c [2]int64, err error) {
	for k := range c {
		if r.sc.rooms > 1 && err == nil {
			c[k], err = counter(ctx, r.bridge, uplink(k))
		}
	}
	return c, err
}

// counter reads how many bytes an interface has sent.
func counter(ctx context.Context, ns, dev string) (int64, error) {
	out, err := exec.CommandContext(ctx, "ip", "netns", "exec", ns, "cat", "/sys/class/net/"+dev+"/statistics/tx_bytes").Output()
	if err != nil {
		return 0, fmt.Errorf("read byte counter of %s in %s: %w", dev, ns, err)
	}
	return strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
}

// command prepares a command in host i's namespace, for testnet.Start. The
// caller ends it: it does not hang on a context.
func (r *room) command(i int, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(context.Background(), "ip", append([]string{"netns", "exec", r.hosts[i], name}, args...)...)
}

// close kills what still runs in the room and removes it.
func (r *room) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // also after Ctrl-C
	defer cancel()
	names := r.hosts
	if r.bridge != "" {
		names = append(names, r.bridge)
	}
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	gate := make(chan struct{}, 4)
	for k, ns := range names {
		wg.Go(func() {
			gate <- struct{}{}
			errs[k] = testnet.Remove(ctx, ns)
			<-gate
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// command runs a command with stdin; its error carries what the command said.
func command(ctx context.Context, stdin, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// needs is why this machine cannot run the bench at all, nil if it can.
func needs() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: needs root to make network namespaces; run it with sudo", testnet.ErrNeeds)
	}
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w: command %s not found; install package iproute2", testnet.ErrNeeds, tool)
		}
	}
	return nil
}
