package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Mem is a Store in RAM for tests: the same contract, no durability.
type Mem struct {
	mu      sync.RWMutex
	kv      map[string][]byte
	changes uint64
	closed  bool
}

// NewMem returns an empty store with a fresh fence epoch.
func NewMem() *Mem {
	return &Mem{kv: map[string][]byte{
		KeySchema: []byte(strconv.Itoa(SchemaVersion)),
		KeyEpoch:  []byte(newEpoch()),
	}}
}

// View implements Store.
func (m *Mem) View(ctx context.Context, fn func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return ErrClosed
	}
	return fn(&memTx{kv: m.kv})
}

// Update implements Store.
func (m *Mem) Update(ctx context.Context, fn func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	work := maps.Clone(m.kv)
	if err := fn(&memTx{kv: work, write: true}); err != nil {
		return err
	}
	m.kv = work
	m.changes++
	return nil
}

// Snapshot implements Store; the format is private to Mem.
func (m *Mem) Snapshot(ctx context.Context, w io.Writer) error {
	return m.View(ctx, func(Tx) error {
		if err := json.NewEncoder(w).Encode(m.kv); err != nil {
			return fmt.Errorf("write snapshot: %w", err)
		}
		return nil
	})
}

// Changes implements Store.
func (m *Mem) Changes() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.changes
}

// Close implements Store.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

type memTx struct {
	kv    map[string][]byte
	write bool
}

func (t *memTx) Get(key string) ([]byte, error) { return bytes.Clone(t.kv[key]), nil }

func (t *memTx) Put(key string, val []byte) error {
	if !t.write {
		return ErrReadOnly
	}
	if err := checkPut(key, val); err != nil {
		return err
	}
	t.kv[key] = append([]byte{}, val...)
	return nil
}

func (t *memTx) Delete(key string) error {
	if !t.write {
		return ErrReadOnly
	}
	delete(t.kv, key)
	return nil
}

func (t *memTx) Scan(prefix, from string, n int) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		var keys []string
		for k := range t.kv {
			if strings.HasPrefix(k, prefix) && k >= from {
				keys = append(keys, k)
			}
		}
		slices.Sort(keys)
		count := 0
		for _, k := range keys {
			if (n > 0 && count == n) || !yield(k, bytes.Clone(t.kv[k])) {
				return
			}
			count++
		}
	}
}

func (t *memTx) Seq(name string) (uint64, error) {
	if !t.write {
		return 0, ErrReadOnly
	}
	return nextSeq(t, name)
}
