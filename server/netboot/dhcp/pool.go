package dhcp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// maxPool bounds the pool: a lab is a few hundred PCs.
	maxPool = 4096
	// offerHold keeps an offered address for its client. OVMF waits 4 s
	// between OFFER and REQUEST; no step may time out below 10 s.
	offerHold = 60 * time.Second
	// declineHold keeps an address that a client found in use.
	declineHold = 10 * time.Minute
)

// Lease is one address given to one PC.
type Lease struct {
	MAC   string     `json:"mac"`
	IP    netip.Addr `json:"ip"`
	Until time.Time  `json:"until"`
}

// LeaseStore keeps leases over a restart. Save gets all leases each time.
type LeaseStore interface {
	Load() ([]Lease, error)
	Save([]Lease) error
}

// Pool gives addresses of one range, the same address to the same MAC for as
// long as nobody else needs it. It is keyed by MAC and not by client id, because
// firmware, iPXE and the agent of one PC send different ids. Safe for use from
// many goroutines.
type Pool struct {
	start, end netip.Addr
	leaseTime  time.Duration
	exclude    map[netip.Addr]bool
	store      LeaseStore

	saveMu sync.Mutex // one Save at a time, never held together with a reply

	mu    sync.Mutex
	byIP  map[netip.Addr]*entry
	byMAC map[string]*entry
}

type entry struct {
	Lease
	offered  bool // OFFER sent, no ACK yet: not saved
	declined bool // in use by a stranger
}

// NewPool checks the range and loads the store. exclude are addresses never
// given away (our own, the router's). store may be nil.
func NewPool(start, end netip.Addr, leaseTime time.Duration, exclude []netip.Addr, store LeaseStore) (*Pool, error) {
	if !start.Is4() || !end.Is4() || end.Less(start) {
		return nil, fmt.Errorf("set up address pool %v to %v: want two IPv4 addresses, the lower one first", start, end)
	}
	p := &Pool{start: start, end: end, leaseTime: leaseTime, exclude: map[netip.Addr]bool{}, store: store,
		byIP: map[netip.Addr]*entry{}, byMAC: map[string]*entry{}}
	for _, a := range exclude {
		p.exclude[a] = true
	}
	free := 0
	for a, n := start, 0; !end.Less(a); a, n = a.Next(), n+1 {
		if n >= maxPool {
			return nil, fmt.Errorf("set up address pool %v to %v: more than %d addresses", start, end, maxPool)
		}
		if !p.exclude[a] {
			free++
		}
	}
	if free == 0 {
		return nil, fmt.Errorf("set up address pool %v to %v: no address left after taking out our own and the router's", start, end)
	}
	if store == nil {
		return p, nil
	}
	old, err := store.Load()
	if err != nil {
		return nil, err
	}
	for _, l := range old {
		if p.usable(l.IP) && p.byIP[l.IP] == nil && p.byMAC[l.MAC] == nil {
			p.set(&entry{Lease: l})
		}
	}
	return p, nil
}

func (p *Pool) usable(ip netip.Addr) bool {
	return ip.Is4() && !ip.Less(p.start) && !p.end.Less(ip) && !p.exclude[ip]
}

func (p *Pool) set(e *entry) {
	if e.MAC != "" {
		if old := p.byMAC[e.MAC]; old != nil && old.IP != e.IP {
			delete(p.byIP, old.IP)
		}
		p.byMAC[e.MAC] = e
	}
	if old := p.byIP[e.IP]; old != nil && old.MAC != e.MAC {
		delete(p.byMAC, old.MAC)
	}
	p.byIP[e.IP] = e
}

// free reports whether ip may be given to mac now.
func (p *Pool) free(ip netip.Addr, mac string, now time.Time) bool {
	if !p.usable(ip) {
		return false
	}
	e := p.byIP[ip]
	return e == nil || e.MAC == mac || now.After(e.Until)
}

// Offer picks an address for a DISCOVER: the client's last one, else the one it
// wants, else one never used, else the one expired longest. ok is false when
// the pool is used up.
func (p *Pool) Offer(mac string, want netip.Addr, now time.Time) (ip netip.Addr, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.byMAC[mac]; e != nil && p.usable(e.IP) {
		if e.offered {
			e.Until = now.Add(offerHold)
		}
		return e.IP, true
	}
	if ip, ok = p.pick(mac, want, now); !ok {
		return netip.Addr{}, false
	}
	p.set(&entry{Lease: Lease{MAC: mac, IP: ip, Until: now.Add(offerHold)}, offered: true})
	return ip, true
}

func (p *Pool) pick(mac string, want netip.Addr, now time.Time) (netip.Addr, bool) {
	if p.free(want, mac, now) {
		return want, true
	}
	var oldest *entry
	for a := p.start; !p.end.Less(a); a = a.Next() {
		if p.exclude[a] {
			continue
		}
		e := p.byIP[a]
		if e == nil {
			return a, true
		}
		if now.After(e.Until) && (oldest == nil || e.Until.Before(oldest.Until)) {
			oldest = e
		}
	}
	if oldest == nil {
		return netip.Addr{}, false
	}
	return oldest.IP, true
}

// Verdict is the answer to a REQUEST.
type Verdict uint8

const (
	// Silent: not ours to answer.
	Silent Verdict = iota
	// Ack: the address is the client's for the lease time.
	Ack
	// Refuse: the client must start again (NAK).
	Refuse
)

// Confirm answers a REQUEST for ip (RFC 2131 4.3.2: selecting, init-reboot,
// renewing and rebinding differ only in where the address stands). On Ack the
// lease is saved before the call returns; a failed save comes back as err
// beside the Ack, because a PC without address is worse than a lost note.
func (p *Pool) Confirm(mac string, ip netip.Addr, now time.Time) (v Verdict, err error) {
	p.mu.Lock()
	switch {
	case !ip.IsValid():
		v = Silent
	case !p.free(ip, mac, now):
		v = Refuse
	default:
		p.set(&entry{Lease: Lease{MAC: mac, IP: ip, Until: now.Add(p.leaseTime)}})
		v = Ack
	}
	p.mu.Unlock()
	if v == Ack {
		err = p.save()
	}
	return v, err
}

// Release ends a lease early; the client keeps its claim until somebody needs
// the address.
func (p *Pool) Release(mac string, ip netip.Addr, now time.Time) error {
	p.mu.Lock()
	e := p.byIP[ip]
	ours := e != nil && e.MAC == mac
	if ours {
		e.Until = now
	}
	p.mu.Unlock()
	if !ours {
		return nil
	}
	return p.save()
}

// Withdraw forgets an offer: the client chose another server.
func (p *Pool) Withdraw(mac string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.byMAC[mac]; e != nil && e.offered {
		delete(p.byMAC, mac)
		delete(p.byIP, e.IP)
	}
}

// Decline sets an address aside that the client found in use by a stranger. At
// most a quarter of the pool can be set aside, so that forged packets cannot
// empty it.
func (p *Pool) Decline(mac string, ip netip.Addr, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.byIP[ip]
	if e == nil || e.MAC != mac {
		return
	}
	aside, size := 0, 0
	for a := p.start; !p.end.Less(a); a = a.Next() {
		size++
		if x := p.byIP[a]; x != nil && x.declined && now.Before(x.Until) {
			aside++
		}
	}
	delete(p.byMAC, mac)
	delete(p.byIP, ip)
	if aside < max(1, size/4) {
		p.set(&entry{Lease: Lease{IP: ip, Until: now.Add(declineHold)}, declined: true})
	}
}

// MACOf returns who holds an address now.
func (p *Pool) MACOf(ip netip.Addr, now time.Time) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.byIP[ip]
	if e == nil || e.MAC == "" || now.After(e.Until) {
		return "", false
	}
	return e.MAC, true
}

// Leases returns the acknowledged leases by address, expired ones included.
func (p *Pool) Leases() []Lease {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Lease, 0, len(p.byIP))
	for _, e := range p.byIP {
		if !e.offered && !e.declined {
			out = append(out, e.Lease)
		}
	}
	slices.SortFunc(out, func(a, b Lease) int { return a.IP.Compare(b.IP) })
	return out
}

func (p *Pool) save() error {
	if p.store == nil {
		return nil
	}
	p.saveMu.Lock()
	defer p.saveMu.Unlock()
	if err := p.store.Save(p.Leases()); err != nil {
		return errors.Join(errors.New("lease given, but not kept over a restart"), err)
	}
	return nil
}
