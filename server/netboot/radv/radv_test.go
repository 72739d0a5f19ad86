package radv

import (
	"encoding/hex"
	"net"
	"testing"
)

func TestAdvertisementIsEmpty(t *testing.T) {
	// type 134, code 0, checksum left to the kernel, hop limit 64, no flags,
	// lifetime 0, reachable 0, retransmit 0, no options (RFC 4861 4.2).
	if got := hex.EncodeToString(Advertisement()); got != "86000000400000000000000000000000" {
		t.Errorf("Advertisement = %s", got)
	}
}

func TestWanted(t *testing.T) {
	ll := net.ParseIP("fe80::1")
	sol := []byte{133, 0, 0, 0, 0, 0, 0, 0}
	for _, c := range []struct {
		name string
		pkt  []byte
		hops int
		src  net.IP
		want bool
	}{
		{"solicitation", sol, 255, ll, true},
		{"with source link-layer option", append(sol[:8:8], 1, 1, 2, 3, 4, 5, 6, 7), 255, ll, true},
		{"forwarded", sol, 254, ll, false},
		{"unspecified source: no unicast possible", sol, 255, net.IPv6unspecified, false},
		{"global source", sol, 255, net.ParseIP("2001:db8::1"), false},
		{"short", sol[:7], 255, ll, false},
		{"advertisement", []byte{134, 0, 0, 0, 0, 0, 0, 0}, 255, ll, false},
	} {
		if got := Wanted(c.pkt, c.hops, c.src); got != c.want {
			t.Errorf("%s: Wanted = %v; want %v", c.name, got, c.want)
		}
	}
}

func FuzzWanted(f *testing.F) {
	f.Add([]byte{133, 0, 0, 0, 0, 0, 0, 0}, 255, []byte(net.ParseIP("fe80::1")))
	f.Fuzz(func(_ *testing.T, pkt []byte, hops int, src []byte) { Wanted(pkt, hops, src) })
}
