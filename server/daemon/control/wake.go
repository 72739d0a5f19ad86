package control

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/server/inventory"
	"labswarm/server/inventory/ident"
	"labswarm/server/job"
	"labswarm/server/power"
	"labswarm/server/store"
)

// Waker sends magic packets.
type Waker interface {
	Wake(ctx context.Context, targets []power.Target) error
}

const wakeQueue = 16 // batches that wait; each is sent in waves

// addresses are all by which a host can be woken: a PC has a dock or a second
// card, and which of them listens is not known.
func addresses(h api.Host) power.Target {
	t := power.Target{Host: h.Name}
	add := func(text string) {
		mac, err := net.ParseMAC(text)
		if err != nil {
			return
		}
		for _, m := range t.MACs {
			if m.String() == mac.String() {
				return
			}
		}
		t.MACs = append(t.MACs, mac)
	}
	add(h.MAC)
	if h.Evidence != nil {
		for _, n := range h.Evidence.NICs {
			if mac, err := ident.ParseMAC(n.MAC); err == nil && n.Bus != "usb" && len(t.MACs) < 4 {
				add(mac)
			}
		}
	}
	return t
}

// wakeRooms remembers how the hosts of rooms are woken, by room.
type wakeRooms map[string]struct {
	room power.Room
	off  bool
}

// of reads a room's settings, once. off: its hosts are switched on by hand.
func (w wakeRooms) of(tx store.Tx, name string) (r power.Room, off bool, err error) {
	key := strings.ToLower(name)
	if known, ok := w[key]; ok {
		return known.room, known.off, nil
	}
	rec, err := inventory.RoomRecord(tx, name)
	if err != nil {
		return r, false, err
	}
	r, off = paceOf(rec)
	r.Name = key
	w[key] = struct {
		room power.Room
		off  bool
	}{r, off}
	return r, off, nil
}

// paceOf turns a room's settings into the waker's.
func paceOf(rec api.Room) (r power.Room, off bool) {
	w := rec.Wake
	if w == nil {
		w = &api.Wake{}
	}
	r.Wave, r.Pause = w.Wave, time.Duration(w.PauseS)*time.Second
	if a, err := netip.ParseAddr(w.Broadcast); err == nil && a.Is4() {
		r.Casts = []netip.Addr{a}
		return r, w.Off
	}
	for _, s := range rec.Subnets {
		if p, err := netip.ParsePrefix(s); err == nil && p.Addr().Is4() && p.Bits() < 31 {
			r.Casts = append(r.Casts, power.Broadcast(p))
		}
	}
	return r, w.Off
}

// checkWake refuses to promise what cannot be done.
func (e *Engine) checkWake(wake bool) error {
	if wake && e.cfg.Waker == nil {
		return badRequest(api.CodeUsage, "this server sends no magic packets: switch the hosts on by hand")
	}
	return nil
}

// WakeHosts switches hosts on.
func (e *Engine) WakeHosts(ctx context.Context, req *api.WakeRequest, by string) (api.WakeReply, error) {
	if err := e.checkWake(true); err != nil {
		return api.WakeReply{}, err
	}
	var batch []power.Target
	err := e.cfg.Store.View(ctx, func(tx store.Tx) error {
		batch = nil
		hosts, err := targets(tx, &api.JobCreate{Hosts: req.Hosts, Room: req.Room})
		if err != nil {
			return err
		}
		rooms := wakeRooms{}
		for _, h := range hosts {
			switch r, off, err := rooms.of(tx, h.Room); {
			case err != nil:
				return err
			case !off:
				t := addresses(h)
				t.Room = r
				batch = append(batch, t)
			}
		}
		if len(batch) == 0 {
			return conflict(api.CodeConflict, "the PCs of room %s are switched on by hand: `labswarm room set %s --wake` changes that", hosts[0].Room, hosts[0].Room)
		}
		return nil
	})
	if err != nil {
		return api.WakeReply{}, problem(err)
	}
	select {
	case e.wakes <- batch:
	default:
		return api.WakeReply{}, conflict(api.CodeConflict, "%d batches of magic packets wait already: try again in some minutes", wakeQueue)
	}
	e.emit(ctx, api.Event{Level: "info", Code: "hosts_woken", Room: req.Room, Text: fmt.Sprintf("%d hosts are woken by %s", len(batch), by)})
	plan := power.Plan(batch)
	return api.WakeReply{Hosts: len(batch), TakesS: int64((plan[len(plan)-1].At + time.Second - 1) / time.Second)}, nil
}

// waker sends one batch after the other until ctx ends.
func (e *Engine) waker(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case batch := <-e.wakes:
			if err := e.cfg.Waker.Wake(ctx, batch); err != nil && ctx.Err() == nil {
				e.emitOnce(ctx, "wake "+err.Error(), api.Event{Level: "error", Code: "wake_failed", Text: err.Error()})
			}
		}
	}
}

// wakeDue wakes the hosts of a job whose round it is. Their state is committed
// before the first packet.
func (e *Engine) wakeDue(ctx context.Context, js *jobSlots, now time.Time) error {
	due := job.WakeDue(&js.job, js.slots, now)
	if len(due) == 0 || e.cfg.Waker == nil || len(e.wakes) == cap(e.wakes) {
		return nil
	}
	var batch []power.Target
	rooms := wakeRooms{}
	room := map[string]string{}
	for _, s := range js.slots {
		room[s.Host] = s.Room
	}
	for _, name := range due {
		var pace power.Room
		off := false
		err := e.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
			pace, off, err = rooms.of(tx, room[name])
			return err
		})
		if err != nil || off {
			if err != nil {
				return err
			}
			continue
		}
		s, err := e.apply(ctx, slotKey{js.job.ID, name}, job.Waken{})
		if err != nil {
			return err
		}
		if s.State != api.StateWaking {
			continue
		}
		var h api.Host
		err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
			h, err = inventory.Get(tx, name)
			return err
		})
		if err != nil {
			return err
		}
		t := addresses(h)
		t.Room = pace
		batch = append(batch, t)
	}
	if len(batch) == 0 {
		return nil
	}
	select {
	case e.wakes <- batch:
	default: // the next round comes
	}
	return nil
}
