package control

import (
	"context"
	"time"

	"labswarm/api"
	"labswarm/server/decide"
	"labswarm/server/inventory"
	"labswarm/server/inventory/ident"
	"labswarm/server/job"
	"labswarm/server/netboot"
	"labswarm/server/store"
)

// bootSession is one boot of one machine as the boot protocols see it: firmware
// asks 3 to 10 times per boot and must hear one answer. RAM only: losing it
// costs a soft attempt at most.
type bootSession struct {
	uuid    string
	first   time.Time
	last    time.Time
	local   bool // answered Local once: a refusal sticks
	counted bool // its initramfs was counted
}

const (
	sessionLife  = 90 * time.Second // from its first request
	sessionPause = 30 * time.Second // a DHCP question after such a pause is a new boot
	maxBoots     = 4096
	decideLimit  = 3 * time.Second
	maxAsking    = 256 // boot questions at once
)

// bootSessionOf returns a copy of the session of r, opening one if needed, and
// fills in the UUID that a later protocol does not carry.
func (e *Engine) bootSessionOf(r *netboot.Request, now time.Time) bootSession {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.boots[r.MAC]
	dhcp := r.Proto == decide.ProtoDHCP || r.Proto == decide.ProtoProxy
	if b != nil && (now.Sub(b.first) > sessionLife || (dhcp && now.Sub(b.last) > sessionPause) ||
		(r.UUID != "" && b.uuid != "" && !ident.SameUUID(r.UUID, b.uuid))) {
		b = nil
	}
	if b == nil {
		if len(e.boots) >= maxBoots {
			e.dropOldBoots(now)
		}
		b = &bootSession{first: now}
		e.boots[r.MAC] = b
	}
	b.last = now
	if b.uuid == "" {
		b.uuid = r.UUID
	}
	if r.UUID == "" {
		r.UUID = b.uuid
	}
	return *b
}

// dropOldBoots makes room; MACs can be invented. e.mu is held.
func (e *Engine) dropOldBoots(now time.Time) {
	for mac, b := range e.boots {
		if now.Sub(b.first) > sessionLife {
			delete(e.boots, mac)
		}
	}
	for mac := range e.boots { // all are fresh: a flood; any one may go
		if len(e.boots) < maxBoots {
			return
		}
		delete(e.boots, mac)
	}
}

// question is what one boot request found in the store.
type question struct {
	resolved inventory.Resolved
	job      *job.Job
	slot     *job.Slot
	facts    decide.Facts
	decision decide.Decision
}

// DecideBoot implements netboot.Decider. A store that does not answer in time
// means Local.
func (e *Engine) DecideBoot(ctx context.Context, r netboot.Request) netboot.Answer {
	ctx, cancel := context.WithTimeout(ctx, decideLimit)
	defer cancel()
	if mac, err := ident.ParseMAC(r.MAC); err == nil {
		r.MAC = mac
	} else {
		r.MAC = ""
	}
	blind := netboot.Answer{Decision: decide.Decide(decide.Facts{StoreOK: false, Proto: r.Proto})}
	select {
	case e.asking <- struct{}{}:
	default:
		return blind // the store hangs: no more questions queue up behind it
	}
	done := make(chan netboot.Answer, 1)
	go func() { // ends when the store answers; its result is dropped after the limit
		defer func() { <-e.asking }()
		done <- e.answer(ctx, r)
	}()
	select {
	case a := <-done:
		return a
	case <-ctx.Done():
		return blind
	}
}

func (e *Engine) answer(ctx context.Context, r netboot.Request) netboot.Answer {
	now := time.Now()
	var b bootSession
	if r.MAC != "" {
		b = e.bootSessionOf(&r, now)
	}
	var q question
	err := e.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		q, err = e.ask(tx, r, b, now)
		return err
	})
	if err == nil && q.resolved.Doubt != nil {
		e.askDoubt(ctx, q.resolved)
	}
	if err == nil && q.resolved.NewMAC {
		e.emitOnce(ctx, "mac "+r.MAC, api.Event{Level: "info", Code: "new_mac", Host: q.resolved.Host.Name, Room: q.resolved.Host.Room,
			Text: "host " + q.resolved.Host.Name + " boots through the network card " + r.MAC + ", which it never showed before (dock, dongle, new card)"})
	}
	if err == nil && e.matters(&q, now) {
		err = e.commitBoot(ctx, r, b, &q)
	}
	if err != nil {
		e.cfg.Log.Error("boot decision without the store", "mac", r.MAC, "err", err)
		return netboot.Answer{Decision: decide.Decide(decide.Facts{StoreOK: false, Proto: r.Proto})}
	}
	if q.decision.Action == decide.Local && r.MAC != "" && q.resolved.Verdict == inventory.Known {
		e.refuse(r.MAC)
	}
	a := netboot.Answer{Decision: q.decision, Host: q.resolved.Host.Name}
	if q.resolved.Verdict == inventory.Known {
		a.BootStyle = e.cfg.BootStyle
		if q.resolved.Host.Style != "" {
			a.BootStyle = q.resolved.Host.Style
		}
	}
	return a
}

func (e *Engine) refuse(mac string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.boots[mac]; b != nil {
		b.local = true
	}
}

// ask gathers the facts in one transaction and decides.
func (e *Engine) ask(tx store.Tx, r netboot.Request, b bootSession, now time.Time) (question, error) {
	var q question
	var err error
	if q.resolved, err = inventory.Resolve(tx, r.MAC, r.UUID, e.cfg.Self); err != nil {
		return q, err
	}
	q.facts = decide.Facts{StoreOK: true, Proto: r.Proto}
	if b.local {
		q.facts.Session = &decide.Session{AnsweredLocal: true}
	}
	switch q.resolved.Verdict {
	case inventory.Known:
		q.facts.Identity = decide.Known
	case inventory.Ambiguous:
		q.facts.Identity = decide.Ambiguous
	case inventory.SelfHost:
		q.facts.Identity = decide.Self
	case inventory.Quarantined:
		q.facts.Identity = decide.Quarantined
	default:
		q.facts.Identity = decide.Unknown
		if q.facts.Learn, err = e.learnHere(tx, r.IP, now); err != nil {
			return q, err
		}
	}
	if q.facts.Identity == decide.Known {
		q.facts.Flags.Exclude = q.resolved.Host.Exclude
		if q.job, q.slot, err = hostSlot(tx, q.resolved.Host.Name); err != nil {
			return q, err
		}
		if q.slot != nil {
			q.facts.Slot = slotFacts(q.job, q.slot, now)
			q.facts.WindowOpen, q.facts.Paused = q.job.WindowOpen(now), !q.job.Paused.IsZero()
		}
	}
	q.decision = decide.Decide(q.facts)
	return q, nil
}

// slotFacts maps a slot onto what Decide looks at.
func slotFacts(j *job.Job, s *job.Slot, now time.Time) *decide.SlotView {
	v := &decide.SlotView{Phase: decide.PhaseLive, PONR: s.PONR, DiskBootable: !s.PONR || s.Verified, AttemptsLeft: s.AttemptsLeft(j),
		FinishPolicy: j.MayFinish(now), InOverrun: j.InOverrun(now)}
	switch {
	case s.State == api.StatePending:
		v.Phase = decide.PhasePending
	case s.State == api.StateFailed:
		v.Phase = decide.PhaseFailed
	case s.State == api.StateHeld && !job.Resumable(s):
		v.Phase = decide.PhaseHeld
	case s.State.Ended():
		v.Phase = decide.PhaseEnded
	}
	return v
}

// matters reports whether the answer must be committed before it is given.
func (e *Engine) matters(q *question, now time.Time) bool {
	s := q.slot
	if s == nil {
		return false
	}
	silent := e.silent(slotKey{s.Job, s.Host}, now)
	switch q.decision.Action {
	case decide.Agent:
		return s.State == api.StateArmed || s.State == api.StateWaking || s.State == api.StateHeld || (job.Active(s.State) && silent)
	case decide.Local:
		if s.State.Good() && s.State != api.StateConfirmed {
			return s.State != api.StateDone || s.Final || silent
		}
		return job.Active(s.State) && silent && q.decision.Reason == decide.ReasonAttempts
	case decide.Hold:
		return job.Active(s.State) && silent
	}
	return false
}

// commitBoot decides again inside a writing transaction and stores what the
// answer means for the slot.
func (e *Engine) commitBoot(ctx context.Context, r netboot.Request, b bootSession, q *question) error {
	k := slotKey{q.slot.Job, q.slot.Host}
	silent := e.silent(k, time.Now())
	var out outcome
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		out = outcome{}
		now := time.Now()
		fresh, err := e.ask(tx, r, b, now)
		if err != nil {
			return err
		}
		*q = fresh
		if q.slot == nil || (slotKey{q.slot.Job, q.slot.Host}) != k {
			return nil
		}
		var ev job.Event = job.Boot{Proto: string(r.Proto), Silent: silent}
		if q.decision.Action == decide.Local && q.slot.State.Good() {
			ev = job.Sighting{Silent: silent, Detail: "asked to boot by " + string(r.Proto) + " and was sent to its own disk"}
		}
		out, err = applyTx(tx, k, func(store.Tx, *job.Job, *job.Slot) (job.Event, error) { return ev, nil }, now)
		return err
	})
	if err != nil {
		return err
	}
	e.after(&out)
	if out.wrote && q.decision.Action == decide.Agent && !out.slot.Live() {
		q.decision = decide.Decision{Action: decide.Local, Reason: decide.ReasonAttempts}
	}
	return nil
}

// Sighting implements netboot.Decider. It must not block, so the commit runs
// beside it; at most a few at a time.
func (e *Engine) Sighting(s netboot.Sighting) {
	select {
	case e.sightings <- s:
	default: // a flood: the host speaks again
	}
}

// InitramfsFetched implements netboot.Decider: once per boot session.
func (e *Engine) InitramfsFetched(mac string) {
	e.mu.Lock()
	b := e.boots[mac]
	if b == nil {
		b = &bootSession{first: time.Now(), last: time.Now()}
		if len(e.boots) < maxBoots {
			e.boots[mac] = b
		}
	}
	counted := b.counted
	b.counted = true
	e.mu.Unlock()
	if counted {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), decideLimit)
	defer cancel()
	k, ok := e.slotOfMAC(ctx, mac)
	if !ok {
		return
	}
	if _, err := e.apply(ctx, k, job.Initramfs{}); err != nil {
		e.cfg.Log.Error("boot attempt not counted", "mac", mac, "err", err)
	}
}

// slotOfMAC finds the newest slot of the host with this MAC.
func (e *Engine) slotOfMAC(ctx context.Context, mac string) (k slotKey, ok bool) {
	err := e.cfg.Store.View(ctx, func(tx store.Tx) error {
		r, err := inventory.Resolve(tx, mac, "", e.cfg.Self)
		if err != nil || r.Verdict != inventory.Known {
			return err
		}
		_, s, err := hostSlot(tx, r.Host.Name)
		if s != nil {
			k, ok = slotKey{s.Job, s.Host}, true
		}
		return err
	})
	if err != nil {
		e.cfg.Log.Error("host not looked up", "mac", mac, "err", err)
		return k, false
	}
	return k, ok
}

// see stores a sighting.
func (e *Engine) see(ctx context.Context, s netboot.Sighting) {
	switch s.Kind {
	case netboot.SightOS:
	case netboot.SightForeignBoot:
		e.emitOnce(ctx, "foreign "+s.MAC, api.Event{Level: "warn", Code: "foreign_boot_server",
			Text: "another server offers boot files: " + s.MAC + " " + s.IP.String() + " " + s.Detail})
		return
	default:
		e.emitOnce(ctx, "arch "+s.MAC, api.Event{Level: "warn", Code: "unsupported_arch",
			Text: "a computer asked to boot with an architecture there are no boot files for: " + s.MAC + " " + s.Detail})
		return
	}
	k, ok := e.slotOfMAC(ctx, s.MAC)
	if !ok {
		return
	}
	detail := "its system asked for an address"
	if s.Hostname != "" {
		detail += " as " + s.Hostname
	}
	if _, err := e.apply(ctx, k, job.Sighting{OS: true, Silent: e.silent(k, time.Now()), Detail: detail}); err != nil {
		e.cfg.Log.Error("sighting not stored", "host", k.host, "err", err)
	}
}

// emitOnce emits an event at most every ten minutes per key.
func (e *Engine) emitOnce(ctx context.Context, key string, ev api.Event) {
	now := time.Now()
	e.mu.Lock()
	last, seen := e.emitted[key]
	fresh := seen && now.Sub(last) < 10*time.Minute
	if !fresh {
		if len(e.emitted) >= maxBoots {
			clear(e.emitted)
		}
		e.emitted[key] = now
	}
	e.mu.Unlock()
	if !fresh {
		e.emit(ctx, ev)
	}
}
