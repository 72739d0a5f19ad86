// Command tinyos is /init of the tiny test OS that scripts/golden-tiny.sh packs.
// It prints one line on the first serial port and powers the machine off:
//
//	LABSWARM-BOOTED <hostname> fw=<bios|uefi> sb=<0|1>
//
// It never opens a disk, so a disk that booted it still holds exactly the bytes
// that were deployed. Only the kernel runs it, as pid 1.
package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// secureBootOff is the offset of secure_boot in struct boot_params; the value 3
// means that firmware verified the kernel (Documentation/arch/x86/zero-page).
const (
	secureBootOff     = 0x1ec
	secureBootEnabled = 3
)

func main() {
	out, err := prepare()
	if err != nil {
		out = os.Stdout
		_, _ = fmt.Fprintln(out, "tinyos:", err)
	}
	fw, sb := firmware()
	_, _ = fmt.Fprintf(out, "\r\nLABSWARM-BOOTED %s fw=%s sb=%d\r\n", hostname(), fw, sb)
	syscall.Sync()
	time.Sleep(200 * time.Millisecond) // the serial port drains
	err = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	_, _ = fmt.Fprintln(out, "tinyos: power off:", err)
	select {} // pid 1 must not end: the kernel would panic
}

// prepare mounts what the report needs and opens the serial port.
func prepare() (*os.File, error) {
	for _, m := range []struct{ src, dir, kind string }{
		{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"devtmpfs", "/dev", "devtmpfs"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return nil, err
		}
		if err := syscall.Mount(m.src, m.dir, m.kind, 0, ""); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return os.OpenFile("/dev/ttyS0", os.O_WRONLY, 0)
}

// firmware tells how the kernel was started.
func firmware() (kind string, secureBoot int) {
	if _, err := os.Stat("/sys/firmware/efi"); err != nil {
		return "bios", 0
	}
	b, err := os.ReadFile("/sys/kernel/boot_params/data")
	if err == nil && len(b) > secureBootOff && b[secureBootOff] == secureBootEnabled {
		return "uefi", 1
	}
	return "uefi", 0
}

// hostname is what /etc/hostname of the disk's data partition held when the boot
// loader read it; see scripts/golden-tiny.sh.
func hostname() string {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "tinyos"
	}
	for _, word := range strings.Fields(string(b)) {
		if name, ok := strings.CutPrefix(word, "tinyos.name="); ok && name != "" {
			return name
		}
	}
	return "tinyos"
}
