package sig

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/part"
	"labswarm/internal/testreq"
)

const MiB = fixture.MiB

// two is a disk of 8 MiB with two partitions: 1 to 3 MiB and 3 to 7 MiB.
const (
	two  = "label: gpt\nstart=2048, size=4096\nstart=6144, size=8192\n"
	p1   = 1 * MiB
	p2   = 3 * MiB
	end2 = 7 * MiB
	size = 8 * MiB
)

func disk(t testing.TB, k *fixture.Kit, script string) []byte {
	t.Helper()
	b, err := os.ReadFile(k.Disk(size, script, nil))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(b []byte, off int64, text string) { copy(b[off:], text) }

// Signatures as the formats' own documents give them.
var (
	luks  = "LUKS\xba\xbe\x00\x02"
	lvm   = "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00LVM2 001"
	md    = "\xfc\x4e\x2b\xa9"
	zfs   = "\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"
	locks = "\xeb\x58\x90-FVE-FS-"
)

func TestDisk(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disks := map[string][]byte{"": make([]byte, size)} // sfdisk takes a third of a second
	for _, tc := range []struct {
		name, script string
		at           int64
		text         string
		want         []Mark
	}{
		{"nothing", two, 0, "", nil},
		{"zeros", "", 0, "", nil},
		{"LUKS", two, p2, luks, []Mark{{LUKS, p2, 2, p2}}},
		{"LVM", two, p1 + 512, lvm, []Mark{{LVM, p1, 1, p1 + 512}}},
		{"ZFS", two, p2 + 16<<10, zfs, []Mark{{ZFS, p2, 2, p2 + 16<<10}}},
		{"BitLocker", two, p1, locks, []Mark{{BitLocker, p1, 1, p1}}},
		{"Linux RAID 1.1", two, p1, md, []Mark{{MDRAID, p1, 1, p1}}},
		{"Linux RAID 1.2", two, p1 + 4096, md, []Mark{{MDRAID, p1, 1, p1 + 4096}}},
		{"Linux RAID 1.0", two, end2 - 8192, md, []Mark{{MDRAID, p2, 2, end2 - 8192}}},
		{"Linux RAID 0.90", two, end2 - 64<<10, md, []Mark{{MDRAID, p2, 2, end2 - 64<<10}}},
		{"whole disk LVM", "", 512, lvm, []Mark{{LVM, 0, 0, 512}}},
		{"whole disk RAID behind a table", two, size - 64<<10, md, []Mark{{MDRAID, 0, 0, size - 64<<10}}},
		{"Intel RST", two, size - 1024, "Intel Raid ISM Cfg Sig. 1.0.00", []Mark{{FWRAID, 0, 0, size - 1024}}},
		{"DDF", "", size - 512, "\xde\x11\xde\x11", []Mark{{FWRAID, 0, 0, size - 512}}},
		{"Windows dynamic disk", "label: gpt\nstart=2048,type=AF9B60A0-1431-4F62-BC68-3311714A69AD\n", 0, "", []Mark{{WinPool, p1, 1, p1}}},
		{"Windows dynamic disk, MBR", "label: dos\nstart=2048,type=42\n", 0, "", []Mark{{WinPool, p1, 1, p1}}},
		{"Storage Spaces", "label: gpt\nstart=2048,type=E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D\n", 0, "", []Mark{{WinPool, p1, 1, p1}}},
		{"logical partition", "label: dos\nstart=2048,size=2048,type=83\nstart=4096,type=5\nstart=6144,type=83\n", p2, luks, []Mark{{LUKS, p2, 5, p2}}},
		{"a signature outside any partition", "label: gpt\nstart=2048,size=2048\n", p2, luks, nil},
	} {
		if disks[tc.script] == nil {
			disks[tc.script] = disk(t, k, tc.script)
		}
		b := bytes.Clone(disks[tc.script])
		put(b, tc.at, tc.text)
		got, err := Disk(bytes.NewReader(b), size, 512, nil)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, d)
		}
	}
}

// TestKernelsPartitions: where we do not understand the table, the kernel's word counts.
func TestKernelsPartitions(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	b := disk(t, k, two)
	put(b, p2, luks)
	b[512+20]++ // the primary header no longer fits its checksum; kernels take the backup
	kernel := []part.Entry{{N: 1, Start: p1, Size: p2 - p1}, {N: 2, Start: p2, Size: end2 - p2}, {N: 3, Start: end2, Size: size}}
	got, err := Disk(bytes.NewReader(b), size, 512, kernel)
	if err != nil || len(got) != 1 || got[0].Part != 2 {
		t.Errorf("Disk = %v, %v; want LUKS on partition 2", got, err)
	}
	if got, err := Disk(bytes.NewReader(b), size, 512, nil); err != nil || len(got) != 0 {
		t.Errorf("without anybody's table: %v, %v", got, err)
	}
}

// TestOrdinaryDisksAreNoneOfIt: a PC room's old systems can be replaced without a word.
func TestOrdinaryDisksAreNoneOfIt(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	script, content, at := "label: gpt\n", map[int64]string{}, int64(1)
	for _, fs := range []struct {
		pkg, tool, opts string
		mib             int64
	}{
		{"e2fsprogs", "mkfs.ext4", "-q -F", 8}, {"dosfstools", "mkfs.vfat", "", 8}, {"ntfs-3g", "mkfs.ntfs", "-q -F -f", 8},
		{"xfsprogs", "mkfs.xfs", "-q -f", 301}, {"util-linux", "mkswap", "", 8}, {"btrfs-progs", "mkfs.btrfs", "-q -f", 110}, {"exfatprogs", "mkfs.exfat", "", 8},
	} {
		img := k.Sparse("fs.img", fs.mib*MiB)
		k.Run(fs.pkg, "", fs.tool, append(strings.Fields(fs.opts), img)...)
		script += fmt.Sprintf("start=%d, size=%d\n", at*2048, fs.mib*2048)
		content[at*MiB] = img
		at += fs.mib
	}
	f, err := os.Open(k.Disk((at+1)*MiB, script, content))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := Disk(f, (at+1)*MiB, 512, nil); err != nil || len(got) > 0 {
		t.Errorf("Disk = %v, %v; want nothing", got, err)
	}
}

// TestBtrfsPool takes a real filesystem on two devices.
func TestBtrfsPool(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	a, b := k.Sparse("a.img", 120*MiB), k.Sparse("b.img", 120*MiB)
	k.Run("btrfs-progs", "", "mkfs.btrfs", "-q", "-f", "-d", "single", "-m", "raid1", a, b)
	for _, path := range []string{a, b} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Disk(f, 120*MiB, 512, nil)
		if err != nil || len(got) != 1 || got[0].Kind != BtrfsPool {
			t.Errorf("Disk = %v, %v; want a pool", got, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadErrorIsNotNothing(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	b := disk(t, k, two)
	for _, bad := range []int64{0, p2, end2 - 8192, size - 512} {
		if got, err := Disk(broken{b, bad}, size, 512, nil); err == nil {
			t.Errorf("unreadable at %d: %v; want an error", bad, got)
		}
	}
}

// broken cannot be read at one place.
type broken struct {
	b   []byte
	bad int64
}

func (r broken) ReadAt(p []byte, off int64) (int, error) {
	if off <= r.bad && r.bad < off+int64(len(p)) {
		return 0, fmt.Errorf("input/output error at %d", r.bad)
	}
	return bytes.NewReader(r.b).ReadAt(p, off)
}

func FuzzDisk(f *testing.F) {
	f.Add([]byte(luks), int64(0))
	f.Add([]byte(lvm), int64(512))
	f.Fuzz(func(t *testing.T, b []byte, at int64) {
		const size = 1 * MiB
		if at < 0 || at > size {
			return
		}
		full := make([]byte, size)
		copy(full[at:], b)
		got, err := Disk(bytes.NewReader(full), size, 512, nil)
		if err != nil {
			t.Fatalf("Disk = %v", err)
		}
		for _, m := range got {
			if m.At < 0 || m.At >= size || m.Off < 0 || m.Off >= size || len(got) > maxMarks {
				t.Fatalf("mark %+v outside the disk", m)
			}
		}
	})
}
