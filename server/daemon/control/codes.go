package control

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"labswarm/api"
	"labswarm/server/inventory"
	"labswarm/server/job"
	"labswarm/server/store"
)

// Codes that PCs showed are kept by themselves: a slot forgets its failure with
// the next attempt, and somebody may still call.
const (
	prefixCodes = "readouts/"
	maxCodes    = 2000 // the oldest go
)

// keptCode is what is stored of a failure.
type keptCode struct {
	api.ReadOut
	Log string `json:"log_name"` // file in StateDir/logs, if one came
}

// logName is the file of an agent's last lines.
func logName(id uint64, host string, attempt int) string {
	return fmt.Sprintf("job-%d-%s-%d.log", id, host, attempt)
}

// keepCode remembers a failure by the code on its screen. The failure itself is
// committed: a code that cannot be kept is logged.
func (e *Engine) keepCode(ctx context.Context, j *job.Job, s *job.Slot, r *api.Result) {
	if s.ReadOut == "" || s.State != api.StateFailed {
		return
	}
	k := keptCode{ReadOut: api.ReadOut{Code: s.ReadOut, Time: s.Since.UTC(), Host: s.Host, Room: s.Room, Job: j.ID, Image: j.Image + "/" + j.Version,
		Attempt: s.Hard, PONR: s.PONR, Error: s.Error, Fault: r.Fault, Disk: s.Disk}, Log: logName(j.ID, s.Host, s.Hard)}
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		if err := putJSON(tx, prefixCodes+k.Code, k); err != nil {
			return err
		}
		return trimCodes(tx)
	})
	if err != nil {
		e.cfg.Log.Error("code of a failure not kept", "code", k.Code, "host", s.Host, "err", err)
	}
}

// trimCodes forgets the oldest ones beyond the limit.
func trimCodes(tx store.Tx) error {
	type aged struct {
		key string
		at  time.Time
	}
	var all []aged
	for key, raw := range tx.Scan(prefixCodes, "", 0) {
		var k keptCode
		if err := json.Unmarshal(raw, &k); err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
		all = append(all, aged{key, k.Time})
	}
	slices.SortFunc(all, func(a, b aged) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.key, b.key)) })
	for len(all) > maxCodes {
		if err := tx.Delete(all[0].key); err != nil {
			return err
		}
		all = all[1:]
	}
	return nil
}

// Code finds the failure that a PC's screen shows by this code.
func (e *Engine) Code(ctx context.Context, text string) (api.ReadOut, error) {
	code, ok := api.CheckReadOut(text)
	if !ok {
		return api.ReadOut{}, badRequest(api.CodeUsage, "%.20q is no code of a PC's screen: it has two letters and four characters, like DW-4K7P, without 0 O 1 I L 5 S 8 B; two letters alone mean that the PC did not reach the server", text)
	}
	var k keptCode
	found := false
	err := e.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		found, err = getJSON(tx, prefixCodes+code, &k)
		return err
	})
	switch {
	case err != nil:
		return api.ReadOut{}, err
	case !found:
		return api.ReadOut{}, notFound("no PC has reported the code %s; read it again from the screen. A PC that could not reach the server afterwards is not known here", code)
	}
	out := k.ReadOut
	if path := filepath.Join(e.cfg.StateDir, "logs", k.Log); k.Log != "" {
		if _, err := os.Stat(path); err == nil {
			out.Log = path
		}
	}
	return out, nil
}

// onScreen is what the screen of a PC needs to know of its place.
func (e *Engine) onScreen(ctx context.Context, rep api.EnrolReply, room, seat string) api.EnrolReply {
	rep.Seat = seat
	err := e.cfg.Store.View(ctx, func(tx store.Tx) error {
		r, err := inventory.Room(tx, room)
		rep.Language = r.Language
		return err
	})
	if err != nil { // a screen in English is no reason to refuse a PC
		e.cfg.Log.Debug("language of a room", "room", room, "err", err)
	}
	return rep
}
