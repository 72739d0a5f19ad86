package access

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"labswarm/api"
	"labswarm/server/store"
)

const (
	prefixAudit = "audit/"
	prefixOpen  = "auditopen/" // calls that changed something and were not answered yet
	keyHead     = "auditmeta/head"
	keyBase     = "auditmeta/base"
	// auditKeep is how many records the log holds; a record takes about 700 bytes.
	auditKeep  = 200_000
	auditPrune = 50 // dropped with one new record at most
	maxPath    = 200
	maxDetail  = 400
)

func auditKey(seq uint64) string { return fmt.Sprintf("%s%016x", prefixAudit, seq) }

// appendAudit adds a record to the chain inside a transaction.
func appendAudit(tx store.Tx, r api.AuditRecord, keep uint64) error {
	var head, base api.AuditLink
	if _, err := getJSON(tx, keyHead, &head); err != nil {
		return err
	}
	if _, err := getJSON(tx, keyBase, &base); err != nil {
		return err
	}
	r.Seq, r.Prev = head.Seq+1, head.Hash
	// What a caller chose is bounded, and valid UTF-8: the hash must fit after a round trip through JSON.
	r.Path, r.Text, r.Who = bound(r.Path, maxPath), bound(r.Text, maxDetail), bound(r.Who, maxPath)
	for i := range r.Changed {
		r.Changed[i] = bound(r.Changed[i], maxPath)
	}
	r.Hash = r.Digest()
	if err := putJSON(tx, auditKey(r.Seq), r); err != nil {
		return err
	}
	for i := 0; i < auditPrune && r.Seq-base.Seq > keep; i++ {
		var old api.AuditRecord
		if _, err := getJSON(tx, auditKey(base.Seq+1), &old); err != nil {
			return err
		}
		if err := tx.Delete(auditKey(base.Seq + 1)); err != nil {
			return err
		}
		base = api.AuditLink{Seq: base.Seq + 1, Hash: old.Hash}
		if err := putJSON(tx, keyBase, base); err != nil {
			return err
		}
	}
	return putJSON(tx, keyHead, api.AuditLink{Seq: r.Seq, Hash: r.Hash})
}

func bound(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "~"
	}
	return s
}

// Audit returns at most limit records after a number, oldest first.
func (b *Book) Audit(ctx context.Context, after uint64, limit int) (api.AuditPage, error) {
	var p api.AuditPage
	err := b.store.View(ctx, func(tx store.Tx) error {
		p = api.AuditPage{Records: []api.AuditRecord{}}
		if _, err := getJSON(tx, keyHead, &p.Head); err != nil {
			return err
		}
		if _, err := getJSON(tx, keyBase, &p.Base); err != nil {
			return err
		}
		for key, raw := range tx.Scan(prefixAudit, auditKey(after+1), limit) {
			var r api.AuditRecord
			if err := json.Unmarshal(raw, &r); err != nil {
				return fmt.Errorf("read %s: %w", key, err)
			}
			p.Records = append(p.Records, r)
		}
		return nil
	})
	return p, err
}

// closeInterrupted ends the calls of a server that died between their effect
// and their answer.
func (b *Book) closeInterrupted(ctx context.Context) error {
	return b.store.Update(ctx, func(tx store.Tx) error {
		var keys []string
		var recs []api.AuditRecord
		for key, raw := range tx.Scan(prefixOpen, "", 100) {
			var r api.AuditRecord
			if err := json.Unmarshal(raw, &r); err != nil {
				return fmt.Errorf("read %s: %w", key, err)
			}
			keys, recs = append(keys, key), append(recs, r)
		}
		for i, r := range recs {
			r.Text = "the server ended between the effect and the answer"
			if err := appendAudit(tx, r, b.keep); err != nil {
				return err
			}
			if err := tx.Delete(keys[i]); err != nil {
				return err
			}
		}
		return nil
	})
}
