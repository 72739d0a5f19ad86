package access

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labswarm/api"
	"labswarm/server/store"
)

func open(t testing.TB, s store.Store) *Book {
	t.Helper()
	b, err := Open(t.Context(), s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var boss = Caller{Who: "uid 0 (root)", From: "socket, pid 1", Role: api.RoleAdmin, Socket: true}

// do is one call that puts a value, as the guard of server/httpapi runs it.
func do(t testing.TB, b *Book, key, body string, effect func(ctx context.Context) *Answer) (*Answer, bool, error) {
	t.Helper()
	c, old, err := b.Begin(t.Context(), Request{Caller: boss, ID: key + body, Method: "POST", Path: "/v1/x", Body: []byte(body), Key: key})
	a := old
	switch {
	case err != nil:
		raw, _ := json.Marshal(err)
		a = &Answer{Status: 422, Body: raw}
	case old == nil:
		a = effect(c.With(t.Context()))
	}
	if err := b.End(t.Context(), c, a, old != nil); err != nil {
		t.Fatal(err)
	}
	return a, old != nil, err
}

func put(t testing.TB, b *Book, key, val string) func(context.Context) *Answer {
	return func(ctx context.Context) *Answer {
		if err := b.Store().Update(ctx, func(tx store.Tx) error { return tx.Put(key, []byte(val)) }); err != nil {
			t.Error(err)
		}
		return &Answer{Status: 201, Type: "application/json", Location: "/v1/x/1", Body: []byte(`"` + val + `"`)}
	}
}

func page(t testing.TB, b *Book) api.AuditPage {
	t.Helper()
	p, err := b.Audit(t.Context(), 0, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func code(err error) string {
	var p *api.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

func TestAnswersAreKept(t *testing.T) {
	s := store.NewMem()
	b := open(t, s)
	effects := 0
	count := func(fn func(context.Context) *Answer) func(context.Context) *Answer {
		return func(ctx context.Context) *Answer { effects++; return fn(ctx) }
	}
	long := strings.Repeat("x", 3*answerPart+7)
	first, _, err := do(t, b, "k", "body", count(put(t, b, "hosts/a1", long[:store.MaxValue/2])))
	if err != nil {
		t.Fatal(err)
	}
	again, replayed, err := do(t, b, "k", "body", count(put(t, b, "hosts/a1", "other")))
	if err != nil || !replayed || effects != 1 || string(again.Body) != string(first.Body) || again.Status != 201 || again.Location != first.Location || again.Type != first.Type {
		t.Errorf("second answer: replayed %v, %d effects, %d %s, %v; want the first one again", replayed, effects, again.Status, again.Type, err)
	}
	if _, _, err := do(t, b, "k", "other body", count(put(t, b, "hosts/a1", "other"))); code(err) != api.CodeIdempotency || effects != 1 {
		t.Errorf("same key, other body = %v; want %s", err, api.CodeIdempotency)
	}
	// A long answer comes back whole; one without an effect in the store, too.
	whole := func(context.Context) *Answer { return &Answer{Status: 200, Body: []byte(long)} }
	if _, _, err := do(t, b, "long", "", whole); err != nil {
		t.Fatal(err)
	}
	if a, replayed, err := do(t, b, "long", "", whole); err != nil || !replayed || string(a.Body) != long {
		t.Errorf("long answer: replayed %v, %d bytes, %v", replayed, len(a.Body), err)
	}
	// A refusal is not kept: the next try is judged anew.
	no := count(func(context.Context) *Answer { return &Answer{Status: 409} })
	for range 2 {
		if _, replayed, _ := do(t, b, "no", "", no); replayed {
			t.Error("a refusal was kept")
		}
	}
	if effects != 3 {
		t.Errorf("%d effects; want 3", effects)
	}
	// After a day the key is new, and its remains are gone in the end.
	b.now = func() time.Time { return time.Now().Add(answerLife + time.Hour) }
	for _, key := range []string{"k", "a", "b", "c"} {
		if _, replayed, err := do(t, b, key, "body", count(put(t, b, "hosts/a1", "new"))); err != nil || replayed {
			t.Errorf("%s after a day: replayed %v, %v", key, replayed, err)
		}
	}
	kept := 0
	_ = s.View(t.Context(), func(tx store.Tx) error {
		for _, p := range []string{prefixAnswer, prefixPart, prefixAge} {
			for range tx.Scan(p, "", 0) {
				kept++
			}
		}
		return nil
	})
	if kept != 4*3 { // an answer, its part and its age of each of the four
		t.Errorf("%d keys of answers are left; want 12", kept)
	}
}

func TestEqualPostsAtOnceHaveOneEffect(t *testing.T) {
	b := open(t, store.NewMem())
	var mu sync.Mutex
	effects, replays := 0, 0
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, replayed, err := do(t, b, "k", "body", func(ctx context.Context) *Answer {
				mu.Lock()
				effects++
				mu.Unlock()
				return put(t, b, "jobs/1", "x")(ctx)
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if replayed {
				replays++
			}
		})
	}
	wg.Wait()
	if effects != 1 || replays != 19 {
		t.Errorf("%d effects, %d kept answers; want 1 and 19", effects, replays)
	}
	if len(b.busy) != 0 {
		t.Errorf("%d keys are still locked", len(b.busy))
	}
}

// TestServerEndsBeforeTheAnswer: the effect and its mark are one transaction,
// so the next server neither does it again nor forgets who did it.
func TestServerEndsBeforeTheAnswer(t *testing.T) {
	s := store.NewMem()
	b := open(t, s)
	r := Request{Caller: boss, ID: "r1", Method: "POST", Path: "/v1/x", Body: []byte("b"), Key: "k"}
	c, _, err := b.Begin(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, "hosts/a1", "x")(c.With(t.Context()))
	// No End: the power went.
	b = open(t, s)
	if p := page(t, b); len(p.Records) != 1 || p.Records[0].Status != 0 || p.Records[0].Who != boss.Who || p.Records[0].Text == "" {
		t.Errorf("audit log after the crash: %+v", p.Records)
	}
	if _, _, err := b.Begin(t.Context(), r); code(err) != api.CodeAnswerLost {
		t.Errorf("the same request = %v; want %s", err, api.CodeAnswerLost)
	}
	b = open(t, s)
	if len(page(t, b).Records) != 1 {
		t.Error("the interrupted call was closed twice")
	}
	r.Rerun = true // a handler that knows its own keys
	if _, old, err := b.Begin(t.Context(), r); err != nil || old != nil {
		t.Errorf("the same request to a handler that recognises it = %v, %v; want it to run", old, err)
	}
}

func TestSecretIsNotKept(t *testing.T) {
	s := store.NewMem()
	b := open(t, s)
	r := Request{Caller: boss, ID: "r1", Method: "POST", Path: "/v1/tokens", Key: "k", Secret: true}
	c, _, err := b.Begin(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	made, err := b.AddToken(c.With(t.Context()), &api.TokenAdd{Name: "n", Role: "viewer"})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.End(t.Context(), c, &Answer{Status: 201, Body: []byte(made.Secret)}, false); err != nil {
		t.Fatal(err)
	}
	if made.By != boss.Who {
		t.Errorf("made by %q; want %q", made.By, boss.Who)
	}
	_ = s.View(t.Context(), func(tx store.Tx) error {
		for key, val := range tx.Scan("", "", 0) {
			if strings.Contains(key+string(val), made.Secret) || strings.Contains(key+string(val), made.Secret[4:]) {
				t.Errorf("the secret is in the store under %s", key)
			}
		}
		return nil
	})
	if _, _, err := b.Begin(t.Context(), r); code(err) != api.CodeAnswerLost {
		t.Errorf("asked again = %v; want %s", err, api.CodeAnswerLost)
	}
}

func TestAuditSaysWhatChanged(t *testing.T) {
	b := open(t, store.NewMem())
	effect := func(ctx context.Context) *Answer {
		for _, v := range []string{"1", "2"} {
			if err := b.Store().Update(ctx, func(tx store.Tx) error {
				if _, err := tx.Seq("event"); err != nil {
					return err
				}
				return errors.Join(tx.Put("hosts/a1", []byte(v)), tx.Delete("hosts/gone"), tx.Put("events/1", []byte("x")))
			}); err != nil {
				t.Error(err)
			}
		}
		return &Answer{Status: 200}
	}
	for i := range 3 {
		if _, _, err := do(t, b, string(rune('a'+i)), "", effect); err != nil {
			t.Fatal(err)
		}
	}
	p := page(t, b)
	r := p.Records
	if len(r) != 3 || !slices.Equal(r[0].Changed, []string{"hosts/a1", "hosts/gone"}) {
		t.Fatalf("records: %+v", r)
	}
	if r[0].Before == r[0].After || r[1].Before != r[0].After || r[1].Before != r[1].After || r[2].Before != r[1].After {
		t.Errorf("digests before and after do not follow each other: %+v", r)
	}
	if end, err := api.CheckAudit(p.Base, r); err != nil || end != p.Head {
		t.Errorf("chain ends at %v, %v; want %v", end, err, p.Head)
	}
}

func TestAuditRing(t *testing.T) {
	b := open(t, store.NewMem())
	b.keep = 10
	for range 35 {
		b.Refused(t.Context(), Request{Caller: Caller{Who: "nobody \xff"}, Method: "POST", Path: "/v1/\xffx" + strings.Repeat("y", 300)}, Refuse("no \xff"))
	}
	p := page(t, b)
	if len(p.Records) != 10 || p.Base.Seq != 25 || p.Head.Seq != 35 || p.Records[0].Status != 403 || p.Records[0].Code != api.CodeNotAllowed {
		t.Fatalf("%d records after %d, the newest %d: %+v", len(p.Records), p.Base.Seq, p.Head.Seq, p.Records[0])
	}
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back api.AuditPage
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if end, err := api.CheckAudit(back.Base, back.Records); err != nil || end != back.Head {
		t.Errorf("exported chain ends at %v, %v; want %v", end, err, back.Head)
	}
}

// TestChainHasTeeth: whatever is changed, taken out or exchanged is found.
func TestChainHasTeeth(t *testing.T) {
	b := open(t, store.NewMem())
	for i := range 12 {
		if _, _, err := do(t, b, string(rune('a'+i)), "", put(t, b, "k", string(rune('a'+i)))); err != nil {
			t.Fatal(err)
		}
	}
	p := page(t, b)
	rapid.Check(t, func(rt *rapid.T) {
		r := slices.Clone(p.Records)
		i := rapid.IntRange(0, len(r)-1).Draw(rt, "record")
		switch rapid.SampledFrom([]string{"who", "status", "after", "time", "hash", "drop", "swap", "rehash"}).Draw(rt, "how") {
		case "who":
			r[i].Who = "somebody else"
		case "status":
			r[i].Status++
		case "after":
			r[i].After = strings.Repeat("0", 64)
		case "time":
			r[i].Time = r[i].Time.Add(time.Second)
		case "hash":
			r[i].Hash = strings.Repeat("0", 64)
		case "drop":
			r = slices.Delete(r, i, i+1)
		case "swap":
			j := (i + 1) % len(r)
			r[i], r[j] = r[j], r[i]
		case "rehash": // with the hash made right, the next record tells, or the head
			r[i].Who = "somebody else"
			r[i].Hash = r[i].Digest()
		}
		if end, err := api.CheckAudit(p.Base, r); err == nil && end == p.Head {
			rt.Fatal("the change was not found")
		}
	})
	if end, err := api.CheckAudit(p.Base, p.Records); err != nil || end != p.Head {
		t.Errorf("the chain itself: %v, %v", end, err)
	}
}
