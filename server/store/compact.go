package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

const (
	compactFrom = 1 << 20 // bytes: smaller files are left as they are
	compactTx   = 1 << 20 // bytes written per transaction while copying
)

// errMoved says that the file that was opened is not the one at its path any
// more: somebody compacted it while we waited for its lock.
var errMoved = errors.New("the file was replaced while it was opened")

// openAt opens the database and makes sure that it is the file at path.
func openAt(path string) (*bolt.DB, error) {
	for range 3 {
		var file *os.File
		db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				f, err := os.OpenFile(name, flag, mode)
				file = f
				return f, err
			}})
		if err != nil {
			return nil, err
		}
		have, err := file.Stat()
		if err != nil {
			return nil, errors.Join(err, db.Close())
		}
		if now, err := os.Stat(path); err == nil && os.SameFile(have, now) {
			return db, nil
		}
		if err := db.Close(); err != nil {
			return nil, err
		}
	}
	return nil, errMoved
}

// compact copies a database of which more than half is free into a new file,
// puts that in its place and opens it. Otherwise, and when there is no space for
// a copy, db stays as it is.
func compact(db *bolt.DB) (*bolt.DB, error) {
	path := db.Path()
	st, err := os.Stat(path)
	if err != nil {
		return db, fmt.Errorf("look at the state: %w", err)
	}
	free, err := freeBytes(db)
	if err != nil || st.Size() < compactFrom || free <= st.Size()/2 {
		return db, err
	}
	copied := path + ".compact" // of a crashed try: written anew
	if made := compactTo(copied, db) == nil; !made {
		_ = os.Remove(copied) // a state that takes more space than it needs is no reason not to start
		return db, nil
	}
	if err := os.Rename(copied, path); err != nil {
		return db, fmt.Errorf("put the compacted state in place: %w", err)
	}
	if err := errors.Join(syncDir(filepath.Dir(path)), db.Close()); err != nil {
		return nil, fmt.Errorf("put the compacted state in place: %w", err)
	}
	return openFile(path)
}

func compactTo(copied string, db *bolt.DB) error {
	if err := os.Remove(copied); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	to, err := bolt.Open(copied, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	return errors.Join(bolt.Compact(to, db, compactTx), to.Sync(), to.Close())
}

// freeBytes is what the database's file holds and does not use.
func freeBytes(db *bolt.DB) (free int64, err error) {
	err = db.View(func(tx *bolt.Tx) error {
		used := int64(0)
		err := tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
			s := b.Stats()
			used += int64(s.BranchAlloc + s.LeafAlloc)
			return nil
		})
		st, serr := os.Stat(db.Path())
		if serr == nil {
			free = st.Size() - used
		}
		return errors.Join(err, serr)
	})
	return free, err
}
