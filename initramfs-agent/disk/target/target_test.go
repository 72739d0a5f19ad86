package target

import (
	"errors"
	"strings"
	"testing"

	"labswarm/api"
	"labswarm/api/diskrule"
	"labswarm/api/order"

	"pgregory.net/rapid"
)

func sata(name, serial string) api.Disk {
	return api.Disk{Name: name, Serial: serial, Model: "WDC", Bus: "sata", Bytes: 500 << 30, Sector: 512}
}

func with(d api.Disk, f func(*api.Disk)) api.Disk { f(&d); return d }

func TestChoose(t *testing.T) {
	a, b := sata("sda", "AAA"), sata("sdb", "BBB")
	bare := with(a, func(d *api.Disk) { d.Serial = "" })
	wwn := with(a, func(d *api.Disk) { d.WWN = "5000c500a1b2c3d4" })
	tests := []struct {
		name  string
		want  order.DiskID
		disks []api.Disk
		pick  string // kernel name
		code  string
	}{
		{"the only one", IDOf(a), []api.Disk{a}, "sda", ""},
		{"by serial", IDOf(b), []api.Disk{a, b}, "sdb", ""},
		{"serial in another case", IDOf(b), []api.Disk{a, with(b, func(d *api.Disk) { d.Serial = "bbb" })}, "sdb", ""},
		{"renamed by the kernel", IDOf(b), []api.Disk{with(b, func(d *api.Disk) { d.Name = "sda" })}, "sda", ""},
		{"by WWN, serial reads differently", IDOf(wwn), []api.Disk{with(wwn, func(d *api.Disk) { d.Serial = "other" })}, "sda", ""},
		{"WWN wanted, disk shows none", IDOf(wwn), []api.Disk{a}, "", api.CodeDiskNotFound},
		{"other size", IDOf(a), []api.Disk{with(a, func(d *api.Disk) { d.Bytes++ })}, "", api.CodeDiskNotFound},
		{"other sector", IDOf(a), []api.Disk{with(a, func(d *api.Disk) { d.Sector = 4096 })}, "", api.CodeDiskNotFound},
		{"other bus", IDOf(a), []api.Disk{with(a, func(d *api.Disk) { d.Bus = "nvme" })}, "", api.CodeDiskNotFound},
		{"two with one serial", IDOf(a), []api.Disk{a, with(b, func(d *api.Disk) { d.Serial = "AAA" })}, "", api.CodeAmbiguous},
		{"nothing there", IDOf(a), nil, "", api.CodeDiskNotFound},
		{"only a USB stick", IDOf(a), []api.Disk{with(a, func(d *api.Disk) { d.Bus = "usb" })}, "", api.CodeDiskNotFound},
		{"in use", IDOf(a), []api.Disk{with(a, func(d *api.Disk) { d.InUse = "mounted" })}, "", api.CodeDiskNotFound},
		{"no serial, alone", IDOf(bare), []api.Disk{bare}, "sda", ""},
		{"no serial, alone beside a stick", IDOf(bare), []api.Disk{bare, with(b, func(d *api.Disk) { d.Bus = "usb" })}, "sda", ""},
		{"no serial, two disks", IDOf(bare), []api.Disk{bare, b}, "", api.CodeAmbiguous},
		{"no serial in the order, disk has one", IDOf(bare), []api.Disk{a}, "", api.CodeDiskNotFound},
		{"no serial, other model", with2(IDOf(bare), "ST"), []api.Disk{bare}, "", api.CodeDiskNotFound},
		{"empty order", order.DiskID{}, []api.Disk{a}, "", api.CodeDiskNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Choose(tt.want, tt.disks)
			if tt.code == "" {
				if err != nil || got.Name != tt.pick {
					t.Fatalf("Choose = %s, %v; want %s", got.Name, err, tt.pick)
				}
				return
			}
			var f *api.Fault
			if !errors.As(err, &f) || f.Code != tt.code {
				t.Fatalf("Choose = %s, %v; want code %s", got.Name, err, tt.code)
			}
			for _, d := range tt.disks {
				if !strings.Contains(f.Text, d.Name+":") {
					t.Errorf("message %q does not list %s", f.Text, d.Name)
				}
			}
		})
	}
}

func with2(id order.DiskID, model string) order.DiskID { id.Model = model; return id }

// TestChooseNeverPicksExcluded is the rule as a property: whatever disks there
// are, the one chosen is a candidate, fits, and is the only one that does.
func TestChooseNeverPicksExcluded(t *testing.T) {
	disk := rapid.Custom(func(t *rapid.T) api.Disk {
		return api.Disk{
			Name:   rapid.SampledFrom([]string{"sda", "sdb", "nvme0n1", "loop0", "dm-0", "sr0", "vda"}).Draw(t, "name"),
			Serial: rapid.SampledFrom([]string{"", "A", "B"}).Draw(t, "serial"),
			WWN:    rapid.SampledFrom([]string{"", "w1"}).Draw(t, "wwn"),
			Bus:    rapid.SampledFrom([]string{"sata", "usb", "nvme"}).Draw(t, "bus"),
			Bytes:  rapid.SampledFrom([]int64{0, 1 << 30, 2 << 30}).Draw(t, "bytes"),
			Sector: rapid.SampledFrom([]int{512, 4096}).Draw(t, "sector"),
			InUse:  rapid.SampledFrom([]string{"", "mounted"}).Draw(t, "use"), ReadOnly: rapid.Bool().Draw(t, "ro"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		disks := rapid.SliceOfN(disk, 0, 5).Draw(t, "disks")
		want := IDOf(disk.Draw(t, "want"))
		got, err := Choose(want, disks)
		if err != nil {
			return
		}
		if why := diskrule.Excluded(got); why != "" {
			t.Fatalf("chose %s although %s", got.Name, why)
		}
		n := 0
		for _, d := range disks {
			if diskrule.Excluded(d) == "" && same(want, d) {
				n++
			}
		}
		if n != 1 {
			t.Fatalf("chose %s although %d disks fit", got.Name, n)
		}
	})
}
