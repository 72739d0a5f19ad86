package classroom

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labswarm/internal/testreq"
)

// diskWith makes a GPT disk with one partition of 8 MiB at 1 MiB that holds a
// filesystem with one file, and returns its path.
func diskWith(t *testing.T, kind string) string {
	t.Helper()
	testreq.Tool(t, "sfdisk", "fdisk")
	testreq.Tool(t, "blkid", "util-linux")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tree"), 0o755); err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, 300<<10)
	for i := range payload {
		payload[i] = byte(i>>8) ^ byte(i)
	}
	if err := os.WriteFile(filepath.Join(dir, "tree", "file"), payload, 0o644); err != nil {
		t.Fatal(err)
	}
	steps := [][]string{{"truncate", "-s", "10M", "disk"}, {"sh", "-c", "printf 'label: gpt\nstart=2048,size=16384\n' | sfdisk -q disk"}, {"truncate", "-s", "8M", "fs"}}
	switch kind {
	case "ext4":
		testreq.Tool(t, "dumpe2fs", "e2fsprogs")
		steps = append(steps, []string{"mke2fs", "-q", "-F", "-t", "ext4", "-d", "tree", "fs"})
	case "fat":
		testreq.Tool(t, "mkfs.vfat", "dosfstools")
		testreq.Tool(t, "mcopy", "mtools")
		steps = append(steps, []string{"mkfs.vfat", "fs"}, []string{"mcopy", "-i", "fs", "tree/file", "::FILE"})
	}
	steps = append(steps, []string{"dd", "if=fs", "of=disk", "bs=1M", "seek=1", "conv=notrunc", "status=none"})
	for _, s := range steps {
		cmd := exec.CommandContext(t.Context(), s[0], s[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", s, err, out)
		}
	}
	return filepath.Join(dir, "disk")
}

// poke changes one byte of a file.
func poke(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0xff
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCompareDisk checks the check: equal disks pass, on a bigger disk too; a
// changed used byte is found with its place; a changed free byte is not counted.
func TestCompareDisk(t *testing.T) {
	for _, kind := range []string{"ext4", "fat"} {
		t.Run(kind, func(t *testing.T) {
			image := diskWith(t, kind)
			raw, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			disk := filepath.Join(t.TempDir(), "disk")
			fresh := func() {
				if err := os.WriteFile(disk, raw, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			fresh()
			c, err := CompareDisk(t.Context(), image, disk, "")
			if err != nil {
				t.Fatal(err)
			}
			if c.Partitions != 1 || c.Bytes < 300<<10 {
				t.Errorf("compared %d bytes of %d partitions; want the file's 300 KiB at least, of 1", c.Bytes, c.Partitions)
			}
			file := int64(findPayload(t, raw))
			poke(t, disk, file+1000)
			var differ *DifferError
			if _, err := CompareDisk(t.Context(), image, disk, ""); !errors.As(err, &differ) || differ.OffByt != file+1000 {
				t.Errorf("changed byte of the file at %d: got %v", file+1000, err)
			}
			fresh()
			poke(t, disk, 9<<20-100) // the partition's last blocks are free
			if _, err := CompareDisk(t.Context(), image, disk, ""); err != nil {
				t.Errorf("changed free byte: %v", err)
			}
			fresh()
			poke(t, disk, 1024+32) // the entry's start sector, in the first table only
			poke(t, disk, 1024+16)
			if err := os.Truncate(disk, 9<<20); err != nil { // and the second table is gone
				t.Fatal(err)
			}
			if _, err := CompareDisk(t.Context(), image, disk, ""); !errors.As(err, &differ) {
				t.Errorf("broken partition table: got %v", err)
			}
		})
	}
}

// findPayload finds the test file's first bytes in the raw disk.
func findPayload(t *testing.T, raw []byte) int {
	t.Helper()
	for off := 1 << 20; off+2048 < len(raw); off += 512 {
		ok := true
		for i := 0; ok && i < 2048; i++ {
			ok = raw[off+i] == byte(i>>8)^byte(i)
		}
		if ok {
			return off
		}
	}
	t.Fatal("test file not found on the disk")
	return 0
}

func TestAppendRanges(t *testing.T) {
	got, err := appendRanges(nil, "8867-16383, 16400")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]span{{8867, 16384}, {16400, 16401}}, got, cmp.AllowUnexported(span{})); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
