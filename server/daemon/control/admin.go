package control

import (
	"context"
	"time"

	"labswarm/api"
	"labswarm/server/event"
	"labswarm/server/inventory"
	"labswarm/server/store"
)

// Hosts lists the inventory.
func (e *Engine) Hosts(ctx context.Context) (out []api.Host, err error) {
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		out, err = inventory.List(tx)
		return err
	})
	return out, problem(err)
}

// Host returns one host.
func (e *Engine) Host(ctx context.Context, name string) (h api.Host, err error) {
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		h, err = inventory.Get(tx, name)
		return err
	})
	return h, problem(err)
}

// PutHost adds or changes a host.
func (e *Engine) PutHost(ctx context.Context, h api.Host) (out api.Host, err error) {
	err = e.edit(ctx, func(tx store.Tx, now time.Time) (api.Event, error) {
		if err := unchanged(ctx, tx, h.Name); err != nil {
			return api.Event{}, err
		}
		if err := e.notLive(tx, h.Name, h.MAC); err != nil {
			return api.Event{}, err
		}
		out, err = inventory.Put(tx, h, e.cfg.Self, now)
		return api.Event{Code: "host_saved", Host: out.Name, Room: out.Room, Text: "host saved: " + out.MAC + " " + out.UUID}, err
	})
	return out, err
}

// notLive refuses to change which machine a host is, or to remove it, while a
// job may write its disk. mac "" = removal.
func (e *Engine) notLive(tx store.Tx, name, mac string) error {
	j, s, err := hostSlot(tx, name)
	if err != nil || s == nil || !s.Live() {
		return err
	}
	old, err := inventory.Get(tx, name)
	if err != nil {
		return err
	}
	if want, err := inventory.Normalise(api.Host{Name: old.Name, Room: old.Room, MAC: mac}); err == nil && want.MAC == old.MAC {
		return nil
	}
	return conflict(api.CodeHostBusy, "host %s is %s in job %d: cancel the job first", name, s.State, j.ID)
}

// RemoveHost deletes a host.
func (e *Engine) RemoveHost(ctx context.Context, name string) error {
	return e.edit(ctx, func(tx store.Tx, _ time.Time) (api.Event, error) {
		if err := unchanged(ctx, tx, name); err != nil {
			return api.Event{}, err
		}
		if err := e.notLive(tx, name, ""); err != nil {
			return api.Event{}, err
		}
		if err := inventory.Remove(tx, name); err != nil {
			return api.Event{}, err
		}
		return api.Event{Code: "host_removed", Host: name, Text: "host removed"}, tx.Delete(keyHostJob(name))
	})
}

// Rooms lists the rooms with their hosts.
func (e *Engine) Rooms(ctx context.Context) (out []api.Room, err error) {
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		out, err = inventory.Rooms(tx)
		return err
	})
	return out, problem(err)
}

// ImageList lists the usable image versions.
func (e *Engine) ImageList(context.Context) ([]api.Image, error) { return e.cfg.Images.List() }

// EventsSince returns at most limit events after a number, oldest first.
func (e *Engine) EventsSince(ctx context.Context, after uint64, limit int) (out []api.Event, err error) {
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		out, err = event.Since(tx, after, limit)
		return err
	})
	return out, err
}

// LastEvent returns the newest event number.
func (e *Engine) LastEvent(ctx context.Context) (n uint64, err error) {
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		n, err = event.Last(tx)
		return err
	})
	return n, err
}

// Counts returns hosts and live jobs, for GET /v1/server.
func (e *Engine) Counts(ctx context.Context) (hosts, liveJobs int, err error) {
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		hosts, liveJobs = 0, 0
		for range tx.Scan("hosts/", "", 0) {
			hosts++
		}
		for range tx.Scan(prefixLive, "", 0) {
			liveJobs++
		}
		return nil
	})
	return hosts, liveJobs, err
}
