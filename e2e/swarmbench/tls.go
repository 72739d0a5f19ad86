package main

import "labswarm/swarm/peercert"

// swarmPass makes the certificate of one process, for peer.Config.Pass. Every
// process derives the same authority, so that nothing has to be passed around:
// this secret guards nothing. id is the name the tracker knows the process by,
// "server" for the seed.
func swarmPass(infoHash [20]byte, id string, seed bool) (func() (*peercert.Pass, error), error) {
	ca, err := peercert.NewAuthority([]byte("swarmbench measures, it protects nothing"), infoHash, "bench")
	if err != nil {
		return nil, err
	}
	p, err := ca.NewPass(peercert.ID{Host: id, Seed: seed})
	return func() (*peercert.Pass, error) { return p, nil }, err
}
