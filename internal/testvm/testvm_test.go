package testvm

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDiskArgs(t *testing.T) {
	for _, tt := range []struct {
		name string
		d    Disk
		f    Firmware
		want []string
	}{
		{"virtio", Disk{Path: "/d,1.raw", Serial: "S1"}, BIOS, []string{"file=/d,,1.raw,", "virtio-blk-pci,drive=d0,serial=S1,bootindex=1"}},
		{"nvme", Disk{Path: "/d", Bus: NVMe}, UEFI, []string{"nvme,drive=d0,serial=DISK0"}},
		{"sata on pc", Disk{Path: "/d", Bus: SATA}, BIOS, []string{"ahci,id=ahci0", "bus=ahci0.0"}},
		{"sata on q35", Disk{Path: "/d", Bus: SATA}, SecureBoot, []string{"bus=ide.0"}},
		{"durable", Disk{Path: "/d", Durable: true}, BIOS, []string{"cache=none"}},
	} {
		got, err := tt.d.args(0, 1, tt.f)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		for _, w := range tt.want {
			if !strings.Contains(strings.Join(got, " "), w) {
				t.Errorf("%s: %q lacks %q", tt.name, got, w)
			}
		}
	}
	for _, d := range []Disk{{Path: "/d", Serial: "a,readonly=on"}, {Path: "/d", Serial: strings.Repeat("x", 21)}, {Path: "/d", Bus: "floppy"}} {
		if got, err := d.args(0, 1, BIOS); err == nil {
			t.Errorf("%+v gave %q", d, got)
		}
	}
}

// TestIdentity checks that terminals differ and that the UUID reads differently in
// the two byte orders.
func TestIdentity(t *testing.T) {
	seen := map[string]bool{}
	for n := 1; n <= 300; n++ {
		for _, s := range []string{MAC(n), UUID(n)} {
			if seen[s] {
				t.Fatalf("terminal %d: %s is taken", n, s)
			}
			seen[s] = true
		}
	}
	u := UUID(1)
	swapped := u[6:8] + u[4:6] + u[2:4] + u[0:2]
	if len(u) != 36 || u[:8] == swapped {
		t.Errorf("UUID %s", u)
	}
}

func TestTail(t *testing.T) {
	got := tail([]byte("one\r\n\x1b[2J\x1b[01;01Htwo\r\n\r\nthree"), 2)
	if got != "two\nthree" {
		t.Errorf("tail = %q", got)
	}
}
