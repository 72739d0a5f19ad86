package portowner

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestNamesTheHolder binds real ports twice; the holder is this test process.
func TestNamesTheHolder(t *testing.T) {
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	for network, port := range map[string]int{"udp": udp.LocalAddr().(*net.UDPAddr).Port, "tcp": tcp.Addr().(*net.TCPAddr).Port} {
		var bindErr error
		if network == "udp" {
			_, bindErr = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		} else {
			_, bindErr = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		}
		err := Explain(fmt.Errorf("bind: %w", bindErr), network, port)
		var busy *BusyError
		if !errors.As(err, &busy) || !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("%s: Explain = %v; want a BusyError that wraps EADDRINUSE", network, err)
		}
		if len(busy.Owners) != 1 || busy.Owners[0].PID != os.Getpid() || busy.Owners[0].Addr != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("%s: owners = %+v; want this process", network, busy.Owners)
		}
		for _, w := range []string{fmt.Sprint(port), fmt.Sprintf("pid %d", os.Getpid()), "portowner.test"} {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q does not say %q", err, w)
			}
		}
	}
}

func TestOtherErrorsPass(t *testing.T) {
	if err := Explain(nil, "udp", 67); err != nil {
		t.Errorf("Explain(nil) = %v", err)
	}
	if err := Explain(syscall.EACCES, "udp", 67); !errors.Is(err, syscall.EACCES) {
		t.Errorf("Explain(EACCES) = %v", err)
	}
	e := &BusyError{Network: "udp", Port: 67, Owners: []Owner{{PID: 5, Name: "dnsmasq", Addr: netip.IPv4Unspecified()}}}
	if !strings.Contains(e.Error(), "dnsmasq (pid 5, on 0.0.0.0)") || !strings.Contains(e.Error(), "--dhcp off") {
		t.Errorf("Error = %q", e)
	}
}

func TestParseTable(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1
   1: 0100007F:1F90 0100007F:8000 01 00000000:00000000 00:00000000 00000000     0        0 4243 1
   2: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4244 1
   3: garbage
`
	got := map[string]netip.Addr{}
	parseTable(strings.NewReader(table), "tcp", 8080, got)
	if len(got) != 2 || got["4242"] != netip.MustParseAddr("127.0.0.1") || got["4244"] != netip.IPv6Unspecified() {
		t.Errorf("parseTable = %v", got)
	}
}

func FuzzTable(f *testing.F) {
	f.Add("h\n 0: 0100007F:1F90 00000000:0000 0A 0 0 0 0 0 4242 1\n")
	f.Fuzz(func(_ *testing.T, s string) {
		parseTable(strings.NewReader(s), "tcp", 8080, map[string]netip.Addr{})
		parseAddr(s)
	})
}
