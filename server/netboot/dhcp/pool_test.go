package dhcp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var (
	start = netip.MustParseAddr("10.77.0.100")
	end   = netip.MustParseAddr("10.77.0.103")
	t0    = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
)

func mac(i int) string { return fmt.Sprintf("52:54:00:00:00:%02x", i) }

func newPool(t testing.TB, store LeaseStore, exclude ...netip.Addr) *Pool {
	t.Helper()
	p, err := NewPool(start, end, time.Hour, exclude, store)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func take(t *testing.T, p *Pool, m string, now time.Time) netip.Addr {
	t.Helper()
	ip, ok := p.Offer(m, netip.Addr{}, now)
	if !ok {
		t.Fatalf("no address for %s", m)
	}
	if v, err := p.Confirm(m, ip, now); v != Ack || err != nil {
		t.Fatalf("Confirm(%s, %s) = %v, %v; want Ack", m, ip, v, err)
	}
	return ip
}

func TestPoolSticksToMAC(t *testing.T) {
	p := newPool(t, nil, start) // the first address is our own
	a := take(t, p, mac(1), t0)
	if a == start {
		t.Errorf("gave away the excluded address %s", a)
	}
	b := take(t, p, mac(2), t0)
	if a == b {
		t.Fatal("two PCs have one address")
	}
	later := t0.Add(48 * time.Hour) // long expired, but nobody needed it
	if again := take(t, p, mac(1), later); again != a {
		t.Errorf("after two days %s got %s; want its old %s", mac(1), again, a)
	}
	if got, ok := p.MACOf(b, t0); !ok || got != mac(2) {
		t.Errorf("MACOf(%s) = %q, %v", b, got, ok)
	}
	if _, ok := p.MACOf(b, later); ok {
		t.Error("MACOf knows the holder of an expired lease")
	}
}

func TestPoolUsedUpAndReclaim(t *testing.T) {
	p := newPool(t, nil)
	for i := range 4 {
		take(t, p, mac(i), t0.Add(time.Duration(i)*time.Minute))
	}
	if ip, ok := p.Offer(mac(9), netip.Addr{}, t0.Add(10*time.Minute)); ok {
		t.Errorf("a fifth PC got %s of four addresses", ip)
	}
	// After the leases have ended, the one expired longest goes first.
	now := t0.Add(2 * time.Hour)
	if ip, ok := p.Offer(mac(9), netip.Addr{}, now); !ok || ip != start {
		t.Errorf("Offer after expiry = %v, %v; want %s", ip, ok, start)
	}
	if v, _ := p.Confirm(mac(0), start, now); v != Refuse {
		t.Errorf("the old holder's REQUEST = %v; want Refuse, the address is offered to another", v)
	}
}

func TestPoolRequests(t *testing.T) {
	p := newPool(t, nil)
	a := take(t, p, mac(1), t0)
	for _, c := range []struct {
		name string
		mac  string
		ip   netip.Addr
		want Verdict
	}{
		{"renew own", mac(1), a, Ack},
		{"another's address", mac(2), a, Refuse},
		{"outside the pool", mac(2), netip.MustParseAddr("192.168.1.5"), Refuse},
		{"init-reboot, free address", mac(3), end, Ack},
		{"no address named", mac(4), netip.Addr{}, Silent},
	} {
		if got, err := p.Confirm(c.mac, c.ip, t0); got != c.want || err != nil {
			t.Errorf("%s: Confirm = %v, %v; want %v", c.name, got, err, c.want)
		}
	}
	p.Decline(mac(1), a, t0)
	if ip, ok := p.Offer(mac(1), a, t0); !ok || ip == a {
		t.Errorf("after DECLINE of %s the offer is %v, %v; want another address", a, ip, ok)
	}
	if err := p.Release(mac(3), end, t0); err != nil {
		t.Fatal(err)
	}
	if _, held := p.MACOf(end, t0.Add(time.Second)); held {
		t.Error("a released address is still held")
	}
}

func TestForgedDeclinesDoNotEmptyThePool(t *testing.T) {
	p := newPool(t, nil)
	for i := range 50 {
		ip, ok := p.Offer(mac(i), netip.Addr{}, t0)
		if !ok {
			t.Fatalf("after %d declines the pool is empty", i)
		}
		p.Decline(mac(i), ip, t0)
	}
}

func TestPoolSurvivesRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.json")
	store := FileStore{Path: path}
	p := newPool(t, store)
	a := take(t, p, mac(1), t0)
	take(t, p, mac(2), t0)
	if _, ok := p.Offer(mac(3), netip.Addr{}, t0); !ok { // offered only: not kept
		t.Fatal("no offer")
	}
	q := newPool(t, store)
	if d := cmp.Diff(fmt.Sprint(p.Leases()), fmt.Sprint(q.Leases())); d != "" {
		t.Errorf("leases after restart (-before +after):\n%s", d)
	}
	if ip, _ := q.Offer(mac(1), netip.Addr{}, t0); ip != a {
		t.Errorf("after restart %s gets %s; want %s", mac(1), ip, a)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".leases-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files left: %v, %v", left, err)
	}
	if err := os.WriteFile(path, []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewPool(start, end, time.Hour, nil, store); err == nil {
		t.Error("a lease file that is no JSON was taken for an empty one")
	}
}

type brokenStore struct{}

func (brokenStore) Load() ([]Lease, error) { return nil, nil }
func (brokenStore) Save([]Lease) error     { return errors.New("disk full") }

func TestFailedSaveStillAcks(t *testing.T) {
	p := newPool(t, brokenStore{})
	ip, _ := p.Offer(mac(1), netip.Addr{}, t0)
	if v, err := p.Confirm(mac(1), ip, t0); v != Ack || err == nil {
		t.Errorf("Confirm = %v, %v; want Ack beside the error", v, err)
	}
}

func TestBadPools(t *testing.T) {
	for _, c := range [][2]string{{"10.0.0.9", "10.0.0.1"}, {"10.0.0.0", "10.1.0.0"}, {"::1", "::2"}} {
		if _, err := NewPool(netip.MustParseAddr(c[0]), netip.MustParseAddr(c[1]), time.Hour, nil, nil); err == nil {
			t.Errorf("NewPool(%s, %s) succeeded", c[0], c[1])
		}
	}
	if _, err := NewPool(start, start, time.Hour, []netip.Addr{start}, nil); err == nil {
		t.Error("a pool of nothing but our own address was accepted")
	}
}

// TestPoolModel: whatever clients do, no address has two live holders and none
// outside the range is given.
func TestPoolModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, err := NewPool(start, end, time.Hour, []netip.Addr{start.Next()}, nil)
		if err != nil {
			t.Fatal(err)
		}
		now := t0
		type held struct {
			mac   string
			until time.Time
		}
		holder := map[netip.Addr]held{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 4000).Draw(t, "seconds")) * time.Second)
			m := mac(rapid.IntRange(0, 6).Draw(t, "mac"))
			ip := start
			for range rapid.IntRange(0, 4).Draw(t, "ip") {
				ip = ip.Next()
			}
			switch rapid.IntRange(0, 4).Draw(t, "op") {
			case 0, 1:
				got, ok := p.Offer(m, ip, now)
				if ok && (got == start.Next() || got.Less(start) || end.Less(got)) {
					t.Fatalf("offered %s", got)
				}
			case 2:
				if v, _ := p.Confirm(m, ip, now); v == Ack {
					if h, live := holder[ip]; live && h.mac != m && !now.After(h.until) {
						t.Fatalf("%s given to %s while %s holds it", ip, m, h.mac)
					}
					for a, h := range holder {
						if h.mac == m {
							delete(holder, a)
						}
					}
					holder[ip] = held{m, now.Add(time.Hour)}
				}
			case 3:
				if err := p.Release(m, ip, now); err != nil {
					t.Fatal(err)
				}
				if holder[ip].mac == m {
					delete(holder, ip)
				}
			case 4:
				p.Decline(m, ip, now)
				if holder[ip].mac == m {
					delete(holder, ip)
				}
			}
		}
	})
}

func FuzzLeaseFile(f *testing.F) {
	f.Add([]byte(`[{"mac":"52:54:00:00:00:01","ip":"10.77.0.100","until":"2026-11-20T12:00:00Z"}]`))
	f.Add([]byte(`[{"mac":"","ip":"::","until":""}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		leases, err := decodeLeases(b)
		if err != nil {
			return
		}
		for _, l := range leases {
			if !l.IP.Is4() || len(l.MAC) != 17 {
				t.Fatalf("accepted lease %+v", l)
			}
		}
	})
}
