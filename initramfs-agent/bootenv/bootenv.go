// Package bootenv is what the agent finds and sets up around itself: mounts,
// kernel command line, pinned keys, firmware kind, Secure Boot, entropy and the
// clock that no school PC can get wrong (time since power-on).
//
// It decides nothing and writes no disk. The only files it writes lie below
// /proc/sys. Called by main.
package bootenv

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mount makes the file systems an initramfs starts without. Each failure is
// returned in the list; the agent goes on without what is missing (securityfs
// does not exist on every kernel).
func Mount() []error {
	var errs []error
	for _, m := range []struct {
		kind, target string
		flags        uintptr
		mode         os.FileMode
	}{
		{"devtmpfs", "/dev", unix.MS_NOSUID, 0o755},
		{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, 0o555},
		{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, 0o555},
		{"securityfs", "/sys/kernel/security", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, 0},
	} {
		if m.mode != 0 {
			if err := os.MkdirAll(m.target, m.mode); err != nil {
				errs = append(errs, err)
			}
		}
		// EBUSY: the kernel has mounted it already (CONFIG_DEVTMPFS_MOUNT).
		if err := unix.Mount(m.kind, m.target, m.kind, m.flags, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err))
		}
	}
	return errs
}

// MountEFIVars mounts efivarfs once its module is loaded; it does nothing on a
// BIOS machine.
func MountEFIVars() error {
	if Firmware() != "uefi" {
		return nil
	}
	if err := unix.Mount("efivarfs", "/sys/firmware/efi/efivars", "efivarfs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount efivarfs: %w", err)
	}
	return nil
}

// Quieten sets the console's log level to 1, so that kernel messages do not
// scroll over the screen, and switches off the keys that could stop a machine
// in mid-write (SysRq).
func Quieten() error {
	if err := os.WriteFile("/proc/sys/kernel/printk", []byte("1 4 1 7\n"), 0); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/kernel/sysrq", []byte("0\n"), 0); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// Uptime is the time since the kernel started, from a clock that neither a
// dead battery nor a time server moves.
func Uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Kernel returns the release of the running kernel.
func Kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Firmware says how the machine was started: "uefi" or "bios".
func Firmware() string {
	if _, err := os.Stat("/sys/firmware/efi"); err == nil {
		return "uefi"
	}
	return "bios"
}

// SecureBoot reads the firmware's own variable; false when it cannot be read.
// The variable's content follows four bytes of attributes.
func SecureBoot() bool {
	list, err := filepath.Glob("/sys/firmware/efi/efivars/SecureBoot-*")
	if err != nil || len(list) == 0 {
		return false
	}
	b, err := os.ReadFile(list[0])
	return err == nil && len(b) == 5 && b[4] == 1
}

// Lockdown returns the kernel's active lockdown mode (none, integrity,
// confidentiality), "" when the kernel has none.
func Lockdown() string {
	b, err := os.ReadFile("/sys/kernel/security/lockdown")
	if err != nil {
		return ""
	}
	return activeChoice(string(b))
}

// activeChoice picks the bracketed word of a kernel choice file: "none
// [integrity] confidentiality".
func activeChoice(text string) string {
	_, rest, ok := strings.Cut(text, "[")
	if !ok {
		return ""
	}
	word, _, ok := strings.Cut(rest, "]")
	if !ok {
		return ""
	}
	return word
}

// RAMBytes is the memory of the machine.
func RAMBytes() int64 { return memField("/proc/meminfo", "MemTotal:") }

// AvailableBytes is what programs can still take of it without hurting others.
func AvailableBytes() int64 { return memField("/proc/meminfo", "MemAvailable:") }

// RSSBytes is the resident memory of this process.
func RSSBytes() int64 { return memField("/proc/self/status", "VmRSS:") }

// CPUTicks returns how long all processors together were busy and how long they
// existed, in the kernel's ticks since boot (proc_stat(5)); 0, 0 when it does
// not say. Waiting for the disk is not busy.
func CPUTicks() (busy, total uint64) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	return cpuTicks(line)
}

// cpuTicks reads the line "cpu user nice system idle iowait irq softirq steal ...".
func cpuTicks(line string) (busy, total uint64) {
	f := strings.Fields(line)
	if len(f) < 5 || f[0] != "cpu" {
		return 0, 0
	}
	for i, text := range f[1:min(len(f), 9)] { // guest time is in user already
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return 0, 0
		}
		total += n
		if i != 3 && i != 4 {
			busy += n
		}
	}
	return busy, total
}

// memField reads a "Name:   123 kB" line of a /proc file as bytes.
func memField(path, name string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) >= 2 && f[0] == name {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0
			}
			return kb << 10
		}
	}
	return 0
}

// AwaitEntropy blocks until the kernel's random source is ready and returns
// how long that took. Without RDRAND or virtio-rng it has been seen to take
// more than half a minute, so the caller shows why it waits.
func AwaitEntropy() (time.Duration, error) {
	start := Uptime()
	var b [1]byte
	for {
		_, err := unix.Getrandom(b[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Uptime() - start, fmt.Errorf("read random bytes: %w", err)
		}
		return Uptime() - start, nil
	}
}
