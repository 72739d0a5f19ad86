package restore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labswarm/images/fixture"
	"labswarm/images/library"
	"labswarm/internal/testreq"
)

// TestSave: the exported disk is the image's, whole and sparse, with both tables in order, in both formats.
func TestSave(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	l := layouts[0]
	disk := source(t, k, l, k.Tree(4, 40, 200<<10))
	lib, v := imported(t, disk)
	dir := t.TempDir()
	raw, qcow := filepath.Join(dir, "disk.img"), filepath.Join(dir, "disk.qcow2")
	last := library.Progress{}
	if err := Save(t.Context(), v, raw, Raw, func(p library.Progress) { last = p }); err != nil {
		t.Fatal(err)
	}
	if last.Done != v.Manifest().ShippedBytes() || last.Total != last.Done {
		t.Errorf("last progress %+v", last)
	}
	f, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if bad, err := Check(t.Context(), v.Manifest(), f); err != nil || bad != nil {
		t.Errorf("Check = %v, %v", bad, err)
	}
	st, err := f.Stat()
	if err != nil || st.Size() != l.size || st.Sys().(*syscall.Stat_t).Blocks*512 > v.Manifest().ShippedBytes()+MiB {
		t.Errorf("%d bytes, %v: not sparse, or not the disk's size", st.Size(), err)
	}
	if out := k.Run("gdisk", "", "sgdisk", "-v", raw); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v: %s", out)
	}
	root := k.Slice(raw, l.rootAt, 64*MiB)
	k.Run("e2fsprogs", "", "e2fsck", "-fn", root)
	if d := cmp.Diff(k.ExtFiles(k.Slice(disk, l.rootAt, 64*MiB)), k.ExtFiles(root)); d != "" {
		t.Errorf("files (-source +export):\n%.2000s", d)
	}
	testreq.Tool(t, "qemu-img", "qemu-utils")
	if err := Save(t.Context(), v, qcow, QCOW2, nil); err != nil {
		t.Fatal(err)
	}
	if out := k.Run("qemu-utils", "", "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, qcow); !strings.Contains(out, "identical") {
		t.Errorf("qemu-img compare: %s", out)
	}
	// An export is a disk like any other: imported again it has the same content.
	if _, err := lib.Import(t.Context(), library.ImportOptions{Name: "lab", File: raw}); !errors.Is(err, library.ErrUnchanged) {
		t.Errorf("import of the export = %v; want ErrUnchanged", err)
	}
	refuses(t, v, dir, raw)
}

// refuses: nothing is written over, and nothing is left of what failed.
func refuses(t *testing.T, v *library.Version, dir, raw string) {
	t.Helper()
	before, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := Save(t.Context(), v, raw, Raw, nil); err == nil {
		t.Error("export over a file = nil error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, format := range []string{Raw, QCOW2} {
		err := Save(ctx, v, filepath.Join(dir, "stopped"), format, func(library.Progress) { cancel() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("stopped export as %s = %v", format, err)
		}
	}
	if err := Save(t.Context(), v, filepath.Join(dir, "vmdk"), "vmdk", nil); err == nil {
		t.Error("unknown format = nil error")
	}
	off := v.Manifest().CellOf(1)*v.Manifest().Cell + 100
	f, err := os.OpenFile(filepath.Join(v.Dir(), "disk.raw"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 4096)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] ^= 0xff
	}
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	var cell *library.BadCellError
	if err := Save(t.Context(), v, filepath.Join(dir, "rotten"), Raw, nil); !errors.As(err, &cell) {
		t.Errorf("export of a rotten cell = %v; want BadCellError", err)
	}
	after, err := os.ReadFile(raw)
	ents, err2 := os.ReadDir(dir)
	if err != nil || err2 != nil || len(ents) != 2 || !bytes.Equal(before, after) {
		t.Errorf("left %v", ents)
	}
}
