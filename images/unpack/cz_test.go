package unpack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"labswarm/images/fixture"
	"labswarm/internal/testreq"
)

const (
	gptScript = `label: gpt
label-id: 5A3C6E1A-9F0B-4A55-8E5B-000000000001
start=2048,  size=2048,  type=21686148-6449-6E6F-744E-656564454649
start=4096,  size=65536, type=U
start=69632, size=8192,  type=S
start=77824, size=32768, type=L
start=110592, size=16384, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7
start=126976, size=2048, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE
`
	mbrScript = `label: dos
label-id: 0x12345678
start=2048, size=32768, type=83, bootable
start=34816, size=30720, type=5
start=36864, size=8192, type=83
start=47104, size=8192, type=82
`
)

// czDisk makes a disk of 64 MiB from which a Clonezilla folder can be made.
func czDisk(t testing.TB, k *fixture.Kit, script string) string {
	t.Helper()
	content := map[int64]string{}
	if script == gptScript {
		ntfs := k.Sparse("ntfs.img", 8*fixture.MiB)
		k.Run("ntfs-3g", "", "mkfs.ntfs", "-q", "-F", "-f", ntfs)
		content[2*fixture.MiB] = k.FAT(32*fixture.MiB, 16, k.Tree(3, 10, 100<<10))
		content[34*fixture.MiB] = k.Swap(4 * fixture.MiB)
		content[38*fixture.MiB] = k.Ext(16*fixture.MiB, k.Tree(4, 20, 200<<10), "-t", "ext4", "-b", "4096")
		content[54*fixture.MiB] = ntfs
	} else {
		content[fixture.MiB] = k.Ext(16*fixture.MiB, k.Tree(5, 20, 200<<10), "-t", "ext4")
		content[18*fixture.MiB] = k.Ext(4*fixture.MiB, "", "-t", "ext2")
		content[23*fixture.MiB] = k.Swap(4 * fixture.MiB)
	}
	disk := k.Disk(64*fixture.MiB, script, content)
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	for off, b := range map[int64][]byte{0: fixture.Random(1, 440), fixture.MiB: fixture.Random(2, 200<<10)} {
		if off != 0 && script != gptScript {
			off, b = 512, fixture.Random(6, 30<<10) // GRUB's core behind the boot sector
		}
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return disk
}

// czSave is how one partition is saved: with partclone.TOOL, packed, in volumes of so many bytes.
type czSave struct {
	n          int
	off, size  int64
	name, tool string
	pack       []string
	vol        int
}

// clonezilla saves a disk the way Clonezilla 5.3 does (ocs-functions: save_part_table_mbr_dm_info, save_part_by_partclone,
// save_part_by_dd, output_swap_partition_uuid_label), in the same commands where there are some.
func clonezilla(t testing.TB, k *fixture.Kit, disk, dev string, gpt bool, parts []czSave, swap string) string {
	t.Helper()
	dir := k.Path("2026-11-21-00-img")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	put("disk", []byte(dev+"\n"))
	put("clonezilla-img", []byte("This image was saved by Clonezilla at 2026-11-21 10:00:00 UTC.\n"))
	put("blkdev.list", []byte("KNAME NAME SIZE TYPE FSTYPE MOUNTPOINT MODEL\n"+dev+" "+dev+" 64M disk\n"))
	put("Info-packages.txt", []byte("Image was saved by these Clonezilla-related packages:\n drbl-5.3.2-drbl1 clonezilla-5.3.17-drbl1\n"))
	put(dev+"-chs.sf", []byte("cylinders=8\nheads=255\nsectors=63\n"))
	stem := (&czImage{disk: dev}).stem()
	put(dev+"-pt.sf", bytes.ReplaceAll([]byte(k.Run("fdisk", "", "sfdisk", "-d", disk)), []byte(disk), []byte("/dev/"+stem)))
	label := "msdos"
	put(dev+"-mbr", raw[:512])
	if gpt {
		label = "gpt"
		put(dev+"-gpt-1st", raw[:34*512])
		put(dev+"-gpt-2nd", raw[len(raw)-32*512:])
		put(dev+"-gpt.gdisk", raw[:34*512])
	} else {
		put(dev+"-hidden-data-after-mbr", raw[512:1<<20])
		put(stem+"2-ebr", raw[34816*512:34816*512+512])
	}
	put(dev+"-pt.parted", fmt.Appendf(nil, "Model: ATA VBOX HARDDISK (scsi)\nDisk /dev/%s: %ds\nSector size (logical/physical): 512B/512B\nPartition Table: %s\nDisk Flags: \n", dev, len(raw)/512, label))
	put(fmt.Sprintf("swappt-%s.info", swap), []byte("UUID=\"6b1f8a52-0c6e-4f0e-9a53-333333333333\"\nLABEL=\"\"\n"))
	var names []string
	var wait sync.WaitGroup
	for _, p := range parts {
		names = append(names, p.name[:strings.IndexByte(p.name, '.')])
		wait.Go(func() { savePart(t, dir, k.Slice(disk, p.off, p.size), p) }) // partclone sleeps for 2 s each time
	}
	wait.Wait()
	put("parts", []byte(strings.Join(names, " ")+" \n"))
	return dir
}

func savePart(t testing.TB, dir, file string, p czSave) {
	t.Helper()
	var data []byte
	var err error
	if p.tool == "dd" {
		data, err = os.ReadFile(file)
	} else {
		cmd := exec.Command(testreq.Tool(t, "partclone."+p.tool, "partclone"), "-c", "-s", file, "-o", "-", "-L", os.DevNull)
		cmd.Env = append(os.Environ(), "LC_ALL=C", "TERM=dumb")
		data, err = cmd.Output()
	}
	if err != nil {
		t.Errorf("save %s: %v", p.name, err)
		return
	}
	if p.pack != nil {
		cmd := exec.Command(p.pack[0], p.pack[1:]...)
		cmd.Stdin = bytes.NewReader(data)
		if data, err = cmd.Output(); err != nil {
			t.Errorf("pack %s: %v", p.name, err)
			return
		}
	}
	for i := 0; len(data) > 0 || i == 0; i++ {
		name, n := p.name, len(data)
		if p.vol > 0 {
			name, n = name+"."+volume(i, 2), min(len(data), p.vol)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data[:n], 0o600); err != nil {
			t.Error(err)
		}
		data = data[n:]
	}
}

var gptParts = []czSave{
	{1, fixture.MiB, fixture.MiB, "sda1.dd-img", "dd", []string{"gzip", "-c"}, 100 << 10},
	{2, 2 * fixture.MiB, 32 * fixture.MiB, "sda2.vfat-ptcl-img.zst", "vfat", []string{"zstd", "-q", "-c"}, 0},
	{4, 38 * fixture.MiB, 16 * fixture.MiB, "sda4.ext4-ptcl-img.gz", "ext4", []string{"gzip", "-1", "-c"}, 1 << 20},
	{5, 54 * fixture.MiB, 8 * fixture.MiB, "sda5.ntfs-ptcl-img.uncomp", "ntfs", nil, 0},
}

var mbrParts = []czSave{
	{1, fixture.MiB, 16 * fixture.MiB, "nvme0n1p1.ext4-ptcl-img.xz", "ext4", []string{"xz", "-0", "-c"}, 0},
	{5, 18 * fixture.MiB, 4 * fixture.MiB, "nvme0n1p5.dd-ptcl-img.zst", "dd", []string{"zstd", "-q", "-c"}, 0},
}

func czGPT(t testing.TB, k *fixture.Kit) (disk, dir string) {
	disk = czDisk(t, k, gptScript)
	return disk, clonezilla(t, k, disk, "sda", true, gptParts, "sda3")
}

// unpackAll unpacks a source into a fresh folder and returns the whole content.
func unpackAll(t testing.TB, path string, o Options) ([]byte, error) {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	work, err := s.Unpack(t.Context(), o)
	if ents, err2 := os.ReadDir(o.Dir); err2 != nil || len(ents) > 0 {
		t.Errorf("the work folder holds %v, %v; want nothing", ents, err2)
	}
	if err != nil {
		return nil, err
	}
	defer work.Close()
	if err := s.Changed(); err != nil {
		t.Error(err)
	}
	st, err := work.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return io.ReadAll(io.NewSectionReader(work, 0, st.Size()))
}

// TestClonezilla compares every byte that a filesystem uses: partclone leaves free blocks out, so each partition is compared
// through what partclone itself would save of it, and plain copies and the table byte by byte.
func TestClonezilla(t *testing.T) {
	t.Parallel()
	t.Run("gpt", func(t *testing.T) {
		t.Parallel()
		k := fixture.New(t, testreq.Tool)
		disk, dir := czGPT(t, k)
		got, err := unpackAll(t, dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		want := mustRead(t, disk)
		sameBytes(t, "table and boot code", got[:34*512], want[:34*512])
		sameBytes(t, "BIOS boot partition", got[fixture.MiB:2*fixture.MiB], want[fixture.MiB:2*fixture.MiB])
		sameBytes(t, "swap header", got[34*fixture.MiB:34*fixture.MiB+4096], want[34*fixture.MiB:34*fixture.MiB+4096])
		if len(got) != len(want) {
			t.Errorf("the disk has %d bytes; want %d", len(got), len(want))
		}
		out := k.Path("out.img")
		if err := os.WriteFile(out, got, 0o600); err != nil {
			t.Fatal(err)
		}
		k.Run("e2fsprogs", "", "e2fsck", "-fn", k.Slice(out, 38*fixture.MiB, 16*fixture.MiB))
		k.Run("dosfstools", "", "fsck.vfat", "-n", k.Slice(out, 2*fixture.MiB, 32*fixture.MiB))
		k.Run("ntfs-3g", "", "ntfsinfo", "-m", k.Slice(out, 54*fixture.MiB, 8*fixture.MiB))
	})
	t.Run("mbr", func(t *testing.T) {
		t.Parallel()
		k := fixture.New(t, testreq.Tool)
		disk := czDisk(t, k, mbrScript)
		got, err := unpackAll(t, clonezilla(t, k, disk, "nvme0n1", false, mbrParts, "nvme0n1p6"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		want := mustRead(t, disk)
		sameBytes(t, "sector 0 and what follows", got[:fixture.MiB], want[:fixture.MiB])
		for _, off := range []int64{34816, 45056} { // extended boot records, where sfdisk puts them
			sameBytes(t, "extended boot record", got[off*512:off*512+512], want[off*512:off*512+512])
		}
		sameBytes(t, "plain copy", got[18*fixture.MiB:22*fixture.MiB], want[18*fixture.MiB:22*fixture.MiB])
		sameBytes(t, "swap header", got[23*fixture.MiB:23*fixture.MiB+4096], want[23*fixture.MiB:23*fixture.MiB+4096])
	})
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sameBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if sha256.Sum256(got) == sha256.Sum256(want) {
		return
	}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Errorf("%s: differs at byte %d", what, i)
			return
		}
	}
}

// patch returns a copy of b with bytes at off replaced.
func patch(b []byte, off int, with ...byte) []byte {
	b = bytes.Clone(b)
	copy(b[off:], with)
	return b
}

// folder copies a Clonezilla folder by hard links, with changes: nil removes a file.
func folder(t testing.TB, from string, change map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	ents, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range ents {
		if _, ok := change[e.Name()]; ok {
			continue
		}
		if err := os.Link(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range change {
		if b == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestClonezillaRefuses(t *testing.T) {
	t.Parallel()
	k := fixture.New(t, testreq.Tool)
	_, dir := czGPT(t, k)
	read := func(name string) []byte { return mustRead(t, filepath.Join(dir, name)) }
	ext, ntfs, gpt := "sda4.ext4-ptcl-img.gz.", "sda5.ntfs-ptcl-img.uncomp", read("sda-gpt-1st")
	big := patch(read(ntfs), 52, 0, 0, 0, 0, 1, 0, 0, 0) // a filesystem of 4 GiB
	overlap := patch(gpt, 2*512+128+32, 0xff, 0x0b)      // entry 2 begins in partition 1
	binary.LittleEndian.PutUint32(overlap[512+88:], crc(overlap[1024:]))
	binary.LittleEndian.PutUint32(overlap[512+16:], 0)
	binary.LittleEndian.PutUint32(overlap[512+16:], crc(overlap[512:512+92]))
	for name, c := range map[string]struct {
		change map[string][]byte
		want   string
	}{
		"no table":           {map[string][]byte{"sda-gpt-1st": nil}, `"sda-gpt-1st" is missing`},
		"table cut":          {map[string][]byte{"sda-gpt-1st": gpt[:600]}, "cut off"},
		"table flipped":      {map[string][]byte{"sda-gpt-1st": patch(gpt, 600, 0xff)}, "partition table"},
		"partitions overlap": {map[string][]byte{"sda-gpt-1st": overlap}, "overlap"},
		"volume in between":  {map[string][]byte{ext + "aa": nil}, `"sda4.ext4-ptcl-img.gz.aa" is missing`},
		"last volume":        {map[string][]byte{"sda1.dd-img.ab": nil, "sda1.dd-img.ac": nil, "sda1.dd-img.ad": nil}, "cut off"},
		"volume cut":         {map[string][]byte{"sda1.dd-img.aa": read("sda1.dd-img.aa")[:5000]}, "partition 1 (sda1)"},
		"flipped":            {map[string][]byte{"sda1.dd-img.aa": patch(read("sda1.dd-img.aa"), 50000, 1, 2, 3)}, "near byte"},
		"no content":         {map[string][]byte{ntfs: nil}, "no content of partition 5 (sda5)"},
		"LVM":                {map[string][]byte{"lvm_vg_dev.list": []byte("vg0 /dev/sda4 x\n")}, "LVM"},
		"LUKS":               {map[string][]byte{"luks-dev.list": []byte("x")}, "LUKS"},
		"unknown packing":    {map[string][]byte{ntfs: nil, "sda5.ntfs-ptcl-img.br": read(ntfs)}, `"sda5.ntfs-ptcl-img.br" is not understood`},
		"lzop":               {map[string][]byte{ntfs: nil, "sda5.ntfs-ptcl-img.lzo": read(ntfs)}, "packed with lzo"},
		"ntfsclone":          {map[string][]byte{ntfs: nil, "sda5.ntfs-img.aa": read(ntfs)}, "ntfsclone"},
		"twice":              {map[string][]byte{"sda5.ntfs-ptcl-img.gz": read(ntfs)}, "two copies"},
		"partition unknown":  {map[string][]byte{"sda9.ext4-ptcl-img.gz": read(ntfs)}, "not in the partition table"},
		"two disks":          {map[string][]byte{"disk": []byte("sda sdb\n")}, "2 disks"},
		"bad disk name":      {map[string][]byte{"disk": []byte("../sda\n")}, "none that is known"},
		"no disk":            {map[string][]byte{"disk": nil}, "single partitions"},
		"swap script":        {map[string][]byte{"swappt-sda3.info": []byte("UUID=\"$(reboot)\"\n")}, "no UUID"},
		"filesystem bigger":  {map[string][]byte{ntfs: big, "sda1.dd-img.aa": nil, "sda1.dd-img.ab": nil, "sda1.dd-img.ac": nil, "sda1.dd-img": make([]byte, fixture.MiB), "sda2.vfat-ptcl-img.zst": nil, "sda2.dd-img": make([]byte, 32*fixture.MiB), ext + "aa": nil, ext + "ab": nil, ext + "ac": nil, ext + "ad": nil, "sda4.dd-img": make([]byte, 16*fixture.MiB)}, "more than the partition's"},
		"copy too long":      {map[string][]byte{"sda1.dd-img.aa": nil, "sda1.dd-img.ab": nil, "sda1.dd-img.ac": nil, "sda1.dd-img": make([]byte, fixture.MiB+1)}, "longer than"},
	} {
		_, err := unpackAll(t, folder(t, dir, c.change), Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want an error with %q", name, err, c.want)
		}
	}
	bad := folder(t, dir, map[string][]byte{ntfs: nil})
	if err := os.Symlink("/etc/passwd", filepath.Join(bad, ntfs)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(bad); err == nil || !strings.Contains(err.Error(), "cannot be opened") {
		t.Errorf("a link out of the folder: %v", err)
	}
}
