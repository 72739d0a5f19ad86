//go:build enrolonly

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
	"syscall"
	"time"

	"labswarm/api"
	"labswarm/initramfs-agent/bootenv"
	"labswarm/initramfs-agent/disk/inventory"
	"labswarm/initramfs-agent/enrol"
	"labswarm/initramfs-agent/identity"
	"labswarm/initramfs-agent/journal"
	"labswarm/initramfs-agent/screen"
	"labswarm/internal/version"
)

const (
	showBound = 15 * time.Second // name and seat, before the machine goes
	showFault = 30 * time.Second // why it could not be enrolled
)

func main() {
	if os.Getpid() == 1 {
		asInit(func(m *machine) task { return &enrolment{machine: m} })
		return // the kernel takes the end of process 1 as a panic and restarts (panic=10)
	}
	if err := beside(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "labswarm-enrol:", err)
		os.Exit(1)
	}
}

// enrolment is the task of the agent that cannot write: it reads sysfs, opens
// no disk, and restarts the machine.
type enrolment struct {
	*machine
	out enrol.Outcome
}

func (t *enrolment) work(ctx context.Context) error {
	sys := inventory.Real()
	pin, err := t.prepare(ctx, sys.Disks)
	if err != nil {
		return err
	}
	t.out, err = enrol.Run(ctx, enrol.Config{Server: t.cmd.Server, Pin: pin, Disks: sys.Disks, Missing: t.missing,
		Source: identity.Source{Sys: "/sys", BootIF: t.cmd.BootIF}, Screen: t.screen, Log: t.log})
	return err
}

func (t *enrolment) bye(err error) (powerOff bool) {
	wait := showFault
	if err == nil && t.out.Host != "" {
		wait = showBound
	}
	t.log.Info("end", "host", t.out.Host, "seat", t.out.Seat, "reason", t.out.Reason, "err", err, "restart_in", wait.String())
	t.screen.Update(func(v *screen.View) {
		if err != nil {
			v.Problem = err.Error()
			var f *api.Fault
			if errors.As(err, &f) {
				v.Code, v.Problem = f.Code, f.Text
			}
		}
		v.Detail = "This PC restarts in " + wait.String() + "."
		if t.out.PowerOff {
			v.Detail = "This PC switches itself off in " + wait.String() + "."
		}
	})
	time.Sleep(wait)
	return err == nil && t.out.PowerOff
}

// beside enrols a stand-in beside a running system, for tests.
func beside(args []string) error {
	fs := flag.NewFlagSet("labswarm-enrol", flag.ContinueOnError)
	server := fs.String("server", "", "agent listener of the server, `ADDRESS:PORT`")
	kid := fs.String("kid", "", "id of the server's key; needed when several are pinned")
	pinsFile := fs.String("pins", bootenv.PinsPath, "pinned keys, `FILE`")
	evidence := fs.String("evidence", "", "JSON `FILE` with uuid, serial, nics of the machine it stands for")
	showVersion := fs.Bool("version", false, "print the version and end")
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
	raw, err := os.ReadFile(*pinsFile)
	if err != nil {
		return err
	}
	pins, err := bootenv.ParsePins(raw)
	if err != nil {
		return err
	}
	cfg := enrol.Config{Server: addr, Source: identity.Source{Sys: "/sys"}, Screen: screen.Plain(os.Stdout),
		Disks: func() ([]api.Disk, error) { return nil, nil }} // the disks here are not the stand-in's
	if cfg.Pin, err = choosePin(pins, *kid); err != nil {
		return err
	}
	if *evidence != "" {
		if cfg.Source.StandIn, err = identity.ReadStandIn(*evidence); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg.Log = journal.New(bootenv.Uptime, cfg.Screen.Lines()).Logger(slog.LevelInfo)
	sctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- cfg.Screen.Run(sctx) }() // ends with sctx
	out, err := enrol.Run(ctx, cfg)
	cfg.Log.Info("end", "host", out.Host, "room", out.Room, "seat", out.Seat, "reason", out.Reason)
	time.Sleep(10 * time.Millisecond) // the last lines
	cancel()
	return errors.Join(err, <-done)
}
