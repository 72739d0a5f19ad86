package link

import (
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLeaseTimes(t *testing.T) {
	sec := func(n int) time.Duration { return time.Duration(n) * time.Second }
	for _, tt := range []struct {
		name              string
		lease, t1, t2     int // seconds; 0 = not sent
		want1, want2, end int
	}{
		{"only the lease", 60, 0, 0, 30, 52, 60},
		{"all told", 3600, 1000, 3000, 1000, 3000, 3600},
		{"nothing told", 0, 0, 0, 1800, 3150, 3600},
		{"very short", 1, 0, 0, 5, 8, 10},
		{"T1 after the end", 60, 90, 0, 30, 52, 60},
		{"T2 before T1", 60, 30, 10, 30, 52, 60},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ack, err := dhcpv4.New()
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range []struct {
				code dhcpv4.OptionCode
				n    int
			}{{dhcpv4.OptionIPAddressLeaseTime, tt.lease}, {dhcpv4.OptionRenewTimeValue, tt.t1}, {dhcpv4.OptionRebindingTimeValue, tt.t2}} {
				if o.n > 0 {
					ack.UpdateOption(dhcpv4.Option{Code: o.code, Value: dhcpv4.Duration(sec(o.n))})
				}
			}
			got := leaseTimes(ack)
			if got.t1 != sec(tt.want1) || got.t2.Truncate(time.Second) != sec(tt.want2) || got.end != sec(tt.end) {
				t.Errorf("leaseTimes = %+v; want %d, %d, %d s", got, tt.want1, tt.want2, tt.end)
			}
		})
	}
}
