// Package versions keeps what the store knows of image versions: pins, quarantine, the last check, and the mark of one
// that is being removed. It stores records through a store.Tx it is given and reads no image. Called by
// server/daemon/keeper, which writes them, and server/daemon/control, which asks before a job.
package versions

import (
	"encoding/json"
	"fmt"
	"time"

	"labswarm/server/store"
)

const prefix = "imagever/"

// Record is what is known of one version. A record of other content under the same number does not count: see Of.
type Record struct {
	Name       string    `json:"name"`
	Version    string    `json:"version"`
	Digest     string    `json:"digest"` // hex SHA-256 of manifest.json
	Pinned     bool      `json:"pinned,omitempty"`
	Removing   bool      `json:"removing,omitempty"`
	Quarantine string    `json:"quarantine,omitempty"` // why no new job may use it
	Checked    time.Time `json:"checked,omitzero"`     // end of the last scrub
	Outcome    string    `json:"outcome,omitempty"`    // of that, for people
	Begun      time.Time `json:"begun,omitzero"`       // a check has found damage then and is still at work, zero = none is
	Bad        []int64   `json:"bad,omitempty"`        // cells known to be damaged, when in quarantine
	Healing    string    `json:"healing,omitempty"`    // who was asked for them last and what came of it, for people
}

func key(name, version string) string { return prefix + name + "/" + version }

// Get returns the record of a version; an empty one, with its names, when there is none.
func Get(tx store.Tx, name, version string) (Record, error) {
	r := Record{Name: name, Version: version}
	raw, err := tx.Get(key(name, version))
	if err != nil || raw == nil {
		return r, err
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", key(name, version), err)
	}
	return r, nil
}

// Of is Get for the content with the given digest: a version that was removed and imported anew has no record yet.
func Of(tx store.Tx, name, version, digest string) (Record, error) {
	r, err := Get(tx, name, version)
	if err != nil || r.Digest == digest || r.Digest == "" {
		r.Digest = digest
		return r, err
	}
	return Record{Name: name, Version: version, Digest: digest}, nil
}

// Put stores a record.
func Put(tx store.Tx, r Record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key(r.Name, r.Version), err)
	}
	return tx.Put(key(r.Name, r.Version), raw)
}

// Delete forgets a version.
func Delete(tx store.Tx, name, version string) error { return tx.Delete(key(name, version)) }

// List returns all records.
func List(tx store.Tx) ([]Record, error) {
	var out []Record
	for k, raw := range tx.Scan(prefix, "", 0) {
		var r Record
		if err := json.Unmarshal(raw, &r); err != nil {
			return nil, fmt.Errorf("read %s: %w", k, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// Refusal says why no new job may use a version; "" when it may.
func (r Record) Refusal() string {
	switch {
	case r.Removing:
		return "it is being removed"
	case r.Quarantine != "":
		return "it is in quarantine: " + r.Quarantine
	}
	return ""
}
