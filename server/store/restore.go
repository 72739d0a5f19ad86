package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// keyRestored holds the Recovery until the jobs are held that it concerns: a crash between must not forget it.
const keyRestored = "meta/restored"

// Restore puts a snapshot in the place of the state file at path, under a new fence epoch. The next Open tells so (Recovery), and the
// caller holds the live jobs. The present file is kept beside it. No server may run: *LockedError.
func Restore(path, snapshot string, now time.Time) (*Recovery, error) {
	probe, err := openFile(snapshot)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", snapshot, err)
	}
	if err := probe.Close(); err != nil {
		return nil, fmt.Errorf("restore %s: %w", snapshot, err)
	}
	r := &Recovery{Snapshot: snapshot, Cause: "an administrator put a copy in its place"}
	unlock, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := os.Lstat(path); err == nil {
		r.Damaged = path + ".before-" + now.UTC().Format("20060102T150405")
		if err := os.Rename(path, r.Damaged); err != nil {
			return nil, fmt.Errorf("put the present state aside: %w", err)
		}
	}
	if err := copyFile(snapshot, path); err != nil {
		return nil, err
	}
	db, err := openFile(path)
	if err != nil {
		return nil, err
	}
	s := &Bolt{db: db, path: path}
	return r, errors.Join(s.prepare(true), s.note(r), db.Close())
}

// lockFile takes the database's lock without reading it: it may be damaged. A missing file needs none.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written to it
		return nil, &LockedError{Path: path, Holder: lockHolder(path)}
	}
	return func() { _ = f.Close() }, nil // as above; it ends the lock
}

// note stores a Recovery until Settled.
func (s *Bolt) note(r *Recovery) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("note the restore: %w", err)
	}
	return s.db.Update(func(tx *bolt.Tx) error { return (&boltTx{b: tx.Bucket(bucket), write: true}).Put(keyRestored, raw) })
}

// noted reads what note stored, nil = nothing.
func (s *Bolt) noted() (*Recovery, error) {
	var r *Recovery
	err := s.db.View(func(tx *bolt.Tx) error {
		raw, err := (&boltTx{b: tx.Bucket(bucket)}).Get(keyRestored)
		if err != nil || raw == nil {
			return err
		}
		r = &Recovery{}
		return json.Unmarshal(raw, r)
	})
	if err != nil {
		return nil, fmt.Errorf("read the note of a restore: %w", err)
	}
	return r, nil
}

// Settled forgets the Recovery that Open told: the jobs it concerns are held.
func (s *Bolt) Settled(ctx context.Context) error {
	return s.Update(ctx, func(tx Tx) error { return tx.Delete(keyRestored) })
}
