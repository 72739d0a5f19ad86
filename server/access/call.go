package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/server/store"
)

const (
	endLimit   = 5 * time.Second // for the last commit of a call whose client has gone
	maxChanged = 20              // keys named in an audit record
)

// Call is one request that acts. Begin makes it, its context tells the store
// about it, End closes it.
type Call struct {
	book   *Book
	caller Caller
	rec    api.AuditRecord
	idem   *mark  // nil = no Idempotency-Key
	match  string // If-Match, "" = none
	unlock func()

	mu      sync.Mutex
	changed map[string]*change
	told    bool // the store knows of the call
}

// change is a key's digest before and after the call, "" = the key was absent.
type change struct{ before, after string }

// Request is what Begin must know.
type Request struct {
	Caller  Caller
	ID      string // of the request
	Method  string
	Path    string
	What    string // the route's summary
	Body    []byte
	Key     string // Idempotency-Key, "" = none
	Rerun   bool   // the handler itself recognises a repeated key: run it again when no answer was kept
	Secret  bool   // the answer holds a secret: it is not kept
	IfMatch string
}

// Begin opens a call, or returns the answer that was given to the same request
// before. Every call must be ended. Errors are api.Problems.
func (b *Book) Begin(ctx context.Context, r Request) (*Call, *Answer, error) {
	sum := sha256.Sum256(r.Body)
	c := &Call{book: b, caller: r.Caller, changed: map[string]*change{}, match: r.IfMatch, unlock: func() {}}
	c.rec = api.AuditRecord{Time: b.now().UTC(), Who: r.Caller.Who, From: r.Caller.From, Role: r.Caller.Role.String(), Method: r.Method,
		Path: r.Path, What: r.What, Body: hex.EncodeToString(sum[:]), Request: r.ID}
	if r.Key == "" {
		return c, nil, nil
	}
	c.idem = newMark(r)
	c.unlock = b.lock(c.idem.key)
	old, err := b.answered(ctx, c.idem, r.Rerun)
	return c, old, err
}

// Key is the caller's Idempotency-Key as others may store it: the same word of
// another caller is another key.
func (c *Call) Key() string {
	if c == nil || c.idem == nil {
		return ""
	}
	return c.idem.key
}

type callKey struct{}

// With returns a context whose store transactions belong to the call.
func (c *Call) With(ctx context.Context) context.Context { return context.WithValue(ctx, callKey{}, c) }

func fromContext(ctx context.Context) *Call {
	c, _ := ctx.Value(callKey{}).(*Call)
	return c
}

// From returns the call a context belongs to, nil when none.
func From(ctx context.Context) *Call { return fromContext(ctx) }

// Who names the caller of a context, for texts; els when nobody called.
func Who(ctx context.Context, els string) string {
	if c := fromContext(ctx); c != nil {
		return c.caller.Who
	}
	return els
}

// By ends an event's text with the caller of a context: ", by uid 0 (root)";
// "" when nobody called, and it happened by itself.
func By(ctx context.Context) string {
	if c := fromContext(ctx); c != nil {
		return ", by " + c.caller.Who
	}
	return ""
}

// End writes the audit record and keeps the answer of a success. replayed: the
// answer was kept from before, nothing was done.
func (b *Book) End(ctx context.Context, c *Call, a *Answer, replayed bool) error {
	defer c.unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	r := c.rec
	r.Status = a.Status
	if a.Status >= 400 {
		var p api.Problem
		if json.Unmarshal(a.Body, &p) == nil {
			r.Code, r.Text = p.Code, p.Detail
		}
	} else if replayed {
		r.Text = "the kept answer was given again"
	}
	c.mu.Lock()
	r.Changed, r.Before, r.After = digests(c.changed)
	told := c.told
	c.mu.Unlock()
	return b.store.Update(ctx, func(tx store.Tx) error {
		r := r
		r.Changed = slices.Clone(r.Changed)
		if err := appendAudit(tx, r, b.keep); err != nil {
			return err
		}
		if told {
			if err := tx.Delete(c.openKey()); err != nil {
				return err
			}
		}
		if c.idem == nil || replayed || (a.Status >= 400 && !told) {
			return nil
		}
		if a.Status >= 400 { // an effect, and yet an error: nothing is kept, the request may be tried again
			return tx.Delete(prefixAnswer + c.idem.key)
		}
		return c.idem.keep(tx, a, b.now())
	})
}

// Refused logs a call that was not let in.
func (b *Book) Refused(ctx context.Context, r Request, err error) {
	c, _, _ := b.Begin(ctx, Request{Caller: r.Caller, ID: r.ID, Method: r.Method, Path: r.Path, What: r.What, Body: r.Body}) // without a key there is no error
	a := &Answer{Status: http.StatusForbidden}
	if p := new(api.Problem); asProblem(err, &p) {
		a.Status = p.Status
		a.Body, _ = json.Marshal(p) // a Problem can always be encoded
		if p.Status == http.StatusUnauthorized {
			c.rec.Role = "" // nobody has none
		}
	}
	if err := b.End(ctx, c, a, false); err != nil {
		b.log.Error("refused call not logged", "who", r.Caller.Who, "path", r.Path, "err", err)
	}
}

func (c *Call) openKey() string { return prefixOpen + c.rec.Request }

// tell marks the call in the transaction of its first effect: if the server
// dies now, the next one knows.
func (c *Call) tell(tx store.Tx) error {
	c.mu.Lock()
	told := c.told
	c.mu.Unlock()
	if told {
		return nil
	}
	if err := putJSON(tx, c.openKey(), c.rec); err != nil {
		return err
	}
	if c.idem == nil {
		return nil
	}
	return c.idem.begun(tx, c.book.now())
}

func (c *Call) merge(seen map[string]*change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = true
	for key, ch := range seen {
		if old := c.changed[key]; old != nil {
			old.after = ch.after
		} else {
			c.changed[key] = ch
		}
	}
}

// digests sums up what changed: one line a key, sorted.
func digests(changed map[string]*change) (keys []string, before, after string) {
	keys = slices.Sorted(maps.Keys(changed))
	if len(keys) == 0 {
		return nil, "", ""
	}
	hb, ha := sha256.New(), sha256.New()
	for _, k := range keys {
		_, _ = fmt.Fprintf(hb, "%s %s\n", k, changed[k].before) // a hash takes everything
		_, _ = fmt.Fprintf(ha, "%s %s\n", k, changed[k].after)
	}
	return keys[:min(len(keys), maxChanged)], hex.EncodeToString(hb.Sum(nil)), hex.EncodeToString(ha.Sum(nil))
}

// Store returns the store that records, for whoever acts on behalf of calls.
func (b *Book) Store() store.Store { return recorder{b.store} }

// recorder is a Store whose updates note what a call changes.
type recorder struct{ store.Store }

// Update implements store.Store.
func (s recorder) Update(ctx context.Context, fn func(store.Tx) error) error {
	c := fromContext(ctx)
	if c == nil {
		return s.Store.Update(ctx, fn)
	}
	var seen map[string]*change
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		rt := &recordTx{tx: tx, seen: map[string]*change{}}
		seen = nil
		if err := fn(rt); err != nil {
			return err
		}
		if !rt.wrote {
			return nil
		}
		seen = rt.seen
		return c.tell(tx)
	})
	if err == nil && seen != nil {
		c.merge(seen)
	}
	return err
}

type recordTx struct {
	tx    store.Tx
	wrote bool
	seen  map[string]*change
}

// quiet are buckets that say what happened, not how things are.
var quiet = []string{"events/", "seq/", "idem/"}

func (t *recordTx) note(key string, val []byte) error {
	t.wrote = true
	for _, p := range quiet {
		if strings.HasPrefix(key, p) {
			return nil
		}
	}
	ch := t.seen[key]
	if ch == nil {
		old, err := t.tx.Get(key)
		if err != nil {
			return err
		}
		ch = &change{before: digestOf(old)}
		t.seen[key] = ch
	}
	ch.after = digestOf(val)
	return nil
}

func digestOf(val []byte) string {
	if val == nil {
		return ""
	}
	sum := sha256.Sum256(val)
	return hex.EncodeToString(sum[:])
}

func (t *recordTx) Get(key string) ([]byte, error) { return t.tx.Get(key) }

func (t *recordTx) Put(key string, val []byte) error {
	if val == nil {
		val = []byte{}
	}
	if err := t.note(key, val); err != nil {
		return err
	}
	return t.tx.Put(key, val)
}

func (t *recordTx) Delete(key string) error {
	if err := t.note(key, nil); err != nil {
		return err
	}
	return t.tx.Delete(key)
}

func (t *recordTx) Scan(prefix, from string, n int) iter.Seq2[string, []byte] {
	return t.tx.Scan(prefix, from, n)
}

func (t *recordTx) Seq(name string) (uint64, error) {
	t.wrote = true
	return t.tx.Seq(name)
}
