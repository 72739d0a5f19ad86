package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"labswarm/api"
	"labswarm/server/access"
	"labswarm/server/event"
	"labswarm/server/inventory"
	"labswarm/server/store"
)

// An import may need more keys than one transaction should write. So it is
// written down first, in chunks that nothing reads; then one key, the marker,
// makes it valid; then the chunks are carried out one by one, each in a
// transaction that also says so in the marker. A crash before the marker leaves
// nothing but chunks, which the next start throws away; after it, the next
// start goes on where the marker stands. Nobody sees half an import.
const (
	prefixImport = "import/"
	keyMarker    = "importing"
	hostsAtOnce  = 12 // at most 8 keys each: record, MAC, UUID, seat, and the old ones
)

// chunk is a part of an import that one transaction carries out.
type chunk struct {
	Rooms   []api.Room `json:"rooms,omitempty"`
	Release []string   `json:"release,omitempty"` // hosts whose MAC and seat others may get
	Hosts   []api.Host `json:"hosts,omitempty"`
}

type marker struct {
	Chunks int    `json:"chunks"`
	Next   int    `json:"next"`
	Text   string `json:"text"` // for the event log
}

func keyChunk(i int) string { return fmt.Sprintf("%s%08d", prefixImport, i) }

// Import checks a file and, when asked to and nothing is wrong, saves it.
func (e *Engine) Import(ctx context.Context, req api.ImportRequest) (api.ImportResult, error) {
	e.edits.Lock()
	defer e.edits.Unlock()
	var im inventory.Import
	err := e.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		im, err = inventory.PlanImport(tx, req, e.cfg.Self, func(old api.Host, mac string) (string, error) {
			err := e.notLive(tx, old.Name, mac)
			var p *api.Problem
			if errors.As(err, &p) {
				return p.Detail, nil
			}
			return "", err
		})
		return err
	})
	if err != nil {
		return api.ImportResult{}, problem(err)
	}
	for _, h := range im.Hosts {
		if err := e.nameTaken(h.Name); err != nil {
			im.Result.Errors = append(im.Result.Errors, api.ImportIssue{Line: 1, Column: 1, Field: "name", Text: err.Error()})
		}
	}
	if !req.Save || len(im.Result.Errors) > 0 {
		return im.Result, nil
	}
	if len(im.Rooms)+len(im.Hosts) > 0 {
		if err := e.writeImport(ctx, im); err != nil {
			return api.ImportResult{}, problem(err)
		}
		err = e.finishImport(ctx)
	}
	e.bell.Ring()
	im.Result.Saved = err == nil
	return im.Result, problem(err)
}

// writeImport stores the chunks and then the marker.
func (e *Engine) writeImport(ctx context.Context, im inventory.Import) error {
	var chunks []chunk
	for _, r := range im.Rooms {
		chunks = append(chunks, chunk{Rooms: []api.Room{r}})
	}
	var release, put []chunk
	for i := 0; i < len(im.Hosts); i += hostsAtOnce {
		var c, f chunk
		for _, h := range im.Hosts[i:min(i+hostsAtOnce, len(im.Hosts))] {
			// What the PC itself showed stays with its record.
			h.Evidence, h.KnownDisks, h.PendingMACs, h.NotUnique = nil, nil, nil, nil
			c.Hosts, f.Release = append(c.Hosts, h), append(f.Release, h.Name)
		}
		release, put = append(release, f), append(put, c)
	}
	chunks = append(append(chunks, release...), put...)
	if err := e.dropImport(ctx); err != nil {
		return err
	}
	for i, c := range chunks {
		if err := e.cfg.Store.Update(ctx, func(tx store.Tx) error { return putJSON(tx, keyChunk(i), c) }); err != nil {
			return err
		}
	}
	m := marker{Chunks: len(chunks), Text: fmt.Sprintf("import: %d rooms, %d hosts (%d new, %d changed)", len(im.Rooms), len(im.Hosts), len(im.Result.Added), len(im.Result.Changed)) + access.By(ctx)}
	return e.cfg.Store.Update(ctx, func(tx store.Tx) error { return putJSON(tx, keyMarker, m) })
}

// dropImport throws away chunks that no marker made valid.
func (e *Engine) dropImport(ctx context.Context) error {
	for {
		n := 0
		err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
			n = 0
			var keys []string
			for key := range tx.Scan(prefixImport, "", 100) {
				keys = append(keys, key)
			}
			for _, key := range keys {
				if err := tx.Delete(key); err != nil {
					return err
				}
			}
			n = len(keys)
			return nil
		})
		if err != nil || n < 100 {
			return err
		}
	}
}

// resumeImport ends what a crash interrupted.
func (e *Engine) resumeImport(ctx context.Context) error {
	if err := e.finishImport(ctx); err != nil {
		return err
	}
	left := false
	err := e.cfg.Store.View(ctx, func(tx store.Tx) error {
		for range tx.Scan(prefixImport, "", 1) {
			left = true
		}
		return nil
	})
	if err != nil || !left {
		return err
	}
	return e.dropImport(ctx)
}

// finishImport carries out the chunks that are left, each once.
func (e *Engine) finishImport(ctx context.Context) error {
	for more := true; more; {
		err := e.cfg.Store.Update(ctx, func(tx store.Tx) (err error) {
			more, err = e.importStep(tx, time.Now())
			return err
		})
		if err != nil {
			return fmt.Errorf("save the import (what is left of it follows at the next start of the server): %w", err)
		}
	}
	return nil
}

func (e *Engine) importStep(tx store.Tx, now time.Time) (more bool, err error) {
	var m marker
	ok, err := getJSON(tx, keyMarker, &m)
	if err != nil || !ok {
		return false, err
	}
	if m.Next >= m.Chunks {
		if err := tx.Delete(keyMarker); err != nil {
			return false, err
		}
		_, err = event.Append(tx, api.Event{Time: now.UTC(), Level: "info", Code: "inventory_imported", Text: m.Text})
		return false, err
	}
	var c chunk
	if _, err := getJSON(tx, keyChunk(m.Next), &c); err != nil {
		return false, err
	}
	if err := e.importChunk(tx, c, now); err != nil {
		return false, err
	}
	if err := tx.Delete(keyChunk(m.Next)); err != nil {
		return false, err
	}
	m.Next++
	return true, putJSON(tx, keyMarker, m)
}

// importChunk was checked before; a record that does not fit any more, because
// a PC showed its UUID meanwhile, is left out and named.
func (e *Engine) importChunk(tx store.Tx, c chunk, now time.Time) error {
	if err := inventory.Release(tx, c.Release); err != nil {
		return err
	}
	save := func(what string, err error) error {
		var inv *inventory.InvalidError
		var con *inventory.ConflictError
		if !errors.As(err, &inv) && !errors.As(err, &con) {
			return err
		}
		_, err = event.Append(tx, api.Event{Time: now.UTC(), Level: "error", Code: "import_left_out", Text: "import: " + what + " was not saved: " + err.Error()})
		return err
	}
	for _, r := range c.Rooms {
		if _, err := inventory.PutRoom(tx, r); err != nil {
			if err := save("room "+r.Name, err); err != nil {
				return err
			}
		}
	}
	for _, h := range c.Hosts {
		if _, err := inventory.Put(tx, h, e.cfg.Self, now); err != nil {
			if err := save("host "+h.Name, err); err != nil {
				return err
			}
		}
	}
	return nil
}
