package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"labswarm/api"
)

// TestKnownHosts: the last good deployment counts, a failed one after it does not,
// and one that made no keys means that they are not known.
func TestKnownHosts(t *testing.T) {
	slot := func(host string, st api.State, keys ...string) api.Slot {
		return api.Slot{Host: host, State: st, HostKeys: keys}
	}
	jobs := []api.Job{
		{ID: 3, Slots: []api.Slot{slot("a", api.StateFailed), slot("b", api.StateDone), slot("c", api.StateConfirmed, "ssh-ed25519 C3")}},
		{ID: 2, Slots: []api.Slot{slot("a", api.StateConfirmed, "ssh-ed25519 A2", "ssh-rsa A2r"), slot("b", api.StateConfirmed, "ssh-ed25519 B2")}},
		{ID: 1, Slots: []api.Slot{slot("a", api.StateConfirmed, "ssh-ed25519 A1"), slot("c", api.StateConfirmed, "ssh-ed25519 C1")}},
	}
	got := knownHosts([]api.Host{{Name: "a", LastIP: "10.0.0.7"}, {Name: "b"}, {Name: "c"}, {Name: "d"}}, jobs)
	want := []string{"a,10.0.0.7 ssh-ed25519 A2", "a,10.0.0.7 ssh-rsa A2r", "c ssh-ed25519 C3"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
