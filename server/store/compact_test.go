package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestCompact: a file that is mostly free is small after the next start and
// holds the same; one that is full is left alone; the rest of a crashed try does
// no harm.
func TestCompact(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	if err := os.WriteFile(path+".compact", []byte("of a crashed try"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openAtTest(t, path)
	putKeys(t, s, 0, 400)
	full := sizeOf(t, path)
	closeStore(t, s)
	s = openAtTest(t, path)
	if got := sizeOf(t, path); got != full {
		t.Errorf("a full file of %d bytes became one of %d", full, got)
	}
	inBatches(t, s, 10, 400, func(tx Tx, i int) error { return tx.Delete(key(i)) })
	before := everything(t, s)
	closeStore(t, s)
	s = openAtTest(t, path)
	defer closeStore(t, s)
	if got := sizeOf(t, path); got > full/4 {
		t.Errorf("%d bytes after most was deleted, of %d before", got, full)
	}
	if after := everything(t, s); !bytes.Equal(before, after) || len(after) == 0 {
		t.Errorf("the content changed: %d bytes before, %d after", len(before), len(after))
	}
	if _, err := OpenSound(path); err == nil {
		t.Error("the compacted file is not locked")
	}
}

// TestMovedFile: who waited for the lock of a file that was compacted meanwhile
// gets the new one.
func TestMovedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := openAtTest(t, path)
	putKeys(t, s, 0, 3)
	done := make(chan error, 1)
	go func() {
		other, err := OpenSound(path) // waits up to a second
		if err == nil {
			err = other.View(context.Background(), func(tx Tx) error {
				if raw, err := tx.Get("new"); err != nil || raw == nil {
					return errors.Join(errors.New("the old file was opened"), err)
				}
				return nil
			})
			err = errors.Join(err, other.Close())
		}
		done <- err
	}()
	copied := path + ".compact"
	if err := compactTo(copied, s.db); err != nil {
		t.Fatal(err)
	}
	n := openAtTest(t, copied)
	if err := n.Update(t.Context(), func(tx Tx) error { return tx.Put("new", []byte("1")) }); err != nil {
		t.Fatal(err)
	}
	closeStore(t, n)
	if err := os.Rename(copied, path); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func openAtTest(t *testing.T, path string) *Bolt {
	t.Helper()
	s, rec, err := Open(path, filepath.Dir(path))
	if err != nil || rec != nil {
		t.Fatalf("Open = %v, %v", rec, err)
	}
	return s
}

func closeStore(t *testing.T, s *Bolt) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func key(i int) string { return fmt.Sprintf("slots/%05d", i) }

func putKeys(t *testing.T, s *Bolt, from, to int) {
	t.Helper()
	inBatches(t, s, from, to, func(tx Tx, i int) error { return tx.Put(key(i), bytes.Repeat([]byte{byte(i)}, 9000)) })
}

// inBatches does something with each key, 50 a transaction.
func inBatches(t *testing.T, s *Bolt, from, to int, do func(tx Tx, i int) error) {
	t.Helper()
	for ; from < to; from += 50 {
		if err := s.Update(t.Context(), func(tx Tx) error {
			for i := from; i < min(from+50, to); i++ {
				if err := do(tx, i); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func sizeOf(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

func everything(t *testing.T, s *Bolt) []byte {
	t.Helper()
	var out []byte
	if err := s.View(t.Context(), func(tx Tx) error {
		for k, v := range tx.Scan("", "", 1<<20) {
			out = append(append(out, k...), v...)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}
