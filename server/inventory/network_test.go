package inventory

import (
	"errors"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/server/store"
)

// TestFixedAddress: two hosts never have the same one, and a wrong one is not stored.
func TestFixedAddress(t *testing.T) {
	s := store.NewMem()
	put := func(name, mac, address string) error {
		h := api.Host{Name: name, Room: "A1", MAC: mac}
		if address != "" {
			h.Network = &api.Network{Address: address}
		}
		return s.Update(t.Context(), func(tx store.Tx) error { _, err := Put(tx, h, Self{}, time.Now()); return err })
	}
	for _, step := range []struct {
		name, mac, address string
		conflict, invalid  bool
	}{
		{"pc1", "52:54:00:00:00:01", "10.0.7.1/24", false, false},
		{"pc2", "52:54:00:00:00:02", "10.0.7.1/16", true, false},
		{"pc2", "52:54:00:00:00:02", "10.0.7.2", false, true},
		{"pc2", "52:54:00:00:00:02", "10.0.7.2/24", false, false},
		{"PC1", "52:54:00:00:00:01", "10.0.7.1/24", false, false}, // itself
		{"pc1", "52:54:00:00:00:01", "", false, false},
		{"pc2", "52:54:00:00:00:02", "10.0.7.1/24", false, false}, // free again
	} {
		err := put(step.name, step.mac, step.address)
		var c *ConflictError
		var i *InvalidError
		if errors.As(err, &c) != step.conflict || errors.As(err, &i) != step.invalid || (err != nil) != (step.conflict || step.invalid) {
			t.Errorf("%+v: %v", step, err)
		}
	}
}
