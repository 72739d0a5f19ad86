package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"labswarm/images/library"
	"labswarm/images/mask"
)

// Formats of Save.
const (
	Raw   = "raw"
	QCOW2 = "qcow2"
)

// ErrNoQemu means that the program that writes qcow2 is missing.
var ErrNoQemu = errors.New("the program qemu-img is missing (apt-get install qemu-utils), or export --as raw")

// Save writes a version to a new file that other programs take as a disk: sparse, with both partition tables. Every cell
// is checked as it is read. It leaves nothing behind when it fails or ctx ends.
func Save(ctx context.Context, v *library.Version, path, format string, progress func(library.Progress)) error {
	if err := save(ctx, v, path, format, progress); err != nil {
		return fmt.Errorf("export image %s/%s as %s: %w", v.Name(), v.Version(), format, err)
	}
	return nil
}

func save(ctx context.Context, v *library.Version, path, format string, progress func(library.Progress)) error {
	var qemu string
	switch format {
	case Raw:
	case QCOW2:
		var err error
		if qemu, err = exec.LookPath("qemu-img"); err != nil {
			return ErrNoQemu
		}
	default:
		return fmt.Errorf("unknown format; there are %s and %s", Raw, QCOW2)
	}
	out, err := library.CreateOutput(path)
	if err != nil {
		return err
	}
	if err := fill(ctx, v, out, qemu, progress); err != nil {
		out.Discard()
		return out.NoRoom(err, v.Manifest().ShippedBytes())
	}
	return out.NoRoom(out.Commit(), v.Manifest().ShippedBytes())
}

// fill writes the disk into out, by way of a raw file beside it when qemu is the path of qemu-img.
func fill(ctx context.Context, v *library.Version, out *library.Output, qemu string, progress func(library.Progress)) (err error) {
	f := out.File
	if qemu != "" {
		if f, err = os.CreateTemp(filepath.Dir(out.Name()), ".labswarm-export-*"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	}
	size := v.Manifest().Disk.Size
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := writeNew(ctx, v, f, size, progress); err != nil {
		return err
	}
	if err := writeTables(v, f, size); err != nil || qemu == "" {
		return err
	}
	if progress != nil {
		progress(library.Progress{Phase: "convert", Done: size, Total: size})
	}
	cmd := exec.CommandContext(ctx, qemu, "convert", "-f", "raw", "-O", "qcow2", "--", f.Name(), out.Name())
	text, err := cmd.CombinedOutput()
	if err != nil {
		if bytes.Contains(text, []byte("No space left")) {
			return fmt.Errorf("no room beside %q: the disk is written as raw first, then converted; nothing is left there", out.Name())
		}
		return fmt.Errorf("qemu-img convert: %w: %s", err, strings.TrimSpace(string(text)))
	}
	return nil
}

const grain = 64 << 10 // zeros of that length stay holes

// writeNew writes the data cells into an empty file; everything else is a hole already.
func writeNew(ctx context.Context, v *library.Version, f *os.File, size int64, progress func(library.Progress)) error {
	if progress == nil {
		progress = func(library.Progress) {}
	}
	m := v.Manifest()
	buf := make([]byte, m.Cell)
	start, said := time.Now(), time.Time{}
	for i := range m.Pieces() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := v.ReadVerified(i, buf); err != nil {
			return err
		}
		for at := int64(0); at < m.Cell; at += grain {
			if b := buf[at : at+grain]; !mask.IsZero(b) {
				if err := writeAt(f, b, m.CellOf(i)*m.Cell+at, size); err != nil {
					return err
				}
			}
		}
		done := int64(i+1) * m.Cell
		if now := time.Now(); now.Sub(said) > 200*time.Millisecond || i == m.Pieces()-1 {
			said = now
			progress(library.Progress{Phase: "export", Done: done, Total: m.ShippedBytes(), Rate: int64(float64(done) / max(now.Sub(start).Seconds(), 1e-3))})
		}
	}
	return nil
}
