package inventory

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"labswarm/api"
	"labswarm/server/inventory/ident"
	"labswarm/server/store"
)

// What is learnt about evidence itself: which values do not name one PC.
const (
	keyShared   = "ids/shared/"    // + MAC: it belongs to a dock or dongle, or stands in several PCs
	keyJunkUUID = "ids/junk/uuid/" // + key of a UUID that several PCs show
	keySeen     = "ids/seen/"      // + kind/value: who showed it, at most notUniqueFrom of them
)

const (
	notUniqueFrom = 3 // PCs that show one value
	sharedFrom    = 2 // PCs that show the MAC of a NIC on the USB bus
	maxPending    = 8
)

// Notice is something learnt, for the event log.
type Notice struct {
	Code, Host, Text string
}

// sight is one value and who showed it.
type sight struct {
	kind, value, holder string
	limit               int
}

// Observe learns from what an agent showed, before it is resolved: a MAC on
// the USB bus that two PCs show belongs to a dock, any MAC, UUID or serial
// number that three show names none of them. holder is the PC's name, or
// something that stands for it. It reports whether anything had to be written:
// call it on a read-only transaction first (write false).
func Observe(tx store.Tx, ev api.Evidence, write bool) (news bool, out []Notice, err error) {
	holder := ident.UUIDKey(ev.UUID)
	if ident.JunkUUID(ev.UUID) {
		holder = ""
	}
	var seen []sight
	for _, n := range ev.NICs {
		mac, err := ident.ParseMAC(n.MAC)
		if err != nil || holder == "" {
			continue
		}
		limit := notUniqueFrom
		if n.Bus == "usb" {
			limit = sharedFrom
		}
		// The host that the MAC belongs to has shown it, too.
		if name, _, err := macOwner(tx, mac); err != nil {
			return false, nil, err
		} else if name != "" {
			h, err := Get(tx, name)
			if err != nil {
				return false, nil, err
			}
			if k := ident.UUIDKey(h.UUID); k != "" && k != holder {
				seen = append(seen, sight{"mac", mac, k, limit})
			} else if n.Bus != "usb" {
				continue // its own, as always: nothing to remember
			}
		}
		seen = append(seen, sight{"mac", mac, holder, limit})
	}
	if mac := bootMAC(ev); mac != "" {
		for kind, v := range map[string]string{"uuid": holder, "serial": strings.ToLower(clip(ident.NormSerial(ev.Serial)))} {
			if v != "" && !strings.Contains(v, "/") {
				seen = append(seen, sight{kind, v, mac, notUniqueFrom})
			}
		}
	}
	for _, s := range seen {
		n, notice, err := note(tx, s, write)
		if err != nil {
			return news, out, err
		}
		news = news || n
		if notice != nil {
			out = append(out, *notice)
		}
	}
	return news, out, nil
}

// NoteUUID remembers that a PC known by its MAC showed a UUID that is not its
// own: what a boot request says before any agent runs.
func NoteUUID(tx store.Tx, uuid, mac string, write bool) (bool, *Notice, error) {
	k := ident.UUIDKey(uuid)
	if k == "" || ident.JunkUUID(uuid) {
		return false, nil, nil
	}
	if owner, err := tx.Get(keyUUID + k); err != nil {
		return false, nil, err
	} else if owner != nil { // the host that has it showed it, too
		h, err := Get(tx, string(owner))
		if err != nil {
			return false, nil, err
		}
		if news, n, err := note(tx, sight{"uuid", k, h.MAC, notUniqueFrom}, write); err != nil || (news && !write) || n != nil {
			return news, n, err
		}
	}
	return note(tx, sight{"uuid", k, mac, notUniqueFrom}, write)
}

// note adds a holder of a value; the holder that reaches the limit makes the
// value worthless.
func note(tx store.Tx, s sight, write bool) (news bool, n *Notice, err error) {
	key := keySeen + s.kind + "/" + s.value
	raw, err := tx.Get(key)
	if err != nil {
		return false, nil, err
	}
	var holders []string
	if raw != nil {
		if err := json.Unmarshal(raw, &holders); err != nil {
			return false, nil, fmt.Errorf("read %s: %w", key, err)
		}
	}
	if len(holders) >= s.limit || slices.Contains(holders, s.holder) {
		return false, nil, nil
	}
	if !write {
		return true, nil, nil
	}
	holders = append(holders, s.holder)
	if raw, err = json.Marshal(holders); err != nil {
		return true, nil, err
	}
	if err := tx.Put(key, raw); err != nil || len(holders) < s.limit {
		return true, nil, err
	}
	switch s.kind {
	case "mac":
		n, err = ShareMAC(tx, s.value)
	case "uuid":
		n, err = JunkUUID(tx, s.value)
	case "serial":
		n = &Notice{Code: "evidence_not_unique", Text: fmt.Sprintf("serial number %s stands in %d PCs: it counts for none of them", s.value, s.limit)}
	}
	return true, n, err
}

// UsefulSerial returns a serial number that names one PC, and "" for any other.
func UsefulSerial(tx store.Tx, serial string) (string, error) {
	serial = clip(ident.NormSerial(serial))
	raw, err := tx.Get(keySeen + "serial/" + strings.ToLower(serial))
	if err != nil || raw == nil {
		return serial, err
	}
	var holders []string
	if err := json.Unmarshal(raw, &holders); err != nil || len(holders) >= notUniqueFrom {
		return "", err
	}
	return serial, nil
}

// ShareMAC marks a MAC as one that travels: it names no PC any more.
func ShareMAC(tx store.Tx, mac string) (*Notice, error) {
	n := &Notice{Code: "mac_shared", Text: "network card " + mac + " was seen in several PCs (a dock or dongle): it names none of them any more"}
	owner, err := tx.Get(keyMAC + mac)
	if err != nil {
		return nil, err
	}
	if owner != nil {
		h, err := Get(tx, string(owner))
		if err != nil {
			return nil, err
		}
		n.Host = h.Name
		if h.UUID == "" {
			n.Text += "; host " + h.Name + " has no UUID yet and cannot be told now: give it one, or its own MAC"
		}
		h.NotUnique = addOnce(h.NotUnique, "MAC "+mac)
		if err := save(tx, h); err != nil {
			return nil, err
		}
	}
	return n, tx.Put(keyShared+mac, []byte("1"))
}

// JunkUUID marks a UUID as not unique and takes it from the host that has it.
func JunkUUID(tx store.Tx, uuid string) (*Notice, error) {
	k := ident.UUIDKey(uuid)
	n := &Notice{Code: "evidence_not_unique", Text: "UUID " + uuid + " stands in several PCs: it names none of them any more"}
	owner, err := tx.Get(keyUUID + k)
	if err != nil {
		return nil, err
	}
	if owner != nil {
		h, err := Get(tx, string(owner))
		if err != nil {
			return nil, err
		}
		n.Host = h.Name
		h.NotUnique = addOnce(h.NotUnique, "UUID "+h.UUID)
		h.UUID = ""
		if err := tx.Delete(keyUUID + k); err != nil {
			return nil, err
		}
		if err := save(tx, h); err != nil {
			return nil, err
		}
	}
	return n, tx.Put(keyJunkUUID+k, []byte("1"))
}

// NewBoard gives a host the UUID of the mainboard it shows now; the serial
// number of the old one is forgotten.
func NewBoard(tx store.Tx, name, uuid string) (api.Host, error) {
	h, err := Get(tx, name)
	if err != nil {
		return h, err
	}
	old := h
	if h.UUID, err = ident.ParseUUID(uuid); err != nil || ident.JunkUUID(uuid) {
		return h, invalid("host %s: UUID %q names no machine", name, uuid)
	}
	h.Serial = ""
	if err := checkFree(tx, h); err != nil {
		return h, err
	}
	if err := unindex(tx, old); err != nil {
		return h, err
	}
	return h, save(tx, h)
}

// Quarantine keeps a host from getting any order; why "" ends it.
func Quarantine(tx store.Tx, name, why string) (api.Host, error) {
	h, err := Get(tx, name)
	if err != nil {
		return h, err
	}
	h.Quarantined = clip(why)
	return h, save(tx, h)
}

// AcceptDisks makes the disks that a host showed last the ones that may be
// written.
func AcceptDisks(tx store.Tx, name string) (api.Host, error) {
	h, err := Get(tx, name)
	if err != nil {
		return h, err
	}
	if h.Evidence == nil {
		return h, invalid("host %s was never seen by an agent: there are no disks to accept", h.Name)
	}
	h.KnownDisks = diskRefs(h.Evidence.Disks)
	return h, save(tx, h)
}

// DiskKnown reports whether a disk is one of those a host may have. A host
// without a list has not been confirmed yet.
func DiskKnown(h api.Host, d api.Disk) bool {
	return h.KnownDisks == nil || slices.Contains(h.KnownDisks, diskRef(d))
}

func diskRef(d api.Disk) api.DiskRef {
	r := api.DiskRef{WWN: strings.ToLower(strings.TrimSpace(d.WWN)), Serial: strings.ToLower(ident.NormSerial(d.Serial)), Bytes: d.Bytes}
	if r.WWN == "" && r.Serial == "" {
		r.Model = d.Model
	}
	return r
}

// diskRefs lists the fixed disks; nil = none was seen, so that the first one
// that is will do.
func diskRefs(list []api.Disk) (out []api.DiskRef) {
	for _, d := range list[:min(len(list), 32)] {
		if !d.Removable && d.Bus != "usb" {
			out = append(out, diskRef(d))
		}
	}
	return out
}

// pending lists MACs that a host shows and that may not be its own: on the USB
// bus, or new since the last time.
func pending(h api.Host, ev api.Evidence) []string {
	out := h.PendingMACs
	for _, n := range ev.NICs {
		mac, err := ident.ParseMAC(n.MAC)
		if err != nil || mac == h.MAC || len(out) >= maxPending {
			continue
		}
		known := h.Evidence == nil || slices.ContainsFunc(h.Evidence.NICs, func(o api.NIC) bool { return strings.EqualFold(o.MAC, n.MAC) })
		if n.Bus == "usb" || !known {
			out = addOnce(out, mac)
		}
	}
	return out
}

func addOnce(list []string, v string) []string {
	if slices.Contains(list, v) {
		return list
	}
	return append(slices.Clone(list), v)
}

// bootMAC is the address a machine booted from; the only built-in one when it
// does not know which; "" = cannot be told.
func bootMAC(ev api.Evidence) string {
	var only []string
	for _, n := range ev.NICs {
		mac, err := ident.ParseMAC(n.MAC)
		if err != nil {
			continue
		}
		if n.Boot {
			return mac
		}
		if n.Bus != "usb" {
			only = append(only, mac)
		}
	}
	if len(only) == 1 {
		return only[0]
	}
	return ""
}

// BootMAC is the MAC by which an enrolling PC will be known.
func BootMAC(ev api.Evidence) string { return bootMAC(ev) }
