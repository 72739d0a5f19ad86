package frame

import "testing"

func TestPays(t *testing.T) {
	for _, tt := range []struct {
		policy string
		mbps   int
		disk   int64
		want   bool
	}{
		{"", 0, 0, true}, {Auto, 0, 0, true}, {Auto, 100, 0, true}, {Auto, 1000, 3e9, true}, {Auto, 2500, 0, true}, {Auto, 9999, 0, true},
		{Auto, 10_000, 0, false}, {Auto, 10_000, 3e9, false}, {Auto, 10_000, 1250e6, false}, {Auto, 10_000, 1249e6, true},
		{Auto, 10_000, 600e6, true}, {Auto, 100_000, 3e9, true}, {Auto, 25_000, 3500e6, false}, {Auto, -1, 0, true},
		{On, 100_000, 0, true}, {Off, 100, 1, false}, {Off, 10_000, 600e6, false},
	} {
		if got := Pays(tt.policy, tt.mbps, tt.disk); got != tt.want {
			t.Errorf("Pays(%q, %d Mb/s, disk %d) = %v; want %v", tt.policy, tt.mbps, tt.disk, got, tt.want)
		}
	}
}
