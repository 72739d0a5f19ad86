package control

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"labswarm/api"
	"labswarm/server/inventory"
	"labswarm/server/store"
)

// cutStore is a store that dies after a number of commits.
type cutStore struct {
	store.Store
	left int
	most int // keys written in one transaction, at most
}

var errCut = errors.New("power cut")

func (c *cutStore) Update(ctx context.Context, fn func(store.Tx) error) error {
	if c.left == 0 {
		return errCut
	}
	c.left--
	return c.Store.Update(ctx, func(tx store.Tx) error {
		n := &countTx{Tx: tx}
		err := fn(n)
		c.most = max(c.most, n.n)
		return err
	})
}

type countTx struct {
	store.Tx
	n int
}

func (t *countTx) Put(k string, v []byte) error { t.n++; return t.Tx.Put(k, v) }
func (t *countTx) Delete(k string) error        { t.n++; return t.Tx.Delete(k) }

func importEngine(t *testing.T, s store.Store) *Engine {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(t.Context(), Config{Store: s, Key: key, StateDir: t.TempDir(), SnapshotDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestImportIsWholeAfterACutAtEveryCommit: after a cut and a new start there is
// the old inventory or the new one, never a part; and no transaction writes
// more than 100 keys.
func TestImportIsWholeAfterACutAtEveryCommit(t *testing.T) {
	var old, list strings.Builder
	for i := range 40 {
		fmt.Fprintf(&old, "C1,%02d,h%d,52:54:00:00:0a:%02x\n", i, i, i)
		fmt.Fprintf(&list, "C1,%02d,h%d,52:54:00:00:0a:%02x\n", 39-i, i, (i+1)%40) // everybody moves, and gets the MAC of the next
	}
	const head = "room,seat,name,mac\n"
	whole := 0
	for cut := 0; ; cut++ {
		mem := &cutStore{Store: store.NewMem(), left: -1}
		e := importEngine(t, mem)
		res, err := e.Import(t.Context(), api.ImportRequest{What: "hosts", Format: "csv", Text: head + old.String(), Save: true})
		if err != nil || !res.Saved {
			t.Fatalf("first import: %+v, %v", res, err)
		}
		before := exported(t, mem)
		mem.left = cut
		_, err = e.Import(t.Context(), api.ImportRequest{What: "hosts", Format: "csv", Text: head + list.String(), Save: true})
		mem.left = -1
		importEngine(t, mem) // a new start
		after := exported(t, mem)
		switch {
		case after == before:
			if whole > 0 {
				t.Fatalf("cut %d: the old inventory, though an earlier cut gave the new one", cut)
			}
		case strings.Contains(after, ",39,,,h0,52:54:00:00:0a:01,") && strings.Contains(after, ",00,,,h39,52:54:00:00:0a:00,") && strings.Count(after, "\n") == 41:
			whole++
		default:
			t.Fatalf("cut %d: neither the old nor the new inventory:\n%s", cut, after)
		}
		if mem.most > 100 {
			t.Fatalf("%d keys in one transaction", mem.most)
		}
		err2 := mem.View(t.Context(), func(tx store.Tx) error {
			for key := range tx.Scan(prefixImport, "", 0) {
				t.Errorf("cut %d: %s is left behind", cut, key)
			}
			return nil
		})
		if err2 != nil {
			t.Fatal(err2)
		}
		if err == nil {
			if cut < 8 || whole < 5 {
				t.Errorf("the import ended after %d commits, %d cuts gave the new inventory: the test cuts too little", cut, whole)
			}
			return
		}
	}
}

func exported(t *testing.T, s store.Store) (out string) {
	t.Helper()
	err := s.View(t.Context(), func(tx store.Tx) (err error) {
		out, err = inventory.ExportHosts(tx, "csv")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
