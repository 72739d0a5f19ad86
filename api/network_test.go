package api

import "testing"

func TestNetworkCheck(t *testing.T) {
	for _, n := range []Network{
		{Address: "10.0.7.21/24"},
		{Address: "10.0.7.21/24", Gateway: "10.0.7.1", DNS: []string{"10.0.7.1", "2001:db8::1"}},
		{Address: "192.168.1.2/30", Gateway: "192.168.1.1"},
		{Address: "10.0.0.255/16"}, // no broadcast address there
	} {
		if err := n.Check(); err != nil {
			t.Errorf("%+v: %v", n, err)
		}
	}
	for _, n := range []Network{
		{}, {Address: "10.0.7.21"}, {Address: "10.0.7.0/24"}, {Address: "10.0.7.255/24"}, {Address: "10.0.07.21/24"}, {Address: "2001:db8::1/64"},
		{Address: "10.0.7.21/31"}, {Address: "10.0.7.21/0"}, {Address: "127.0.0.5/8"}, {Address: "224.0.0.5/8"}, {Address: "10.0.7.21/24\n"},
		{Address: "10.0.7.21/24", Gateway: "10.0.8.1"}, {Address: "10.0.7.21/24", Gateway: "10.0.7.21"}, {Address: "10.0.7.21/24", Gateway: "10.0.7.255"}, {Address: "10.0.7.21/24", Gateway: "x"},
		{Address: "10.0.7.21/24", DNS: []string{"a.example"}}, {Address: "10.0.7.21/24", DNS: []string{"1.1.1.1", "1.1.1.1"}},
		{Address: "10.0.7.21/24", DNS: []string{"fe80::1%eth0"}}, {Address: "10.0.7.21/24", DNS: []string{"1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"}},
	} {
		if err := n.Check(); err == nil {
			t.Errorf("%+v was taken", n)
		}
	}
}
