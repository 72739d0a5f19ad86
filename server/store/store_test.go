package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labswarm/server/store"
	"labswarm/server/store/storetest"
)

func TestMem(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return store.NewMem() })
}

func TestBolt(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, rec, err := store.Open(filepath.Join(t.TempDir(), "labswarm.db"), t.TempDir())
		if err != nil || rec != nil {
			t.Fatalf("Open = %v, recovery %v", err, rec)
		}
		return s
	})
}

func open(t *testing.T, path, snaps string) *store.Bolt {
	t.Helper()
	s, rec, err := store.Open(path, snaps)
	if err != nil || rec != nil {
		t.Fatalf("Open = %v, recovery %+v; want neither", err, rec)
	}
	return s
}

func read(t *testing.T, s store.Store, key string) string {
	t.Helper()
	var v []byte
	if err := s.View(t.Context(), func(tx store.Tx) (err error) {
		v, err = tx.Get(key)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return string(v)
}

func put(t *testing.T, s store.Store, key, val string) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put(key, []byte(val)) }); err != nil {
		t.Fatal(err)
	}
}

func closeStore(t *testing.T, s store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReopenKeepsEpochAndData(t *testing.T) {
	path := filepath.Join(t.TempDir(), "labswarm.db")
	s := open(t, path, "")
	put(t, s, "hosts/a", "1")
	epoch := read(t, s, store.KeyEpoch)
	closeStore(t, s)
	s = open(t, path, "")
	defer closeStore(t, s)
	if got := read(t, s, store.KeyEpoch); got != epoch {
		t.Errorf("fence epoch changed on a plain restart: %s, was %s", got, epoch)
	}
	if got := read(t, s, "hosts/a"); got != "1" {
		t.Errorf("data after reopen = %q", got)
	}
	if err := s.Update(t.Context(), func(store.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestSecondOpenIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "labswarm.db")
	s := open(t, path, "")
	defer closeStore(t, s)
	_, _, err := store.Open(path, "")
	var locked *store.LockedError
	if !errors.As(err, &locked) || locked.Path != path {
		t.Fatalf("second Open = %v; want *LockedError", err)
	}
	if locked.Holder == "" {
		t.Errorf("the holder is not named, although it is this process: %v", err)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "labswarm.db")
	s := open(t, path, "")
	put(t, s, store.KeySchema, "99")
	closeStore(t, s)
	_, _, err := store.Open(path, "")
	var schema *store.SchemaError
	if !errors.As(err, &schema) || schema.Found != 99 {
		t.Fatalf("Open of a newer store = %v; want *SchemaError{Found: 99}", err)
	}
}

// damage overwrites the pages behind the two meta pages.
func damage(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	junk := make([]byte, 4*4096)
	for i := range junk {
		junk[i] = byte(i*7 + 13)
	}
	_, err = f.WriteAt(junk, 2*4096)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedStoreComesBackFromTheNewestGoodSnapshot(t *testing.T) {
	dir := t.TempDir()
	path, snaps := filepath.Join(dir, "labswarm.db"), filepath.Join(dir, "snapshots")
	s := open(t, path, snaps)
	var names []string
	for i, v := range []string{"old", "newer", "newest"} {
		put(t, s, "hosts/a", v)
		name, err := store.SaveSnapshot(t.Context(), s, snaps, time.Unix(int64(1000+i), 0))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	put(t, s, "hosts/a", "after the snapshot")
	epoch := read(t, s, store.KeyEpoch)
	closeStore(t, s)
	damage(t, path)
	damage(t, names[2]) // the newest copy is bad too

	s, rec, err := store.Open(path, snaps)
	if err != nil || rec == nil {
		t.Fatalf("Open of a damaged store = %v, recovery %v; want a recovery", err, rec)
	}
	defer closeStore(t, s)
	if rec.Snapshot != names[1] {
		t.Errorf("took %s; want the newest good one %s", rec.Snapshot, names[1])
	}
	if got := read(t, s, "hosts/a"); got != "newer" {
		t.Errorf("data = %q; want that of the snapshot", got)
	}
	if got := read(t, s, store.KeyEpoch); got == epoch {
		t.Error("the fence epoch is the old one: fences given out after the snapshot could repeat")
	}
	if _, err := os.Stat(rec.Damaged); err != nil {
		t.Errorf("the damaged file was not kept: %v", err)
	}
}

func TestDamagedStoreWithoutSnapshotIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "labswarm.db")
	s := open(t, path, "")
	put(t, s, "a", "b")
	closeStore(t, s)
	damage(t, path)
	_, _, err := store.Open(path, t.TempDir())
	var d *store.DamagedError
	if !errors.As(err, &d) {
		t.Fatalf("Open = %v; want *DamagedError", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the damaged file must stay where it is: %v", err)
	}
}

func TestSnapshotsAreKeptToThree(t *testing.T) {
	s := store.NewMem()
	dir := filepath.Join(t.TempDir(), "snapshots")
	for i := range 5 {
		if _, err := store.SaveSnapshot(t.Context(), s, dir, time.Unix(int64(i), 0)); err != nil {
			t.Fatal(err)
		}
	}
	got := store.Snapshots(dir)
	if len(got) != 3 || filepath.Base(got[0]) != "labswarm-19700101T000004.000000000.db" {
		t.Errorf("Snapshots = %v; want the newest three, newest first", got)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("folder holds %d entries, %v; want 3 (no temporary files)", len(entries), err)
	}
}

// TestOpenSound: a short visit repairs nothing. What is damaged stays as it is, for a server to hold its jobs.
func TestOpenSound(t *testing.T) {
	dir := t.TempDir()
	path, snaps := filepath.Join(dir, "s.db"), filepath.Join(dir, "snapshots")
	s, _, err := store.Open(path, snaps)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put("a/b", []byte("kept")) }); err != nil {
		t.Fatal(err)
	}
	var locked *store.LockedError
	if _, err := store.OpenSound(path); !errors.As(err, &locked) {
		t.Errorf("OpenSound beside a server = %v; want LockedError", err)
	}
	if _, err := store.SaveSnapshot(t.Context(), s, snaps, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	v, err := store.OpenSound(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.View(t.Context(), func(tx store.Tx) error {
		if got, err := tx.Get("a/b"); err != nil || string(got) != "kept" {
			t.Errorf("a/b = %q, %v", got, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(raw[2*4096:], bytes.Repeat([]byte{0xA5, 0x5A, 0x17}, 4096))
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenSound(path); err == nil || !strings.Contains(err.Error(), "labswarm serve") {
		t.Errorf("OpenSound of a damaged file = %v; want the cure", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, raw) {
		t.Errorf("the damaged file was touched: %v", err)
	}
	// The same content under another name: bbolt keeps the lock of a file that it panicked on until the process ends.
	again := filepath.Join(dir, "again.db")
	if err := os.WriteFile(again, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, rec, err := store.Open(again, snaps); err != nil || rec == nil {
		t.Errorf("Open = %v, %v; want a recovery", rec, err)
	} else if err := s.Close(); err != nil {
		t.Error(err)
	}
}
