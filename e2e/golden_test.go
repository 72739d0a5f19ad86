//go:build e2e

package e2e

import (
	"context"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"labswarm/internal/testvm"
)

var firmwares = []testvm.Firmware{testvm.BIOS, testvm.UEFI, testvm.SecureBoot}

// TestGoldenImageBoots starts the tiny golden image without any network on every
// firmware: what the other tests deploy does boot. (`make demo` does as much for the
// Debian image.)
func TestGoldenImageBoots(t *testing.T) {
	needVMs(t, firmwares...)
	img := tinyImage(t, "tiny")
	for fw, expect := range map[testvm.Firmware]string{
		testvm.BIOS:       `LABSWARM-BOOTED tinyos fw=bios sb=0`,
		testvm.UEFI:       `LABSWARM-BOOTED tinyos fw=uefi sb=0`,
		testvm.SecureBoot: `LABSWARM-BOOTED tinyos fw=uefi sb=1`,
	} {
		t.Run(string(fw), func(t *testing.T) {
			disk := filepath.Join(t.TempDir(), "disk.raw")
			if err := copyFile(img, disk); err != nil {
				t.Fatal(err)
			}
			vm, err := testvm.New(testvm.Config{
				Name: "golden", Dir: t.TempDir(), Firmware: fw, MAC: testvm.MAC(1), UUID: testvm.UUID(1),
				Disks: []testvm.Disk{{Path: disk}}, DiskFirst: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := vm.Kill(); err != nil {
					t.Error(err)
				}
			})
			start := time.Now()
			if err := vm.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			m, err := vm.WaitSerial(ctx, regexp.MustCompile(expect), 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%q after %.1f s", m, time.Since(start).Seconds())
			select {
			case <-vm.Done():
			case <-ctx.Done():
				t.Fatal("the tiny OS did not power off")
			}
		})
	}
}
