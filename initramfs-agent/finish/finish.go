// Package finish ends the machine's session: everything written, then restart
// or power off. Called by main as its last act.
package finish

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Now syncs, stops the network and restarts, or powers off. It returns only when
// the kernel refuses; process 1 then exits, which makes the kernel restart
// (panic=10).
func Now(powerOff bool) error {
	unix.Sync()
	// What goes wrong here must not keep the machine from restarting; it is told
	// beside the kernel's refusal, if that comes.
	down := linksDown()
	cmd := unix.LINUX_REBOOT_CMD_RESTART
	if powerOff {
		cmd = unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	if err := unix.Reboot(cmd); err != nil {
		return errors.Join(fmt.Errorf("restart the machine: %w", err), down)
	}
	return nil
}

// linksDown takes every network interface down. Kernels that break the virtio
// queues in device_shutdown (6.1.y among them, cured by Linux 0d0eff39ceb3 in 2026)
// spin for ever in virtnet_poll_cleantx when a packet is still on its way then: the
// machine hangs instead of restarting. One hang at this place was seen in the virtual
// classroom, none since; an interface that is down has nothing under way.
func linksDown() error {
	links, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list network interfaces: %w", err)
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket to take interfaces down: %w", err)
	}
	var errs []error
	for _, l := range links {
		if l.Flags&net.FlagLoopback != 0 || l.Flags&net.FlagUp == 0 {
			continue
		}
		req, err := unix.NewIfreq(l.Name)
		if err == nil {
			err = unix.IoctlIfreq(sock, unix.SIOCGIFFLAGS, req)
		}
		if err == nil {
			req.SetUint16(req.Uint16() &^ unix.IFF_UP)
			err = unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, req)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("take interface %s down: %w", l.Name, err))
		}
	}
	return errors.Join(append(errs, unix.Close(sock))...)
}
