package inventory

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labswarm/api"
	"labswarm/server/inventory/ident"
	"labswarm/server/store"
)

const (
	macA  = "52:54:00:00:00:0a"
	macB  = "52:54:00:00:00:0b"
	macX  = "52:54:00:00:00:99"
	uuidA = "00112233-4455-6677-8899-aabbccddeef0"
	uuidB = "11223344-5566-7788-99aa-bbccddeeff01"
	uuidX = "99223344-5566-7788-99aa-bbccddeeff99"
	junk  = "03000200-0400-0500-0006-000700080009"
)

var (
	now  = time.Date(2026, 11, 20, 2, 0, 0, 0, time.UTC)
	self = Self{MACs: []string{"02:00:00:00:00:01"}, UUID: "deadbeef-0000-1111-2222-333344445555"}
)

func tx(t *testing.T, fn func(store.Tx) error) {
	t.Helper()
	if err := store.NewMem().Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// lab stores host a (MAC and UUID) and host b (MAC only).
func lab(t *testing.T, tx store.Tx) {
	t.Helper()
	for _, h := range []api.Host{{Name: "a", Room: "A101", MAC: macA, UUID: uuidA}, {Name: "b", Room: "A101", MAC: macB}} {
		if _, err := Put(tx, h, self, now); err != nil {
			t.Fatalf("Put(%s): %v", h.Name, err)
		}
	}
}

func TestResolve(t *testing.T) {
	tx(t, func(tx store.Tx) error {
		lab(t, tx)
		for _, tc := range []struct {
			name, mac, uuid string
			want            Verdict
			host            string
			newMAC          bool
		}{
			{"both agree", macA, uuidA, Known, "a", false},
			{"both agree, other byte order", macA, ident.SwapUUID(uuidA), Known, "a", false},
			{"upper case UUID", macA, strings.ToUpper(uuidA), Known, "a", false},
			{"UUID known, MAC new", macX, uuidA, Known, "a", true},
			{"MAC known, UUID absent", macA, "", Known, "a", false},
			{"MAC known, junk UUID", macA, junk, Known, "a", false},
			{"MAC of a, UUID contradicts", macA, uuidX, Ambiguous, "", false},
			{"MAC of b, UUID of a", macB, uuidA, Ambiguous, "", false},
			{"MAC of b, whose UUID is not known yet", macB, uuidX, Known, "b", false},
			{"nothing known", macX, uuidX, Unknown, "", false},
			{"nothing shown", "", "", Unknown, "", false},
			{"garbage", "zz", "not a uuid", Unknown, "", false},
			{"our MAC", self.MACs[0], uuidA, SelfHost, "", false},
			{"our UUID", macA, self.UUID, SelfHost, "", false},
			{"our UUID, other byte order", macX, ident.SwapUUID(self.UUID), SelfHost, "", false},
		} {
			got, err := Resolve(tx, tc.mac, tc.uuid, self)
			if err != nil {
				t.Fatal(err)
			}
			if got.Verdict != tc.want || got.Host.Name != tc.host || got.NewMAC != tc.newMAC {
				t.Errorf("%s: Resolve = %v %q new=%v; want %v %q new=%v", tc.name, got.Verdict, got.Host.Name, got.NewMAC, tc.want, tc.host, tc.newMAC)
			}
			if got.Verdict != Known && got.Why == "" {
				t.Errorf("%s: no reason given", tc.name)
			}
		}
		return nil
	})
}

func TestResolveEvidence(t *testing.T) {
	tx(t, func(tx store.Tx) error {
		lab(t, tx)
		dock := api.NIC{MAC: macB, Bus: "usb"}
		for _, tc := range []struct {
			name string
			ev   api.Evidence
			want Verdict
		}{
			{"built-in and UUID", api.Evidence{UUID: uuidA, NICs: []api.NIC{{MAC: strings.ToUpper(macA), Bus: "pci"}}}, Known},
			{"a dock of another host does not disturb", api.Evidence{UUID: uuidA, NICs: []api.NIC{{MAC: macA, Bus: "pci"}, dock}}, Known},
			{"booted through the dock of another host", api.Evidence{UUID: uuidA, NICs: []api.NIC{{MAC: macB, Bus: "usb", Boot: true}}}, Ambiguous},
			{"two built-in cards of two hosts", api.Evidence{NICs: []api.NIC{{MAC: macA}, {MAC: macB}}}, Ambiguous},
			{"stranger", api.Evidence{UUID: uuidX, NICs: []api.NIC{{MAC: macX}}}, Unknown},
			{"ourselves among the cards", api.Evidence{UUID: uuidA, NICs: []api.NIC{{MAC: macA}, {MAC: self.MACs[0]}}}, SelfHost},
		} {
			got, err := ResolveEvidence(tx, tc.ev, self)
			if err != nil || got.Verdict != tc.want {
				t.Errorf("%s: %v (%s), %v; want %v", tc.name, got.Verdict, got.Why, err, tc.want)
			}
		}
		return nil
	})
}

func TestPutRefuses(t *testing.T) {
	tx(t, func(tx store.Tx) error {
		lab(t, tx)
		for _, tc := range []struct {
			name string
			h    api.Host
			want any
		}{
			{"no name", api.Host{Room: "r", MAC: macX}, new(*InvalidError)},
			{"blank in name", api.Host{Name: "a b", Room: "r", MAC: macX}, new(*InvalidError)},
			{"path in room", api.Host{Name: "c", Room: "../x", MAC: macX}, new(*InvalidError)},
			{"reserved name", api.Host{Name: "Server", Room: "r", MAC: macX}, new(*InvalidError)},
			{"bad MAC", api.Host{Name: "c", Room: "r", MAC: "52:54"}, new(*InvalidError)},
			{"group MAC", api.Host{Name: "c", Room: "r", MAC: "01:00:5e:00:00:01"}, new(*InvalidError)},
			{"bad UUID", api.Host{Name: "c", Room: "r", MAC: macX, UUID: "x"}, new(*InvalidError)},
			{"junk UUID", api.Host{Name: "c", Room: "r", MAC: macX, UUID: junk}, new(*InvalidError)},
			{"bad style", api.Host{Name: "c", Room: "r", MAC: macX, Style: "loud"}, new(*InvalidError)},
			{"MAC taken", api.Host{Name: "c", Room: "r", MAC: macA}, new(*ConflictError)},
			{"UUID taken, other order", api.Host{Name: "c", Room: "r", MAC: macX, UUID: ident.SwapUUID(uuidA)}, new(*ConflictError)},
			{"our own MAC", api.Host{Name: "c", Room: "r", MAC: self.MACs[0]}, new(*ConflictError)},
			{"our own UUID", api.Host{Name: "c", Room: "r", MAC: macX, UUID: self.UUID}, new(*ConflictError)},
		} {
			if _, err := Put(tx, tc.h, self, now); err == nil || !errors.As(err, tc.want) {
				t.Errorf("%s: Put = %v; want %T", tc.name, err, tc.want)
			}
		}
		return nil
	})
}

func TestPutChangeAndRemove(t *testing.T) {
	tx(t, func(tx store.Tx) error {
		lab(t, tx)
		b, err := Get(tx, "B") // names are compared without case
		if err != nil {
			return err
		}
		ev := api.Evidence{UUID: uuidB, Firmware: "uefi", SecureBoot: true, Disks: []api.Disk{{Serial: "s1"}}}
		if b, err = Confirm(tx, b, ev, "10.0.0.2", now); err != nil {
			return err
		}
		if b.UUID != uuidB || b.LastIP != "10.0.0.2" || !b.Secure || b.Evidence == nil {
			t.Errorf("Confirm stored %+v", b)
		}
		// The admin edits room and disk; what the machine showed stays.
		b, err = Put(tx, api.Host{Name: "B", Room: "A102", MAC: macB, Disk: "s1"}, self, now.Add(time.Hour))
		if err != nil {
			return err
		}
		if b.Name != "b" || b.UUID != uuidB || b.Evidence == nil || !b.Added.Equal(now) || b.Room != "A102" {
			t.Errorf("after an edit: %+v", b)
		}
		// Another PC on the seat: nothing of the old one stays.
		b, err = Put(tx, api.Host{Name: "b", Room: "A102", MAC: macX}, self, now)
		if err != nil {
			return err
		}
		if b.UUID != "" || b.Evidence != nil {
			t.Errorf("after a new MAC the old machine's facts stay: %+v", b)
		}
		for _, id := range []struct{ mac, uuid string }{{macB, ""}, {"", uuidB}} {
			if r, err := Resolve(tx, id.mac, id.uuid, self); err != nil || r.Verdict != Unknown {
				t.Errorf("the old identity %v still resolves: %v %v", id, r.Verdict, err)
			}
		}
		rooms, err := Rooms(tx)
		if err != nil {
			return err
		}
		if diff := cmp.Diff([]api.Room{{Name: "A101", Hosts: []string{"a"}}, {Name: "A102", Hosts: []string{"b"}}}, rooms); diff != "" {
			t.Errorf("Rooms (-want +got):\n%s", diff)
		}
		if err := Remove(tx, "a"); err != nil {
			return err
		}
		var nf *NotFoundError
		if err := Remove(tx, "a"); !errors.As(err, &nf) {
			t.Errorf("second Remove = %v; want *NotFoundError", err)
		}
		if r, _ := Resolve(tx, macA, uuidA, self); r.Verdict != Unknown {
			t.Errorf("a removed host still resolves: %v", r.Verdict)
		}
		if _, err := InRoom(tx, "A101"); !errors.As(err, &nf) {
			t.Errorf("InRoom of an empty room = %v; want *NotFoundError", err)
		}
		return nil
	})
}

func TestConfirmKeepsAKnownUUID(t *testing.T) {
	tx(t, func(tx store.Tx) error {
		lab(t, tx)
		a, err := Get(tx, "a")
		if err != nil {
			return err
		}
		ev := api.Evidence{UUID: ident.SwapUUID(uuidA), NoDriver: make([]string, 500)}
		if a, err = Confirm(tx, a, ev, "", now); err != nil {
			return err
		}
		if a.UUID != uuidA {
			t.Errorf("the admin's UUID became %s", a.UUID)
		}
		if len(a.Evidence.NoDriver) > 32 {
			t.Errorf("evidence is not bounded: %d entries", len(a.Evidence.NoDriver))
		}
		return nil
	})
}
