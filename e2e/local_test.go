//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/e2e/classroom"
	"labswarm/internal/testvm"
)

// TestNoOrderBootsLocal starts terminals for which there is no order, one of them
// unknown: each reaches its own system, and not a byte of its disk changes.
func TestNoOrderBootsLocal(t *testing.T) {
	needLAN(t)
	needVMs(t, firmwares...)
	img := tinyImage(t, "tiny")
	st, err := os.Stat(img)
	if err != nil {
		t.Fatal(err)
	}
	o := withPrograms(t, classroom.Options{
		ImageFile: img, Terminals: 4, Firmware: []testvm.Firmware{testvm.BIOS, testvm.UEFI, testvm.SecureBoot, testvm.BIOS},
		DiskBytes: st.Size(), Tune: func(_ int, c *testvm.Config) error { return copyFile(img, c.Disks[0].Path) },
	})
	s := open(t, o)
	all := s.Terminals()
	if err := s.AddHosts(t.Context(), all[:3]...); err != nil { // the fourth stays unknown
		t.Fatal(err)
	}
	before := hash(t, img)
	for _, pc := range all {
		if err := pc.PowerOn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, pc := range all {
		waitLocal(t, s, pc, 4*time.Minute)
		if h := hash(t, pc.Disk); h != before {
			t.Errorf("%s (%s): its disk changed without an order", pc.Name, pc.VM().Firmware)
		}
	}
}

// TestRefusals gives orders that must not be carried out: a disk too small, and two
// disks that fit. Each terminal ends with the reason and then boots the system that
// it had; not a byte of its disks changes.
func TestRefusals(t *testing.T) {
	needLAN(t)
	needVMs(t, testvm.BIOS)
	own := tinyImage(t, "tiny")
	second := filepath.Join(t.TempDir(), "second.raw")
	o := withPrograms(t, classroom.Options{
		ImageFile: bigTiny(t), Terminals: 2, Firmware: []testvm.Firmware{testvm.BIOS}, DiskBytes: 512 << 20,
		Tune: func(i int, c *testvm.Config) error {
			first := c.Disks[0].Path
			if err := copyFile(own, first); err != nil {
				return err
			}
			if i == 0 { // just big enough for the system it has
				st, err := os.Stat(own)
				if err != nil {
					return err
				}
				return os.Truncate(first, st.Size())
			}
			if err := os.WriteFile(second, []byte("other data"), 0o600); err != nil {
				return err
			}
			c.Disks = append(c.Disks, testvm.Disk{Path: second, Serial: "LSSECOND"})
			return os.Truncate(second, 512<<20)
		},
	})
	s := open(t, o)
	pcs := s.Terminals()
	if err := s.AddHosts(t.Context(), pcs...); err != nil {
		t.Fatal(err)
	}
	job, err := s.CreateJob(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{pcs[0].Disk, pcs[1].Disk, second}
	before := make([]string, len(paths))
	for i, p := range paths {
		before[i] = hash(t, p)
	}
	for i, pc := range pcs {
		if err := pc.PowerOn(t.Context()); err != nil {
			t.Fatalf("terminal %d: %v", i, err)
		}
	}
	for _, pc := range pcs {
		waitLocal(t, s, pc, 4*time.Minute)
	}
	job, err = s.Job(t.Context(), job.ID)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"no disk fits", "2 disks fit"} {
		if got := job.Slots[i]; got.State != api.StateFailed || !strings.Contains(got.Error, want) || got.PONR {
			t.Errorf("%s: %s, %q, point of no return %v; want FAILED before it, with %q", got.Host, got.State, got.Error, got.PONR, want)
		}
	}
	for i, p := range paths {
		if hash(t, p) != before[i] {
			t.Errorf("disk %s changed, though its order was refused", p)
		}
	}
}
