package fat

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

func TestHas(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	for bits, size := range map[int]int64{12: 2 << 20, 16: 32 << 20, 32: 64 << 20} {
		// More files than one cluster of directory entries holds, so that chains are followed.
		tree := k.Path("tree")
		dir := tree + "/EFI/BOOT"
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			if err := os.WriteFile(fmt.Sprintf("%s/F%d.TXT", dir, i), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		img := k.FAT(size, bits, tree, "-s", "1")
		big := k.Path("bootx64.efi")
		if err := os.WriteFile(big, make([]byte, 3000), 0o600); err != nil {
			t.Fatal(err)
		}
		empty := k.Path("empty.efi")
		if err := os.WriteFile(empty, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		k.Run("mtools", "", "mcopy", "-i", img, big, "::EFI/BOOT/bootx64.efi")
		k.Run("mtools", "", "mcopy", "-i", img, empty, "::EFI/BOOT/EMPTY.EFI")
		f, err := os.Open(img)
		if err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]bool{
			"EFI/BOOT/BOOTX64.EFI": true, "efi/boot/bootx64.efi": true, "EFI/BOOT/F199.TXT": true, "EFI/BOOT/BOOTIA32.EFI": false,
			"EFI/BOOT/EMPTY.EFI": false, "EFI/BOOT": false, "BOOT/X": false, "EFI/BOOT/F1.TXT/X": false,
		} {
			if got, err := Has(f, path); err != nil || got != want {
				t.Errorf("FAT%d: Has(%q) = %v, %v; want %v", bits, path, got, err, want)
			}
		}
		if _, err := Has(f, "EFI/LONGERNAME.X"); err == nil {
			t.Error("Has of a name that is not 8.3 = nil error")
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// FuzzUsed covers the used map and the directory walk.
func FuzzUsed(f *testing.F) {
	k := fixture.New(f, testreq.Tool)
	for _, c := range []struct {
		bits int
		size int64
	}{{12, 256 << 10}, {16, 5 << 20}, {32, 34 << 20}} {
		b, err := os.ReadFile(k.FAT(c.size, c.bits, "", "-s", "1"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.TrimRight(b[:24<<10], "\x00"), byte(c.size>>20))
	}
	f.Fuzz(func(t *testing.T, b []byte, mib byte) {
		size := max(int64(mib%40)<<20, 512)
		r := zeroPadded{b, size}
		_, _ = Has(r, "EFI/BOOT/BOOTX64.EFI") // any answer will do; it must only come
		um, err := Used(r, size)
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

// zeroPadded reads zeros after b.
type zeroPadded struct {
	b    []byte
	size int64
}

func (p zeroPadded) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off > p.size-int64(len(b)) {
		return 0, fmt.Errorf("read of %d bytes at %d outside %d", len(b), off, p.size)
	}
	clear(b)
	if off < int64(len(p.b)) {
		copy(b, p.b[off:])
	}
	return len(b), nil
}
