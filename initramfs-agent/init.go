//go:build !enrolonly

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"labswarm/api"
	"labswarm/initramfs-agent/deploy"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/disk/inventory"
	"labswarm/initramfs-agent/identity"
	"labswarm/initramfs-agent/report"
	"labswarm/initramfs-agent/screen"
)

const (
	showLong  = 60 * time.Second // a failure that left the disk unusable, or needs somebody to look
	showShort = 10 * time.Second // a failure that changed nothing
)

func main() {
	if os.Getpid() == 1 {
		asInit(func(m *machine) task { return &deployment{machine: m} })
		return // the kernel takes the end of process 1 as a panic and restarts (panic=10)
	}
	if err := beside(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "labswarm-agent:", err)
		os.Exit(1)
	}
}

// deployment is the task of the agent that writes.
type deployment struct {
	*machine
	disks *disk.Set
	out   deploy.Outcome
}

func (d *deployment) work(ctx context.Context) error {
	if d.disks == nil {
		d.disks = disk.NewSet(inventory.Real(), true)
	}
	pin, err := d.prepare(ctx, d.disks.List)
	if err != nil {
		return err
	}
	d.out, err = deploy.Run(ctx, deploy.Config{
		Server: d.cmd.Server, Pins: d.pins, Pin: pin, Disks: d.disks,
		Source: identity.Source{Sys: "/sys", BootIF: d.cmd.BootIF}, Missing: d.missing, Load: d.loadModule,
		Listen: fmt.Sprintf(":%d", api.PeerPort), Screen: d.screen, Log: d.log, LogText: d.journal.Text,
	})
	return err
}

func (d *deployment) bye(err error) (powerOff bool) {
	out := d.out
	if err == nil {
		d.log.Info("end", "verified", out.Verified, "reason", out.Reason)
		return out.PowerOff
	}
	code, text := report.Code(err)
	wait := showShort
	if out.Committed || code == api.CodeServerKey || crashed(err) {
		wait = showLong
	}
	d.log.Error("end", "code", code, "err", err, "restart_in", wait.String())
	d.screen.Update(func(v *screen.View) {
		if v.Problem == "" {
			v.Code, v.Problem = code, text
		}
		v.Committed, v.Verified = out.Committed, out.Verified
		v.Detail = "This PC restarts in " + wait.String() + "."
	})
	time.Sleep(wait)
	return false
}
