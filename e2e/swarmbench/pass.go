package main

import (
	"fmt"

	"labswarm/swarm/peer"
	"labswarm/swarm/peercert"
)

// benchSecret stands for the server's secret key. Every process derives the
// swarm's authority from it: handing out certificates is not measured here.
const benchSecret = "swarmbench: nobody trusts this key"

// secure makes a node's connections mutual TLS.
func secure(cfg *peer.Config, a helperArgs) error {
	auth, err := peercert.NewAuthority([]byte(benchSecret), cfg.InfoHash, "bench")
	if err != nil {
		return err
	}
	id := peercert.ID{Host: a.ID, Job: 1, Boot: "bench"}
	if a.Role == "seed" {
		id = peercert.ID{Host: serverID, Seed: true}
	}
	pass, err := auth.NewPass(id)
	if err != nil {
		return fmt.Errorf("make pass of %s: %w", a.ID, err)
	}
	cfg.Pass = func() (*peercert.Pass, error) { return pass, nil }
	return nil
}
