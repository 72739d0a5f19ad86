package library

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/part"
	"labswarm/images/unpack"
	"labswarm/internal/testreq"
)

func TestImportRefuses(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := golden(t, k)
	l, dir := newLibrary(t)
	cut := k.Slice(disk, 0, 100*MiB)
	dirty := k.Slice(disk, 0, diskSize)
	write(t, dirty, rootAt+1024+96, []byte{0x46}) // needs_recovery
	locked := k.Slice(disk, 0, diskSize)
	write(t, locked, espAt, []byte("\xeb\x58\x90-FVE-FS-"))
	file := func(name string, b []byte) string {
		path := k.Path(name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		file string
		is   func(error) bool
		text string
	}{
		"missing":        {"/nonexistent/x.img", func(e error) bool { return errors.Is(e, fs.ErrNotExist) }, "does not exist"},
		"text":           {file("text", []byte(strings.Repeat("hello world ", 512))), as[*NotDiskError], "no partition table"},
		"folder":         {t.TempDir(), as[*unpack.Error], "folder"},
		"empty":          {file("empty", nil), as[*NotDiskError], "empty"},
		"odd size":       {file("odd", make([]byte, 1000)), as[*NotDiskError], "not a multiple of 512"},
		"qcow2":          {file("qcow2", append([]byte("QFI\xfb"), make([]byte, 1020)...)), as[*unpack.Error], "qcow of version 0"},
		"gzip":           {file("gz", append([]byte("\x1f\x8b"), make([]byte, 1022)...)), as[*unpack.Error], "damaged near byte"},
		"one filesystem": {k.Ext(16*MiB, "", "-t", "ext4"), as[*NotDiskError], "single ext4 filesystem"},
		"truncated":      {cut, as[*part.TruncatedError], "truncated"},
		"dirty":          {dirty, as[*GuardError], "--force=dirty"},
		"BitLocker":      {locked, as[*GuardError], "manage-bde -off"},
		"char device":    {"/dev/null", as[*NotDiskError], "neither a file nor a block device"},
	} {
		_, err := l.Import(t.Context(), ImportOptions{Name: "lab", File: c.file})
		if err == nil || !c.is(err) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: Import = %v; want an error with %q", name, err, c.text)
		}
	}
	for _, o := range []ImportOptions{
		{Name: "Lab", File: disk}, {Name: "../lab", File: disk}, {Name: "", File: disk}, {Name: "lab", File: disk, Cell: 12345},
		{Name: "lab", File: disk, Force: []string{"everything"}},
	} {
		if _, err := l.Import(t.Context(), o); err == nil {
			t.Errorf("Import(%+v) = nil error", o)
		}
	}
	if left := leftovers(t, dir); left != nil {
		t.Errorf("failed imports left %q", left)
	}
	v := mustImport(t, l, ImportOptions{Name: "lab", File: dirty, Force: []string{ForceDirty}})
	if f := v.Manifest().Forced; len(f) != 1 || !strings.HasPrefix(f[0], "dirty: partition 4 (ext4): its journal holds changes") {
		t.Errorf("forced = %q; want the guard, the partition and the reason", f)
	}
	if p := v.Manifest().Parts[3]; p.Clean || p.Map != "whole" {
		t.Errorf("partition 4: clean %v, map %s; want not clean and whole", p.Clean, p.Map)
	}
	reader, err := Open(dir, nil, l.pubs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Import(t.Context(), ImportOptions{Name: "lab", File: disk}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("import without a key = %v; want ErrReadOnly", err)
	}
}

func as[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}

func TestCancelLeavesNothing(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := golden(t, k)
	l, dir := newLibrary(t)
	for _, phase := range []string{"copy", "sync"} {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := l.Import(ctx, ImportOptions{Name: "lab", File: disk, Progress: func(p Progress) {
			if p.Phase == phase {
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Import cancelled in phase %s = %v; want context.Canceled", phase, err)
		}
		if left := leftovers(t, dir); left != nil {
			t.Errorf("phase %s: cancelled import left %q", phase, left)
		}
	}
	// A source that changes under our hands is refused as well.
	_, err := l.Import(t.Context(), ImportOptions{Name: "lab", File: disk, Progress: func(p Progress) {
		if p.Phase == "sync" {
			write(t, disk, 100*MiB, []byte("x"))
			if err := os.Chtimes(disk, time.Time{}, time.Now().Add(time.Hour)); err != nil {
				t.Error(err)
			}
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "was written to") {
		t.Errorf("import of a changing file = %v", err)
	}
	if left := leftovers(t, dir); left != nil {
		t.Errorf("changed source: import left %q", left)
	}
}
