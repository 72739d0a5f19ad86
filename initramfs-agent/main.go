// Command labswarm-agent is /init of the netbooted terminal: it finds the
// server whose key is pinned in the initramfs, does what a signed order says
// to the one disk it names, and restarts the machine. Started beside a running
// system it does the same to a loop device in place of a machine's disk.
//
// Built with -tags enrolonly it is the agent of the enrol profile: it shows a
// code until the admin has given the PC a seat, and holds no code that writes a
// disk (enrolonly.go in place of init.go and beside.go).
package main
