package inventory

import (
	"strings"
	"time"

	"labswarm/api"
	"labswarm/server/inventory/ident"
	"labswarm/server/store"
)

// Verdict is the result of resolving evidence.
type Verdict uint8

// The verdicts. The zero value allows nothing.
const (
	Unknown     Verdict = iota // no host has this evidence
	Known                      // exactly one host
	Ambiguous                  // the evidence points to different hosts, or contradicts the one it points to
	SelfHost                   // the server's own machine
	Quarantined                // a host that gets no order until somebody answers
)

// Resolved is a verdict and the host it found (Known and Quarantined only).
type Resolved struct {
	Verdict Verdict
	Host    api.Host
	// NewMAC is set when the host was known by its UUID and the MAC is one it
	// never showed (dock, dongle, new NIC).
	NewMAC bool
	// Why is a sentence for the log when the verdict is not Known.
	Why string
	// Doubt is set with Ambiguous: what a person is asked about.
	Doubt *Doubt
}

// Doubt is evidence that does not fit together.
type Doubt struct {
	MAC, UUID string // as shown; UUID "" = none
	ByMAC     string // host that the MAC belongs to
	ByUUID    string // host that the UUID belongs to, "" = none
}

// Resolve says which host a machine is from one MAC and, when known, the
// SMBIOS UUID: what a boot request carries (control.md section 1).
func Resolve(tx store.Tx, mac, uuid string, self Self) (Resolved, error) {
	return resolve(tx, []string{mac}, uuid, self)
}

// ResolveEvidence says which host an enrolling agent runs on. Only permanent
// addresses of NICs that are not on the USB bus count, besides the one it
// booted from: a dock's address travels from PC to PC. A MAC alone is enough
// for the boot decision only: here UUID or serial number must confirm it.
func ResolveEvidence(tx store.Tx, ev api.Evidence, self Self) (Resolved, error) {
	var macs []string
	for _, n := range ev.NICs {
		if mac, err := ident.ParseMAC(n.MAC); err == nil && (n.Boot || n.Bus != "usb") {
			macs = append(macs, mac)
		}
	}
	r, err := resolve(tx, macs, ev.UUID, self)
	if err != nil || r.Verdict != Known {
		return r, err
	}
	return confirmed(tx, r, ev)
}

// confirmed refuses a host found by its MAC alone whose other facts are not
// those that the host showed before.
func confirmed(tx store.Tx, r Resolved, ev api.Evidence) (Resolved, error) {
	uuid, err := UsefulUUID(tx, ev.UUID)
	if err != nil || (uuid != "" && r.Host.UUID != "") { // resolve has compared them
		return r, err
	}
	was, err := UsefulSerial(tx, r.Host.Serial)
	if err != nil {
		return r, err
	}
	is, err := UsefulSerial(tx, ev.Serial)
	if err != nil {
		return r, err
	}
	doubt := func(why string) Resolved {
		return Resolved{Verdict: Ambiguous, Why: why, Doubt: &Doubt{MAC: r.Host.MAC, UUID: uuid, ByMAC: r.Host.Name}}
	}
	switch {
	case was != "" && is != "" && !ident.SameSerial(was, is):
		return doubt("its MAC belongs to host " + r.Host.Name + ", whose serial number is " + was + ", but it shows " + is), nil
	case uuid == "" && r.Host.UUID != "" && (was == "" || is == ""):
		return doubt("its MAC belongs to host " + r.Host.Name + ", which has UUID " + r.Host.UUID + ", but it shows neither UUID nor serial number"), nil
	}
	return r, nil
}

// UsefulUUID returns a UUID that names one machine, and "" for any other.
func UsefulUUID(tx store.Tx, uuid string) (string, error) {
	k := ident.UUIDKey(uuid)
	if k == "" || ident.JunkUUID(uuid) {
		return "", nil
	}
	raw, err := tx.Get(keyJunkUUID + k)
	if err != nil || raw != nil {
		return "", err
	}
	return uuid, nil
}

func resolve(tx store.Tx, macs []string, uuid string, self Self) (Resolved, error) {
	byMAC, theMAC, byUUID, shared := "", "", "", false
	if ident.JunkUUID(uuid) {
		uuid = ""
	}
	for _, mac := range macs {
		if self.Has(mac, uuid) {
			return Resolved{Verdict: SelfHost, Why: "this is the server's own machine"}, nil
		}
		name, travels, err := macOwner(tx, mac)
		if err != nil {
			return Resolved{}, err
		}
		shared = shared || travels
		if name == "" {
			continue
		}
		if byMAC != "" && byMAC != name {
			return Resolved{Verdict: Ambiguous, Why: "its network cards belong to the hosts " + byMAC + " and " + name,
				Doubt: &Doubt{MAC: mac, UUID: uuid, ByMAC: name}}, nil
		}
		byMAC, theMAC = name, mac
	}
	if self.Has("", uuid) {
		return Resolved{Verdict: SelfHost, Why: "this is the server's own machine"}, nil
	}
	uuid, err := UsefulUUID(tx, uuid)
	if err != nil {
		return Resolved{}, err
	}
	if k := ident.UUIDKey(uuid); k != "" {
		name, err := tx.Get(keyUUID + k)
		if err != nil {
			return Resolved{}, err
		}
		byUUID = string(name)
	}
	r, err := judge(tx, Doubt{MAC: theMAC, UUID: uuid, ByMAC: byMAC, ByUUID: byUUID})
	if r.Verdict == Unknown && shared {
		r.Why = "its network card travels from PC to PC, and its UUID is not in the inventory"
	}
	r.NewMAC = r.NewMAC && !shared
	if r.Verdict == Known && r.Host.Quarantined != "" {
		r.Verdict, r.Why = Quarantined, "host "+r.Host.Name+" is quarantined: "+r.Host.Quarantined
	}
	return r, err
}

// macOwner returns the host of a MAC, or whether the MAC is one that travels.
func macOwner(tx store.Tx, mac string) (name string, travels bool, err error) {
	raw, err := tx.Get(keyShared + mac)
	if err != nil || raw != nil {
		return "", raw != nil, err
	}
	raw, err = tx.Get(keyMAC + mac)
	if err != nil || raw == nil {
		return "", false, err
	}
	h, err := find(tx, string(raw))
	if err != nil || h == nil || h.SharedNIC {
		return "", h != nil && h.SharedNIC, err
	}
	return h.Name, false, nil
}

// judge applies the table of control.md section 1 to the names found.
func judge(tx store.Tx, d Doubt) (Resolved, error) {
	switch {
	case d.ByMAC == "" && d.ByUUID == "":
		return Resolved{Verdict: Unknown, Why: "neither its MAC nor its UUID is in the inventory"}, nil
	case d.ByMAC != "" && d.ByUUID != "" && !strings.EqualFold(d.ByMAC, d.ByUUID):
		return Resolved{Verdict: Ambiguous, Why: "its MAC belongs to host " + d.ByMAC + ", its UUID to host " + d.ByUUID, Doubt: &d}, nil
	case d.ByUUID != "":
		h, err := Get(tx, d.ByUUID)
		return Resolved{Verdict: Known, Host: h, NewMAC: d.ByMAC == ""}, err
	}
	h, err := Get(tx, d.ByMAC)
	if err != nil {
		return Resolved{}, err
	}
	if h.UUID != "" && d.UUID != "" && !ident.SameUUID(h.UUID, d.UUID) {
		return Resolved{Verdict: Ambiguous, Doubt: &d, Why: "its MAC belongs to host " + d.ByMAC + ", which has UUID " + h.UUID + ", but it shows " + d.UUID +
			" (another PC with this network card, or a new board)"}, nil
	}
	return Resolved{Verdict: Known, Host: h}, nil
}

// Confirm stores what an enrolled agent showed and learns the UUID and serial
// number of a host that had none. The disks of the first confirmation are its
// own from then on; others need AcceptDisks. The caller has resolved the same
// evidence to h in the same transaction.
func Confirm(tx store.Tx, h api.Host, ev api.Evidence, ip string, now time.Time) (api.Host, error) {
	stored, err := Get(tx, h.Name)
	if err != nil {
		return h, err
	}
	uuid, err := UsefulUUID(tx, ev.UUID)
	if err != nil {
		return h, err
	}
	if stored.UUID == "" && uuid != "" {
		u, err := ident.ParseUUID(uuid)
		if err != nil {
			return h, invalid("host %s shows a bad UUID: %v", h.Name, err)
		}
		stored.UUID = u
	}
	if stored.Serial == "" {
		stored.Serial = clip(ident.NormSerial(ev.Serial))
	}
	if stored.KnownDisks == nil {
		first := ev.Disks
		if stored.Evidence != nil { // confirmed by a server that did not keep this list
			first = stored.Evidence.Disks
		}
		stored.KnownDisks = diskRefs(first)
	}
	stored.PendingMACs = pending(stored, ev)
	stored.LastSeen, stored.LastIP = now.UTC(), ip
	stored.Firmware, stored.Secure = ev.Firmware, ev.SecureBoot
	stored.Evidence, stored.Claimed = trim(ev), false
	return stored, save(tx, stored)
}

// trim bounds the lists of untrusted evidence, so that a host record fits a
// value of the store.
func trim(ev api.Evidence) *api.Evidence {
	ev.NICs = ev.NICs[:min(len(ev.NICs), 16)]
	ev.Disks = ev.Disks[:min(len(ev.Disks), 32)]
	ev.NoDriver = ev.NoDriver[:min(len(ev.NoDriver), 32)]
	return &ev
}

func clip(s string) string { return s[:min(len(s), 128)] }
