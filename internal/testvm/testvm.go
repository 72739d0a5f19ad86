// Package testvm runs virtual terminals: QEMU machines with BIOS, UEFI or Secure
// Boot firmware, a serial log, a control socket and a power switch.
//
// It makes no networks (package testnet does) and knows nothing of labswarm: tests
// and the virtual classroom (e2e/classroom) use it. Emulation is TCG only, because
// a /dev/kvm that opens is no proof that guests run. A machine never outlives the
// process that started it.
package testvm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Firmware is what the machine starts with.
type Firmware string

// The firmwares. SecureBoot is UEFI with Microsoft's keys enrolled and enforced.
const (
	BIOS       Firmware = "bios"
	UEFI       Firmware = "uefi"
	SecureBoot Firmware = "secureboot"
)

// ParseFirmware accepts the names of the constants.
func ParseFirmware(s string) (Firmware, error) {
	switch f := Firmware(s); f {
	case BIOS, UEFI, SecureBoot:
		return f, nil
	}
	return "", fmt.Errorf("unknown firmware %q: bios, uefi or secureboot", s)
}

// Bus is how a disk is connected.
type Bus string

// The buses.
const (
	Virtio Bus = "virtio"
	SATA   Bus = "sata"
	NVMe   Bus = "nvme"
)

// ParseBus accepts the names of the constants.
func ParseBus(s string) (Bus, error) {
	switch b := Bus(s); b {
	case Virtio, SATA, NVMe:
		return b, nil
	}
	return "", fmt.Errorf("unknown disk bus %q: virtio, sata or nvme", s)
}

// Disk is one disk of a machine.
type Disk struct {
	Path   string // raw file
	Bus    Bus    // "" = virtio
	Serial string // shown to the guest, at most 20 characters
	// Durable makes a guest's flush reach the host's disk. Off, the machine is
	// faster, and as the host itself does not lose power nothing is lost.
	Durable bool
}

// Config describes a machine. Dir, Firmware, MAC and UUID are required.
type Config struct {
	Name      string
	Dir       string // for log, sockets and firmware variables; kept between starts
	Firmware  Firmware
	Disks     []Disk
	MAC, UUID string
	Tap       string // tap of the NIC; "" = no NIC
	Namespace string // network namespace to run in; "" = the caller's
	MemoryMiB int    // 0 = 512
	DiskFirst bool   // boot the disk before the NIC
	NoReboot  bool   // a reset of the guest ends the machine
	PlainROM  bool   // BIOS: no iPXE in the NIC's ROM (then the NIC cannot netboot)
}

// MAC of terminal n (from 1) of a classroom.
func MAC(n int) string { return fmt.Sprintf("52:54:00:77:%02x:%02x", n>>8&0xff, n&0xff) }

// UUID of terminal n. Its first three fields read differently in the two byte
// orders that firmware vendors use, so that a mix-up shows.
func UUID(n int) string { return fmt.Sprintf("00112233-4455-6677-8899-aabbccdd%04x", n&0xffff) }

// ErrNeeds is wrapped by errors about something this machine lacks.
var ErrNeeds = errors.New("this machine cannot run virtual terminals")

const qemu = "qemu-system-x86_64"

// Check reports what is missing to run machines with these firmwares, as an error
// that wraps ErrNeeds and names the package.
func Check(firmwares ...Firmware) error {
	if _, err := exec.LookPath(qemu); err != nil {
		return fmt.Errorf("%w: %s not found; install package qemu-system-x86", ErrNeeds, qemu)
	}
	for _, f := range firmwares {
		if f == BIOS {
			continue
		}
		if _, _, err := ovmf(f); err != nil {
			return err
		}
	}
	return nil
}

// ovmf finds the firmware's code and the template of its variables, in the 4 MiB
// build of Debian 12 and 13 or the 2 MiB build of older releases.
func ovmf(f Firmware) (code, vars string, err error) {
	type pair struct{ code, vars string }
	tries := []pair{{"OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"}, {"OVMF_CODE.fd", "OVMF_VARS.fd"}}
	if f == SecureBoot {
		tries = []pair{
			{"OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"},
			{"OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"},
			{"OVMF_CODE.secboot.fd", "OVMF_VARS.ms.fd"},
		}
	}
	const dir = "/usr/share/OVMF"
	for _, t := range tries {
		c, v := filepath.Join(dir, t.code), filepath.Join(dir, t.vars)
		if fileExists(c) && fileExists(v) {
			return c, v, nil
		}
	}
	return "", "", fmt.Errorf("%w: no %s firmware in %s; install package ovmf", ErrNeeds, f, dir)
}

func fileExists(p string) bool {
	st, err := os.Stat(p)
	return err == nil && st.Mode().IsRegular()
}

// args builds QEMU's command line; paths inside cfg.Dir are relative to it, so that
// socket names stay short.
func (c *Config) args() ([]string, error) {
	mem := c.MemoryMiB
	if mem == 0 {
		mem = 512
	}
	a := []string{
		"-name", c.Name, "-accel", "tcg,thread=multi", "-smp", "1", "-m", fmt.Sprint(mem),
		// Both entropy sources: without them a guest's Go program waits for half a minute.
		"-cpu", "qemu64,+rdrand", "-device", "virtio-rng-pci",
		"-uuid", c.UUID, "-nodefaults", "-display", "none",
		"-chardev", "socket,id=s0,path=" + serialSock + ",server=on,wait=off,logfile=" + serialLog + ",logappend=on",
		"-serial", "chardev:s0",
		"-qmp", "unix:" + qmpSock + ",server=on,wait=off",
		"-S", // released through the control socket once we listen: no event is missed
		// Spares the wait for IPv6 netboot, which nobody answers. Harmless on BIOS.
		"-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n",
	}
	if c.NoReboot {
		a = append(a, "-no-reboot")
	}
	fw, err := c.firmwareArgs()
	if err != nil {
		return nil, err
	}
	a = append(a, fw...)
	nic, disk := 0, 1
	if c.DiskFirst {
		nic, disk = 50, 0
	}
	if c.Tap != "" {
		dev := fmt.Sprintf("virtio-net-pci,netdev=n0,id=nic0,mac=%s,bootindex=%d", c.MAC, nic)
		if c.Firmware != BIOS || c.PlainROM {
			dev += ",romfile=" // OVMF has its own netboot; an iPXE ROM would take its place
		}
		a = append(a, "-netdev", "tap,id=n0,ifname="+c.Tap+",script=no,downscript=no", "-device", dev)
	}
	for i, d := range c.Disks {
		da, err := d.args(i, disk+i, c.Firmware)
		if err != nil {
			return nil, err
		}
		a = append(a, da...)
	}
	return a, nil
}

// firmwareArgs chooses machine type and firmware; UEFI variables live in c.Dir and
// are made from the template when absent.
func (c *Config) firmwareArgs() ([]string, error) {
	if c.Firmware == BIOS {
		return []string{"-machine", "pc"}, nil
	}
	code, vars, err := ovmf(c.Firmware)
	if err != nil {
		return nil, err
	}
	own := filepath.Join(c.Dir, "vars.fd")
	if !fileExists(own) {
		b, err := os.ReadFile(vars)
		if err != nil {
			return nil, fmt.Errorf("read firmware variables: %w", err)
		}
		if err := os.WriteFile(own, b, 0o600); err != nil {
			return nil, fmt.Errorf("write firmware variables: %w", err)
		}
	}
	a := []string{"-machine", "q35"}
	if c.Firmware == SecureBoot {
		a = []string{
			"-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
			"-global", "ICH9-LPC.disable_s3=1",
		}
	}
	return append(a,
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+escape(code),
		"-drive", "if=pflash,format=raw,unit=1,file=vars.fd"), nil
}

// args of disk i with the given place in the boot order.
func (d *Disk) args(i, boot int, f Firmware) ([]string, error) {
	cache := "unsafe"
	if d.Durable {
		cache = "none"
	}
	path, err := filepath.Abs(d.Path)
	if err != nil {
		return nil, fmt.Errorf("find disk %q: %w", d.Path, err)
	}
	serial := d.Serial
	if serial == "" {
		serial = fmt.Sprintf("DISK%d", i)
	}
	if len(serial) > 20 || strings.ContainsAny(serial, ",= ") {
		return nil, fmt.Errorf("disk serial %q: at most 20 characters without comma, equals sign and blank", serial)
	}
	a := []string{"-drive", fmt.Sprintf("file=%s,format=raw,if=none,id=d%d,cache=%s,discard=unmap", escape(path), i, cache)}
	tail := fmt.Sprintf("drive=d%d,serial=%s,bootindex=%d", i, serial, boot)
	switch d.Bus {
	case "", Virtio:
		return append(a, "-device", "virtio-blk-pci,"+tail), nil
	case NVMe:
		return append(a, "-device", "nvme,"+tail), nil
	case SATA:
		// q35 has an AHCI controller of its own, pc has none.
		if f == BIOS {
			ctl := fmt.Sprintf("ahci%d", i)
			return append(a, "-device", "ahci,id="+ctl, "-device", "ide-hd,bus="+ctl+".0,"+tail), nil
		}
		return append(a, "-device", fmt.Sprintf("ide-hd,bus=ide.%d,%s", i, tail)), nil
	}
	return nil, fmt.Errorf("unknown disk bus %q", d.Bus)
}

// escape doubles commas, which separate options on QEMU's command line.
func escape(p string) string { return strings.ReplaceAll(p, ",", ",,") }
