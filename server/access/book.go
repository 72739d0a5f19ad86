package access

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"labswarm/server/store"
)

// Book holds tokens, the audit log and kept answers. Make it with Open.
type Book struct {
	store store.Store
	log   *slog.Logger
	now   func() time.Time
	keep  uint64 // audit records

	mu   sync.Mutex
	used map[string]time.Time                         // last use kept, by token hash
	open map[string]map[*context.CancelCauseFunc]bool // open requests, by token hash
	busy map[string]*turn                             // requests under way, by idempotency key
}

// turn lets requests of one key go one after the other.
type turn struct {
	mu   sync.Mutex
	wait int
}

// Open reads what the last run left: calls that it did not end are closed in
// the audit log.
func Open(ctx context.Context, s store.Store, log *slog.Logger) (*Book, error) {
	b := &Book{store: s, log: log, now: time.Now, keep: auditKeep,
		used: map[string]time.Time{}, open: map[string]map[*context.CancelCauseFunc]bool{}, busy: map[string]*turn{}}
	if err := b.closeInterrupted(ctx); err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	return b, nil
}

// lock waits for the turn of a key; the returned function ends it.
func (b *Book) lock(key string) (unlock func()) {
	b.mu.Lock()
	t := b.busy[key]
	if t == nil {
		t = &turn{}
		b.busy[key] = t
	}
	t.wait++
	b.mu.Unlock()
	t.mu.Lock()
	return func() {
		t.mu.Unlock()
		b.mu.Lock()
		defer b.mu.Unlock()
		if t.wait--; t.wait == 0 {
			delete(b.busy, key)
		}
	}
}

func getJSON(tx store.Tx, key string, into any) (bool, error) {
	raw, err := tx.Get(key)
	if err != nil || raw == nil {
		return false, err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return false, fmt.Errorf("read %.40s: %w", key, err)
	}
	return true, nil
}

func putJSON(tx store.Tx, key string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %.40s: %w", key, err)
	}
	return tx.Put(key, raw)
}
