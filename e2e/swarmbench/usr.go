package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1" //nolint:gosec // an order that has nothing to do with names, no security
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	usrUUID  = "6c616273-7761-726d-2d62-656e63680001" // of the filesystem and its hash seed
	usrTime  = "1000000000"                           // seconds; every time in the image
	usrLarge = 16 << 20                               // bytes; larger files would decide alone how well the image compresses
	usrBlock = 4096
	usrInode = 256 // bytes

	usrJournal = 4 // MiB, the smallest there is
)

// usrImage makes an ext4 image of the given size, filled with files of this
// machine's /usr. The choice looks random and is always the same, and no
// time of today gets in: the same /usr gives the same bytes.
func usrImage(ctx context.Context, file, tree string, size int64) error {
	for _, tool := range []string{"mke2fs", "debugfs", "dumpe2fs"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("command %s not found; install package e2fsprogs", tool)
		}
	}
	inodes, err := usrTree(tree, size-usrJournal<<20-size/32) // the last for bitmaps and luck
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	if err := tool(ctx, nil, "mke2fs", "-q", "-F", "-t", "ext4", "-b", fmt.Sprint(usrBlock), "-m", "0", "-U", usrUUID,
		"-J", fmt.Sprintf("size=%d", usrJournal), "-N", fmt.Sprint(inodes+64),
		"-E", "hash_seed="+usrUUID+",lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", "-d", tree, file); err != nil {
		return err
	}
	return errors.Join(usrTimes(ctx, file), os.RemoveAll(tree))
}

// usrTimes sets all times in the image.
func usrTimes(ctx context.Context, file string) error {
	out, err := exec.CommandContext(ctx, "dumpe2fs", "-h", file).Output()
	if err != nil {
		return fmt.Errorf("read ext4 image: %w", err)
	}
	count := func(key string) (n int) {
		_, rest, _ := strings.Cut(string(out), key)
		_, _ = fmt.Sscan(rest, &n) // 0 is caught below
		return n
	}
	inodes := count("Inode count:") - count("Free inodes:")
	if inodes < 12 {
		return fmt.Errorf("read ext4 image: %d inodes in use", inodes)
	}
	var cmds bytes.Buffer
	for i := 1; i <= inodes; i++ {
		for _, field := range []string{"atime", "ctime", "mtime", "crtime"} {
			fmt.Fprintf(&cmds, "sif <%d> %s @%s\nsif <%d> %s_extra 0\n", i, field, usrTime, i, field)
		}
	}
	return tool(ctx, &cmds, "debugfs", "-w", "-f", "-", file)
}

// tool runs a program of e2fsprogs at a fixed time.
func tool(ctx context.Context, stdin io.Reader, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = stdin
	cmd.Env = append(os.Environ(), "E2FSPROGS_FAKE_TIME="+usrTime, "SOURCE_DATE_EPOCH="+usrTime, "DEBUGFS_PAGER=cat")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// usrFile is a file of /usr with its place in the order of choice.
type usrFile struct {
	path string
	size int64
	key  [20]byte
}

// usrTree copies files of /usr, with their directories size bytes at most, to
// dir, and returns how many inodes they need.
func usrTree(dir string, size int64) (inodes int, err error) {
	files, err := usrFiles()
	if err != nil {
		return 0, err
	}
	var chosen []usrFile
	dirs := map[string]bool{"/": true}
	for _, f := range files {
		need := (f.size+usrBlock-1)/usrBlock*usrBlock + usrInode
		var fresh []string
		for d := filepath.Dir(f.path); !dirs[d]; d = filepath.Dir(d) {
			fresh = append(fresh, d)
			need += usrBlock + usrInode
		}
		if need > size {
			continue
		}
		size -= need
		chosen = append(chosen, f)
		for _, d := range fresh {
			dirs[d] = true
		}
	}
	// mke2fs takes a directory's entries in the order of their making.
	slices.SortFunc(chosen, func(a, b usrFile) int { return cmp.Compare(a.path, b.path) })
	for _, f := range chosen {
		if err := copyFile(f.path, filepath.Join(dir, f.path)); err != nil {
			return 0, fmt.Errorf("copy %s: %w", f.path, err)
		}
	}
	return len(chosen) + len(dirs), nil
}

// usrFiles lists the files of /usr in the order of choice. /usr/local is the
// machine's own.
func usrFiles() ([]usrFile, error) {
	var files []usrFile
	err := filepath.WalkDir("/usr", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == "/usr/local" || path == "/usr/src"):
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		i, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && i.Size() > 0 && i.Size() <= usrLarge {
			files = append(files, usrFile{path, i.Size(), sha1.Sum([]byte(path))}) //nolint:gosec // see the import
		}
		return err
	})
	slices.SortFunc(files, func(a, b usrFile) int { return bytes.Compare(a.key[:], b.key[:]) })
	return files, err
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// nextData is the first byte from off on where one of the files has data; size
// when there is none.
func nextData(a, b *os.File, off, size int64) (int64, error) {
	next := size
	for _, f := range []*os.File{a, b} {
		at, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO): // holes to the end
		case err != nil:
			return 0, fmt.Errorf("look for data in %s: %w", f.Name(), err)
		default:
			next = min(next, at)
		}
	}
	return next, nil
}
