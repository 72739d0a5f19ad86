package cli

import (
	"context"
	"fmt"

	"labswarm/api"
	"labswarm/images/library"
)

// tellDamage puts a version into quarantine because a check has found damaged cells; it is still at work. The state file
// is held for moments only: a server may start, and be asked, while the check goes on.
func (e *env) tellDamage(ctx context.Context, lib *library.Library, name, version, digest string, r library.Result) error {
	return e.tellCheck(ctx, lib, api.ImageCheck{Name: name, Version: version, Digest: digest, Begun: true, Quarantine: r.Quarantine(), Bad: badCells(r)})
}

// tellOutcome ends what tellDamage began: the quarantine stays or is lifted.
func (e *env) tellOutcome(ctx context.Context, lib *library.Library, name, version, digest string, s library.Scrubbed) error {
	c := api.ImageCheck{Name: name, Version: version, Digest: digest, Outcome: s.Text(), Bad: badCells(s.Result)}
	if !s.Result.OK() {
		c.Quarantine = s.Text()
	}
	return e.tellCheck(ctx, lib, c)
}

func (e *env) tellCheck(ctx context.Context, lib *library.Library, c api.ImageCheck) error {
	return e.withKeeper(ctx, lib, true, func(k keeper) error { return k.CheckedImage(ctx, c) })
}

// quarantine is tellDamage for a version that was opened for reading.
func (e *env) quarantine(ctx context.Context, v *library.Version, digest string, r library.Result) error {
	lib, err := e.browse()
	if err == nil {
		err = e.tellDamage(ctx, lib, v.Name(), v.Version(), digest, r)
	}
	if err != nil {
		return fmt.Errorf("%w; and it could not be put into quarantine: %w", r.Bad[0], err)
	}
	return nil
}

// outcome is tellOutcome for a version that was opened for reading.
func (e *env) outcome(ctx context.Context, v *library.Version, digest string, s library.Scrubbed) error {
	lib, err := e.browse()
	if err != nil {
		return err
	}
	return e.tellOutcome(ctx, lib, v.Name(), v.Version(), digest, s)
}

// maxBadCells is how many damaged cells are told by number.
const maxBadCells = 10_000

func badCells(r library.Result) []int64 {
	var out []int64
	for _, b := range r.Bad[:min(len(r.Bad), maxBadCells)] {
		out = append(out, b.Cell)
	}
	return out
}

// fetchCells has the server fetch damaged cells back from relays and PCs that hold them. It asks again while some come:
// one answer takes half a minute at most.
func (e *env) fetchCells(lib *library.Library, digest string) library.Fetch {
	return func(ctx context.Context, v *library.Version, pieces []int) (got library.Fetched) {
		req := api.ImageHeal{Name: v.Name(), Version: v.Version(), Digest: digest}
		for _, p := range pieces[:min(len(pieces), maxBadCells)] {
			req.Cells = append(req.Cells, v.Manifest().CellOf(p))
		}
		e.hint("labswarm: image %s/%s: %d cells are damaged in both forms: the server asks who holds them", v.Name(), v.Version(), len(pieces))
		for len(req.Cells) > 0 {
			var h api.ImageHealed
			err := e.withKeeper(ctx, lib, true, func(k keeper) (err error) { h, err = k.HealImage(ctx, req); return err })
			if err != nil {
				got.Note = err.Error()
				return got
			}
			got = got.And(library.Fetched{Cells: h.Fetched, From: h.From, Note: h.Note})
			if len(h.Left) >= len(req.Cells) {
				break
			}
			req.Cells = h.Left
		}
		return got
	}
}
