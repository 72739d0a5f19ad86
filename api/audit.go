package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// AuditRecord is one call of the admin API that acted or was refused. Each
// holds the hash of the one before, so that none can be changed or taken out
// of the middle unseen.
type AuditRecord struct {
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Who     string    `json:"who"`  // "uid 0 (root)", "token t3 (night watch)", "nobody"
	From    string    `json:"from"` // "socket, pid 4711", "10.0.0.7:51334"
	Role    string    `json:"role,omitempty"`
	Method  string    `json:"method"`
	Path    string    `json:"path"`
	What    string    `json:"what,omitempty"`    // the route, for people
	Body    string    `json:"body,omitempty"`    // hex SHA-256 of the request's body
	Changed []string  `json:"changed,omitempty"` // keys of the store, 20 at most
	Before  string    `json:"before,omitempty"`  // hex SHA-256 over the changed keys and their values, before
	After   string    `json:"after,omitempty"`   // the same, after
	Status  int       `json:"status"`            // of the answer; 0 = the server ended before it
	Code    string    `json:"code,omitempty"`    // of a problem
	Text    string    `json:"text,omitempty"`    // of a problem
	Request string    `json:"request_id,omitempty"`
	Prev    string    `json:"prev"` // Hash of the record before, "" for the first
	Hash    string    `json:"hash"` // Digest
}

// AuditLink names a place in the chain; the zero value is its start.
type AuditLink struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// AuditPage is a piece of the audit log, oldest first.
type AuditPage struct {
	Base    AuditLink     `json:"base"` // the last record that was dropped because the log is full
	Head    AuditLink     `json:"head"` // the newest record
	Records []AuditRecord `json:"records"`
}

// Digest is what Hash must be: hex SHA-256 over the record's JSON without Hash,
// as Go's encoding/json writes it. Prev is part of it.
func (r AuditRecord) Digest() string {
	r.Hash = ""
	raw, err := json.Marshal(r)
	if err != nil { // no type in it can fail
		return ""
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// CheckAudit follows the chain from a link through records, which must come
// next, and returns the link to the last one.
func CheckAudit(from AuditLink, records []AuditRecord) (AuditLink, error) {
	for _, r := range records {
		switch {
		case r.Seq != from.Seq+1:
			return from, fmt.Errorf("audit log: record %d follows record %d: what was between is missing", r.Seq, from.Seq)
		case r.Prev != from.Hash:
			return from, fmt.Errorf("audit log: record %d does not continue record %d: one of them was changed", r.Seq, from.Seq)
		case r.Hash != r.Digest():
			return from, fmt.Errorf("audit log: record %d was changed: its hash does not fit", r.Seq)
		}
		from = AuditLink{Seq: r.Seq, Hash: r.Hash}
	}
	return from, nil
}
