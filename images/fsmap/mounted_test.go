//go:build integration

package fsmap

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"labswarm/images/fixture"
	"labswarm/images/manifest"
)

// leftPrefix starts the name of every folder with images and mount points, then comes the number of the process.
const leftPrefix = "labswarm-fsmap-"

// workDir makes a folder and removes it with the test.
func workDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", leftPrefix, os.Getpid())) //nolint:usetesting // the name tells a later run whose it was
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// ownMounts gives the test a mount namespace of its own, for its thread and the programs it starts. Whoever copies
// the machine's namespace meanwhile (every `ip netns exec` does) would else keep a filesystem mounted that was
// unmounted here. It vanishes with the thread.
func ownMounts(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // for good: a thread in another namespace must not go back to Go's pool
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatalf("unshare the mount namespace: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatalf("make mounts private: %v", err)
	}
}

// sweep removes what test processes that died without their clean-up left behind: file system daemons, which keep
// mount namespaces, then loop devices and folders.
func sweep(t *testing.T) {
	t.Helper()
	re := regexp.MustCompile(`/` + leftPrefix + `(\d+)-`)
	dead := func(b []byte) bool {
		m := re.FindSubmatch(b)
		if m == nil {
			return false
		}
		_, err := os.Stat("/proc/" + string(m[1]))
		return errors.Is(err, os.ErrNotExist)
	}
	glob := func(pattern string) []string {
		list, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	for _, f := range glob("/proc/[0-9]*/cmdline") {
		// A process that ends meanwhile is none that has to be ended.
		b, err := os.ReadFile(f)
		program, _, _ := strings.Cut(string(b), "\x00")
		if err == nil && dead(b) && slices.Contains([]string{"ntfs-3g", "mount.exfat-fuse"}, filepath.Base(program)) {
			if pid, err := strconv.Atoi(strings.Split(f, "/")[2]); err == nil {
				t.Logf("end process %d, left by an earlier run: %v", pid, unix.Kill(pid, unix.SIGKILL))
			}
		}
	}
	for _, f := range glob("/sys/block/loop*/loop/backing_file") {
		if b, err := os.ReadFile(f); err == nil && dead(b) {
			dev := "/dev/" + strings.Split(f, "/")[3]
			t.Logf("detach %s, left by an earlier run: %v", dev, exec.CommandContext(t.Context(), "losetup", "-d", dev).Run())
		}
	}
	for _, d := range glob(filepath.Join(os.TempDir(), leftPrefix+"*")) {
		if dead([]byte(d)) {
			t.Logf("remove %s, left by an earlier run: %v", d, os.RemoveAll(d))
		}
	}
}

// attach makes a loop device with sectors of a size. The returned function detaches it; so does the test's end.
func attach(t *testing.T, file string, sector int) (dev string, detach func()) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "losetup", "--show", "-f", "-b", strconv.Itoa(sector), file).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup %s: %v\n%s", file, err, out)
	}
	dev = strings.TrimSpace(string(out))
	done := false
	detach = func() {
		if !done {
			done = true
			if out, err := exec.Command("losetup", "-d", dev).CombinedOutput(); err != nil {
				t.Errorf("losetup -d %s: %v\n%s", dev, err, out)
			}
		}
	}
	t.Cleanup(detach)
	return dev, detach
}

// mount runs a mount command (the last words are device and folder). The returned function unmounts; so does the
// test's end, should it fail before.
func mount(t *testing.T, dev, dir string, command ...string) (unmount func()) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	args := append(command[1:len(command):len(command)], dev, dir)
	if out, err := exec.CommandContext(t.Context(), command[0], args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", command[0], args, err, out)
	}
	done := false
	unmount = func() {
		if done {
			return
		}
		done = true
		// With fuseblk it waits until the file system has written everything. A program that a parallel test is just
		// starting holds copies of this process' open files until it runs: busy for that moment.
		err := unix.Unmount(dir, 0)
		for end := time.Now().Add(time.Minute); errors.Is(err, unix.EBUSY) && time.Now().Before(end); err = unix.Unmount(dir, 0) {
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			t.Errorf("unmount %s: %v", dir, errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH)))
		}
	}
	t.Cleanup(unmount)
	return unmount
}

// churn writes, shortens and deletes files until the filesystem is as full as asked. Below nine tenths it ends with
// deleting, so that the free space is in many pieces.
func churn(t *testing.T, dir string, seed uint64, share float64, maxSize int) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	n := fill(t, dir, r, 0, share, maxSize)
	thin(t, dir, r, n, maxSize)
	n = fill(t, dir, r, n, share, maxSize)
	if share < 0.9 {
		thin(t, dir, r, n, maxSize)
	}
}

func filePath(dir string, i int) string {
	return filepath.Join(dir, fmt.Sprintf("d%d", i%7), fmt.Sprintf("file-%d", i))
}

// fill writes files from number n on and returns the next number.
func fill(t *testing.T, dir string, r *rand.Rand, n int, share float64, maxSize int) int {
	t.Helper()
	for ; ; n++ {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		if float64(st.Bfree) < (1-share)*float64(st.Blocks) {
			break
		}
		path := filePath(dir, n)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		err := os.WriteFile(path, fixture.Random(uint64(n), 1+r.IntN(maxSize)), 0o600)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	syncFS(t, dir)
	return n
}

// thin deletes half of the files below number n and shortens a quarter.
func thin(t *testing.T, dir string, r *rand.Rand, n, maxSize int) {
	t.Helper()
	for i := range n {
		var err error
		switch r.IntN(4) {
		case 0, 1:
			err = os.Remove(filePath(dir, i))
		case 2:
			err = os.Truncate(filePath(dir, i), int64(r.IntN(maxSize/4+1)))
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	syncFS(t, dir) // Btrfs and XFS give space back at their own time
}

func syncFS(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Syncfs(int(f.Fd())), f.Close()); err != nil {
		t.Fatalf("syncfs %s: %v", dir, err)
	}
}

// treeSum returns path -> SHA-256 of all files.
func treeSum(t *testing.T, dir string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		sums[strings.TrimPrefix(path, dir)] = fmt.Sprintf("%x", h.Sum(nil))
		return errors.Join(err, f.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// onGarbage writes the extents of a device onto a file full of 0xA5.
func onGarbage(t *testing.T, dev, file string, size int64, list []manifest.Extent) {
	t.Helper()
	in, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	garbage := bytes.Repeat([]byte{0xA5}, MiB)
	for off := int64(0); off < size && err == nil; off += MiB {
		_, err = out.WriteAt(garbage[:min(MiB, size-off)], off)
	}
	for _, e := range list {
		if err == nil {
			_, err = io.Copy(io.NewOffsetWriter(out, e.Off), io.NewSectionReader(in, e.Off, e.Len))
		}
	}
	if err := errors.Join(err, in.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
}
