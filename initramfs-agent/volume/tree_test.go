package volume

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// tree is a folder as a root.
func tree(t *testing.T) (*Tree, string) {
	t.Helper()
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	tr := &Tree{fd: fd}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr, dir
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestNothingLeadsOut: links of the image, absolute ones and climbing ones, end
// inside it, for reading, writing and removing.
func TestNothingLeadsOut(t *testing.T) {
	tr, dir := tree(t)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(outside, "file"), "precious")
	for name, to := range map[string]string{"abs": outside, "up": "../../../../../../../../.." + outside, "magic": "/proc/self/root" + outside} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if b, err := tr.ReadFile(name + "/file"); err == nil {
			t.Errorf("%s: read %q", name, b)
		}
		if err := tr.Replace(name+"/file", []byte("x"), Meta{}); err == nil {
			t.Errorf("%s: written", name)
		}
		if err := tr.Remove(name + "/file"); err == nil {
			t.Errorf("%s: removed", name)
		}
	}
	if got := read(t, filepath.Join(outside, "file")); got != "precious" {
		t.Errorf("the file outside holds %q", got)
	}
	// Inside, an absolute link works: it is the image's own root.
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "etc", "name"), "in")
	if err := os.Symlink("/etc", filepath.Join(dir, "conf")); err != nil {
		t.Fatal(err)
	}
	if b, err := tr.ReadFile("conf/name"); err != nil || string(b) != "in" {
		t.Errorf("ReadFile through /etc = %q, %v", b, err)
	}
}

func TestReplace(t *testing.T) {
	tr, dir := tree(t)
	put(t, filepath.Join(dir, "old"), "old content")
	put(t, filepath.Join(dir, temp), "left by a power cut")
	if err := os.Symlink("old", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"old", "new", "link"} {
		if err := tr.Replace(name, []byte("content of "+name), Meta{Mode: 0o600, UID: os.Getuid(), GID: os.Getgid()}); err != nil {
			t.Fatal(err)
		}
		if got := read(t, filepath.Join(dir, name)); got != "content of "+name {
			t.Errorf("%s holds %q", name, got)
		}
	}
	for name, mode := range map[string]uint32{"old": 0o640, "new": 0o600, "link": 0o600} {
		if k, m, err := tr.Lstat(name); err != nil || k != File || m.Mode != mode {
			t.Errorf("%s is %v with mode %o, %v; want a file with %o", name, k, m.Mode, err, mode)
		}
	}
	if left, err := tr.Temporary("."); err != nil || left {
		t.Errorf("a temporary file is left: %v, %v", left, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := tr.Replace("folder", nil, Meta{}); err == nil {
		t.Error("a folder was replaced by a file")
	}
	if err := tr.Replace("none/file", nil, Meta{}); err == nil {
		t.Error("a file was written into a folder that does not exist")
	}
}

func TestTreeLooks(t *testing.T) {
	tr, dir := tree(t)
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"b", "a"} {
		put(t, filepath.Join(dir, "d", n), n)
	}
	if err := os.Symlink("/nowhere", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Kind{"d": Dir, "d/a": File, "l": Link, "fifo": Other, "none": Nothing, "none/x": Nothing, "d/a/x": Nothing} {
		if k, _, err := tr.Lstat(name); err != nil || k != want {
			t.Errorf("Lstat(%s) = %v, %v; want %v", name, k, err, want)
		}
	}
	if names, err := tr.Names("d"); err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("Names = %v, %v", names, err)
	}
	if names, err := tr.Names("none"); err != nil || len(names) != 0 {
		t.Errorf("Names of nothing = %v, %v", names, err)
	}
	if to, err := tr.ReadLink("l"); err != nil || to != "/nowhere" {
		t.Errorf("ReadLink = %q, %v", to, err)
	}
	if err := os.Truncate(filepath.Join(dir, "d", "a"), maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.ReadFile("d/a"); err == nil {
		t.Error("a file beyond the limit was read")
	}
	for range 2 {
		if err := tr.Mkdir("new", 0o755); err != nil {
			t.Error(err)
		}
		if err := tr.Remove("d/b"); err != nil {
			t.Error(err)
		}
	}
}
