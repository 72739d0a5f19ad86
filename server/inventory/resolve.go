package inventory

import (
	"time"

	"labswarm/api"
	"labswarm/server/inventory/ident"
	"labswarm/server/store"
)

// Verdict is the result of resolving evidence.
type Verdict uint8

// The verdicts. The zero value allows nothing.
const (
	Unknown   Verdict = iota // no host has this evidence
	Known                    // exactly one host
	Ambiguous                // MAC and UUID point to different hosts
	SelfHost                 // the server's own machine
)

// Resolved is a verdict and the host it found (Known only).
type Resolved struct {
	Verdict Verdict
	Host    api.Host
	// NewMAC is set when the host was known by its UUID and the MAC is one it
	// never showed (dock, dongle, new NIC).
	NewMAC bool
	// Why is a sentence for the log when the verdict is not Known.
	Why string
}

// Resolve says which host a machine is from one MAC and, when known, the
// SMBIOS UUID: what a boot request carries (control.md section 1).
func Resolve(tx store.Tx, mac, uuid string, self Self) (Resolved, error) {
	return resolve(tx, []string{mac}, uuid, self)
}

// ResolveEvidence says which host an enrolling agent runs on. Only permanent
// addresses of NICs that are not on the USB bus count, besides the one it
// booted from: a dock's address travels from PC to PC.
func ResolveEvidence(tx store.Tx, ev api.Evidence, self Self) (Resolved, error) {
	var macs []string
	for _, n := range ev.NICs {
		if mac, err := ident.ParseMAC(n.MAC); err == nil && (n.Boot || n.Bus != "usb") {
			macs = append(macs, mac)
		}
	}
	return resolve(tx, macs, ev.UUID, self)
}

func resolve(tx store.Tx, macs []string, uuid string, self Self) (Resolved, error) {
	if ident.JunkUUID(uuid) {
		uuid = ""
	}
	byMAC, byUUID := "", ""
	for _, mac := range macs {
		if self.Has(mac, uuid) {
			return Resolved{Verdict: SelfHost, Why: "this is the server's own machine"}, nil
		}
		name, err := tx.Get(keyMAC + mac)
		if err != nil {
			return Resolved{}, err
		}
		if name == nil {
			continue
		}
		if byMAC != "" && byMAC != string(name) {
			return Resolved{Verdict: Ambiguous, Why: "its network cards belong to the hosts " + byMAC + " and " + string(name)}, nil
		}
		byMAC = string(name)
	}
	if self.Has("", uuid) {
		return Resolved{Verdict: SelfHost, Why: "this is the server's own machine"}, nil
	}
	if k := ident.UUIDKey(uuid); k != "" {
		name, err := tx.Get(keyUUID + k)
		if err != nil {
			return Resolved{}, err
		}
		byUUID = string(name)
	}
	return judge(tx, byMAC, byUUID, uuid)
}

// judge applies the table of control.md section 1 to the names found.
func judge(tx store.Tx, byMAC, byUUID, uuid string) (Resolved, error) {
	switch {
	case byMAC == "" && byUUID == "":
		return Resolved{Verdict: Unknown, Why: "neither its MAC nor its UUID is in the inventory"}, nil
	case byMAC != "" && byUUID != "" && byMAC != byUUID:
		return Resolved{Verdict: Ambiguous, Why: "its MAC belongs to host " + byMAC + ", its UUID to host " + byUUID}, nil
	case byUUID != "":
		h, err := Get(tx, byUUID)
		return Resolved{Verdict: Known, Host: h, NewMAC: byMAC == ""}, err
	}
	h, err := Get(tx, byMAC)
	if err != nil {
		return Resolved{}, err
	}
	if h.UUID != "" && uuid != "" && !ident.SameUUID(h.UUID, uuid) {
		return Resolved{Verdict: Ambiguous, Why: "its MAC belongs to host " + byMAC + ", which has UUID " + h.UUID + ", but it shows " + uuid +
			" (another PC with this network card, or a new board: correct the host's UUID)"}, nil
	}
	return Resolved{Verdict: Known, Host: h}, nil
}

// Confirm stores what an enrolled agent showed and learns the UUID of a host
// that had none. The caller has resolved the same evidence to h in the same
// transaction.
func Confirm(tx store.Tx, h api.Host, ev api.Evidence, ip string, now time.Time) (api.Host, error) {
	stored, err := Get(tx, h.Name)
	if err != nil {
		return h, err
	}
	if stored.UUID == "" && !ident.JunkUUID(ev.UUID) {
		u, err := ident.ParseUUID(ev.UUID)
		if err != nil {
			return h, invalid("host %s shows a bad UUID: %v", h.Name, err)
		}
		stored.UUID = u
	}
	stored.LastSeen, stored.LastIP = now.UTC(), ip
	stored.Firmware, stored.Secure = ev.Firmware, ev.SecureBoot
	stored.Evidence = trim(ev)
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
