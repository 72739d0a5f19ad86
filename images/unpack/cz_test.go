package unpack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labswarm/images/fixture"
	"labswarm/internal/testreq"
)

func czGPT(t testing.TB, k *fixture.Kit) (disk, dir string) {
	return k.ClonezillaGPT()
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

// That a good folder gives the disk it was saved from is tested in images/library, down to the hashes.
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
