package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"labswarm/images/fsmap"
	"labswarm/images/library"
	"labswarm/images/mask"
	"labswarm/initramfs-agent/bundle"
	"labswarm/initramfs-agent/scan"
)

// childWord as first argument makes this program a child of itself.
const childWord = "imagebench-child"

// done is what a child prints.
type done struct {
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes"`
}

// child is one step.
func child(ctx context.Context, op string, args []string) error {
	var d done
	var err error
	start := time.Now()
	switch op {
	case "import":
		d.Bytes, err = importDisk(ctx, args[0], args[1], args[2])
	case "verify":
		d.Bytes, err = verify(ctx, args[0], &start)
	case "check":
		d.Bytes, err = check(ctx, args[0], args[1], &start)
	case "used":
		err = used(args[0])
	case "hash":
		d.Bytes = hash()
	default:
		err = fmt.Errorf("no step %q", op)
	}
	if err != nil {
		return err
	}
	d.Seconds = time.Since(start).Seconds()
	return json.NewEncoder(os.Stdout).Encode(d)
}

func open(dir string) (*library.Library, error) {
	return library.Open(dir, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), nil)
}

// importDisk returns the bytes of the data cells.
func importDisk(ctx context.Context, dir, file, codec string) (int64, error) {
	lib, err := open(dir)
	if err != nil {
		return 0, err
	}
	lib.KeepFree(0)
	v, err := lib.Import(ctx, library.ImportOptions{Name: "bench", File: file, Codec: codec})
	if err != nil {
		return 0, err
	}
	return v.Manifest().ShippedBytes(), v.Close()
}

// verify is `image verify` with an empty page cache.
func verify(ctx context.Context, dir string, start *time.Time) (int64, error) {
	lib, err := open(dir)
	if err != nil {
		return 0, err
	}
	v, err := lib.Get("bench", "")
	if err != nil {
		return 0, err
	}
	for _, name := range []string{"disk.raw", "frames.zst"} {
		f, err := os.Open(filepath.Join(v.Dir(), name))
		if err != nil {
			continue // made without frames
		}
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // only a hint
		_ = f.Close()
	}
	*start = time.Now()
	res, err := v.Verify(ctx, nil)
	if err == nil && !res.OK() {
		err = fmt.Errorf("%d cells are damaged", len(res.Bad))
	}
	if err != nil {
		return 0, err
	}
	return res.Bytes, v.Close()
}

// device is scan.Disk on a block device, as the agent reads it.
type device struct {
	f    *os.File
	size int64
}

func (d device) Size() int64 { return d.size }

func (d device) ReadAt(buf []byte, off int64) error {
	if _, err := d.f.ReadAt(buf, off); err != nil {
		return fmt.Errorf("read %s at byte %d: %w", d.f.Name(), off, err)
	}
	return nil
}

// check is the agent's look at a disk that holds the image: every cell is read, masked and hashed.
func check(ctx context.Context, dir, dev string, start *time.Time) (int64, error) {
	lib, err := open(dir)
	if err != nil {
		return 0, err
	}
	v, err := lib.Get("bench", "")
	if err != nil {
		return 0, err
	}
	f, err := os.OpenFile(dev, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return 0, err
	}
	m := v.Manifest()
	*start = time.Now()
	r, err := scan.Run(ctx, device{f, m.Disk.Size}, &bundle.Bundle{Manifest: m, Torrent: v.Torrent(), Masker: mask.New(m)}, func(int64, int64) {})
	if err == nil && r.Kept != m.Pieces() {
		err = fmt.Errorf("%d of %d cells are right on the disk it was made from", r.Kept, m.Pieces())
	}
	if err != nil {
		return 0, err
	}
	return m.ShippedBytes(), f.Close()
}

func used(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := fsmap.Used(f, st.Size()); err != nil {
		return err
	}
	return f.Close()
}

// hash returns the bytes that all cores together hash in the time one core needs for a quarter of a GiB.
func hash() int64 {
	const n = 256
	buf := make([]byte, mib)
	for i := range n {
		buf[0] = byte(i)
		sum := sha256.Sum256(buf)
		buf[1] = sum[0]
	}
	return int64(n) * mib * int64(runtime.NumCPU())
}
