// Package event is the server's log of what happened: numbered events in the
// store, written in the transaction of their effect, and a bell that wakes
// readers. A reader that was away asks for what it missed by number; nothing
// is kept for slow readers. Called by server/daemon and read by server/httpapi.
package event

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/server/store"
)

const (
	prefix = "events/"
	seq    = "event"
	// Keep is how many events the log holds before the oldest go.
	Keep = 1_000_000
	// KeepFor is how long it holds one.
	KeepFor = 400 * 24 * time.Hour
	atOnce  = 1000 // deleted in one transaction
)

func key(n uint64) string { return fmt.Sprintf("%s%016x", prefix, n) }

// Append stores an event under the next number, inside the caller's
// transaction, and returns it with that number.
func Append(tx store.Tx, e api.Event) (api.Event, error) {
	n, err := tx.Seq(seq)
	if err != nil {
		return e, err
	}
	e.Seq = n
	raw, err := json.Marshal(e)
	if err != nil {
		return e, fmt.Errorf("encode event: %w", err)
	}
	return e, tx.Put(key(n), raw)
}

// Since returns at most limit events with a number above after, oldest first.
func Since(tx store.Tx, after uint64, limit int) ([]api.Event, error) {
	var out []api.Event
	for k, raw := range tx.Scan(prefix, key(after+1), limit) {
		var e api.Event
		if err := json.Unmarshal(raw, &e); err != nil {
			return nil, fmt.Errorf("read %s: %w", k, err)
		}
		out = append(out, e)
	}
	return out, nil
}

// Last returns the newest number, 0 when there is none.
func Last(tx store.Tx) (uint64, error) { return store.PeekSeq(tx, seq) }

// Old lists the keys of the oldest events, at most n, that are above the limit or
// older than before.
func Old(tx store.Tx, keep uint64, before time.Time, n int) ([]string, error) {
	last, err := Last(tx)
	if err != nil {
		return nil, err
	}
	var old []string
	for k, raw := range tx.Scan(prefix, "", n) {
		num, err := strconv.ParseUint(strings.TrimPrefix(k, prefix), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", k, err)
		}
		var e api.Event
		if num+keep > last { // not too many: too old?
			if err := json.Unmarshal(raw, &e); err != nil {
				return nil, fmt.Errorf("read %s: %w", k, err)
			}
			if !e.Time.Before(before) {
				break
			}
		}
		old = append(old, k)
	}
	return old, nil
}

// Prune deletes up to 1000 of the oldest events above the limit or older than
// before, and reports how many.
func Prune(tx store.Tx, keep uint64, before time.Time) (int, error) {
	old, err := Old(tx, keep, before, atOnce)
	if err != nil {
		return 0, err
	}
	for _, k := range old {
		if err := tx.Delete(k); err != nil {
			return 0, err
		}
	}
	return len(old), nil
}

// Bell wakes readers when something new was committed. Its zero value is
// ready. It never blocks the ringer: a reader that has not taken its last
// wake-up gets no second one, and finds everything when it looks.
type Bell struct {
	mu   sync.Mutex
	subs map[chan struct{}]bool
}

// Ring wakes every subscriber.
func (b *Bell) Ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ch := range b.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// Subscribe returns a channel that receives after each Ring, and its end.
func (b *Bell) Subscribe() (wake <-chan struct{}, cancel func()) {
	ch := make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subs == nil {
		b.subs = map[chan struct{}]bool{}
	}
	b.subs[ch] = true
	return ch, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.subs, ch)
	}
}
