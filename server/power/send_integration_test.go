//go:build integration

package power

import (
	"bytes"
	"context"
	"net"
	"os/exec"
	"runtime"
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

func TestWakeNeedsAnInterface(t *testing.T) {
	if err := (Sender{Interface: "nosuch0"}).Wake(t.Context(), hosts(1)); err == nil {
		t.Error("woken over an interface that does not exist")
	}
}
