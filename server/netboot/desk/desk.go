// Package desk is the one desk where every boot protocol asks. It passes the
// question to the Decider, checks the answer's values, and remembers what the
// protocols learn about each other's clients: which MAC sent a DISCOVER, which
// address belongs to which MAC, which address was answered Agent and may
// therefore fetch a kernel and an initramfs. It opens no socket and decides
// nothing. Called by dhcp, tftp and httpboot.
package desk

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"labswarm/server/decide"
	"labswarm/server/netboot/bootfile"
	"labswarm/server/netboot/bootreq"
)

const (
	// askTimeout: a store that hangs must not hang the firmware (safety.md
	// row 29); the Decider answers Local when its time is up.
	askTimeout = 3 * time.Second
	// discoverFresh: how long a DISCOVER proves that a MAC is booting.
	discoverFresh = 10 * time.Minute
	// sessionFresh: how long an Agent answer lets an address fetch kernel and
	// initramfs. Long, because slow machines retry; each fetch asks anew anyway.
	sessionFresh = 30 * time.Minute
	// tableSize bounds each table; MACs and addresses can be invented.
	tableSize = 4096
)

// Config is what a Desk needs.
type Config struct {
	Decider bootreq.Decider
	Files   *bootfile.Files // for checking the names in answers
	Log     *slog.Logger
	// OnLink is the lab subnet; sources outside it get no TFTP. Invalid = no
	// check (mode off behind routers).
	OnLink netip.Prefix
	// NeedDiscover asks for a recent DISCOVER of a TFTP client's MAC.
	NeedDiscover bool
	// Lookups of an address's MAC, tried in order: leases, neighbour table.
	Lookups []func(netip.Addr) (string, bool)
}

// Desk is used from many goroutines.
type Desk struct {
	cfg     Config
	started time.Time

	mu         sync.Mutex
	discovered *lru[string, time.Time]
	sessions   *lru[netip.Addr, session]
	logged     *lru[string, decide.Decision]
}

// session is what an address told about itself when it asked for its script.
type session struct {
	mac, uuid string
	arch      uint16
	action    decide.Action
	at        time.Time
}

// New returns an empty desk.
func New(cfg Config) *Desk {
	return &Desk{
		cfg: cfg, started: time.Now(),
		discovered: newLRU[string, time.Time](tableSize),
		sessions:   newLRU[netip.Addr, session](tableSize),
		logged:     newLRU[string, decide.Decision](tableSize),
	}
}

// Ask is the only caller of DecideBoot. It bounds the time, survives a panic of
// the Decider (Local) and drops values that may not stand in a script.
func (d *Desk) Ask(ctx context.Context, r bootreq.Request) (a bootreq.Answer) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			a = bootreq.Answer{Decision: decide.Decision{Action: decide.Local, Reason: decide.ReasonStore}}
			d.cfg.Log.Error("boot decision panicked, answering local", "mac", r.MAC, "err", p, "stack", string(debug.Stack()))
		}
	}()
	a = d.cfg.Decider.DecideBoot(ctx, r)
	d.clean(&a, r)
	d.logChange(r, a)
	return a
}

// clean replaces values that are not valid by their defaults and says so.
func (d *Desk) clean(a *bootreq.Answer, r bootreq.Request) {
	if !bootfile.ValidKernelArgs(a.KernelArgs) {
		d.cfg.Log.Error("kernel arguments of a host are not usable, left out", "mac", r.MAC, "host", a.Host, "args", a.KernelArgs)
		a.KernelArgs = ""
	}
	for _, f := range []*string{&a.Kernel, &a.Initrd, &a.NBP} {
		if *f == "" {
			continue
		}
		if _, ok := d.cfg.Files.Get(*f); !ok {
			d.cfg.Log.Error("boot file of a host does not exist, using the default", "mac", r.MAC, "host", a.Host, "file", *f)
			*f = ""
		}
	}
}

// logChange writes one line when a PC's decision changes, none per packet.
func (d *Desk) logChange(r bootreq.Request, a bootreq.Answer) {
	key := r.MAC
	if key == "" {
		key = r.IP.String()
	}
	d.mu.Lock()
	old, seen := d.logged.get(key)
	d.logged.put(key, a.Decision)
	d.mu.Unlock()
	level := slog.LevelDebug
	if !seen || old.Action != a.Decision.Action {
		level = slog.LevelInfo
	}
	d.cfg.Log.Log(context.Background(), level, "boot decision", "mac", r.MAC, "host", a.Host,
		"action", a.Decision.Action.String(), "reason", string(a.Decision.Reason), "proto", string(r.Proto), "ip", ipText(r.IP), "file", r.File)
}

func ipText(ip netip.Addr) string {
	if !ip.IsValid() {
		return ""
	}
	return ip.String()
}

// Sighting passes a sighting on; a panic of the Decider is logged.
func (d *Desk) Sighting(s bootreq.Sighting) {
	defer d.recovered("sighting")
	d.cfg.Decider.Sighting(s)
}

// Fetched tells the Decider that the whole initramfs reached mac.
func (d *Desk) Fetched(mac string) {
	if mac == "" {
		return // a session without a MAC: no host to count for
	}
	defer d.recovered("initramfs fetched")
	d.cfg.Decider.InitramfsFetched(mac)
}

func (d *Desk) recovered(what string) {
	if p := recover(); p != nil {
		d.cfg.Log.Error("boot event panicked", "event", what, "err", p, "stack", string(debug.Stack()))
	}
}

// Discovered notes a DISCOVER or REQUEST of a boot client with this MAC.
func (d *Desk) Discovered(mac string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.discovered.put(mac, time.Now())
}

// Heard reports whether a DISCOVER or REQUEST of this MAC has come in lately.
func (d *Desk) Heard(mac string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, seen := d.discovered.get(mac)
	return seen && time.Since(at) <= discoverFresh
}

// Asked notes who asked for a boot script from ip and whether the answer was
// Agent or Enrol: only then may ip fetch a kernel and an initramfs.
func (d *Desk) Asked(r bootreq.Request, a bootreq.Answer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sessions.put(r.IP, session{mac: r.MAC, uuid: r.UUID, arch: r.Arch, action: a.Decision.Action, at: time.Now()})
}

// Learn notes an address that a DHCP packet named for a MAC (ciaddr).
func (d *Desk) Learn(ip netip.Addr, mac, uuid string, arch uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.sessions.get(ip); ok && s.mac == mac {
		return // keep what the script request said
	}
	d.sessions.put(ip, session{mac: mac, uuid: uuid, arch: arch, at: time.Now()})
}

// AllowFile reports whether ip may fetch a file that carries a decision, and
// whose it is. The session must have been answered Agent, or Enrol, which opens
// the files of the enrol profile only; and the question is asked again now:
// Agent may turn into Local at any time.
func (d *Desk) AllowFile(ctx context.Context, proto bootreq.Proto, ip netip.Addr, file string) (mac string, ok bool) {
	d.mu.Lock()
	s, have := d.sessions.get(ip)
	d.mu.Unlock()
	if !have || !opens(s.action, file) || time.Since(s.at) > sessionFresh {
		return "", false
	}
	a := d.Ask(ctx, bootreq.Request{Proto: proto, MAC: s.mac, UUID: s.uuid, Arch: s.arch, IP: ip, File: file})
	if !opens(a.Decision.Action, file) {
		d.mu.Lock()
		d.sessions.del(ip)
		d.mu.Unlock()
		return "", false
	}
	return s.mac, true
}

// opens reports whether an answer lets a PC fetch a file that carries a decision.
func opens(a decide.Action, file string) bool {
	return a == decide.Agent || (a == decide.Enrol && bootfile.ForEnrol(file))
}

// MACOf returns the MAC of an address: from its own script request or ciaddr,
// from a lease, from the neighbour table.
func (d *Desk) MACOf(ip netip.Addr) (string, bool) {
	d.mu.Lock()
	s, ok := d.sessions.get(ip)
	d.mu.Unlock()
	if ok && s.mac != "" && time.Since(s.at) <= sessionFresh {
		return s.mac, true
	}
	return d.lookup(ip)
}

func (d *Desk) lookup(ip netip.Addr) (string, bool) {
	for _, look := range d.cfg.Lookups {
		if mac, ok := look(ip); ok {
			return mac, true
		}
	}
	return "", false
}

// OnLink reports whether ip may be sent TFTP packets at all: it lies in the lab
// subnet, and if its MAC is known, that MAC has booted in the last ten minutes.
// An unknown MAC passes: some ROMs never send an ARP request, and nobody can be
// flooded at an address without a neighbour entry. So does everybody in the
// first ten minutes after start, for PCs whose DISCOVER went to the server
// before its restart.
func (d *Desk) OnLink(ip netip.Addr) bool {
	if !d.cfg.OnLink.IsValid() {
		return true
	}
	if !d.cfg.OnLink.Contains(ip) {
		return false
	}
	if !d.cfg.NeedDiscover || time.Since(d.started) < discoverFresh {
		return true
	}
	if _, ok := d.lookup(ip); !ok {
		return true
	}
	return d.Booting(ip)
}

// Booting reports whether ip belongs to a MAC that has sent a DISCOVER in the
// last ten minutes. Without a lab subnet to look at (mode off) everybody counts.
func (d *Desk) Booting(ip netip.Addr) bool {
	if !d.cfg.NeedDiscover {
		return true
	}
	mac, ok := d.lookup(ip)
	if !ok {
		return false
	}
	d.mu.Lock()
	at, seen := d.discovered.get(mac)
	d.mu.Unlock()
	return seen && time.Since(at) <= discoverFresh
}
