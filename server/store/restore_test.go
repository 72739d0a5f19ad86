package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRestore(t *testing.T) {
	dir := t.TempDir()
	path, snaps := filepath.Join(dir, "labswarm.db"), filepath.Join(dir, "snapshots")
	put := func(s *Bolt, val string) {
		t.Helper()
		if err := s.Update(t.Context(), func(tx Tx) error { return tx.Put("rooms/a", []byte(val)) }); err != nil {
			t.Fatal(err)
		}
	}
	get := func(s *Bolt, key string) (out string) {
		t.Helper()
		if err := s.View(t.Context(), func(tx Tx) error {
			raw, err := tx.Get(key)
			out = string(raw)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	open := func() (*Bolt, *Recovery) {
		t.Helper()
		s, rec, err := Open(path, snaps)
		if err != nil {
			t.Fatal(err)
		}
		return s, rec
	}
	s, _ := open()
	put(s, "then")
	snap, err := SaveSnapshot(t.Context(), s, snaps, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	put(s, "now")
	epoch := get(s, KeyEpoch)
	var locked *LockedError
	if _, err := Restore(path, snap, time.Now()); !errors.As(err, &locked) {
		t.Fatalf("restore under a running server: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	junk := filepath.Join(dir, "junk.db")
	if err := os.WriteFile(junk, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(path, junk, time.Now()); err == nil {
		t.Fatal("junk was restored")
	}
	rec, err := Restore(path, snap, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(rec.Damaged); err != nil {
		t.Errorf("the old state is gone: %v", err)
	}
	for range 2 { // also a second start is told: the first may have crashed
		s, rec = open()
		if rec == nil || rec.Snapshot != snap || get(s, "rooms/a") != "then" || get(s, KeyEpoch) == epoch {
			t.Fatalf("after restore: %+v, %q, epoch %q", rec, get(s, "rooms/a"), get(s, KeyEpoch))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s, _ = open()
	if err := s.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, rec = open()
	defer s.Close()
	if rec != nil {
		t.Errorf("after Settled: %+v", rec)
	}
}
