//go:build integration

package power

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"labswarm/internal/testreq"
)

// inNamespace runs fn on a thread with a network of its own: lab0 is the
// server's interface, pc0 the other end of its cable.
func inNamespace(t *testing.T, fn func()) {
	testreq.Root(t)
	testreq.Tool(t, "ip", "iproute2")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread, and its network, end with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		for _, line := range [][]string{{"link", "add", "lab0", "type", "veth", "peer", "name", "pc0"}, {"addr", "add", "10.9.0.1/24", "dev", "lab0"},
			{"link", "set", "lab0", "up"}, {"link", "set", "pc0", "up"}} {
			if out, err := exec.CommandContext(t.Context(), "ip", line...).CombinedOutput(); err != nil {
				t.Errorf("ip %v: %v %s", line, err, out)
				return
			}
		}
		fn()
	}()
	<-done
}

// TestWakePackets: what comes out at the other end of the cable.
func TestWakePackets(t *testing.T) {
	inNamespace(t, func() {
		pc, err := net.InterfaceByName("pc0")
		if err != nil {
			t.Error(err)
			return
		}
		const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: pc.Index}); err != nil {
			t.Error(err)
			return
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
			t.Error(err)
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := (Sender{Interface: "lab0"}).Wake(ctx, hosts(2)); err != nil {
			t.Error(err)
			return
		}
		udp, raw := map[string]int{}, map[string]int{}
		buf := make([]byte, 2000)
		for range 200 {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil || udp["0"]+udp["1"]+raw["0"]+raw["1"] == 4*Packets {
				break
			}
			f := buf[:n]
			for i, name := range []string{"0", "1"} {
				at := bytes.Index(f, Magic(mac(i)))
				switch {
				case at < 0 || !bytes.Equal(f[:6], []byte{255, 255, 255, 255, 255, 255}):
				case f[12] == 0x08 && f[13] == 0x42 && at == 14:
					raw[name]++
				case f[12] == 0x08 && f[13] == 0 && at == 42 && bytes.Equal(f[30:34], []byte{10, 9, 0, 255}) && f[36] == 0 && f[37] == 9:
					udp[name]++
				}
			}
		}
		if udp["0"] != Packets || udp["1"] != Packets || raw["0"] != Packets || raw["1"] != Packets {
			t.Errorf("by UDP to 10.9.0.255:9 %v, as frames %v; want %d each", udp, raw, Packets)
		}
	})
}

// TestWakeBehindARouter: server, router and a room's network, each with a stack
// of its own. The packet arrives in the room as a broadcast.
func TestWakeBehindARouter(t *testing.T) {
	testreq.Tool(t, "unshare", "util-linux")
	testreq.Tool(t, "nsenter", "util-linux")
	inNamespace(t, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		run := func(args ...string) bool {
			out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
			if err != nil {
				t.Errorf("%v: %v %s", args, err, out)
			}
			return err == nil
		}
		// Two more stacks live as long as their shells, which end with this test.
		stack := func() (pid string, ok bool) {
			cmd := exec.CommandContext(ctx, "unshare", "--net", "sh", "-c", "echo up; exec sleep 60")
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Error(err)
				return "", false
			}
			t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // killed: it does not end well
			if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
				t.Error(err)
				return "", false
			}
			return strconv.Itoa(cmd.Process.Pid), true
		}
		router, ok := stack()
		room, ok2 := stack()
		if !ok || !ok2 {
			return
		}
		in := func(pid string, args ...string) bool {
			return run(append([]string{"nsenter", "--net=/proc/" + pid + "/ns/net"}, args...)...)
		}
		if !run("ip", "link", "set", "pc0", "netns", router) || !run("ip", "route", "add", "10.7.0.0/24", "via", "10.9.0.2") ||
			!in(router, "sh", "-ec", `ip addr add 10.9.0.2/24 dev pc0; ip link set pc0 up
ip link add room0 type veth peer name seat0; ip addr add 10.7.0.1/24 dev room0; ip link set room0 up
ip link set seat0 netns `+room+`
echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv4/conf/all/bc_forwarding; echo 1 > /proc/sys/net/ipv4/conf/pc0/bc_forwarding; echo 1 > /proc/sys/net/ipv4/conf/room0/bc_forwarding`) ||
			!in(room, "sh", "-ec", "ip addr add 10.7.0.9/24 dev seat0; ip link set seat0 up") {
			return
		}
		heard := make(chan string, 1)
		ready := make(chan bool, 1)
		go func() { // stands in the room
			runtime.LockOSThread() // never unlocked: the thread is of another network now
			heard <- func() string {
				ns, err := os.Open("/proc/" + room + "/ns/net")
				if err != nil {
					ready <- false
					return err.Error()
				}
				defer ns.Close()
				if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
					ready <- false
					return err.Error()
				}
				l, err := net.ListenPacket("udp4", "10.7.0.255:9")
				if err != nil {
					ready <- false
					return err.Error()
				}
				defer l.Close()
				ready <- true
				_ = l.SetReadDeadline(time.Now().Add(5 * time.Second))
				buf := make([]byte, 2000)
				n, from, err := l.ReadFrom(buf)
				if err != nil {
					return err.Error()
				}
				if !bytes.Equal(buf[:n], Magic(mac(0))) {
					return "something else"
				}
				return from.(*net.UDPAddr).IP.String()
			}()
		}()
		if <-ready {
			target := hosts(1)
			target[0].Room = Room{Name: "far", Casts: []netip.Addr{netip.MustParseAddr("10.7.0.255")}}
			if err := (Sender{Interface: "lab0"}).Wake(ctx, target); err != nil {
				t.Error(err)
			}
		}
		if got := <-heard; got != "10.9.0.1" {
			t.Errorf("in the room: %s; want the magic packet of 10.9.0.1", got)
		}
	})
}

func TestWakeNeedsAnInterface(t *testing.T) {
	if err := (Sender{Interface: "nosuch0"}).Wake(t.Context(), hosts(1)); err == nil {
		t.Error("woken over an interface that does not exist")
	}
}
