package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// run is the whole table.
func (b *bench) run(size, huge int64) error {
	for _, step := range []func() error{
		func() error { return b.makeDisk(b.path("disk"), size) },
		func() error {
			return b.child(row{What: "import without frames"}, "import", b.path("plain"), b.path("disk"), "none")
		},
		func() error {
			return b.child(row{What: "import with frames", ToReach: "120 MB/s a core, 256 MiB"}, "import", b.path("frames"), b.path("disk"), "zstd")
		},
		func() error {
			return b.child(row{What: "image verify, past the page cache, without frames"}, "verify", b.path("plain"))
		},
		func() error { return b.child(row{What: "image verify with frames"}, "verify", b.path("frames")) },
		func() error {
			return b.child(row{What: "SHA-256 of memory, one core, times the cores", Note: fmt.Sprintf("%d cores", b.report.Cores)}, "hash")
		},
		b.loop,
		func() error { return b.ntfs(huge) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// makeDisk makes a disk with one MBR partition that no filesystem describes, so that every byte of it counts: half noise,
// half words.
func (b *bench) makeDisk(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	head := make([]byte, mib)
	e := head[446:]
	e[4] = 0x83
	binary.LittleEndian.PutUint32(e[8:], mib/512)
	binary.LittleEndian.PutUint32(e[12:], uint32(size/512)) //nolint:gosec // below 2 TiB
	copy(head[440:], "lsw1")
	head[510], head[511] = 0x55, 0xaa
	_, err = f.Write(head)
	var seed [32]byte
	noise, words := rand.NewChaCha8(seed), rand.New(rand.NewPCG(1, 2)) //nolint:gosec // content of a test disk
	for i := int64(0); i < size/mib && err == nil; i++ {
		cell := make([]byte, mib)
		if i%2 == 0 {
			_, _ = noise.Read(cell) // never fails
		} else {
			var text bytes.Buffer
			for text.Len() < mib {
				fmt.Fprintf(&text, "%x ", words.Uint32()%4096)
			}
			copy(cell, text.Bytes())
		}
		_, err = f.Write(cell)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// loop compares the agent's check of a disk with dd of the same loop device, both past the page cache.
func (b *bench) loop() error {
	if os.Geteuid() != 0 {
		return b.add(row{What: "the agent's check beside dd", Note: "not measured: loop devices need root"})
	}
	dev, err := b.tool("losetup", "--direct-io=on", "-r", "-f", "--show", b.path("disk"))
	if err != nil {
		return err
	}
	dev = strings.TrimSpace(dev)
	defer func() { _, _ = b.tool("losetup", "-d", dev) }()
	st, err := os.Stat(b.path("disk"))
	if err != nil {
		return err
	}
	start := time.Now()
	if _, err := b.tool("dd", "if="+dev, "of=/dev/null", "bs=1M", "iflag=direct", "status=none"); err != nil {
		return err
	}
	if err := b.add(row{What: "dd of a loop disk, O_DIRECT", Seconds: time.Since(start).Seconds(), Bytes: st.Size()}); err != nil {
		return err
	}
	return b.child(row{What: "the agent's masked check of the same disk", ToReach: "90 % of dd, or all cores' hashing"}, "check", b.path("plain"), dev)
}

// ntfs measures a large filesystem that is nearly empty.
func (b *bench) ntfs(size int64) error {
	path, disk := b.path("ntfs"), b.path("ntfs-disk")
	err := errors.Join(sparse(path, size), sparse(disk, size+2*mib))
	if err == nil {
		_, err = b.tool("mkfs.ntfs", "-q", "-F", "-f", path)
	}
	if err == nil {
		err = os.WriteFile(b.path("file"), bytes.Repeat([]byte("a file of the system\n"), 1<<20), 0o600)
	}
	if err == nil {
		_, err = b.tool("ntfscp", "-q", path, b.path("file"), "file.txt")
	}
	if err == nil {
		_, err = b.tool("sh", "-c", fmt.Sprintf("printf 'label: gpt\\nstart=2048, size=%d, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\\n' | sfdisk -q %s", size/512, disk))
	}
	if err == nil {
		err = copyData(disk, mib, path)
	}
	if err != nil {
		return err
	}
	name := fmt.Sprintf("a sparse NTFS of %d GiB", size>>30)
	if err := b.child(row{What: "used map of " + name, ToReach: "1 s"}, "used", path); err != nil {
		return err
	}
	if err := b.child(row{What: "import of " + name, ToReach: "200 MiB"}, "import", b.path("huge"), disk, "zstd"); err != nil {
		return err
	}
	return b.child(row{What: "image verify of " + name, ToReach: "200 MiB"}, "verify", b.path("huge"))
}

// sparse makes a file without content.
func sparse(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// copyData writes what a sparse file holds into another one at off.
func copyData(to string, off int64, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // only read
	dst, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for pos := int64(0); err == nil; {
		begin, serr := src.Seek(pos, unix.SEEK_DATA)
		if serr != nil { // ENXIO: no more
			break
		}
		if pos, err = src.Seek(begin, unix.SEEK_HOLE); err == nil {
			_, err = io.Copy(io.NewOffsetWriter(dst, off+begin), io.NewSectionReader(src, begin, pos-begin))
		}
	}
	return errors.Join(err, dst.Close())
}
