package control

import (
	"context"
	"time"

	"labswarm/api"
	"labswarm/server/access"
	"labswarm/server/event"
	"labswarm/server/inventory"
	"labswarm/server/store"
)

// Room returns one room with its seats and hosts.
func (e *Engine) Room(ctx context.Context, name string) (r api.Room, err error) {
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		r, err = inventory.Room(tx, name)
		return err
	})
	return r, problem(err)
}

// edit is a transaction of an admin with its event, which says who it was. Edits of the inventory run
// one after the other, so that an import of many transactions is one.
func (e *Engine) edit(ctx context.Context, fn func(tx store.Tx, now time.Time) (api.Event, error)) error {
	e.edits.Lock()
	defer e.edits.Unlock()
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		now := time.Now()
		ev, err := fn(tx, now)
		if err != nil || ev.Code == "" {
			return err
		}
		ev.Time = now.UTC()
		ev.Text += access.By(ctx)
		if ev.Level == "" {
			ev.Level = "info"
		}
		_, err = event.Append(tx, ev)
		return err
	})
	if err != nil {
		return problem(err)
	}
	e.bell.Ring()
	return nil
}

// PutRoom adds or changes a room.
func (e *Engine) PutRoom(ctx context.Context, r api.Room) (out api.Room, err error) {
	err = e.edit(ctx, func(tx store.Tx, _ time.Time) (api.Event, error) {
		if out, err = inventory.PutRoom(tx, r); err != nil {
			return api.Event{}, err
		}
		out, err = inventory.Room(tx, out.Name)
		return api.Event{Code: "room_saved", Room: out.Name, Text: "room saved: " + out.Name}, err
	})
	return out, err
}

// RemoveRoom forgets a room without hosts.
func (e *Engine) RemoveRoom(ctx context.Context, name string) error {
	return e.edit(ctx, func(tx store.Tx, _ time.Time) (api.Event, error) {
		return api.Event{Code: "room_removed", Room: name, Text: "room removed: " + name}, inventory.RemoveRoom(tx, name)
	})
}

// MoveHost puts a host on another seat. A job that runs goes on: which machine
// a host is does not change.
func (e *Engine) MoveHost(ctx context.Context, name string, to api.Seat, room string) (out api.Host, err error) {
	err = e.edit(ctx, func(tx store.Tx, _ time.Time) (api.Event, error) {
		out, err = inventory.Move(tx, name, room, to.Label)
		return api.Event{Code: "host_moved", Host: out.Name, Room: out.Room, Text: "host moved to seat " + out.Seat + " of room " + out.Room}, err
	})
	return out, err
}

// AcceptDisks makes the disks that a host showed last its own.
func (e *Engine) AcceptDisks(ctx context.Context, name string) (out api.Host, err error) {
	err = e.edit(ctx, func(tx store.Tx, now time.Time) (api.Event, error) {
		if out, err = inventory.AcceptDisks(tx, name); err != nil {
			return api.Event{}, err
		}
		id, err := inventory.Asked(tx, "new_disk/"+out.Name)
		if err == nil && id != 0 {
			q, qerr := inventory.Question(tx, id)
			if qerr != nil {
				return api.Event{}, qerr
			}
			_, err = inventory.Close(tx, q, api.AnswerAccept, now)
		}
		return api.Event{Code: "disk_accepted", Host: out.Name, Room: out.Room, Text: "the disks of host " + out.Name + " are accepted as last seen"}, err
	})
	return out, err
}

// Export renders the inventory: what is rooms or hosts, format csv or toml.
func (e *Engine) Export(ctx context.Context, what, format string) (out api.Export, err error) {
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		switch {
		case format != "csv" && format != "toml":
			return badRequest(api.CodeUsage, "format %q: use csv or toml", format)
		case what == "hosts":
			out.Text, err = inventory.ExportHosts(tx, format)
		case what == "rooms":
			out.Text, err = inventory.ExportRooms(tx, format)
		default:
			return badRequest(api.CodeUsage, "export of %q: use rooms or hosts", what)
		}
		return err
	})
	return out, problem(err)
}
