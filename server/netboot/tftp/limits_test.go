package tftp

import (
	"context"
	"net/netip"
	"testing"
	"time"
)

func TestLimits(t *testing.T) {
	ctx := t.Context()
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	l := newLimits(2, 7)
	var slots []*slot
	enter := func(ip netip.Addr) *slot {
		t.Helper()
		s, err := l.enter(ctx, ip, true)
		if err != nil {
			t.Fatal(err)
		}
		slots = append(slots, s)
		return s
	}
	s1, s2, s3 := enter(a), enter(a), enter(a)
	if !s1.cut() || s2.cut() || s3.cut() {
		t.Errorf("cut = %v %v %v; want the oldest of three cut", s1.cut(), s2.cut(), s3.cut())
	}
	if s := enter(b); s.cut() {
		t.Error("another host's transfer was cut")
	}
	enter(a)
	enter(a)
	enter(a)
	if _, err := l.enter(ctx, a, true); err == nil {
		t.Error("a host got a seventh live transfer")
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if _, err := l.enter(short, b, true); err == nil {
		t.Error("an eighth transfer in all was admitted")
	}
	for _, s := range slots {
		s.leave()
		s.leave() // twice is harmless
	}
	if len(l.hosts) != 0 || len(l.total) != 0 {
		t.Errorf("after all have left: %d hosts, %d tokens", len(l.hosts), len(l.total))
	}
}
