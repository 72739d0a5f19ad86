package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"labswarm/api"
	"labswarm/initramfs-agent/bootenv"
	"labswarm/initramfs-agent/coldplug"
	"labswarm/initramfs-agent/finish"
	"labswarm/initramfs-agent/journal"
	"labswarm/initramfs-agent/link"
	"labswarm/initramfs-agent/screen"
	"labswarm/initramfs-agent/supervise"
	"labswarm/internal/version"
)

// What both builds of the agent share: process 1 and a machine with drivers, an
// address and a list of disks. This file names nothing that can write a disk.

const (
	restarts   = 3 // of a crashed worker
	coldQuiet  = 300 * time.Millisecond
	coldLimit  = 20 * time.Second
	diskLimit  = 12 * time.Second // for slow controllers
	diskQuiet  = time.Second      // after the last disk appeared
	heapTarget = 48 << 20         // bytes of Go heap; the data plane's buffers are outside
)

// task is what a build of the agent does on a machine.
type task interface {
	// work is one run of the worker: set-up that is missing, then the task.
	work(ctx context.Context) error
	// bye leaves the end on the screen for as long as somebody may want to read
	// it, and says whether the machine is to be switched off.
	bye(err error) (powerOff bool)
}

// asInit is process 1. It returns only when the kernel refused to restart.
func asInit(begin func(*machine) task) {
	mountErrs := bootenv.Mount()
	debug.SetMemoryLimit(heapTarget)
	sc := screen.New("/dev", "/sys")
	j := journal.New(bootenv.Uptime, sc.Lines())
	log := j.Logger(slog.LevelInfo)
	for _, err := range mountErrs {
		log.Warn("mount", "err", err)
	}
	if err := bootenv.Quieten(); err != nil {
		log.Warn("console log level", "err", err)
	}
	log.Info("labswarm-agent starts", "version", version.String(), "kernel", bootenv.Kernel(), "firmware", bootenv.Firmware())

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		if err := supervise.Protect(func() error { return sc.Run(ctx) }); err != nil {
			log.Error("screen", "err", err)
		}
	}()
	go func() { // ends with ctx
		if err := supervise.Protect(func() error { return supervise.Init(ctx) }); err != nil {
			log.Error("process 1", "err", err)
		}
	}()
	t := begin(&machine{screen: sc, journal: j, log: log})
	err := supervise.Run(ctx, restarts, t.work, func(p *supervise.PanicError) { log.Error("crash", "what", p.Error(), "stack", p.Stack) })
	off := t.bye(err)
	cancel()
	<-done
	if err := finish.Now(off); err != nil {
		log.Error("finish", "err", err)
	}
}

// machine is what process 1 sets up once and keeps over restarts of the
// worker.
type machine struct {
	screen  *screen.Screen
	journal *journal.Journal
	log     *slog.Logger

	cmd    bootenv.Cmdline
	pins   bootenv.Pins
	loader *coldplug.Loader
	online bool
}

// prepare does the set-up that is missing and returns the key that the server
// is known by.
func (m *machine) prepare(ctx context.Context, disks func() ([]api.Disk, error)) (ed25519.PublicKey, error) {
	m.screen.Update(func(v *screen.View) { *v = screen.View{Version: version.String(), MAC: m.cmd.BootIF} })
	if err := m.read(); err != nil {
		return nil, err
	}
	pin := m.pins.ServerKey(m.cmd.KeyID)
	if pin == nil {
		return nil, &api.Fault{Code: api.CodeServerKey,
			Text: fmt.Sprintf("this initramfs does not trust the server key %s named on the kernel command line; build it anew with the server's key", m.cmd.KeyID)}
	}
	m.say("waiting for random numbers")
	if d, err := bootenv.AwaitEntropy(); err != nil {
		return nil, err
	} else if d > 2*time.Second {
		m.log.Warn("random numbers came late", "seconds", d.Seconds())
	}
	m.plug(ctx)
	online := make(chan error, 1)
	go func() { online <- supervise.Protect(func() error { return m.connect(ctx) }) }() // ends with the connection, or ctx
	m.awaitDisks(ctx, disks)                                                            // slow controllers and DHCP take their time side by side
	return pin, <-online
}

// crashed reports whether an error is a crash of the worker.
func crashed(err error) bool {
	var crash *supervise.PanicError
	return errors.As(err, &crash)
}

func (m *machine) say(what string) { m.screen.Update(func(v *screen.View) { v.Detail = what }) }

// read parses what the boot loader and the server left for the agent.
func (m *machine) read() error {
	raw, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	if m.cmd, err = bootenv.ParseCmdline(string(raw)); err != nil {
		return err
	}
	raw, err = os.ReadFile(bootenv.PinsPath)
	if err != nil {
		return &api.Fault{Code: api.CodeServerKey, Text: "the initramfs holds no pinned keys", Err: err}
	}
	m.pins, err = bootenv.ParsePins(raw)
	return err
}

// plug loads the drivers; a machine whose drivers are compiled into its kernel
// goes on without a module tree.
func (m *machine) plug(ctx context.Context) {
	if m.loader != nil {
		return
	}
	m.say("loading drivers")
	index, err := coldplug.ReadIndex("/lib/modules/" + bootenv.Kernel())
	if err != nil {
		m.log.Error("no drivers", "err", err)
		return
	}
	m.loader = coldplug.New(index, "/sys", m.log)
	m.loader.Settle(ctx, coldQuiet, coldLimit)
	// No device asks for these by an alias.
	names := []string{"sd_mod"}
	if bootenv.Firmware() == "uefi" {
		names = append(names, "efivarfs")
	}
	for _, name := range names {
		if err := m.loader.Load(name); err != nil {
			m.log.Warn("module", "err", err)
		}
	}
	if err := bootenv.MountEFIVars(); err != nil {
		m.log.Warn("firmware variables", "err", err)
	}
	m.log.Info("drivers loaded", "firmware", bootenv.Firmware(), "secure_boot", bootenv.SecureBoot(), "lockdown", bootenv.Lockdown())
	m.background(ctx, "late devices", m.loader.Watch)
}

// background runs f until ctx, which lives as long as the machine, ends.
func (m *machine) background(ctx context.Context, what string, f func(context.Context) error) {
	go func() { // ends with ctx
		if err := supervise.Protect(func() error { return f(ctx) }); err != nil {
			m.log.Error(what, "err", err)
		}
	}()
}

func (m *machine) missing() []string {
	if m.loader == nil {
		return nil
	}
	return m.loader.NoDriver()
}

// loadModule loads one by name; a kernel without a module tree has it all in it.
func (m *machine) loadModule(name string) error {
	if m.loader == nil {
		return nil
	}
	return m.loader.Load(name)
}

func (m *machine) connect(ctx context.Context) error {
	if m.online {
		return nil
	}
	up, err := link.Find(ctx, m.cmd.BootIF, m.log, m.say)
	if err != nil {
		return err
	}
	m.log.Info("network link", "nic", up.Name, "mac", up.MAC.String(), "boot_nic", up.Boot)
	m.say("asking for an address")
	c, err := link.Acquire(ctx, up, m.log, m.say)
	if err != nil {
		return err
	}
	m.log.Info("address", "ip", c.IP().String(), "nic", up.Name)
	m.screen.Update(func(v *screen.View) { v.IP, v.MAC = c.IP().String(), up.MAC.String() })
	m.background(ctx, "address", c.Run)
	m.online = true
	return nil
}

// awaitDisks gives slow controllers time: a disk that appears after the
// machine has enrolled would be missing in the server's plan.
func (m *machine) awaitDisks(ctx context.Context, disks func() ([]api.Disk, error)) {
	start, last, names := time.Now(), time.Now(), ""
	for time.Since(start) < diskLimit && ctx.Err() == nil {
		list, err := disks()
		if err != nil {
			m.log.Warn("disks", "err", err)
		}
		now := ""
		for _, d := range list {
			now += fmt.Sprintf("%s %s serial=%q bus=%s bytes=%d sector=%d %s; ", d.Name, d.Model, d.Serial, d.Bus, d.Bytes, d.Sector, d.Note)
		}
		if now != names {
			names, last = now, time.Now()
		}
		if names != "" && time.Since(last) > diskQuiet {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	m.log.Info("disks", "list", names)
}

func choosePin(pins bootenv.Pins, kid string) (ed25519.PublicKey, error) {
	if kid == "" && len(pins.ServerKeys) == 1 {
		return pins.ServerKeys[0], nil
	}
	if k := pins.ServerKey(kid); k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("--kid %q is none of the %d pinned server keys", kid, len(pins.ServerKeys))
}
