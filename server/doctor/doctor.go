// Package doctor examines a server, its machine and its network with real probes, and says for each what was found and what to do.
// It changes nothing: its probes are a DHCP DISCOVER, reads of boot files and a file written and removed in the state folder. Called by
// server/daemon, in a running server or without one.
package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"labswarm/api"
)

// Image is what is known of an image version.
type Image struct {
	Name       string // name/version
	Err        string // why it cannot be used: signature, files
	Quarantine string
	Checked    time.Time // last scrub or import
}

// Lab is what waits for a person.
type Lab struct {
	Schedules   int
	Faults      []string // why schedules will fail
	Questions   int      // without an answer
	Quarantined []string // hosts
}

// BootFile is a boot file as it is served.
type BootFile struct {
	Name   string
	Served []byte // for an initramfs with our keys in front
}

// Config is what a checkup needs.
type Config struct {
	Interface string
	IP        netip.Addr // ours on Interface
	Prefix    netip.Prefix
	DHCP      string // proxy, dhcp or off
	StateDir  string
	BootDir   string
	Hosts     int // in the inventory

	// Of a running server; nil and zero without one.
	Running   bool
	Heard     func(mac string) bool // its DHCP port has heard this MAC lately
	Files     []BootFile
	Pins      []byte // of our keys, as they stand in front of each initramfs
	Images    func(context.Context) ([]Image, error)
	Lab       func(context.Context) (Lab, error)
	Scrub     time.Duration // between two scrubs, 0 = never
	Snapshot  time.Time     // newest copy of the state
	Ballast   bool
	TFTPPort  int
	HTTPPort  int
	PortOwner func(network string, port int) ([]string, error) // who is bound, for people, without ourselves
	Built     time.Time                                        // no clock may be before it
}

// probe is one group of checks.
type probe struct {
	name string
	run  func(context.Context, *Config) []api.Check
}

// limit is how long one group may take: the longest waits for DHCP answers.
const limit = 15 * time.Second

// Run does all checks, side by side, and lists them in a fixed order. A probe that hangs or panics is a failed check.
func Run(ctx context.Context, cfg Config) api.Checkup {
	probes := []probe{
		{"nic", checkNIC}, {"ports", checkPorts}, {"dhcp", checkDHCP}, {"walk", checkWalk}, {"boot", checkBoot}, {"broadcast", checkBroadcast},
		{"clock", checkClock}, {"neigh", checkNeigh}, {"limits", checkLimits}, {"space", checkSpace}, {"fsync", checkFsync}, {"state", checkState}, {"images", checkImages},
		{"lab", checkLab},
	}
	results := make([][]api.Check, len(probes))
	var wg sync.WaitGroup
	for i, p := range probes {
		wg.Add(1)
		go func() {
			defer wg.Done()
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			defer func() {
				if e := recover(); e != nil {
					results[i] = []api.Check{fail(p.name, fmt.Sprintf("the probe broke: %v", e), "this is a fault of labswarm: please report it")}
				}
			}()
			results[i] = p.run(ctx, &cfg)
		}()
	}
	wg.Wait()
	out := api.Checkup{Time: time.Now().UTC(), Checks: []api.Check{}}
	for _, r := range results {
		out.Checks = append(out.Checks, r...)
	}
	out.Result = api.Worst(out.Checks)
	return out
}

func ok(name, format string, a ...any) api.Check {
	return api.Check{Name: name, Result: api.CheckOK, Text: fmt.Sprintf(format, a...)}
}

func warn(name, text, advice string) api.Check {
	return api.Check{Name: name, Result: api.CheckWarn, Text: text, Advice: advice}
}

func fail(name, text, advice string) api.Check {
	return api.Check{Name: name, Result: api.CheckFail, Text: text, Advice: advice}
}
