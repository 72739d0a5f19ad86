package registry

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var addr = netip.MustParseAddrPort("192.0.2.7:7441")

func report(id string, have int) Report {
	return Report{ID: id, Addr: addr, Have: have, Front: have, Done: have == 100}
}

func TestRefusedReports(t *testing.T) {
	long := make([]byte, maxID+1)
	for name, p := range map[string]Report{
		"no id":             {Addr: addr},
		"long id":           {ID: string(long), Addr: addr},
		"no address":        {ID: "h"},
		"no port":           {ID: "h", Addr: netip.MustParseAddrPort("192.0.2.7:0")},
		"unspecified":       {ID: "h", Addr: netip.MustParseAddrPort("0.0.0.0:7441")},
		"too many pieces":   {ID: "h", Addr: addr, Have: 101},
		"negative pieces":   {ID: "h", Addr: addr, Have: -1},
		"front beyond have": {ID: "h", Addr: addr, Have: 3, Front: 4},
		"done and not full": {ID: "h", Addr: addr, Have: 3, Done: true},
		"negative rate":     {ID: "h", Addr: addr, RateBps: -1},
	} {
		r := New(100)
		if changed, err := r.Update(p, time.Unix(0, 0)); err == nil || changed {
			t.Errorf("%s: Update = %v, %v; want an error and no change", name, changed, err)
		}
		if n := len(r.Hosts()); n != 0 {
			t.Errorf("%s: %d hosts afterwards; want 0", name, n)
		}
	}
}

func TestLifeOfHost(t *testing.T) {
	r := New(100)
	now := time.Unix(1000, 0)
	step := func(what string, p Report, want bool) {
		t.Helper()
		got, err := r.Update(p, now)
		if err != nil || got != want {
			t.Errorf("%s: Update = %v, %v; want %v", what, got, err, want)
		}
	}
	step("new", report("a", 0), true)
	step("second host", report("b", 0), true)
	step("progress only", report("a", 50), false)
	step("done", report("a", 100), true)
	r.Release("a")
	if h := r.Hosts()[0]; !h.Released || !h.Done {
		t.Errorf("after Release: %+v; want released and done", h)
	}
	step("read-back dropped a piece", report("a", 99), true)
	if h := r.Hosts()[0]; h.Released {
		t.Error("still released although it is not done any more")
	}
	now = now.Add(9 * time.Second)
	step("b is heard of", report("b", 10), false)
	now = now.Add(5 * time.Second)
	if !r.Age(now, 10*time.Second) || r.Age(now, 10*time.Second) {
		t.Error("Age should report a death once")
	}
	if h := r.Hosts()[0]; h.ID != "a" || h.Alive {
		t.Errorf("after 14 s of silence: %+v; want a, dead", h)
	}
	step("back from the dead", report("a", 0), true)
	if h := r.Hosts()[1]; h.ID != "a" || !h.Alive || h.Order != 3 {
		t.Errorf("after its return: %+v; want a at the end, order 3", h)
	}
	mapped := report("a", 0)
	mapped.Addr = netip.MustParseAddrPort("[::ffff:192.0.2.7]:7441")
	step("the same address, IPv4-mapped", mapped, false)
	r.Age(now.Add(200*time.Second), 10*time.Second)
	if n := len(r.Hosts()); n != 0 {
		t.Errorf("%d hosts after minutes of silence; want 0", n)
	}
}

// TestBlame: leaving a dead host is no evidence against the one that left it;
// leaving one that goes on reporting is.
func TestBlame(t *testing.T) {
	r := New(100)
	now := time.Unix(1000, 0)
	up := func(p Report) {
		t.Helper()
		if _, err := r.Update(p, now); err != nil {
			t.Fatal(err)
		}
	}
	up(report("dead", 5))
	up(report("well", 5))
	accuser := report("c", 4)
	accuser.Rejected, accuser.Accused = []string{"dead", "ghost"}, []string{"well"}
	up(accuser)
	blamed := func() []string {
		for _, h := range r.Hosts() {
			if h.ID == "c" {
				return h.Blamed
			}
		}
		return nil
	}
	if got := blamed(); got != nil {
		t.Errorf("blamed at once: %v; want nobody yet", got)
	}
	now = now.Add(5 * time.Second)
	up(report("well", 9))
	accuser.Rejected, accuser.Accused = nil, nil
	up(accuser)
	if d := cmp.Diff([]string{"well"}, blamed()); d != "" {
		t.Errorf("blamed (-want +got):\n%s", d)
	}
}

func TestHostLimit(t *testing.T) {
	r := New(100)
	for i := range MaxHosts {
		if _, err := r.Update(report(string(rune('a'+i%26))+time.Duration(i).String(), 0), time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Update(report("one too many", 0), time.Unix(0, 0)); err == nil {
		t.Error("a host beyond the limit was taken in")
	}
}
