package control

import (
	"errors"
	"testing"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/server/store"
)

// TestPersonalisePolicyReachesTheHost: the policy of a job stands in the signed
// order, beside the host's name and room.
func TestPersonalisePolicyReachesTheHost(t *testing.T) {
	for policy, want := range map[string]string{"": order.PersonaliseRequire, "require": order.PersonaliseRequire, "try": order.PersonaliseTry, "off": order.PersonaliseOff} {
		b := newBench(t, store.NewMem())
		if _, err := b.PutHost(t.Context(), api.Host{Name: "a1", Room: "r1", MAC: "52:54:00:00:00:01"}); err != nil {
			t.Fatal(err)
		}
		if j := b.create(api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1", Personalise: policy}); j.Personalise != want {
			t.Fatalf("policy %q: job says %q", policy, j.Personalise)
		}
		cert, _ := b.agent(0, 1)
		raw, err := b.Order(t.Context(), cert)
		if err != nil {
			t.Fatal(err)
		}
		var o order.Order
		decode(t, raw, &o)
		if o.Personalise != want || o.Host.Name != "a1" || o.Host.Room != "r1" {
			t.Errorf("policy %q: order says %q for %+v", policy, o.Personalise, o.Host)
		}
		b.end()
	}
	b := newBench(t, store.NewMem())
	defer b.end()
	var p *api.Problem
	if _, err := b.CreateJob(t.Context(), &api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1", Personalise: "maybe"}, ""); !errors.As(err, &p) || p.Code != api.CodeUsage {
		t.Errorf("policy maybe: %v; want it refused", err)
	}
}
