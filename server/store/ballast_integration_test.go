//go:build integration

package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"labswarm/internal/testreq"
)

// TestFullDisk fills the state's disk to its last byte: with ballast the next updates commit and are there after a new start.
// Without it they fail, so the test has teeth.
func TestFullDisk(t *testing.T) {
	testreq.Root(t)
	for _, with := range []bool{true, false} {
		t.Run(fmt.Sprintf("ballast=%v", with), func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
			path := filepath.Join(dir, "labswarm.db")
			s, _, err := Open(path, filepath.Join(dir, "snapshots"))
			if err != nil {
				t.Fatal(err)
			}
			told := 0
			if with {
				if err := s.SetBallast(filepath.Join(dir, "ballast"), 3<<20, func() { told++ }); err != nil {
					t.Fatal(err)
				}
				if st, err := os.Stat(filepath.Join(dir, "ballast")); err != nil || st.Size() != 3<<20 {
					t.Fatalf("ballast: %v, %v", st, err)
				}
			}
			fill(t, filepath.Join(dir, "stranger"))
			val := make([]byte, 32<<10)
			done := 0
			for i := range 40 { // 1.3 MiB, more than what bbolt has free
				err = s.Update(t.Context(), func(tx Tx) error { return tx.Put(fmt.Sprintf("slots/%03d", i), val) })
				if err != nil {
					break
				}
				done++
			}
			if with && (err != nil || told != 1 || s.HasBallast()) {
				t.Fatalf("after %d updates on a full disk: %v, told %d times", done, err, told)
			}
			if !with && !diskFull(err) {
				t.Fatalf("%d updates on a full disk without ballast: %v; want no space", done, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s, rec, err := Open(path, filepath.Join(dir, "snapshots"))
			if err != nil || rec != nil {
				t.Fatalf("open again: %v, %v", rec, err)
			}
			defer s.Close()
			n := 0
			if err := s.View(t.Context(), func(tx Tx) error {
				for range tx.Scan("slots/", "", 0) {
					n++
				}
				return nil
			}); err != nil || n != done {
				t.Errorf("%d of %d committed updates are there: %v", n, done, err)
			}
			if !with {
				return
			}
			if err := s.SetBallast(filepath.Join(dir, "ballast"), 3<<20, nil); err != nil || s.HasBallast() {
				t.Errorf("the ballast is made again on a full disk: %v", err)
			}
			if err := os.Remove(filepath.Join(dir, "stranger")); err != nil {
				t.Fatal(err)
			}
			if err := s.FillBallast(); err != nil || !s.HasBallast() {
				t.Errorf("with room again: ballast %v, %v", s.HasBallast(), err)
			}
		})
	}
}

// fill writes until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for {
			if _, err := f.Write(make([]byte, size)); err != nil {
				if !diskFull(err) {
					t.Fatal(err)
				}
				break
			}
		}
	}
}
