// Package inventory knows the rooms and hosts of the lab and says which host a
// machine is, from what it shows of itself. It stores records through a
// store.Tx it is given and decides nothing about booting or jobs. Called by
// server/daemon.
//
// A MAC is a name, not a credential: a host is one MAC and one SMBIOS UUID, and
// a contradiction between the two is never resolved by guessing.
package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/api/diskrule"
	"labswarm/server/inventory/ident"
	"labswarm/server/store"
)

const (
	keyHost = "hosts/"
	keyMAC  = "ids/mac/"
	keyUUID = "ids/uuid/"
)

// maxName is the longest host or room name. Windows computer names are limited
// to 15; that rule belongs to the image and is checked with it.
const maxName = 32

var nameRule = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?$`)

// Reserved host names: the planner's word for the seed would be ambiguous.
var reserved = []string{"server"}

// NotFoundError says that no such host or room is known.
type NotFoundError struct{ Kind, Name string }

// Error names what was looked for.
func (e *NotFoundError) Error() string { return fmt.Sprintf("%s %q is not known", e.Kind, e.Name) }

// InvalidError says what is wrong with a host record.
type InvalidError struct{ Text string }

// Error is the sentence for people.
func (e *InvalidError) Error() string { return e.Text }

// ConflictError says that another record already has this MAC or UUID.
type ConflictError struct{ Text string }

// Error is the sentence for people.
func (e *ConflictError) Error() string { return e.Text }

func invalid(format string, args ...any) error {
	return &InvalidError{Text: fmt.Sprintf(format, args...)}
}

// Self is the server's own machine: never a target, never a host.
type Self struct {
	MACs []string // every local NIC, canonical
	UUID string   // SMBIOS UUID, "" when not readable
}

// Has reports whether a MAC or a UUID is the server's own.
func (s Self) Has(mac, uuid string) bool {
	return (mac != "" && slices.Contains(s.MACs, mac)) ||
		(s.UUID != "" && !ident.JunkUUID(s.UUID) && ident.SameUUID(s.UUID, uuid))
}

// CheckName says whether a room or host name can be used.
func CheckName(kind, name string) error {
	if !nameRule.MatchString(name) {
		return invalid("%s name %q: use 1 to %d letters, digits and hyphens, beginning and ending with a letter or digit", kind, name, maxName)
	}
	if slices.Contains(reserved, strings.ToLower(name)) {
		return invalid("%s name %q is reserved", kind, name)
	}
	return nil
}

// Normalise checks the fields an admin gives and brings them into one spelling.
func Normalise(h api.Host) (api.Host, error) {
	if err := errors.Join(CheckName("host", h.Name), CheckName("room", h.Room)); err != nil {
		return h, invalid("%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	mac, err := ident.ParseMAC(h.MAC)
	if err != nil {
		return h, invalid("host %s: %v", h.Name, err)
	}
	h.MAC = mac
	if h.UUID != "" {
		u, err := ident.ParseUUID(h.UUID)
		if err != nil {
			return h, invalid("host %s: %v", h.Name, err)
		}
		if ident.JunkUUID(u) {
			return h, invalid("host %s: UUID %s is a filler of the board's maker and names no machine: leave it out", h.Name, u)
		}
		h.UUID = u
	}
	if !slices.Contains([]string{"", "silent", "chain"}, h.Style) {
		return h, invalid("host %s: boot style %q: use silent or chain", h.Name, h.Style)
	}
	if h.Network != nil {
		if err := h.Network.Check(); err != nil {
			return h, invalid("host %s: %v", h.Name, err)
		}
	}
	rule, err := diskrule.Parse(h.Disk)
	if err != nil {
		return h, invalid("host %s: %v", h.Name, err)
	}
	h.Disk = rule.String()
	return h, nil
}

// Put adds or changes a host. What the machine showed before (evidence, last
// seen, a learnt UUID) is kept. It returns the stored record. Errors:
// *InvalidError, *ConflictError.
func Put(tx store.Tx, h api.Host, self Self, now time.Time) (api.Host, error) {
	h, err := place(tx, h)
	if err != nil {
		return h, err
	}
	if self.Has(h.MAC, h.UUID) {
		return h, &ConflictError{Text: fmt.Sprintf("host %s: %s is this server itself, which can never be a target", h.Name, firstOf(h.MAC, h.UUID))}
	}
	old, err := find(tx, h.Name)
	if err != nil {
		return h, err
	}
	if err := errors.Join(checkFree(tx, h), checkAddress(tx, h)); err != nil {
		return h, err
	}
	if old != nil {
		h.Name = old.Name // the spelling given first stays
		keepSeen(&h, *old)
		h.Quarantined = old.Quarantined
		if err := unindex(tx, *old); err != nil {
			return h, err
		}
	} else {
		h.Added = now.UTC()
		h.HostPlace = fresh(h.HostPlace)
	}
	return h, save(tx, h)
}

// keepSeen carries over what the admin does not type. When the MAC changed
// this is another PC on the same seat, and nothing of the old one is true.
func keepSeen(h *api.Host, old api.Host) {
	h.Added = old.Added
	h.HostPlace = fresh(h.HostPlace)
	if h.MAC != old.MAC {
		return
	}
	if h.Serial == "" {
		h.Serial = old.Serial
	}
	h.Claimed, h.PendingMACs, h.KnownDisks, h.NotUnique = old.Claimed, old.PendingMACs, old.KnownDisks, old.NotUnique
	if h.UUID == "" {
		h.UUID = old.UUID
	}
	h.LastSeen, h.LastIP, h.Firmware, h.Secure, h.Evidence = old.LastSeen, old.LastIP, old.Firmware, old.Secure, old.Evidence
}

// checkFree refuses a MAC, UUID or seat that another host has.
func checkFree(tx store.Tx, h api.Host) error {
	for _, id := range ids(h) {
		other, err := tx.Get(id)
		if err != nil {
			return err
		}
		if other != nil && !strings.EqualFold(string(other), h.Name) {
			if strings.HasPrefix(id, keySeat) {
				return &ConflictError{Text: fmt.Sprintf("host %s: on seat %s of room %s sits host %s: move that one first", h.Name, h.Seat, h.Room, other)}
			}
			return &ConflictError{Text: fmt.Sprintf("host %s: %s already belongs to host %s: remove that host first, or correct the address", h.Name, id[strings.LastIndex(id, "/")+1:], other)}
		}
	}
	return nil
}

// checkAddress refuses a fixed address that another host has: both PCs would be off the network.
func checkAddress(tx store.Tx, h api.Host) error {
	if h.Network == nil {
		return nil
	}
	all, err := List(tx)
	if err != nil {
		return err
	}
	addr := func(n *api.Network) string { a, _, _ := strings.Cut(n.Address, "/"); return a }
	for _, other := range all {
		if other.Network != nil && !strings.EqualFold(other.Name, h.Name) && addr(other.Network) == addr(h.Network) {
			return &ConflictError{Text: fmt.Sprintf("host %s: address %s already belongs to host %s", h.Name, addr(h.Network), other.Name)}
		}
	}
	return nil
}

// ids returns the index keys of a host.
func ids(h api.Host) []string {
	out := []string{keyMAC + h.MAC}
	if k := ident.UUIDKey(h.UUID); k != "" {
		out = append(out, keyUUID+k)
	}
	if h.Seat != "" {
		out = append(out, seatKey(h.Room, h.Seat))
	}
	return out
}

func save(tx store.Tx, h api.Host) error {
	raw, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode host %s: %w", h.Name, err)
	}
	if err := tx.Put(keyHost+strings.ToLower(h.Name), raw); err != nil {
		return err
	}
	for _, id := range ids(h) {
		if err := tx.Put(id, []byte(h.Name)); err != nil {
			return err
		}
	}
	return nil
}

// unindex drops what leads to a host; what leads to another one by now stays.
func unindex(tx store.Tx, h api.Host) error {
	for _, id := range ids(h) {
		owner, err := tx.Get(id)
		if err != nil {
			return err
		}
		if owner != nil && !strings.EqualFold(string(owner), h.Name) {
			continue
		}
		if err := tx.Delete(id); err != nil {
			return err
		}
	}
	return nil
}

// find returns nil when the host does not exist.
func find(tx store.Tx, name string) (*api.Host, error) {
	raw, err := tx.Get(keyHost + strings.ToLower(name))
	if err != nil || raw == nil {
		return nil, err
	}
	var h api.Host
	if err := json.Unmarshal(raw, &h); err != nil {
		return nil, fmt.Errorf("read host %s: %w", name, err)
	}
	h.Claimed = h.Evidence == nil
	return &h, nil
}

// Get returns a host by name; *NotFoundError when there is none.
func Get(tx store.Tx, name string) (api.Host, error) {
	h, err := find(tx, name)
	if err != nil {
		return api.Host{}, err
	}
	if h == nil {
		return api.Host{}, &NotFoundError{Kind: "host", Name: name}
	}
	return *h, nil
}

// Remove deletes a host; *NotFoundError when there is none.
func Remove(tx store.Tx, name string) error {
	h, err := Get(tx, name)
	if err != nil {
		return err
	}
	if err := unindex(tx, h); err != nil {
		return err
	}
	return tx.Delete(keyHost + strings.ToLower(h.Name))
}

// List returns all hosts, by name.
func List(tx store.Tx) ([]api.Host, error) {
	out := []api.Host{}
	for key, raw := range tx.Scan(keyHost, "", 0) {
		var h api.Host
		if err := json.Unmarshal(raw, &h); err != nil {
			return nil, fmt.Errorf("read %s: %w", key, err)
		}
		h.Claimed = h.Evidence == nil
		out = append(out, h)
	}
	return out, nil
}

// InRoom returns the hosts of a room; *NotFoundError when it has none.
func InRoom(tx store.Tx, room string) ([]api.Host, error) {
	all, err := List(tx)
	if err != nil {
		return nil, err
	}
	var out []api.Host
	for _, h := range all {
		if strings.EqualFold(h.Room, room) {
			out = append(out, h)
		}
	}
	if len(out) == 0 {
		return nil, &NotFoundError{Kind: "room", Name: room}
	}
	return out, nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
