// Package peer is the data plane: one Node per swarm fetches pieces from its
// one parent in ascending order, checks SHA-1, hands each to the Storage in one
// write and sends it on to its own children; a Mux serves many swarms on one
// listening port.
//
// It does not decide who is whose parent (the tracker does), knows nothing of
// disks, orders or jobs, and contains no DHT, PEX, LSD, UPnP or uTP. Called by
// the server's seeder and by the agent's relay.
package peer
