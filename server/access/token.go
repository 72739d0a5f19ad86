package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/server/store"
)

const (
	prefixToken = "tokens/" // + hex SHA-256 of the secret -> api.Token
	tokenMark   = "lsw_"
	maxTokens   = 1000
	maxText     = 64 // characters of a name
	useEvery    = time.Minute
	maxLife     = 10 * 366 * 24 * time.Hour
)

// errRevoked ends the requests of a token that was removed.
var errRevoked = errors.New("the token was revoked")

func hashToken(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func invalid(format string, a ...any) error {
	return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "cannot be done as asked", Code: api.CodeUsage, Detail: fmt.Sprintf(format, a...)}
}

func checkToken(req *api.TokenAdd) error {
	role, ok := api.ParseRole(req.Role)
	switch {
	case req.Name == "" || len(req.Name) > maxText || strings.ContainsFunc(req.Name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return invalid("make a token: give it a name of 1 to %d printable characters, for example who will hold it", maxText)
	case !ok:
		return invalid("make a token: role %q: use viewer, operator or admin", req.Role)
	case len(req.Rooms) > 0 && role != api.RoleOperator:
		return invalid("make a token: rooms limit operators only; a viewer sees everything, an admin may do everything")
	case len(req.Rooms) > 200 || slices.ContainsFunc(req.Rooms, func(r string) bool { return r == "" || len(r) > maxText }):
		return invalid("make a token: at most 200 rooms, each with a name")
	case req.ExpiresS < 0 || req.ExpiresS > int64(maxLife/time.Second):
		return invalid("make a token: it expires in %d s: use 0 (never) to ten years", req.ExpiresS)
	}
	return nil
}

// AddToken makes a token; its secret is in the answer only.
func (b *Book) AddToken(ctx context.Context, req *api.TokenAdd) (api.TokenMade, error) {
	if err := checkToken(req); err != nil {
		return api.TokenMade{}, err
	}
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails: crypto/rand ends the program instead
	made := api.TokenMade{Secret: tokenMark + base64.RawURLEncoding.EncodeToString(raw[:])}
	by := "the server"
	if c := fromContext(ctx); c != nil {
		by = c.caller.Who
	}
	err := b.Store().Update(ctx, func(tx store.Tx) error {
		n := 0
		for range tx.Scan(prefixToken, "", 0) {
			n++
		}
		if n >= maxTokens {
			return invalid("make a token: there are %d already, remove some", n)
		}
		id, err := tx.Seq("token")
		if err != nil {
			return err
		}
		made.Token = api.Token{ID: fmt.Sprintf("t%d", id), Name: req.Name, Role: req.Role, Rooms: req.Rooms, Created: b.now().UTC(), By: by}
		if req.ExpiresS > 0 {
			made.Expires = made.Created.Add(time.Duration(req.ExpiresS) * time.Second)
		}
		return putJSON(tx, prefixToken+hashToken(made.Secret), made.Token)
	})
	return made, err
}

// Tokens lists the tokens, oldest first.
func (b *Book) Tokens(ctx context.Context) ([]api.Token, error) {
	out := []api.Token{}
	err := b.store.View(ctx, func(tx store.Tx) error {
		out = out[:0]
		return eachToken(tx, func(_ string, t api.Token) { out = append(out, t) })
	})
	slices.SortFunc(out, func(a, b api.Token) int { return a.Created.Compare(b.Created) })
	return out, err
}

func eachToken(tx store.Tx, fn func(hash string, t api.Token)) error {
	for key, raw := range tx.Scan(prefixToken, "", 0) {
		var t api.Token
		if err := json.Unmarshal(raw, &t); err != nil {
			return fmt.Errorf("read %.20s: %w", key, err)
		}
		fn(strings.TrimPrefix(key, prefixToken), t)
	}
	return nil
}

// RemoveToken revokes a token and ends the requests that it has open.
func (b *Book) RemoveToken(ctx context.Context, id string) error {
	hash := ""
	err := b.Store().Update(ctx, func(tx store.Tx) error {
		hash = ""
		if err := eachToken(tx, func(h string, t api.Token) {
			if t.ID == id {
				hash = h
			}
		}); err != nil {
			return err
		}
		if hash == "" {
			return &api.Problem{Status: http.StatusNotFound, Title: "not known", Code: api.CodeNotFound, Detail: fmt.Sprintf("remove token %q: there is none of that id; `labswarm token ls` shows what there is", id)}
		}
		return tx.Delete(prefixToken + hash)
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.used, hash)
	for cut := range b.open[hash] {
		(*cut)(errRevoked)
	}
	return nil
}

func unknownToken(format string, a ...any) error {
	return &api.Problem{Status: http.StatusUnauthorized, Title: "not known", Code: api.CodeBadToken, Detail: fmt.Sprintf(format, a...)}
}

// Bearer finds the caller of an Authorization header.
func (b *Book) Bearer(ctx context.Context, header, from string) (Caller, error) {
	nobody := Caller{Who: "nobody", From: from}
	secret, ok := strings.CutPrefix(header, "Bearer ")
	if !ok || !strings.HasPrefix(secret, tokenMark) || len(secret) > 128 {
		return nobody, unknownToken("no token was shown: send `Authorization: Bearer lsw_...`; `labswarm token add` on the server makes one")
	}
	hash := hashToken(secret)
	var t api.Token
	found := false
	err := b.store.View(ctx, func(tx store.Tx) (err error) {
		found, err = getJSON(tx, prefixToken+hash, &t)
		return err
	})
	switch {
	case err != nil:
		return nobody, err
	case !found:
		return nobody, unknownToken("this token is not known here: it was revoked, or it belongs to another server")
	case !t.Expires.IsZero() && !b.now().Before(t.Expires):
		return nobody, unknownToken("token %s (%s) ended at %s: ask for a new one", t.ID, t.Name, t.Expires.Format(time.RFC3339))
	}
	role, ok := api.ParseRole(t.Role)
	if !ok {
		return nobody, unknownToken("token %s has the unknown role %q", t.ID, t.Role)
	}
	b.noteUse(ctx, hash)
	return Caller{Who: fmt.Sprintf("token %s (%s)", t.ID, t.Name), From: from, Role: role, Rooms: t.Rooms, token: hash}, nil
}

// noteUse keeps a token's last use, once a minute at most. It is for people:
// when the store refuses it, the request goes on.
func (b *Book) noteUse(ctx context.Context, hash string) {
	now := b.now().UTC().Truncate(useEvery)
	b.mu.Lock()
	seen := b.used[hash]
	b.used[hash] = now
	b.mu.Unlock()
	if seen.Equal(now) {
		return
	}
	err := b.store.Update(ctx, func(tx store.Tx) error {
		var t api.Token
		ok, err := getJSON(tx, prefixToken+hash, &t)
		if err != nil || !ok {
			return err
		}
		t.Used = now
		return putJSON(tx, prefixToken+hash, t)
	})
	if err != nil {
		b.log.Warn("token's last use not kept", "err", err)
	}
}

// Hold returns a context that ends when the caller's token is revoked or
// expires. The caller was found a moment ago; a revocation in between is seen.
func (b *Book) Hold(ctx context.Context, c Caller) (context.Context, context.CancelFunc, error) {
	if c.token == "" {
		ctx, cancel := context.WithCancel(ctx)
		return ctx, cancel, nil
	}
	ctx, cut := context.WithCancelCause(ctx)
	b.mu.Lock()
	if b.open[c.token] == nil {
		b.open[c.token] = map[*context.CancelCauseFunc]bool{}
	}
	b.open[c.token][&cut] = true
	b.mu.Unlock()
	var t api.Token
	found := false
	err := b.store.View(ctx, func(tx store.Tx) (err error) {
		found, err = getJSON(tx, prefixToken+c.token, &t)
		return err
	})
	stop := func() bool { return true }
	if err == nil && !t.Expires.IsZero() {
		timer := time.AfterFunc(t.Expires.Sub(b.now()), func() { cut(errRevoked) })
		stop = timer.Stop
	}
	release := func() {
		stop()
		b.mu.Lock()
		delete(b.open[c.token], &cut)
		if len(b.open[c.token]) == 0 {
			delete(b.open, c.token)
		}
		b.mu.Unlock()
		cut(nil)
	}
	if err == nil && !found {
		err = unknownToken("this token was revoked")
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return ctx, release, nil
}
