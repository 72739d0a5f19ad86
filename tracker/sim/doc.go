// Package sim plays whole swarms of up to 2 000 hosts under a virtual clock:
// the real tracker with its registry and planner, and the real decisions of
// every host (swarm/sched), joined by a model of links, disks and failures.
// Nothing of the scheduling is copied here; what is modelled is the world.
//
// The model, and what it leaves out. A link carries payload only, first come
// first served; a block passes all links of its way at once (cut-through) and
// arrives when the slowest has finished it. TCP is a bounded number of bytes
// under way per connection; there is no loss, no slow start, no header. Ratios
// are therefore times over S / payload rate, floor 1.000; headers on a real
// link (Ethernet, IP, TCP) cost 4.5 % more, see Overhead.
//
// One goroutine and one event queue: a Scenario, which a seed number makes, is
// replayed exactly. It belongs to no product: called by tests and by
// e2e/swarmsim.
package sim
