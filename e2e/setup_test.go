//go:build e2e

// Package e2e runs the real programs on virtual machines: netboot, deployment,
// power cuts. It needs root, QEMU and what scripts/setup.sh installs.
package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"labswarm/internal/testnet"
	"labswarm/internal/testreq"
	"labswarm/internal/testvm"
)

// needVMs skips the test, loudly, where terminals of these firmwares cannot run.
func needVMs(t *testing.T, fw ...testvm.Firmware) {
	t.Helper()
	testreq.Tool(t, "qemu-system-x86_64", "qemu-system-x86")
	if err := testvm.Check(fw...); err != nil {
		if errors.Is(err, testvm.ErrNeeds) {
			testreq.File(t, "/usr/share/OVMF", "apt-get install ovmf")
		}
		t.Fatal(err)
	}
}

// needLAN skips the test, loudly, where no classroom network can be made.
func needLAN(t *testing.T) {
	t.Helper()
	testreq.Root(t)
	testreq.Tool(t, "ip", "iproute2")
	testreq.Tool(t, "dnsmasq", "dnsmasq-base")
	testreq.File(t, "/dev/net/tun", "modprobe tun")
	if err := testnet.Check(); err != nil {
		t.Fatal(err)
	}
}

// repo is the root of the source tree.
func repo(t *testing.T) string {
	t.Helper()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(wd)
}

// script runs scripts/NAME with args in the source tree.
func script(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(repo(t), "scripts", name), args...)
	cmd.Dir = repo(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// tinyImage builds a variant of the tiny test OS into build/golden, once.
func tinyImage(t *testing.T, name string, args ...string) string {
	t.Helper()
	testreq.Tool(t, "mcopy", "mtools")
	testreq.Tool(t, "mkfs.vfat", "dosfstools")
	testreq.Tool(t, "sfdisk", "fdisk")
	testreq.File(t, "/usr/lib/grub/i386-pc/boot.img", "apt-get install grub-pc-bin")
	img := filepath.Join(repo(t), "build", "golden", name+".img")
	script(t, "golden-tiny.sh", append([]string{img}, args...)...)
	return img
}

// programs builds the labswarm program and the boot files as they are in the tree
// now; unchanged parts come from the caches.
func programs(t *testing.T) (binary, bootDir string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "make", "-s", "build", "initramfs")
	cmd.Dir = repo(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make build initramfs: %v\n%s", err, out)
	}
	return filepath.Join(repo(t), "build", "bin", "labswarm"), filepath.Join(repo(t), "build", "boot")
}

// reportDir is where a room's report goes and, when the room fails, the logs of its
// server and terminals: they outlive the test.
func reportDir(t *testing.T) string {
	t.Helper()
	base := filepath.Join(repo(t), "build", "test", "e2e", filepath.FromSlash(t.Name()))
	if err := os.MkdirAll(base, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(base, time.Now().Format("150405-")) //nolint:usetesting // it outlives the test
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
