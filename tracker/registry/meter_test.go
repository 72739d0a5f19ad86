package registry

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labswarm/api"
)

// feed sends n reports, 2 s apart, of a host that gains the given number of
// pieces each time.
func feed(t *testing.T, r *Registry, p Report, now *time.Time, n, gain int) Host {
	t.Helper()
	for range n {
		p.Have, p.Front = p.Have+gain, p.Front+gain
		*now = now.Add(2 * time.Second)
		if _, err := r.Update(p, *now); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range r.Hosts() {
		if h.ID == p.ID {
			return h
		}
	}
	t.Fatal("the host is not listed")
	return Host{}
}

func TestPieceTime(t *testing.T) {
	now := time.Unix(1000, 0)
	for name, tt := range map[string]struct {
		change func(*Report)
		n      int
		gain   int
		want   time.Duration
		brake  string
	}{
		"too short to tell":    {func(*Report) {}, 9, 4, 0, ""},
		"four pieces in 2 s":   {func(*Report) {}, 16, 4, 500 * time.Millisecond, ""},
		"no piece at all":      {func(*Report) {}, 17, 0, 30 * time.Second, ""},
		"waits for its parent": {func(p *Report) { p.Waiting = true }, 20, 4, 0, ""},
		"disk":                 {func(p *Report) { p.Brake = api.BrakeDisk }, 20, 1, 2 * time.Second, api.BrakeDisk},
		"unknown word":         {func(p *Report) { p.Brake = "moon" }, 20, 1, 2 * time.Second, ""},
	} {
		p := report("a", 0)
		p.Parent = "up"
		tt.change(&p)
		h := feed(t, New(100), p, &now, tt.n, tt.gain)
		if h.PieceTime != tt.want || h.Brake != tt.brake {
			t.Errorf("%s: piece time %v, brake %q; want %v, %q", name, h.PieceTime, h.Brake, tt.want, tt.brake)
		}
	}
}

// TestPieceTimeBeginsAnew: what was measured behind another parent says nothing.
func TestPieceTimeBeginsAnew(t *testing.T) {
	r, now := New(100), time.Unix(1000, 0)
	p := report("a", 0)
	p.Parent = "up"
	if h := feed(t, r, p, &now, 20, 1); h.PieceTime != 2*time.Second {
		t.Fatalf("piece time %v; want 2 s", h.PieceTime)
	}
	p.Have, p.Front, p.Parent = 20, 20, "other"
	if h := feed(t, r, p, &now, 5, 1); h.PieceTime != 0 {
		t.Errorf("piece time %v after a change of parent; want none", h.PieceTime)
	}
}

// TestAccusers: accusations outlive accuser and accused, come once, and make
// the plan change.
func TestAccusers(t *testing.T) {
	r, now := New(100), time.Unix(1000, 0)
	up := func(id string, accused ...string) bool {
		t.Helper()
		p := report(id, 5)
		p.Accused = accused
		changed, err := r.Update(p, now)
		if err != nil {
			t.Fatal(err)
		}
		return changed
	}
	up("bad")
	up("a")
	if !up("a", "bad") || up("a", "bad") || up("a", "a", "") {
		t.Error("a change should be reported for a new accusation only, and none against oneself")
	}
	up("b")
	up("b", "bad", "server")
	r.Remove("a")
	r.Remove("bad")
	up("bad")
	for _, h := range r.Hosts() {
		if h.ID == "bad" {
			if d := cmp.Diff([]string{"a", "b"}, h.AccusedBy); d != "" {
				t.Errorf("accusers of the host that came back (-want +got):\n%s", d)
			}
		}
	}
	if d := cmp.Diff([]string{"b"}, r.Accusers("server")); d != "" {
		t.Errorf("accusers of the server (-want +got):\n%s", d)
	}
}

// TestLately: the newest reports with one parent, from the second on; connecting to
// the first parent counts.
func TestLately(t *testing.T) {
	r, now := New(1000), time.Unix(1000, 0)
	p := report("a", 0)
	check := func(what string, h Host, span time.Duration, gained int) {
		t.Helper()
		if h.Lately != span || h.Gained != gained {
			t.Errorf("%s: %d pieces in %v; want %d in %v", what, h.Gained, h.Lately, gained, span)
		}
	}
	check("not connected yet", feed(t, r, p, &now, 1, 0), 0, 0)
	p.Parent = "server"
	check("second report", feed(t, r, p, &now, 1, 9), 2*time.Second, 9)
	p.Have, p.Front = 9, 9
	check("many reports", feed(t, r, p, &now, 5, 20), 2*time.Second, 20)
	p.Parent, p.Have, p.Front = "b", 200, 200
	check("first report with another parent", feed(t, r, p, &now, 1, 5), 0, 0)
	p.Have, p.Front = 205, 205
	check("second one", feed(t, r, p, &now, 1, 7), 2*time.Second, 7)
}
