//go:build integration

package restore

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/library"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

const mib = fixture.MiB

const partOff = mib // of the one partition of a disk, bytes

// mounted mounts the partition of a disk and runs fn on it.
func mounted(t *testing.T, k *fixture.Kit, fs, disk string, fn func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	k.Run("mount", "", "mount", "-t", fs, "-o", fmt.Sprintf("loop,offset=%d", partOff), disk, dir)
	left := true
	defer func() {
		if left { // fn has ended the test
			_, _ = k.Try("mount", "", "umount", dir)
		}
	}()
	fn(dir)
	left = false
	k.Run("mount", "", "umount", dir)
}

// files writes n files of size bytes each into sub, with content that depends on seed only.
func files(t *testing.T, dir, sub string, seed uint64, n, size int) {
	t.Helper()
	content := fixture.Random(seed, size)
	for i := range n {
		path := filepath.Join(dir, sub, fmt.Sprintf("d%02d", i/50), fmt.Sprintf("file-%04d.bin", i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		copy(content, fmt.Sprintf("%s %d", sub, i))
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// site is a store, and disks of one partition.
type site struct {
	t   *testing.T
	k   *fixture.Kit
	lib *library.Library
}

func newSite(t *testing.T) *site {
	t.Helper()
	testreq.Root(t)
	lib, err := library.Open(filepath.Join(t.TempDir(), "images"), ed25519.NewKeyFromSeed(fixture.Random(5, 32)), nil)
	if err != nil {
		t.Fatal(err)
	}
	return &site{t: t, k: fixture.New(t, testreq.Tool), lib: lib}
}

// disk makes a disk of one partition of size bytes, without a filesystem.
func (s *site) disk(size int64) string {
	s.t.Helper()
	return s.k.Disk(size+2*mib, fmt.Sprintf("label: gpt\nstart=%d, size=%d, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n", partOff/512, size/512), nil)
}

// copy copies a disk.
func (s *site) copy(disk string) string {
	s.t.Helper()
	to := s.k.Path("copy")
	s.k.Run("coreutils", "", "cp", "--sparse=always", disk, to)
	return to
}

func (s *site) image(file string) *manifest.Manifest {
	s.t.Helper()
	v, err := s.lib.Import(s.t.Context(), library.ImportOptions{Name: "lab", File: file, Codec: library.CodecNone})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		s.t.Fatal(err)
	}
	return v.Manifest()
}

// delta checks a terminal's disk against an image as the agent does, and returns the data cells to fetch and to keep.
func (s *site) delta(m *manifest.Manifest, disk string) (fetch, all int) {
	s.t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	bad, err := Check(s.t.Context(), m, f)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range bad {
		if _, data := m.PieceOf(c); data {
			fetch++
		}
	}
	return fetch, m.Pieces()
}

func (s *site) atMost(percent float64, what string, fetch, all int) {
	s.t.Helper()
	got := 100 * float64(fetch) / float64(all)
	s.t.Logf("%s: %d of %d cells are fetched, %.1f %%", what, fetch, all, got)
	if got > percent || fetch == 0 {
		s.t.Errorf("%s: %d of %d cells are fetched, %.1f %%; want some, and at most %.0f %%", what, fetch, all, got, percent)
	}
}

// TestDeltaOfAPackage: version 2 is version 1, as big as the golden Debian's 340 cells, with one small package more: 40
// files, 3 MB, and a changed package list. A terminal that holds version 1 fetches at most 5 % of the cells.
func TestDeltaOfAPackage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const size = 1 << 30
	terminal := s.disk(size)
	s.k.Run("e2fsprogs", "", "mke2fs", "-q", "-F", "-t", "ext4", "-E", fmt.Sprintf("offset=%d", partOff), terminal, fmt.Sprintf("%dk", size>>10))
	status := bytes.Repeat([]byte("Package: base\nStatus: install ok installed\n\n"), 8000) // 350 kB
	mounted(t, s.k, "ext4", terminal, func(dir string) {
		files(t, dir, "usr/lib", 1, 2600, 128<<10)
		files(t, dir, "var/lib/dpkg/info", 2, 900, 2000)
		if err := os.WriteFile(filepath.Join(dir, "var/lib/dpkg/status"), status, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	one := s.image(terminal)
	if fetch, _ := s.delta(one, terminal); fetch != 0 {
		t.Errorf("%d cells of the image are not on the disk it was made from", fetch)
	}
	changed := s.copy(terminal)
	mounted(t, s.k, "ext4", changed, func(dir string) {
		files(t, dir, "usr/share/newpkg", 3, 40, 75<<10)
		for i := range 4 {
			files(t, dir, fmt.Sprintf("var/lib/dpkg/info/new%d", i), 4, 1, 900)
		}
		for _, name := range []string{"status-new", "status-old"} { // as dpkg writes it
			if err := os.WriteFile(filepath.Join(dir, "var/lib/dpkg", name), append(status, "Package: newpkg\n"...), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Rename(filepath.Join(dir, "var/lib/dpkg/status-new"), filepath.Join(dir, "var/lib/dpkg/status")); err != nil {
			t.Fatal(err)
		}
	})
	two := s.image(changed)
	fetch, all := s.delta(two, terminal)
	s.atMost(5, "one small package more", fetch, all)
}

// TestDeltaOfUserFiles: students have saved 100 MB on a terminal's NTFS disk whose image has 240 MB; the way back to the
// image fetches at most 2 % of the cells. A fifth of the real case (500 MB of files) on a far smaller image, which makes
// it harder: the cells that change are those of the filesystem's own tables.
func TestDeltaOfUserFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	testreq.Tool(t, "ntfs-3g", "ntfs-3g")
	const size = 600 * mib
	fs := s.k.Sparse("windows", size)
	s.k.Run("ntfs-3g", "", "mkfs.ntfs", "-q", "-F", "-f", "-p", fmt.Sprint(partOff/512), fs)
	terminal := s.disk(size)
	s.k.Put(terminal, partOff, fs)
	mounted(t, s.k, "ntfs-3g", terminal, func(dir string) { files(t, dir, "Windows/System32", 1, 240, mib) })
	one := s.image(terminal)
	if fetch, _ := s.delta(one, terminal); fetch != 0 {
		t.Errorf("%d cells of the image are not on the disk it was made from", fetch)
	}
	mounted(t, s.k, "ntfs-3g", terminal, func(dir string) { files(t, dir, "Users/student", 2, 100, mib) })
	fetch, all := s.delta(one, terminal)
	s.atMost(2, "user files", fetch, all)
}
