package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	lockTimeout = time.Second // a second server must not wait for the first
	batchDelay  = 2 * time.Millisecond
	checkLimit  = 256 << 20 // bytes: larger files are not walked at every start
)

var bucket = []byte("kv")

// Bolt is the embedded Store: one bbolt file.
type Bolt struct {
	db      *bolt.DB
	path    string
	changes atomic.Uint64
	ballast ballast
}

// Recovery says what Open had to do to get a readable store. Live jobs must be
// put on HELD by the caller: commits after the snapshot are lost.
type Recovery struct {
	Damaged  string // where the damaged file was put
	Snapshot string // the copy that was taken instead
	Cause    string // what the database said
}

// Open opens or creates the store at path. When the file is damaged, the
// newest good snapshot in snapshotDir takes its place under a new fence epoch
// and Recovery says so, as it does after Restore and until Settled; it is nil otherwise. Errors: *LockedError,
// *SchemaError, *DamagedError.
func Open(path, snapshotDir string) (*Bolt, *Recovery, error) {
	db, err := openFile(path)
	if err == nil {
		if db, err = compact(db); err != nil {
			return nil, nil, err
		}
		s := &Bolt{db: db, path: path}
		if err := s.prepare(false); err != nil {
			return nil, nil, errors.Join(err, db.Close())
		}
		rec, err := s.noted()
		if err != nil {
			return nil, nil, errors.Join(err, db.Close())
		}
		return s, rec, nil
	}
	var locked *LockedError
	if errors.As(err, &locked) || errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	return recoverFrom(path, snapshotDir, err)
}

// OpenSound is Open for a short visit without a server: a damaged file is an error and stays as it is, since only a server
// that starts can hold the jobs whose last steps are lost. Errors: as of Open.
func OpenSound(path string) (*Bolt, error) {
	db, err := openFile(path)
	if err != nil {
		var locked *LockedError
		if errors.As(err, &locked) || errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		return nil, fmt.Errorf("%w; start `labswarm serve`, which repairs it from a snapshot", err)
	}
	s := &Bolt{db: db, path: path}
	if err := s.prepare(false); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// recoverFrom replaces a damaged file by the newest snapshot that reads well.
func recoverFrom(path, snapshotDir string, cause error) (*Bolt, *Recovery, error) {
	for _, snap := range Snapshots(snapshotDir) {
		try, err := openFile(snap)
		if err != nil {
			continue
		}
		if err := try.Close(); err != nil {
			continue
		}
		aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405")
		if err := os.Rename(path, aside); err != nil {
			return nil, nil, fmt.Errorf("put the damaged state aside: %w", err)
		}
		if err := copyFile(snap, path); err != nil {
			return nil, nil, err
		}
		db, err := openFile(path)
		if err != nil {
			return nil, nil, &DamagedError{Path: path, Err: err}
		}
		s := &Bolt{db: db, path: path}
		if err := s.prepare(true); err != nil {
			return nil, nil, errors.Join(err, db.Close())
		}
		rec := &Recovery{Damaged: aside, Snapshot: snap, Cause: cause.Error()}
		if err := s.note(rec); err != nil {
			return nil, nil, errors.Join(err, db.Close())
		}
		return s, rec, nil
	}
	return nil, nil, &DamagedError{Path: path, Err: cause}
}

// openFile opens and walks one file. bbolt panics on some damaged files, so
// both happen inside recover.
func openFile(path string) (db *bolt.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			if db != nil {
				// The lock must go with the descriptor; the error of a
				// damaged file's Close says nothing new.
				_ = db.Close()
			}
			db, err = nil, fmt.Errorf("open database %s: %v", path, p)
		}
	}()
	db, err = openAt(path)
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, &LockedError{Path: path, Holder: lockHolder(path)}
	}
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	db.MaxBatchDelay = batchDelay
	if err := walk(db); err != nil {
		return nil, errors.Join(fmt.Errorf("check database %s: %w", path, err), db.Close())
	}
	return db, nil
}

// walk reads every page once.
func walk(db *bolt.DB) error {
	return db.View(func(tx *bolt.Tx) error {
		if tx.Size() > checkLimit {
			return nil
		}
		var first error
		for err := range tx.Check() { // drained: the checker writes to it until it ends
			if first == nil {
				first = err
			}
		}
		return first
	})
}

// prepare creates or checks the meta keys.
func (s *Bolt) prepare(newFenceEpoch bool) error {
	err := s.db.Update(func(btx *bolt.Tx) error {
		b, err := btx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		tx := &boltTx{b: b, write: true}
		raw, err := tx.Get(KeySchema)
		if err != nil {
			return err
		}
		if raw == nil {
			newFenceEpoch = true
			if err := tx.Put(KeySchema, []byte(strconv.Itoa(SchemaVersion))); err != nil {
				return err
			}
		} else if v, err := strconv.Atoi(string(raw)); err != nil || v > SchemaVersion {
			return &SchemaError{Path: s.path, Found: v, Want: SchemaVersion}
		}
		if newFenceEpoch {
			return tx.Put(KeyEpoch, []byte(newEpoch()))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("prepare state %s: %w", s.path, err)
	}
	return syncDir(filepath.Dir(s.path))
}

// newEpoch returns 128 random bits as hex.
func newEpoch() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b[:])
}

// View implements Store.
func (s *Bolt) View(ctx context.Context, fn func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return closedErr(s.db.View(func(tx *bolt.Tx) error { return fn(&boltTx{b: tx.Bucket(bucket)}) }))
}

// Update implements Store. Concurrent updates share one commit.
func (s *Bolt) Update(ctx context.Context, fn func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	write := func(tx *bolt.Tx) error { return fn(&boltTx{b: tx.Bucket(bucket), write: true}) }
	err := s.db.Batch(write)
	if diskFull(err) && s.dropBallast() {
		err = s.db.Batch(write)
	}
	if err != nil {
		return closedErr(err)
	}
	s.changes.Add(1)
	return nil
}

func closedErr(err error) error {
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}

// Snapshot implements Store.
func (s *Bolt) Snapshot(ctx context.Context, w io.Writer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return closedErr(s.db.View(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(w)
		return err
	}))
}

// Changes implements Store.
func (s *Bolt) Changes() uint64 { return s.changes.Load() }

// Close implements Store.
func (s *Bolt) Close() error { return s.db.Close() }

type boltTx struct {
	b     *bolt.Bucket
	write bool
}

func (t *boltTx) Get(key string) ([]byte, error) {
	if key == "" {
		return nil, nil
	}
	return bytes.Clone(t.b.Get([]byte(key))), nil
}

func (t *boltTx) Put(key string, val []byte) error {
	if !t.write {
		return ErrReadOnly
	}
	if err := checkPut(key, val); err != nil {
		return err
	}
	return t.b.Put([]byte(key), val)
}

func (t *boltTx) Delete(key string) error {
	if !t.write {
		return ErrReadOnly
	}
	if key == "" {
		return nil
	}
	return t.b.Delete([]byte(key))
}

func (t *boltTx) Scan(prefix, from string, n int) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		c := t.b.Cursor()
		count := 0
		for k, v := c.Seek([]byte(max(prefix, from))); k != nil && strings.HasPrefix(string(k), prefix); k, v = c.Next() {
			if (n > 0 && count == n) || !yield(string(k), bytes.Clone(v)) {
				return
			}
			count++
		}
	}
}

func (t *boltTx) Seq(name string) (uint64, error) {
	if !t.write {
		return 0, ErrReadOnly
	}
	return nextSeq(t, name)
}
