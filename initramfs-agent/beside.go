//go:build !enrolonly

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"labswarm/api"
	"labswarm/initramfs-agent/bootenv"
	"labswarm/initramfs-agent/deploy"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/disk/inventory"
	"labswarm/initramfs-agent/identity"
	"labswarm/initramfs-agent/journal"
	"labswarm/initramfs-agent/screen"
	"labswarm/internal/version"
)

// beside runs one deployment beside a running system: for tests and for runs
// of many hosts in network namespaces. It sees only the loop device it is
// given, never restarts the machine, and does everything else as process 1
// does.
func beside(args []string) error {
	fs := flag.NewFlagSet("labswarm-agent", flag.ContinueOnError)
	server := fs.String("server", "", "agent listener of the server, `ADDRESS:PORT`")
	kid := fs.String("kid", "", "id of the server's key; needed when several are pinned")
	pinsFile := fs.String("pins", bootenv.PinsPath, "pinned keys, `FILE`")
	dev := fs.String("disk", "", "loop device that stands for the machine's disk, `/dev/loopN`")
	allowLoop := fs.Bool("allow-loop", false, "say that the loop device may be overwritten")
	evidence := fs.String("evidence", "", "JSON `FILE` with uuid, serial, vendor, product, firmware of the machine it stands for")
	listen := fs.String("listen", fmt.Sprintf(":%d", api.PeerPort), "`ADDRESS:PORT` for other hosts")
	bootIF := fs.String("bootif", "", "`MAC` the machine booted from")
	seedWait := fs.Duration("seed-wait", 0, "how long to stay as a source (default 10m)")
	verbose := fs.Bool("v", false, "log details")
	showVersion := fs.Bool("version", false, "print the version and end")
	fs.Bool("no-reboot", true, "always so beside a running system")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *showVersion {
		fmt.Println(version.String())
		return nil
	}
	addr, err := netip.ParseAddrPort(*server)
	if err != nil {
		return fmt.Errorf("--server %q: %w", *server, err)
	}
	disks, err := loopDisk(*dev, *allowLoop)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(*pinsFile)
	if err != nil {
		return err
	}
	pins, err := bootenv.ParsePins(raw)
	if err != nil {
		return err
	}
	cfg := deploy.Config{Server: addr, Pins: pins, Disks: disks, Listen: *listen, SeedWait: *seedWait,
		Source: identity.Source{Sys: "/sys", BootIF: bootenv.ParseBootIF(*bootIF)}}
	if cfg.Pin, err = choosePin(pins, *kid); err != nil {
		return err
	}
	if *evidence != "" {
		if cfg.Source.StandIn, err = identity.ReadStandIn(*evidence); err != nil {
			return err
		}
	}
	cfg.SelfTest.Bytes = 64 << 20 // the memory is not this PC's alone
	return deployBeside(cfg, *verbose)
}

func deployBeside(cfg deploy.Config, verbose bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg.Screen = screen.Plain(os.Stdout)
	j := journal.New(bootenv.Uptime, cfg.Screen.Lines())
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	cfg.Log, cfg.LogText = j.Logger(level), j.Text
	sctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- cfg.Screen.Run(sctx) }() // ends with sctx
	out, err := deploy.Run(ctx, cfg)
	cfg.Log.Info("end", "verified", out.Verified, "committed", out.Committed, "reason", out.Reason)
	time.Sleep(10 * time.Millisecond) // the last lines
	cancel()
	return errors.Join(err, <-done)
}

// loopDisk restricts the agent to one loop device.
func loopDisk(dev string, allow bool) (*disk.Set, error) {
	name := strings.TrimPrefix(dev, "/dev/")
	if !strings.HasPrefix(name, "loop") || name == dev || strings.Contains(name, "/") || name == "loop-control" {
		return nil, fmt.Errorf("--disk %q: beside a running system only a loop device /dev/loopN can be the target", dev)
	}
	if !allow {
		return nil, fmt.Errorf("--disk %s will be overwritten: say so with --allow-loop", dev)
	}
	sys := inventory.Real()
	sys.Only, sys.Loops = []string{name}, true
	return disk.NewSet(sys, false), nil
}
