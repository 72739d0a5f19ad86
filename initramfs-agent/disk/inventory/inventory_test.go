package inventory

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labswarm/api"
)

// tree writes files below a fake sysfs; a name that ends in "@" is a link.
func tree(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if link, ok := cutAt(p); ok {
			if err := os.Symlink(text, link); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func cutAt(p string) (string, bool) {
	if p[len(p)-1] == '@' {
		return p[:len(p)-1], true
	}
	return p, false
}

func disk(dir, size, sector string) map[string]string {
	return map[string]string{
		dir + "/size": size, dir + "/queue/logical_block_size": sector, dir + "/removable": "0\n", dir + "/ro": "0\n",
	}
}

func fake(t *testing.T) System {
	t.Helper()
	root := t.TempDir()
	s := System{Sys: filepath.Join(root, "sys"), Proc: filepath.Join(root, "proc"), Dev: "/dev"}
	tree(t, s.Sys, map[string]string{
		"block/sda@":     "../devices/pci0/ata1/host0/block/sda",
		"block/sdb@":     "../devices/pci0/usb2/2-1/host1/block/sdb",
		"block/vda@":     "../devices/pci0/virtio3/block/vda",
		"block/nvme0n1@": "../devices/pci0/nvme/nvme0/nvme0n1",
		"block/mmcblk0@": "../devices/mmc_host/mmc0/block/mmcblk0", "block/mmcblk0boot0@": "../devices/mmc_host/mmc0/block/mmcblk0boot0",
		"block/loop0@": "../devices/virtual/block/loop0", "block/dm-0@": "../devices/virtual/block/dm-0",
		"dev/block/8:0@": "../../devices/pci0/ata1/host0/block/sda",
	})
	for dir, size := range map[string]string{
		"devices/pci0/ata1/host0/block/sda": "1000\n", "devices/pci0/usb2/2-1/host1/block/sdb": "10", "devices/pci0/virtio3/block/vda": "2000",
		"devices/pci0/nvme/nvme0/nvme0n1": "4000", "devices/mmc_host/mmc0/block/mmcblk0": "1", "devices/mmc_host/mmc0/block/mmcblk0boot0": "1",
		"devices/virtual/block/loop0": "8", "devices/virtual/block/dm-0": "8",
	} {
		tree(t, s.Sys, disk(dir, size, "512\n"))
	}
	tree(t, s.Sys, map[string]string{
		"devices/pci0/ata1/host0/block/sda/device/model":       "SSD \x01 860   \n",
		"devices/pci0/ata1/host0/block/sda/device/wwid":        "naa.5002538E40A1B2C3\n",
		"devices/pci0/ata1/host0/block/sda/device/vpd_pg80":    "\x00\x80\x00\x08  S3Z8  ",
		"devices/pci0/ata1/host0/block/sda/dev":                "8:0\n",
		"devices/pci0/ata1/host0/block/sda/sda1/partition":     "1\n",
		"devices/pci0/ata1/host0/block/sda/sda1/dev":           "8:1\n",
		"devices/pci0/usb2/2-1/host1/block/sdb/holders/dm-0/x": "",
		"devices/pci0/virtio3/block/vda/serial":                "disk-1\n",
		"devices/pci0/nvme/nvme0/nvme0n1/wwid":                 "eui.0000000000000000\n",
		"devices/pci0/nvme/nvme0/nvme0n1/device/serial":        "  NV1 \n",
		"devices/pci0/nvme/nvme0/nvme0n1/device/model":         "NVME\n",
		"devices/mmc_host/mmc0/block/mmcblk0/device/cid":       "abc",
		"devices/virtual/block/loop0/loop/backing_file":        "/x/y/seat1.img\n",
	})
	tree(t, s.Proc, map[string]string{
		"self/mountinfo": "21 1 8:1 / / rw - ext4 /dev/root rw\n22 1 0:5 / /proc rw - proc proc rw\nshort\n",
		"swaps":          "Filename Type\n/dev/vda partition\n",
	})
	return s
}

func TestDisks(t *testing.T) {
	got, err := fake(t).Disks()
	if err != nil {
		t.Fatal(err)
	}
	want := []api.Disk{
		{Name: "mmcblk0", Bus: "mmc", Serial: "abc", Bytes: 512, Sector: 512},
		{Name: "nvme0n1", Bus: "nvme", Serial: "NV1", Model: "NVME", Bytes: 4000 * 512, Sector: 512},
		{Name: "sda", Bus: "sata", Serial: "S3Z8", WWN: "5002538e40a1b2c3", Model: "SSD  860", Bytes: 512000, Sector: 512, InUse: "sda1 mounted on /"},
		{Name: "sdb", Bus: "usb", Bytes: 5120, Sector: 512, InUse: "sdb held by dm-0"},
		{Name: "vda", Bus: "virtio", Serial: "disk-1", Bytes: 2000 * 512, Sector: 512, InUse: "vda swap"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoopsNeedPermissionAndAName(t *testing.T) {
	s := fake(t)
	for _, tt := range []struct {
		loops bool
		only  []string
		want  int
	}{{true, []string{"loop0"}, 1}, {true, nil, 5}, {false, []string{"loop0"}, 0}} {
		s.Loops, s.Only = tt.loops, tt.only
		got, err := s.Disks()
		if err != nil || len(got) != tt.want {
			t.Errorf("loops %v, only %v: %d disks, %v; want %d", tt.loops, tt.only, len(got), err, tt.want)
		}
		if tt.want == 1 && (got[0].Serial != "seat1.img" || got[0].Bus != BusLoop) {
			t.Errorf("loop device is %+v", got[0])
		}
	}
}

func TestByNumber(t *testing.T) {
	d, err := fake(t).ByNumber(8, 0)
	if err != nil || d.Name != "sda" || d.Serial != "S3Z8" {
		t.Errorf("ByNumber(8, 0) = %+v, %v", d, err)
	}
	if _, err := fake(t).ByNumber(9, 9); err == nil {
		t.Error("ByNumber of no disk succeeded")
	}
}

func FuzzVPD80(f *testing.F) {
	f.Add([]byte("\x00\x80\x00\x04 A1 "))
	f.Fuzz(func(t *testing.T, page []byte) {
		for _, r := range vpd80(page) {
			if r < 0x20 || r > 0x7e {
				t.Errorf("vpd80 let %q through", r)
			}
		}
	})
}
