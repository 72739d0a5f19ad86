package inventory

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"labswarm/api"
	"labswarm/server/store"
)

const keyLearn = "learn"

// Limits of learn mode, minutes.
const (
	LearnMinutes    = 30
	MaxLearnMinutes = 240
)

// OpenLearn opens learn mode for one room; an open one is replaced. The room
// need not exist yet.
func OpenLearn(tx store.Tx, l api.Learn, now time.Time) (api.Learn, error) {
	if err := CheckName("room", l.Room); err != nil {
		return l, err
	}
	r, err := roomOf(tx, l.Room)
	if err != nil {
		return l, err
	}
	if l.Minutes == 0 {
		l.Minutes = LearnMinutes
	}
	if l.Minutes < 1 || l.Minutes > MaxLearnMinutes {
		return l, invalid("learn mode for %d minutes: use 1 to %d", l.Minutes, MaxLearnMinutes)
	}
	if l.After == "" {
		l.After = "reboot"
	}
	if l.After != "reboot" && l.After != "poweroff" {
		return l, invalid("after %q: use reboot or poweroff", l.After)
	}
	l.Room, l.Started, l.Until = r.Name, now.UTC(), now.UTC().Add(time.Duration(l.Minutes)*time.Minute)
	raw, err := json.Marshal(l)
	if err != nil {
		return l, err
	}
	return l, tx.Put(keyLearn, raw)
}

// LearnRecord returns the last opening, over or not; nil = it was closed.
func LearnRecord(tx store.Tx) (*api.Learn, error) {
	raw, err := tx.Get(keyLearn)
	if err != nil || raw == nil {
		return nil, err
	}
	var l api.Learn
	if err := json.Unmarshal(raw, &l); err != nil {
		return nil, fmt.Errorf("read learn mode: %w", err)
	}
	return &l, nil
}

// LearnOpen returns learn mode, nil when it is not open now. A clock that was
// set back by hours ends it, too: it never lasts longer than it was given.
func LearnOpen(tx store.Tx, now time.Time) (*api.Learn, error) {
	l, err := LearnRecord(tx)
	if err != nil || l == nil || !now.Before(l.Until) || now.Before(l.Started.Add(-time.Minute)) {
		return nil, err
	}
	return l, nil
}

// CloseLearn ends learn mode.
func CloseLearn(tx store.Tx) error { return tx.Delete(keyLearn) }

// Learns reports whether learn mode is open for a PC at ip: one in the room's
// subnets, or on the lab segment when the room has none. An invalid ip is a PC
// without an address, whose packet came to us directly: it is on the segment.
func Learns(tx store.Tx, ip netip.Addr, lab netip.Prefix, now time.Time) (bool, error) {
	l, err := LearnOpen(tx, now)
	if err != nil || l == nil {
		return false, err
	}
	if !ip.IsValid() || ip.IsUnspecified() {
		ip = lab.Addr()
	}
	r, err := roomOf(tx, l.Room)
	if err != nil {
		return false, err
	}
	if len(r.Subnets) == 0 {
		return lab.IsValid() && lab.Masked().Contains(ip), nil
	}
	for _, s := range r.Subnets {
		if p, err := netip.ParsePrefix(s); err == nil && p.Contains(ip) {
			return true, nil
		}
	}
	return false, nil
}
