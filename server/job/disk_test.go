package job

import (
	"strings"
	"testing"

	"labswarm/api"
)

func TestPickDisk(t *testing.T) {
	const gib = int64(1) << 30
	d := func(name, serial string, bytes int64) api.Disk {
		return api.Disk{Name: name, Serial: serial, Model: "M", Bus: "sata", Bytes: bytes, Sector: 512}
	}
	mod := func(d api.Disk, fn func(*api.Disk)) api.Disk { fn(&d); return d }
	big, small := d("sda", "S1", 8*gib), d("sdb", "S2", 4*gib)
	for _, tc := range []struct {
		name     string
		disks    []api.Disk
		selector string
		want     string // serial
		code     string
		words    string // that the message must hold
	}{
		{name: "the only disk", disks: []api.Disk{big}, want: "S1"},
		{name: "the only one that fits", disks: []api.Disk{big, small}, want: "S1"},
		{name: "none", code: api.CodeDiskNotFound, words: "none"},
		{name: "too small, both numbers", disks: []api.Disk{small}, code: api.CodeDiskTooSmall, words: "6442450944"},
		{name: "sector", disks: []api.Disk{mod(big, func(d *api.Disk) { d.Sector = 4096 })}, code: api.CodeDiskSector, words: "512"},
		{name: "two fit", disks: []api.Disk{big, d("sdc", "S3", 9*gib)}, code: api.CodeAmbiguous, words: "S3"},
		{name: "two fit, one chosen", disks: []api.Disk{big, d("sdc", "S3", 9*gib)}, selector: " s3 ", want: "S3"},
		{name: "chosen by WWN", disks: []api.Disk{big, mod(d("sdc", "S3", 9*gib), func(d *api.Disk) { d.WWN = "0x5" })}, selector: "0X5", want: "S3"},
		{name: "chosen one is absent", disks: []api.Disk{big}, selector: "S9", code: api.CodeDiskNotFound, words: "S9"},
		{name: "chosen one is too small", disks: []api.Disk{big, small}, selector: "S2", code: api.CodeDiskTooSmall, words: "S2"},
		{name: "USB is never a target", disks: []api.Disk{mod(big, func(d *api.Disk) { d.Bus = "usb" })}, code: api.CodeDiskNotFound},
		{name: "removable", disks: []api.Disk{mod(big, func(d *api.Disk) { d.Removable = true })}, code: api.CodeDiskNotFound},
		{name: "read-only", disks: []api.Disk{mod(big, func(d *api.Disk) { d.ReadOnly = true })}, code: api.CodeDiskNotFound},
		{name: "in use", disks: []api.Disk{mod(big, func(d *api.Disk) { d.InUse = "mounted on /" })}, code: api.CodeDiskNotFound, words: "mounted on /"},
		{name: "left out by the agent", disks: []api.Disk{mod(big, func(d *api.Disk) { d.Note = "RAID member" })}, code: api.CodeDiskNotFound, words: "RAID member"},
		{name: "unnamed but alone", disks: []api.Disk{mod(big, func(d *api.Disk) { d.Serial = "" })}, want: ""},
		{name: "unnamed and not alone", disks: []api.Disk{mod(big, func(d *api.Disk) { d.Serial = "" }), small}, code: api.CodeAmbiguous},
	} {
		got, fault := PickDisk(tc.disks, tc.selector, 6*gib, 512)
		switch {
		case tc.code == "" && (fault != nil || got.Serial != tc.want):
			t.Errorf("%s: %v, %v; want disk %q", tc.name, got, fault, tc.want)
		case tc.code != "" && (fault == nil || got != nil || fault.Code != tc.code || !strings.Contains(fault.Text, tc.words)):
			t.Errorf("%s: %v, %v; want %s with %q", tc.name, got, fault, tc.code, tc.words)
		}
	}
}
