// Package sched is what one host of a swarm decides while it fetches and
// serves: which source is in use, which one is watched, when one is left or
// taken again, which piece is asked for next and how much is kept asked for;
// and whether a request of a child is answered.
//
// It opens no socket, starts no goroutine and reads no clock: the owner calls
// it under its own lock with the time as an argument, and carries out what it
// decides (Hands, Wire). Called by swarm/peer with real connections and by
// tracker/sim under a virtual clock: there is no second copy of these rules.
package sched
