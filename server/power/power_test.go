package power

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func mac(n int) net.HardwareAddr { return net.HardwareAddr{0x52, 0x54, 0, 0, byte(n >> 8), byte(n)} }

func hosts(n int) (out []Target) {
	for i := range n {
		out = append(out, Target{Host: fmt.Sprint(i), MACs: []net.HardwareAddr{mac(i)}})
	}
	return out
}

func TestPlan(t *testing.T) {
	if got := Plan(nil); got != nil {
		t.Errorf("nobody: %v", got)
	}
	two := []Target{{Host: "a", MACs: []net.HardwareAddr{mac(1), mac(2)}}, {Host: "b", MACs: []net.HardwareAddr{mac(3), {1, 2}}}}
	want := "0s a:01 0s a:02 30ms b:03 100ms a:01 100ms a:02 130ms b:03 200ms a:01 200ms a:02 230ms b:03 "
	got := ""
	for _, s := range Plan(two) {
		got += fmt.Sprintf("%s %s:%02x ", s.At, s.Host, s.MAC[5])
	}
	if got != want {
		t.Errorf("plan %s; want %s", got, want)
	}
	for n, at := range map[int]time.Duration{0: 0, 19: 570 * time.Millisecond, 20: 15 * time.Second, 41: 30*time.Second + 30*time.Millisecond} {
		for _, s := range Plan(hosts(42)) {
			if s.Host == fmt.Sprint(n) {
				if s.At != at {
					t.Errorf("host %d at %s; want %s", n, s.At, at)
				}
				break
			}
		}
	}
}

// TestPlanOfRooms: each room has its own pace, and they come one after the other.
func TestPlanOfRooms(t *testing.T) {
	targets := hosts(5)
	slow := Room{Name: "slow", Wave: 1, Pause: 40 * time.Second, Casts: []netip.Addr{netip.MustParseAddr("10.7.0.255")}}
	targets[1].Room, targets[3].Room = slow, slow
	got := map[string]time.Duration{}
	for _, s := range Plan(targets) {
		if _, ok := got[s.Host]; !ok {
			got[s.Host] = s.At
		}
		if behind := s.Host == "1" || s.Host == "3"; behind != (len(s.To) == 1) {
			t.Errorf("host %s is woken through %v", s.Host, s.To)
		}
	}
	want := map[string]time.Duration{"0": 0, "2": HostPause, "4": 2 * HostPause, "1": WavePause, "3": WavePause + 40*time.Second}
	if !maps.Equal(got, want) {
		t.Errorf("woken at %v; want %v", got, want)
	}
}

func TestPlanNeverBursts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "hosts")
		shots := Plan(hosts(n))
		begun := map[string]time.Duration{}
		for i, s := range shots {
			if i > 0 && s.At < shots[i-1].At {
				t.Fatalf("shot %d at %s after %s", i, s.At, shots[i-1].At)
			}
			if _, ok := begun[s.Host]; !ok {
				begun[s.Host] = s.At
			}
		}
		if len(shots) != Packets*n || len(begun) != n {
			t.Fatalf("%d shots for %d of %d hosts", len(shots), len(begun), n)
		}
		for from := time.Duration(0); from < shots[len(shots)-1].At; from += WavePause / 2 {
			wave := 0
			for _, at := range begun {
				if at >= from && at < from+WavePause/2 {
					wave++
				}
			}
			if wave > Wave {
				t.Fatalf("%d hosts start between %s and %s", wave, from, from+WavePause/2)
			}
		}
	})
}

func TestMagic(t *testing.T) {
	m := Magic(mac(7))
	if len(m) != 102 || !bytes.Equal(m[:6], bytes.Repeat([]byte{0xff}, 6)) || !bytes.Equal(m[6:], bytes.Repeat(mac(7), 16)) {
		t.Errorf("magic packet % x", m)
	}
}

func TestBroadcast(t *testing.T) {
	for in, want := range map[string]string{"10.9.0.1/24": "10.9.0.255", "172.16.5.9/20": "172.16.15.255", "192.168.1.129/25": "192.168.1.255", "10.1.2.3/30": "10.1.2.3", "10.1.2.3/8": "10.255.255.255"} {
		if got := Broadcast(netip.MustParsePrefix(in)).String(); got != want {
			t.Errorf("%s: %s; want %s", in, got, want)
		}
	}
}
