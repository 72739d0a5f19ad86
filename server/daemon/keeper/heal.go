package keeper

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/images/library"
	"labswarm/server/event"
	"labswarm/server/store"
	"labswarm/server/versions"
)

const (
	healLook  = 5 * time.Second  // between two looks for somebody who holds damaged cells
	healAgain = time.Minute      // until the same ones are asked again
	healYield = time.Minute      // in which who has found the damage repairs it alone
	healTime  = 20 * time.Second // of one HealImage: clients wait for 30 s
	cutShort  = time.Hour        // after which a check that has found damage, and says nothing more, counts as cut short
	maxBad    = 10_000           // cells that are kept by number; a scrub finds the others
)

// fetch is cfg.Fetch, one at a time: what came is told to the seed and to people.
func (k *Keeper) fetch(ctx context.Context, v *library.Version, pieces []int) library.Fetched {
	if k.cfg.Fetch == nil {
		return library.Fetched{Note: "no server runs, so nobody could be asked for them"}
	}
	select {
	case k.fetching <- struct{}{}:
	case <-ctx.Done():
		return library.Fetched{Note: "the time was up"}
	}
	defer func() { <-k.fetching }()
	got := k.cfg.Fetch(ctx, v, pieces)
	if got.Cells > 0 {
		// It has to be said also when the one who asked has gone.
		k.report(k.tell(context.WithoutCancel(ctx), api.Event{Level: "info", Code: "image_cells_fetched",
			Text: fmt.Sprintf("image %s/%s: %d damaged cells were fetched back from %s", v.Name(), v.Version(), got.Cells, strings.Join(got.From, ", "))}), v.Name(), v.Version())
	}
	return got
}

// tell stores an event.
func (k *Keeper) tell(ctx context.Context, ev api.Event) error {
	ev.Time = time.Now().UTC()
	err := k.cfg.Store.Update(ctx, func(tx store.Tx) error { _, err := event.Append(tx, ev); return err })
	k.cfg.Ring()
	return err
}

// HealImage makes the named cells right again, as far as they are damaged: from their compressed form, or fetched back from
// a relay or a terminal. It neither sets nor lifts a quarantine: who reads the version as a whole does.
func (k *Keeper) HealImage(ctx context.Context, req api.ImageHeal) (api.ImageHealed, error) {
	digest, err := k.digest(req.Name, req.Version)
	switch {
	case err != nil:
		return api.ImageHealed{}, err
	case digest != req.Digest:
		return api.ImageHealed{}, refuse(http.StatusConflict, api.CodeConflict, "repair cells of %s/%s: another image has taken its place meanwhile", req.Name, req.Version)
	case len(req.Cells) > maxBad:
		return api.ImageHealed{}, refuse(http.StatusUnprocessableEntity, api.CodeUsage, "repair %d cells of %s/%s: at most %d at once", len(req.Cells), req.Name, req.Version, maxBad)
	}
	ctx, cancel := context.WithTimeout(ctx, healTime)
	defer cancel()
	h, err := k.mend(ctx, req.Name, req.Version, req.Cells)
	if err != nil {
		return api.ImageHealed{}, err
	}
	out := api.ImageHealed{Made: h.made, Fetched: h.got.Cells, From: h.got.From, Note: h.got.Note, Left: h.left}
	if out.From == nil {
		out.From = []string{}
	}
	return out, nil
}

// healed is what mend did.
type healed struct {
	made int
	got  library.Fetched
	left []int64 // cells that are still damaged
}

// mend repairs cells of a version.
func (k *Keeper) mend(ctx context.Context, name, version string, cells []int64) (h healed, err error) {
	v, err := k.cfg.Library.Get(name, version)
	if err != nil {
		return h, err
	}
	defer func() {
		if cerr := v.Close(); err == nil {
			err = cerr
		}
	}()
	for _, c := range cells {
		if grid := v.Manifest().GridCells(); c < 0 || c >= grid {
			return h, refuse(http.StatusUnprocessableEntity, api.CodeUsage, "repair cell %d of %s/%s: it has %d", c, name, version, grid)
		}
	}
	bad, err := v.Damaged(cells)
	if err != nil {
		return h, err
	}
	h.left = []int64{}
	if len(bad) > 0 {
		if h.made, h.got, err = k.cfg.Library.MendCells(ctx, v, bad, k.fetch); err != nil && ctx.Err() == nil {
			return h, err
		}
		if bad, err = v.Damaged(cells); err != nil {
			return h, err
		}
	}
	var right []int64
	for _, c := range cells {
		if slices.ContainsFunc(bad, func(b *library.BadCellError) bool { return b.Cell == c }) {
			h.left = append(h.left, c)
		} else {
			right = append(right, c)
		}
	}
	k.restoredOf(v, right)
	return h, nil
}

// restored has the seed serve cells again that it refused.
func (k *Keeper) restored(name, version string, cells []int64) error {
	v, err := k.cfg.Library.Get(name, version)
	if err != nil {
		return err
	}
	k.restoredOf(v, cells)
	return v.Close()
}

func (k *Keeper) restoredOf(v *library.Version, cells []int64) {
	var pieces []int
	for _, c := range cells {
		if p, ok := v.Manifest().PieceOf(c); ok {
			pieces = append(pieces, p)
		}
	}
	k.cfg.Restored(v.InfoHash(), pieces)
}

// damageTold has heals look at once.
func (k *Keeper) damageTold() {
	select {
	case k.hurt <- struct{}{}:
	default:
	}
}

// try is a version that somebody was asked about.
type try struct {
	who string
	at  time.Time
}

// heals looks now and then for somebody who holds what is damaged: also while a job runs, for then its terminals are there.
func (k *Keeper) heals(ctx context.Context) {
	t := time.NewTicker(min(k.cfg.Look, healLook))
	defer t.Stop()
	tried := map[string]try{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-k.hurt:
		}
		var sick []versions.Record
		err := k.cfg.Store.View(ctx, func(tx store.Tx) error {
			all, err := versions.List(tx)
			sick = slices.DeleteFunc(all, func(r versions.Record) bool {
				return r.Quarantine == "" || r.Removing || atWork(r, time.Now()) || len(r.Bad) == 0
			})
			return err
		})
		k.report(err, "", "")
		for _, r := range sick {
			k.report(k.heal(ctx, r, tried), r.Name, r.Version)
		}
	}
}

// heal has the damaged cells of a version repaired when there is somebody new to ask, or nobody was asked yet.
func (k *Keeper) heal(ctx context.Context, r versions.Record, tried map[string]try) error {
	v, err := k.cfg.Library.Get(r.Name, r.Version)
	if err != nil {
		return nil //nolint:nilerr // a version that cannot be opened, or has gone, cannot be healed; `image ls` tells about it
	}
	ih, digest := v.InfoHash(), fmt.Sprintf("%x", v.Digest())
	if err := v.Close(); err != nil || digest != r.Digest {
		return err
	}
	who := fmt.Sprint(k.cfg.Sources(ih), r.Bad)
	last, known := tried[r.Digest]
	if known && last.who == who && (len(k.cfg.Sources(ih)) == 0 || time.Since(last.at) < healAgain) {
		return nil
	}
	h, err := k.mend(ctx, r.Name, r.Version, r.Bad)
	tried[r.Digest] = try{who, time.Now()}
	if err != nil {
		return err
	}
	return k.change(ctx, r.Name, r.Version, func(now *versions.Record) (api.Event, error) {
		if now.Digest != r.Digest || now.Quarantine == "" {
			return api.Event{}, nil // somebody has read it as a whole meanwhile
		}
		now.Bad = slices.DeleteFunc(now.Bad, func(c int64) bool { return slices.Contains(r.Bad, c) && !slices.Contains(h.left, c) })
		now.Healing = h.got.Text()
		if len(now.Bad) == 0 { // every other cell is looked at when no job runs; that ends the quarantine
			now.Checked, now.Healing = time.Time{}, strings.TrimPrefix(now.Healing+"; every cell is read again when no job runs", "; ")
		}
		return api.Event{}, nil
	})
}

// atWork tells whether somebody who has found damage is still repairing it.
func atWork(r versions.Record, now time.Time) bool {
	return !r.Begun.IsZero() && now.Sub(r.Begun) < cutShort
}

// resume has versions read again whose check or repair was cut short by the end of the server.
func (k *Keeper) resume(ctx context.Context) error {
	return k.cfg.Store.Update(ctx, func(tx store.Tx) error {
		all, err := versions.List(tx)
		for _, r := range all {
			if err == nil && !r.Begun.IsZero() {
				r.Begun, r.Checked = time.Time{}, time.Time{}
				err = versions.Put(tx, r)
			}
		}
		return err
	})
}

// cellsOf lists the cells that are damaged, at most maxBad.
func cellsOf(bad []*library.BadCellError) []int64 {
	var out []int64
	for _, b := range bad[:min(len(bad), maxBad)] {
		out = append(out, b.Cell)
	}
	return out
}
