// Command labswarm-agent is /init of the netbooted terminal: it finds the
// server whose key is pinned in the initramfs, does what a signed order says
// to the one disk it names, and restarts the machine. Started beside a running
// system it does the same to a loop device in place of a machine's disk.
package main

import (
	"fmt"
	"os"
)

func main() {
	if os.Getpid() == 1 {
		asInit()
		return // the kernel takes the end of process 1 as a panic and restarts (panic=10)
	}
	if err := beside(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "labswarm-agent:", err)
		os.Exit(1)
	}
}
