package control

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/server/inventory"
	"labswarm/server/store"
)

const (
	codeLife    = 10 * time.Minute
	codeTries   = 5   // wrong codes typed while a code is shown lock it
	maxWaiting  = 500 // PCs that show a code
	enrolAgainS = 3   // seconds between two questions of a waiting PC
	waitingGone = 30 * time.Second
)

// waiting is an unknown PC that boots the enrol profile and shows a code. RAM
// only: after a restart of the server it gets a new code.
type waiting struct {
	id, code string
	appeared time.Time
	issued   time.Time // of the code
	heard    time.Time
	tries    int
	ev       api.Evidence
	mac, ip  string
	bound    string // host
}

func (w *waiting) locked() bool { return w.tries >= codeTries }

// Learn returns learn mode, nil when it is not open.
func (e *Engine) Learn(ctx context.Context) (l *api.Learn, err error) {
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		l, err = inventory.LearnOpen(tx, time.Now())
		return err
	})
	return l, problem(err)
}

// OpenLearn lets unknown PCs of one room boot the enrol profile for a while.
func (e *Engine) OpenLearn(ctx context.Context, l api.Learn) (out api.Learn, err error) {
	if !e.cfg.CanEnrol() {
		return out, conflict(api.CodeConflict, "open learn mode: the boot folder holds no enrol initramfs (initrd-enrol.img): run `make initramfs`, copy it there and start the server again")
	}
	err = e.edit(ctx, func(tx store.Tx, now time.Time) (api.Event, error) {
		out, err = inventory.OpenLearn(tx, l, now)
		return api.Event{Level: "warn", Code: "learn_opened", Room: out.Room,
			Text: fmt.Sprintf("learn mode is open for room %s until %s: unknown PCs there boot the enrol profile", out.Room, out.Until.Format(time.TimeOnly))}, err
	})
	return out, err
}

// CloseLearn ends learn mode; PCs that wait boot their own disk.
func (e *Engine) CloseLearn(ctx context.Context) error {
	return e.endLearn(ctx, func(*api.Learn, time.Time) bool { return true }, "it was closed")
}

// sweepLearn ends learn mode when its time is over, and says so.
func (e *Engine) sweepLearn(ctx context.Context) error {
	over := false
	err := e.cfg.Store.View(ctx, func(tx store.Tx) error {
		l, err := inventory.LearnRecord(tx)
		if err != nil || l == nil {
			return err
		}
		open, err := inventory.LearnOpen(tx, time.Now())
		over = open == nil
		return err
	})
	if err != nil || !over {
		return err
	}
	return e.endLearn(ctx, func(l *api.Learn, now time.Time) bool { return !now.Before(l.Until) || now.Before(l.Started) }, "its time is over")
}

func (e *Engine) endLearn(ctx context.Context, when func(*api.Learn, time.Time) bool, why string) error {
	return e.edit(ctx, func(tx store.Tx, now time.Time) (api.Event, error) {
		l, err := inventory.LearnRecord(tx)
		if err != nil || l == nil || !when(l, now) {
			return api.Event{}, err
		}
		return api.Event{Code: "learn_closed", Room: l.Room, Text: "learn mode of room " + l.Room + " has ended: " + why}, inventory.CloseLearn(tx)
	})
}

// learnHere is Facts.Learn of a boot request.
func (e *Engine) learnHere(tx store.Tx, ip netip.Addr, now time.Time) (bool, error) {
	if !e.cfg.CanEnrol() {
		return false, nil
	}
	return inventory.Learns(tx, ip, e.cfg.Lab, now)
}

// enrolUnbound answers the enrol profile: a code to show until somebody typed
// it, then the name. There is no way from here to an order: a PC that became
// known boots anew, with the decision that a known host gets.
func (e *Engine) enrolUnbound(ctx context.Context, cert string, from netip.Addr, req *api.EnrolRequest) (api.EnrolReply, error) {
	var r inventory.Resolved
	open, after, room := false, "", ""
	err := e.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		now := time.Now()
		if r, err = inventory.ResolveEvidence(tx, req.Evidence, e.cfg.Self); err != nil {
			return err
		}
		l, err := inventory.LearnOpen(tx, now)
		if err != nil {
			return err
		}
		if l != nil {
			after, room = l.After, l.Room
			open, err = inventory.Learns(tx, from, e.cfg.Lab, now)
		}
		return err
	})
	if err != nil {
		return api.EnrolReply{}, err
	}
	local := func(why string) (api.EnrolReply, error) {
		e.unwait(cert)
		return api.EnrolReply{Status: api.EnrolGoLocal, Host: r.Host.Name, Room: r.Host.Room, Reason: why}, nil
	}
	switch {
	case r.Verdict == inventory.Known:
		return e.onScreen(ctx, api.EnrolReply{Status: api.EnrolBound, Host: r.Host.Name, Room: r.Host.Room, After: after}, r.Host.Room, r.Host.Seat), nil
	case r.Verdict == inventory.Ambiguous:
		e.askDoubt(ctx, r)
		return local("this computer is not enrolled: " + r.Why)
	case r.Verdict != inventory.Unknown:
		return local("this computer is not enrolled: " + r.Why)
	case !open:
		return local("learn mode is not open here")
	}
	mac := inventory.BootMAC(req.Evidence)
	if mac == "" {
		return local("this computer cannot be enrolled: it does not know from which of its network cards it booted")
	}
	code, err := e.wait(cert, mac, from, req.Evidence)
	if err != nil {
		return local(err.Error())
	}
	return e.onScreen(ctx, api.EnrolReply{Status: api.EnrolPending, EnrolCode: code, RetryAfterS: enrolAgainS}, room, ""), nil
}

func (e *Engine) unwait(cert string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.waiting, cert)
}

// wait notes a PC that waits and returns its code; a new one when the old one
// has expired or is locked.
func (e *Engine) wait(cert, mac string, from netip.Addr, ev api.Evidence) (string, error) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dropWaiting(now)
	w := e.waiting[cert]
	if w == nil {
		if len(e.waiting) >= maxWaiting {
			return "", fmt.Errorf("%d computers show a code already", len(e.waiting))
		}
		w = &waiting{id: randomHex()[:12], appeared: now}
		for c, o := range e.waiting { // it was reset: it keeps its place in the order
			if o.mac == mac {
				w.id, w.appeared = o.id, o.appeared
				delete(e.waiting, c)
			}
		}
		e.waiting[cert] = w
	}
	w.heard, w.ev, w.mac, w.ip = now, ev, mac, from.String()
	if w.code == "" || w.locked() || now.Sub(w.issued) >= codeLife {
		w.code, w.issued, w.tries = e.freshCode(), now, 0
	}
	return w.code, nil
}

// dropWaiting forgets PCs that were switched off; e.mu is held.
func (e *Engine) dropWaiting(now time.Time) {
	for c, w := range e.waiting {
		if now.Sub(w.heard) > waitingGone {
			delete(e.waiting, c)
		}
	}
}

// freshCode returns six digits that no other PC shows; e.mu is held.
func (e *Engine) freshCode() string {
	for {
		n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
		if err != nil {
			continue // never: crypto/rand ends the program instead
		}
		code := fmt.Sprintf("%06d", n.Int64())
		taken := false
		for _, w := range e.waiting {
			taken = taken || w.code == code
		}
		if !taken {
			return code
		}
	}
}

// Enrolments lists the PCs that wait for a seat, in the order in which they
// appeared. Codes are left out: they stand on the screens, and typing one
// proves that somebody stands there.
func (e *Engine) Enrolments(context.Context) ([]api.Enrolment, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dropWaiting(time.Now())
	out := []api.Enrolment{}
	for _, w := range e.waiting {
		if w.bound != "" {
			continue
		}
		out = append(out, api.Enrolment{ID: w.id, MAC: w.mac, UUID: w.ev.UUID, Serial: w.ev.Serial, Vendor: w.ev.Vendor, Product: w.ev.Product, IP: w.ip,
			Disks: w.ev.Disks, Appeared: w.appeared.UTC(), Expires: w.issued.Add(codeLife).UTC(), Locked: w.locked()})
	}
	slices.SortFunc(out, func(a, b api.Enrolment) int {
		if c := a.Appeared.Compare(b.Appeared); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out, nil
}

// pick finds the PC that a bind means and takes its code: it is good once. A
// wrong code counts against every code that is shown now.
func (e *Engine) pick(b api.EnrolBind) (waiting, error) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dropWaiting(now)
	if (b.Code == "") == (b.ID == "") {
		return waiting{}, badRequest(api.CodeUsage, "bind a PC: name its code or its id")
	}
	for _, w := range e.waiting {
		switch {
		case w.bound != "" || (b.Code != "" && w.code != b.Code) || (b.ID != "" && w.id != b.ID):
			continue
		case b.Code != "" && w.locked():
			return waiting{}, conflict(api.CodeTooManyTries, "code %s is locked: %d wrong codes were typed while it was shown; the PC shows a new one in a moment", b.Code, codeTries)
		case b.Code != "" && now.Sub(w.issued) >= codeLife:
			return waiting{}, conflict(api.CodeConflict, "code %s is older than %d minutes; the PC shows a new one in a moment", b.Code, int(codeLife.Minutes()))
		}
		out := *w
		w.bound = "being bound"
		return out, nil
	}
	if b.ID != "" {
		return waiting{}, notFound("no PC with id %s waits; `labswarm room waiting` lists those that do", b.ID)
	}
	for _, w := range e.waiting {
		w.tries++
	}
	return waiting{}, notFound("no PC shows the code %q; after %d wrong codes all PCs show new ones", b.Code, codeTries)
}

// settle ends a bind: host "" gives the PC its code back.
func (e *Engine) settle(id, host string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.waiting {
		if w.id == id {
			w.bound = host
			if host != "" {
				w.code = ""
			}
		}
	}
}

// Bind makes a waiting PC the host of a seat.
func (e *Engine) Bind(ctx context.Context, b api.EnrolBind) (out api.Host, err error) {
	w, err := e.pick(b)
	if err != nil {
		return out, err
	}
	done := ""
	defer func() { e.settle(w.id, done) }()
	err = e.edit(ctx, func(tx store.Tx, now time.Time) (api.Event, error) {
		l, err := inventory.LearnOpen(tx, now)
		if err != nil {
			return api.Event{}, err
		}
		if l == nil {
			return api.Event{}, conflict(api.CodeConflict, "learn mode is over; open it again: labswarm room learn %s", b.Room)
		}
		if out, err = e.bindTx(tx, b, w, now); err != nil {
			return api.Event{}, err
		}
		return api.Event{Code: "host_enrolled", Host: out.Name, Room: out.Room,
			Text: fmt.Sprintf("host %s enrolled: seat %s of room %s, MAC %s, UUID %s", out.Name, out.Seat, out.Room, out.MAC, out.UUID)}, nil
	})
	if err == nil {
		done = out.Name
	}
	return out, err
}

func (e *Engine) bindTx(tx store.Tx, b api.EnrolBind, w waiting, now time.Time) (api.Host, error) {
	r, err := inventory.ResolveEvidence(tx, w.ev, e.cfg.Self)
	if err != nil {
		return api.Host{}, err
	}
	if r.Verdict != inventory.Unknown {
		return api.Host{}, conflict(api.CodeConflict, "this PC (MAC %s) cannot be bound: %s", w.mac, orText(r.Why, "it is host "+r.Host.Name+" already"))
	}
	h := api.Host{Name: b.Name, Room: b.Room, MAC: w.mac}
	h.Seat = b.Seat
	if b.Seat != "" {
		sitting, err := inventory.OnSeat(tx, b.Room, b.Seat)
		if err != nil {
			return h, err
		}
		if sitting != "" {
			old, err := inventory.Get(tx, sitting)
			if err != nil {
				return h, err
			}
			if !b.Replace {
				return h, conflict(api.CodeConflict, "on seat %s of room %s sits host %s (MAC %s): say --replace to put this PC in its place", b.Seat, b.Room, old.Name, old.MAC)
			}
			if err := e.notLive(tx, old.Name, w.mac); err != nil {
				return h, err
			}
			h.Name, h.Disk, h.Exclude, h.Style = old.Name, "", old.Exclude, old.Style
			h.Labels, h.Protect = old.Labels, old.Protect
		}
	}
	if h.UUID, err = inventory.UsefulUUID(tx, w.ev.UUID); err != nil {
		return h, err
	}
	if h.Name == "" { // by the room's template: it must not take over another host either
		room, err := inventory.RoomRecord(tx, h.Room)
		if err != nil {
			return h, err
		}
		if h.Seat == "" {
			return h, badRequest(api.CodeUsage, "bind a PC: give a seat or a name")
		}
		h.Name = inventory.HostName(room, h.Seat)
	}
	if err := e.nameFree(tx, h, b.Replace); err != nil {
		return h, err
	}
	if h, err = inventory.Put(tx, h, e.cfg.Self, now); err != nil {
		return h, err
	}
	if err := e.nameTaken(h.Name); err != nil {
		return h, err
	}
	return inventory.Confirm(tx, h, w.ev, w.ip, now)
}

// nameFree keeps a bind from taking over a host that sits elsewhere.
func (e *Engine) nameFree(tx store.Tx, h api.Host, replace bool) error {
	old, err := inventory.Get(tx, h.Name)
	if err != nil {
		return nil //nolint:nilerr // there is no host of that name
	}
	if replace && strings.EqualFold(old.Room, h.Room) && strings.EqualFold(old.Seat, h.Seat) {
		return nil
	}
	return conflict(api.CodeConflict, "host %s exists (MAC %s): choose another name, or name its seat with --replace", old.Name, old.MAC)
}

// nameTaken refuses names that others than hosts have.
func (e *Engine) nameTaken(name string) error {
	if e.cfg.NameTaken == nil {
		return nil
	}
	return e.cfg.NameTaken(name)
}

func orText(s, def string) string {
	if s == "" {
		return def
	}
	return s
}
