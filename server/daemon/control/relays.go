package control

import (
	"context"
	"errors"

	"labswarm/api"
	"labswarm/server/inventory"
	"labswarm/server/store"
)

// LiveImages lists the image versions of live jobs, each once.
func (e *Engine) LiveImages(ctx context.Context) ([]api.Image, error) {
	jobs, err := e.liveJobs(ctx)
	if err != nil {
		return nil, err
	}
	var out []api.Image
	seen := map[string]bool{}
	for _, js := range jobs {
		if !js.job.IsCapture() && !seen[js.job.InfoHash] {
			seen[js.job.InfoHash] = true
			out = append(out, api.Image{Name: js.job.Image, Version: js.job.Version, InfoHash: js.job.InfoHash})
		}
	}
	return out, nil
}

// HasHost reports whether a host has this name, in any case.
func (e *Engine) HasHost(ctx context.Context, name string) (bool, error) {
	err := e.cfg.Store.View(ctx, func(tx store.Tx) error {
		_, err := inventory.Get(tx, name)
		return err
	})
	var unknown *inventory.NotFoundError
	if errors.As(err, &unknown) {
		return false, nil
	}
	return err == nil, err
}

// Note stores an event that another part of the server wants known.
func (e *Engine) Note(ctx context.Context, ev api.Event) { e.emit(ctx, ev) }
