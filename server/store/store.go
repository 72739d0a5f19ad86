// Package store keeps the server's state: rooms, hosts, jobs, slots, events.
// It knows keys and values and durability, never their meaning. The interface
// is narrow on purpose: bbolt (Open) is the embedded default, NewMem serves
// fast tests, and another backend can follow. Every backend passes storetest.
// Called by server/daemon only.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
)

// MaxValue is the largest value a backend must accept, in bytes.
const MaxValue = 64 << 10

// Keys that every backend writes when a store is created.
const (
	KeySchema = "meta/schema"      // decimal schema version
	KeyEpoch  = "meta/fence_epoch" // 32 hex digits, random; new after each restore, so that fences never repeat
)

// SchemaVersion is the layout this build reads and writes.
const SchemaVersion = 1

// Store is durable, transactional state.
type Store interface {
	// View runs fn on a consistent snapshot. fn must not write. No network
	// write may happen inside: a long reader stops the reuse of pages.
	View(ctx context.Context, fn func(Tx) error) error
	// Update runs fn in a transaction that is durable when Update returns nil.
	// When fn returns an error nothing is stored. fn may run more than once,
	// so it must have no side effects besides tx and its own results.
	Update(ctx context.Context, fn func(Tx) error) error
	// Snapshot writes a consistent copy that Restore-style opening accepts.
	Snapshot(ctx context.Context, w io.Writer) error
	// Changes counts the committed updates since the store was opened.
	Changes() uint64
	// Close releases the store. No call may follow.
	Close() error
}

// Tx reads and writes flat keys of the form bucket/a/b.
type Tx interface {
	// Get returns a copy of the value, nil when the key does not exist.
	Get(key string) ([]byte, error)
	// Put stores a value of at most MaxValue bytes under a non-empty key.
	Put(key string, val []byte) error
	// Delete removes a key; a missing key is not an error.
	Delete(key string) error
	// Scan yields at most n pairs (n <= 0: all) in key order whose key has the
	// prefix and is >= from ("" = from the start). The values are copies. The
	// loop body must not write keys of the same prefix.
	Scan(prefix, from string, n int) iter.Seq2[string, []byte]
	// Seq increments the named counter and returns its new value, 1 at first.
	Seq(name string) (uint64, error)
}

var (
	// ErrReadOnly says that a View tried to write.
	ErrReadOnly = errors.New("write inside a read transaction")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("the store is closed")
)

// LockedError says that another process holds the store.
type LockedError struct {
	Path   string
	Holder string // "labswarm (pid 4711)", "" = not known
}

// Error names the file, the holder and the cure.
func (e *LockedError) Error() string {
	who := e.Holder
	if who == "" {
		who = "another process"
	}
	return fmt.Sprintf("open state %s: %s holds it: stop that server first, or use another --state-dir", e.Path, who)
}

// SchemaError says that the store was written by a newer labswarm.
type SchemaError struct {
	Path        string
	Found, Want int
}

// Error names both versions and the cure.
func (e *SchemaError) Error() string {
	return fmt.Sprintf("open state %s: it has schema %d, this labswarm knows up to %d: install the newer labswarm again, or put back a copy from the folder snapshots", e.Path, e.Found, e.Want)
}

// DamagedError says that the store cannot be read and no snapshot can replace it.
type DamagedError struct {
	Path string
	Err  error
}

// Error names the file and the cure.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("open state %s: it is damaged and there is no good snapshot beside it: restore it from a backup, or move it away to start empty (rooms and hosts must then be entered again): %v", e.Path, e.Err)
}

// Unwrap returns what the database said.
func (e *DamagedError) Unwrap() error { return e.Err }

// SeqKey is the key under which the counter name is stored, for reading it
// without raising it.
func SeqKey(name string) string { return "seq/" + name }

// PeekSeq returns the last value Seq gave out, 0 when none.
func PeekSeq(tx Tx, name string) (uint64, error) {
	raw, err := tx.Get(SeqKey(name))
	if err != nil || raw == nil {
		return 0, err
	}
	n, err := strconv.ParseUint(string(raw), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read counter %s: %w", name, err)
	}
	return n, nil
}

// nextSeq is Seq for backends.
func nextSeq(tx Tx, name string) (uint64, error) {
	n, err := PeekSeq(tx, name)
	if err != nil {
		return 0, err
	}
	n++
	return n, tx.Put(SeqKey(name), strconv.AppendUint(nil, n, 10))
}

func checkPut(key string, val []byte) error {
	if key == "" {
		return errors.New("store a value: the key is empty")
	}
	if len(val) > MaxValue {
		return fmt.Errorf("store %s: %d bytes, at most %d", key, len(val), MaxValue)
	}
	return nil
}
