// Package storetest is the contract of server/store: every backend runs Run.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"labswarm/server/store"
)

// Run checks one backend. open returns a fresh, empty store.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	t.Helper()
	for name, fn := range map[string]func(*testing.T, store.Store){
		"PutGetDelete":  putGetDelete,
		"Rollback":      rollback,
		"Scan":          scan,
		"Seq":           seq,
		"ReadOnly":      readOnly,
		"Limits":        limits,
		"Concurrent":    concurrent,
		"ValuesCopied":  valuesCopied,
		"SnapshotWhole": snapshotWhole,
		"Context":       contextEnded,
		"Meta":          meta,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			fn(t, s)
		})
	}
}

func update(t *testing.T, s store.Store, fn func(store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), fn); err != nil {
		t.Fatalf("Update: %v", err)
	}
}

func get(t *testing.T, s store.Store, key string) string {
	t.Helper()
	var out []byte
	err := s.View(t.Context(), func(tx store.Tx) (err error) {
		out, err = tx.Get(key)
		return err
	})
	if err != nil {
		t.Fatalf("View: %v", err)
	}
	if out == nil {
		return "<none>"
	}
	return string(out)
}

func putGetDelete(t *testing.T, s store.Store) {
	update(t, s, func(tx store.Tx) error {
		return errors.Join(tx.Put("a/1", []byte("x")), tx.Put("a/2", nil), tx.Delete("a/none"))
	})
	if got := get(t, s, "a/1"); got != "x" {
		t.Errorf("Get(a/1) = %q; want x", got)
	}
	if got := get(t, s, "a/2"); got != "" {
		t.Errorf("Get(a/2) = %q; want an empty value that exists", got)
	}
	update(t, s, func(tx store.Tx) error { return tx.Delete("a/1") })
	if got := get(t, s, "a/1"); got != "<none>" {
		t.Errorf("Get(a/1) after Delete = %q; want none", got)
	}
	if s.Changes() == 0 {
		t.Error("Changes() = 0 after two updates")
	}
}

func rollback(t *testing.T, s store.Store) {
	boom := errors.New("boom")
	err := s.Update(t.Context(), func(tx store.Tx) error {
		return errors.Join(tx.Put("k", []byte("v")), boom)
	})
	if !errors.Is(err, boom) {
		t.Fatalf("Update = %v; want the function's own error", err)
	}
	if got := get(t, s, "k"); got != "<none>" {
		t.Errorf("Get(k) after a failed update = %q; want none", got)
	}
}

func scan(t *testing.T, s store.Store) {
	update(t, s, func(tx store.Tx) error {
		for _, k := range []string{"p/1", "p/2", "p/3", "q/1", "o/9", "p"} {
			if err := tx.Put(k, []byte(k)); err != nil {
				return err
			}
		}
		return nil
	})
	for _, tc := range []struct {
		prefix, from string
		n            int
		want         string
	}{
		{"p/", "", 0, "p/1 p/2 p/3 "},
		{"p/", "p/2", 0, "p/2 p/3 "},
		{"p/", "", 2, "p/1 p/2 "},
		{"p/", "p/25", 1, "p/3 "},
		{"p/", "a", 0, "p/1 p/2 p/3 "},
		{"zz/", "", 0, ""},
		{"p/", "q", 0, ""},
	} {
		var got string
		err := s.View(t.Context(), func(tx store.Tx) error {
			got = ""
			for k, v := range tx.Scan(tc.prefix, tc.from, tc.n) {
				if k != string(v) {
					return fmt.Errorf("key %q has value %q", k, v)
				}
				got += k + " "
			}
			return nil
		})
		if err != nil || got != tc.want {
			t.Errorf("Scan(%q, %q, %d) = %q, %v; want %q", tc.prefix, tc.from, tc.n, got, err, tc.want)
		}
	}
}

func seq(t *testing.T, s store.Store) {
	for want := uint64(1); want <= 3; want++ {
		var got uint64
		update(t, s, func(tx store.Tx) (err error) {
			got, err = tx.Seq("job")
			return err
		})
		if got != want {
			t.Errorf("Seq = %d; want %d", got, want)
		}
	}
	err := s.Update(t.Context(), func(tx store.Tx) error {
		if _, err := tx.Seq("job"); err != nil {
			return err
		}
		return errors.New("rolled back")
	})
	if err == nil {
		t.Fatal("Update swallowed an error")
	}
	var peek uint64
	if err := s.View(t.Context(), func(tx store.Tx) (err error) {
		peek, err = store.PeekSeq(tx, "job")
		return err
	}); err != nil || peek != 3 {
		t.Errorf("PeekSeq = %d, %v; want 3", peek, err)
	}
}

func readOnly(t *testing.T, s store.Store) {
	err := s.View(t.Context(), func(tx store.Tx) error {
		_, seqErr := tx.Seq("x")
		for _, err := range []error{tx.Put("a", nil), tx.Delete("a"), seqErr} {
			if !errors.Is(err, store.ErrReadOnly) {
				return fmt.Errorf("write in View; want ErrReadOnly: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func limits(t *testing.T, s store.Store) {
	big := make([]byte, store.MaxValue+1)
	for name, err := range map[string]error{
		"empty key": s.Update(t.Context(), func(tx store.Tx) error { return tx.Put("", nil) }),
		"big value": s.Update(t.Context(), func(tx store.Tx) error { return tx.Put("k", big) }),
	} {
		if err == nil {
			t.Errorf("%s was stored", name)
		}
	}
	update(t, s, func(tx store.Tx) error { return tx.Put("k", big[:store.MaxValue]) })
}

func concurrent(t *testing.T, s store.Store) {
	const workers, rounds = 8, 25
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[uint64]bool{}
	for range workers {
		wg.Go(func() {
			for range rounds {
				var n uint64
				err := s.Update(t.Context(), func(tx store.Tx) (err error) {
					n, err = tx.Seq("fence")
					return err
				})
				mu.Lock()
				if err != nil || seen[n] {
					t.Errorf("Seq gave %d twice, or failed: %v", n, err)
				}
				seen[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != workers*rounds {
		t.Errorf("%d different fences; want %d", len(seen), workers*rounds)
	}
}

func valuesCopied(t *testing.T, s store.Store) {
	val := []byte("abc")
	var out []byte
	update(t, s, func(tx store.Tx) error { return tx.Put("k", val) })
	val[0] = 'X'
	if err := s.View(t.Context(), func(tx store.Tx) (err error) {
		out, err = tx.Get("k")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	out[1] = 'X'
	if got := get(t, s, "k"); got != "abc" {
		t.Errorf("stored value changed to %q through a caller's slice", got)
	}
}

func snapshotWhole(t *testing.T, s store.Store) {
	update(t, s, func(tx store.Tx) error { return tx.Put("k", []byte("needle-in-snapshot")) })
	var buf bytes.Buffer
	if err := s.Snapshot(t.Context(), &buf); err != nil {
		t.Fatal(err)
	}
	if buf.Len() == 0 {
		t.Error("the snapshot is empty")
	}
}

func contextEnded(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ran := false
	fn := func(store.Tx) error { ran = true; return nil }
	if err := errors.Join(s.View(ctx, fn), s.Update(ctx, fn)); !errors.Is(err, context.Canceled) || ran {
		t.Errorf("ended context: error %v, function ran %v; want Canceled and false", err, ran)
	}
}

func meta(t *testing.T, s store.Store) {
	if got := get(t, s, store.KeyEpoch); len(got) != 32 {
		t.Errorf("fence epoch %q; want 32 hex digits", got)
	}
	if got := get(t, s, store.KeySchema); got != fmt.Sprint(store.SchemaVersion) {
		t.Errorf("schema %q; want %d", got, store.SchemaVersion)
	}
}
