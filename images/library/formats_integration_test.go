//go:build integration

package library

import (
	"crypto/ed25519"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"labswarm/images/fixture"
	"labswarm/internal/testreq"
)

// A file system that fills up while a disk is unpacked: by us, by qemu-img, by partclone.
func TestNoSpaceToUnpack(t *testing.T) {
	testreq.Root(t)
	k := fixture.New(t, testreq.Tool)
	disk := golden(t, k)
	files := map[string]string{"zstd": disk + ".zst", "qcow2": k.Path("qcow2")}
	k.Run("qemu-utils", "", "qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, files["qcow2"])
	k.Run("zstd", "", "zstd", "-q", disk)
	_, files["Clonezilla"] = k.ClonezillaMBR()
	dir := t.TempDir()
	if err := unix.Mount("labswarm-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil { // also tells that no program holds it
			t.Errorf("unmount: %v", err)
		}
	})
	l, err := Open(dir, ed25519.NewKeyFromSeed(fixture.Random(5, 32)), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range files {
		var full *NoSpaceError
		if _, err := l.Import(t.Context(), ImportOptions{Name: "lab", File: file}); !errors.As(err, &full) {
			t.Errorf("%s: Import = %v; want NoSpaceError", name, err)
		}
		if left := leftovers(t, dir); left != nil {
			t.Errorf("%s: left %q", name, left)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil || st.Blocks-st.Bfree > 16 {
			t.Errorf("%s: %d blocks are still in use, %v", name, st.Blocks-st.Bfree, err)
		}
	}
}
