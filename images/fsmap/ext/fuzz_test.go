package ext

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/fstest"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

// FuzzUsed checks that no superblock or group descriptor leads outside the partition or to a panic.
func FuzzUsed(f *testing.F) {
	k := fixture.New(f, testreq.Tool)
	// Superblock and descriptors of the smallest filesystems mke2fs makes; the input starts at byte 1024.
	for _, opts := range [][]string{{"-t", "ext2", "-b", "1024"}, {"-t", "ext4", "-b", "1024", "-O", "^has_journal"}} {
		b, err := os.ReadFile(k.Ext(256<<10, "", append(opts, "-N", "16")...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.TrimRight(b[1024:1024+1024+64], "\x00"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const size = 1 << 20
		um, err := Used(zeroPadded{b}, size)
		if err != nil || um.State != manifest.StateClean {
			return
		}
		end := int64(-1)
		for _, e := range um.Extents {
			if e.Off <= end || e.Len <= 0 || e.End() > size || e.Off%manifest.Unit != 0 || e.Len%manifest.Unit != 0 {
				t.Fatalf("extent %+v after byte %d", e, end)
			}
			end = e.End()
		}
		if len(um.Extents) == 0 || um.Size > size {
			t.Fatalf("accepted with %d extents and %d bytes", len(um.Extents), um.Size)
		}
	})
}

// FuzzDamaged damages whole filesystems without checksums: plain, bigalloc, meta_bg.
func FuzzDamaged(f *testing.F) {
	k := fixture.New(f, testreq.Tool)
	var disks []*fstest.Disk
	for _, features := range []string{"^has_journal", "bigalloc", "meta_bg,^resize_inode,^flex_bg"} {
		img := k.Ext(8<<20, "", "-t", "ext4", "-b", "1024", "-g", "2048", "-O", "^metadata_csum,"+features)
		disks = append(disks, fstest.Load(f, img))
	}
	fstest.Fuzz(f, Used, disks...)
}

// zeroPadded is a disk of 1 MiB with b at byte 1024 and zeros elsewhere.
type zeroPadded struct{ b []byte }

func (p zeroPadded) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off > 1<<20-int64(len(b)) {
		return 0, fmt.Errorf("read of %d bytes at %d is outside the disk", len(b), off)
	}
	clear(b)
	if at := off - 1024; at >= 0 && at < int64(len(p.b)) {
		copy(b, p.b[at:])
	} else if at < 0 && at+int64(len(b)) > 0 {
		copy(b[-at:], p.b)
	}
	return len(b), nil
}
