package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"labswarm/api"
	"labswarm/server/store"
)

const (
	prefixAnswer = "answers/"    // + key -> kept
	prefixPart   = "answerpart/" // + key/n -> bytes of the body
	prefixAge    = "answerage/"  // + unix seconds/key, to find the old ones
	answerLife   = 24 * time.Hour
	answerPart   = 48 << 10 // bytes a value
	maxParts     = 80       // longer answers are not kept
	pruneAnswers = 3        // old ones dropped with each new one
	// MaxKey is the longest Idempotency-Key, in characters.
	MaxKey = 128
)

// Answer is an HTTP answer that can be given again.
type Answer struct {
	Status   int
	Type     string // Content-Type
	Location string
	ETag     string
	Body     []byte
}

// mark is a request's place among the kept answers.
type mark struct {
	key    string // hex, of caller and Idempotency-Key
	digest string // hex, of method, path and body
	secret bool
}

// kept is the record of a mark. Status 0: the effect is in the store, and the
// answer is not.
type kept struct {
	Digest   string    `json:"digest"`
	At       time.Time `json:"at"`
	Status   int       `json:"status"`
	Type     string    `json:"type,omitempty"`
	Location string    `json:"location,omitempty"`
	ETag     string    `json:"etag,omitempty"`
	Parts    int       `json:"parts,omitempty"`
	Gone     string    `json:"gone,omitempty"` // why there is no body
}

func newMark(r Request) *mark {
	key := sha256.Sum256([]byte(r.Caller.Who + "\x00" + r.Key))
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s %s %d\n", r.Method, r.Path, len(r.Body)) // a hash takes everything
	_, _ = h.Write(r.Body)
	return &mark{key: hex.EncodeToString(key[:]), digest: hex.EncodeToString(h.Sum(nil)), secret: r.Secret}
}

// answered returns the kept answer of a mark, nil when the request is new.
func (b *Book) answered(ctx context.Context, m *mark, rerun bool) (*Answer, error) {
	var k kept
	var body []byte
	found := false
	err := b.store.View(ctx, func(tx store.Tx) (err error) {
		if found, err = getJSON(tx, prefixAnswer+m.key, &k); err != nil || !found {
			return err
		}
		body = []byte{}
		for i := range k.Parts {
			part, err := tx.Get(partKey(m.key, i))
			if err != nil {
				return err
			}
			body = append(body, part...)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case !found || b.now().Sub(k.At) > answerLife:
		return nil, nil
	case k.Digest != m.digest:
		return nil, &api.Problem{Status: http.StatusUnprocessableEntity, Title: "cannot be done as asked", Code: api.CodeIdempotency,
			Detail: "the Idempotency-Key was used for another request at " + k.At.Format(time.RFC3339) + ": nothing was done; use a new key"}
	case k.Status == 0 && rerun:
		return nil, nil
	case k.Status == 0 || k.Gone != "":
		why := k.Gone
		if why == "" {
			why = "the server ended before it"
		}
		return nil, &api.Problem{Status: http.StatusConflict, Title: "conflict", Code: api.CodeAnswerLost,
			Detail: fmt.Sprintf("this request was carried out at %s and is not done again; its answer is not kept: %s. Look at the result before you ask with a new Idempotency-Key", k.At.Format(time.RFC3339), why)}
	}
	return &Answer{Status: k.Status, Type: k.Type, Location: k.Location, ETag: k.ETag, Body: body}, nil
}

func partKey(key string, i int) string { return fmt.Sprintf("%s%s/%03d", prefixPart, key, i) }

// begun stores that the effect is there, in the effect's transaction.
func (m *mark) begun(tx store.Tx, now time.Time) error {
	if err := pruneOld(tx, now); err != nil {
		return err
	}
	if err := tx.Put(fmt.Sprintf("%s%016x/%s", prefixAge, now.Unix(), m.key), []byte("1")); err != nil {
		return err
	}
	return putJSON(tx, prefixAnswer+m.key, kept{Digest: m.digest, At: now.UTC()})
}

// keep stores the answer.
func (m *mark) keep(tx store.Tx, a *Answer, now time.Time) error {
	k := kept{Digest: m.digest, At: now.UTC(), Status: a.Status, Type: a.Type, Location: a.Location, ETag: a.ETag}
	body := a.Body
	switch {
	case m.secret:
		k.Gone, body = "it holds a secret, which is shown once", nil
	case len(body) > maxParts*answerPart:
		k.Gone, body = "it is too long", nil
	}
	var old kept
	found, err := getJSON(tx, prefixAnswer+m.key, &old)
	if err != nil {
		return err
	}
	if !found { // no effect in the store
		if err := m.begun(tx, now); err != nil {
			return err
		}
	}
	for ; len(body) > 0; k.Parts++ {
		n := min(len(body), answerPart)
		if err := tx.Put(partKey(m.key, k.Parts), body[:n]); err != nil {
			return err
		}
		body = body[n:]
	}
	return putJSON(tx, prefixAnswer+m.key, k)
}

// pruneOld drops answers that are older than their life.
func pruneOld(tx store.Tx, now time.Time) error {
	var ages []string
	end := fmt.Sprintf("%s%016x", prefixAge, now.Add(-answerLife).Unix())
	for key := range tx.Scan(prefixAge, "", pruneAnswers) {
		if key < end {
			ages = append(ages, key)
		}
	}
	for _, age := range ages {
		key := age[len(prefixAge)+17:]
		var k kept
		found, err := getJSON(tx, prefixAnswer+key, &k)
		if err != nil {
			return err
		}
		if found && now.Sub(k.At) > answerLife { // the key may have come again since
			for i := range k.Parts {
				if err := tx.Delete(partKey(key, i)); err != nil {
					return err
				}
			}
			if err := tx.Delete(prefixAnswer + key); err != nil {
				return err
			}
		}
		if err := tx.Delete(age); err != nil {
			return err
		}
	}
	return nil
}

func asProblem(err error, p **api.Problem) bool { return errors.As(err, p) }
