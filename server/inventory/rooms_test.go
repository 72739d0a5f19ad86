package inventory

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/server/store"
)

func TestRoomsAreSavedOrComeWithTheirHosts(t *testing.T) {
	tx(t, func(tx store.Tx) error {
		lab(t, tx)
		r, err := Room(tx, "a101")
		if err != nil || r.Saved || len(r.Hosts) != 2 {
			t.Fatalf("a room of hosts only: %+v, %v", r, err)
		}
		if err := RemoveRoom(tx, "A101"); err == nil {
			t.Error("a room with hosts was removed")
		}
		got, err := PutRoom(tx, api.Room{Name: "a101", Rows: 2, Cols: 3, Desk: &api.Spot{Row: 1, Col: 2}})
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != "A101" || len(got.Seats) != 5 || got.Seats[1] != (api.Seat{Label: "02", Row: 1, Col: 3}) {
			t.Errorf("a map of 2 x 3 with a desk: %+v", got)
		}
		h, err := Put(tx, api.Host{Room: "a101", MAC: macX, HostPlace: api.HostPlace{Seat: "03", Labels: []string{"B", "a", "a"}}}, self, now)
		if err != nil || h.Name != "A101-03" || h.Room != "A101" || strings.Join(h.Labels, " ") != "a b" || !h.Claimed {
			t.Errorf("a host by its seat: %+v, %v", h, err)
		}
		if r, err = Room(tx, "A101"); err != nil || !r.Saved || r.Seats[2].Host != "A101-03" || len(r.Hosts) != 3 {
			t.Errorf("room: %+v, %v", r, err)
		}
		for name, bad := range map[string]api.Host{
			"seat that does not exist": {Name: "x", Room: "A101", MAC: "52:54:00:00:00:98", HostPlace: api.HostPlace{Seat: "06"}},
			"seat taken":               {Name: "x", Room: "A101", MAC: "52:54:00:00:00:98", HostPlace: api.HostPlace{Seat: "03"}},
		} {
			if _, err := Put(tx, bad, self, now); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
		if _, err := PutRoom(tx, api.Room{Name: "A101", Rows: 2, Cols: 3, Seats: []api.Seat{{Label: "01"}}}); err == nil {
			t.Error("a list of seats without the one a host sits on was accepted")
		}
		if _, err := Move(tx, "A101-03", "A101", "04"); err != nil {
			t.Fatal(err)
		}
		if on, err := OnSeat(tx, "A101", "03"); err != nil || on != "" {
			t.Errorf("the old seat still has %q, %v", on, err)
		}
		if _, err := Move(tx, "a", "A101", "04"); err == nil {
			t.Error("two hosts on one seat")
		}
		return nil
	})
}

func TestRoomsThatAreRefused(t *testing.T) {
	for name, r := range map[string]api.Room{
		"name":              {Name: "../x"},
		"subnet":            {Name: "r", Subnets: []string{"10.0.0.1"}},
		"IPv6 subnet":       {Name: "r", Subnets: []string{"fe80::/64"}},
		"rows without cols": {Name: "r", Rows: 3},
		"too many squares":  {Name: "r", Rows: 60, Cols: 60},
		"door outside":      {Name: "r", Rows: 2, Cols: 2, Door: &api.Spot{Row: 4, Col: 1}},
		"one name for all":  {Name: "r", Template: "pc"},
		"template":          {Name: "r", Template: "{room}/{seat}"},
		"two on one square": {Name: "r", Rows: 2, Cols: 2, Seats: []api.Seat{{Label: "1", Row: 1, Col: 1}, {Label: "2", Row: 1, Col: 1}}},
		"label twice":       {Name: "r", Seats: []api.Seat{{Label: "A"}, {Label: "a"}}},
		"seat off the map":  {Name: "r", Rows: 1, Cols: 1, Seats: []api.Seat{{Label: "1", Row: 2, Col: 1}}},
		"too long for DNS":  {Name: strings.Repeat("r", 30), Rows: 1, Cols: 2},
		"Windows length":    {Name: "informatik-west", Rows: 1, Cols: 1, Windows: true},
		"wake":              {Name: "r", Wake: &api.Wake{Broadcast: "x"}},
	} {
		var inv *InvalidError
		if _, err := NormaliseRoom(r); !errors.As(err, &inv) {
			t.Errorf("%s: %v; want an InvalidError", name, err)
		}
	}
	for name, ok := range map[string]bool{"A101-01": true, "a101-01": true, "A101-0123456789": true, "A101-01234567890": false, "A_1": false, "4711": false, "": false} {
		if err := CheckWindowsName(name); (err == nil) != ok {
			t.Errorf("CheckWindowsName(%q) = %v", name, err)
		}
	}
}

func TestLearnModeIsForOneRoomAndEndsByItself(t *testing.T) {
	lab := netip.MustParsePrefix("10.7.0.1/24")
	tx(t, func(tx store.Tx) error {
		learns := func(ip string, at time.Time) bool {
			t.Helper()
			var a netip.Addr
			if ip != "" {
				a = netip.MustParseAddr(ip)
			}
			ok, err := Learns(tx, a, lab, at)
			if err != nil {
				t.Fatal(err)
			}
			return ok
		}
		if learns("", now) {
			t.Error("open before anybody opened it")
		}
		l, err := OpenLearn(tx, api.Learn{Room: "A101"}, now)
		if err != nil || l.Minutes != LearnMinutes || !l.Until.Equal(now.Add(30*time.Minute)) {
			t.Fatalf("OpenLearn = %+v, %v", l, err)
		}
		for _, tc := range []struct {
			ip   string
			at   time.Duration
			want bool
		}{{"", 0, true}, {"0.0.0.0", 0, true}, {"10.7.0.99", 0, true}, {"10.8.0.5", 0, false}, {"", 30*time.Minute - 1, true}, {"", 30 * time.Minute, false}, {"", -time.Hour, false}} {
			if got := learns(tc.ip, now.Add(tc.at)); got != tc.want {
				t.Errorf("room without subnets, %q after %v: %v", tc.ip, tc.at, got)
			}
		}
		if _, err := PutRoom(tx, api.Room{Name: "A101", Subnets: []string{"10.8.0.0/16"}}); err != nil {
			t.Fatal(err)
		}
		if learns("", now) || learns("10.7.0.99", now) || !learns("10.8.3.4", now) {
			t.Error("a room with a subnet lets in others, or not its own")
		}
		for _, bad := range []api.Learn{{Room: "A101", Minutes: 241}, {Room: "A101", Minutes: -1}, {Room: ""}, {Room: "A101", After: "explode"}} {
			if _, err := OpenLearn(tx, bad, now); err == nil {
				t.Errorf("%+v was accepted", bad)
			}
		}
		return nil
	})
}

func evidence(mac, bus, uuid, serial string) api.Evidence {
	return api.Evidence{UUID: uuid, Serial: serial, NICs: []api.NIC{{MAC: mac, Bus: bus, Boot: true}}}
}

func observe(t *testing.T, tx store.Tx, ev api.Evidence) []Notice {
	t.Helper()
	_, n, err := Observe(tx, ev, true)
	if err != nil {
		t.Fatal(err)
	}
	if news, _, err := Observe(tx, ev, false); err != nil || news {
		t.Errorf("the same evidence again is news: %v, %v", news, err)
	}
	return n
}

func verdict(t *testing.T, tx store.Tx, ev api.Evidence) Resolved {
	t.Helper()
	r, err := ResolveEvidence(tx, ev, self)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestIdentityTable has a row for each of control.md section 1 that needs more
// than one machine or a history.
func TestIdentityTable(t *testing.T) {
	const dock = "52:54:00:00:00:dd"
	tx(t, func(tx store.Tx) error {
		lab(t, tx) // a: macA, uuidA; b: macB
		// A dock: with the first PC it is only pending, with the second it is shared.
		observe(t, tx, evidence(dock, "usb", uuidA, ""))
		r := verdict(t, tx, evidence(dock, "usb", uuidA, ""))
		if r.Verdict != Known || r.Host.Name != "a" || !r.NewMAC {
			t.Fatalf("a through a dock: %+v", r)
		}
		h, err := Confirm(tx, r.Host, evidence(dock, "usb", uuidA, "S-A"), "", now)
		if err != nil || len(h.PendingMACs) != 1 || h.PendingMACs[0] != dock || h.Serial != "S-A" {
			t.Errorf("pending: %+v, %v", h.PendingMACs, err)
		}
		if n := observe(t, tx, evidence(dock, "usb", uuidX, "")); len(n) != 1 || n[0].Code != "mac_shared" {
			t.Errorf("two PCs behind one dock: %+v", n)
		}
		if r := verdict(t, tx, evidence(dock, "usb", uuidA, "")); r.Verdict != Known || r.NewMAC {
			t.Errorf("a through the shared dock: %+v", r)
		}
		if r, err := Resolve(tx, dock, "", self); err != nil || r.Verdict != Unknown {
			t.Errorf("the dock without a UUID: %+v, %v", r, err)
		}
		// A shared card that is a host's own MAC: go by the UUID.
		h, err = Get(tx, "a")
		if err != nil {
			return err
		}
		h.SharedNIC = true
		if _, err := Put(tx, h, self, now); err != nil {
			return err
		}
		if r, err := Resolve(tx, macA, "", self); err != nil || r.Verdict != Unknown {
			t.Errorf("shared MAC, no UUID: %+v, %v", r, err)
		}
		if r, err := Resolve(tx, macA, uuidA, self); err != nil || r.Verdict != Known {
			t.Errorf("shared MAC, right UUID: %+v, %v", r, err)
		}
		// A MAC alone boots; to enrol the serial number must fit.
		if r := verdict(t, tx, evidence(macB, "pci", "", "S-B")); r.Verdict != Known {
			t.Errorf("b by MAC, first seen: %+v", r)
		}
		if _, err := Confirm(tx, api.Host{Name: "b"}, evidence(macB, "pci", "", "S-B"), "", now); err != nil {
			return err
		}
		if r := verdict(t, tx, evidence(macB, "pci", "", "S-OTHER")); r.Verdict != Ambiguous || r.Doubt == nil {
			t.Errorf("b with another serial number: %+v", r)
		}
		// Quarantine.
		if _, err := Quarantine(tx, "b", "two of it"); err != nil {
			return err
		}
		if r := verdict(t, tx, evidence(macB, "pci", "", "S-B")); r.Verdict != Quarantined {
			t.Errorf("quarantined: %+v", r)
		}
		return nil
	})
}

func TestValueOfThreePCsIsNotUnique(t *testing.T) {
	tx(t, func(tx store.Tx) error {
		for i := range 3 {
			uuid := ""
			if i == 0 {
				uuid = uuidA
			}
			if _, err := Put(tx, api.Host{Name: fmt.Sprintf("h%d", i), Room: "r", MAC: fmt.Sprintf("52:54:00:00:01:0%d", i), UUID: uuid}, self, now); err != nil {
				return err
			}
		}
		for i := range 3 {
			mac := fmt.Sprintf("52:54:00:00:01:0%d", i)
			notices := observe(t, tx, evidence(mac, "pci", uuidA, "SAME"))
			if (len(notices) > 0) != (i == 2) {
				t.Errorf("after %d PCs: %+v", i+1, notices)
			}
		}
		for i := range 3 {
			r, err := Resolve(tx, fmt.Sprintf("52:54:00:00:01:0%d", i), uuidA, self)
			if err != nil || r.Verdict != Known || r.Host.Name != fmt.Sprintf("h%d", i) {
				t.Errorf("h%d by its MAC: %+v, %v", i, r, err)
			}
		}
		if s, err := UsefulSerial(tx, "same"); err != nil || s != "" {
			t.Errorf("a serial number of three PCs names one: %q, %v", s, err)
		}
		if h, err := Get(tx, "h0"); err != nil || h.UUID != "" || len(h.NotUnique) != 1 {
			t.Errorf("h0: %+v, %v", h, err)
		}
		return nil
	})
}

func TestSwappedDiskIsNotKnown(t *testing.T) {
	tx(t, func(tx store.Tx) error {
		lab(t, tx)
		ev := evidence(macA, "pci", uuidA, "")
		first, second := api.Disk{Serial: "ONE", Bytes: 1e9, Bus: "nvme"}, api.Disk{Serial: "TWO", Bytes: 1e9, Bus: "nvme"}
		ev.Disks = []api.Disk{first, {Serial: "STICK", Bytes: 1, Bus: "usb"}}
		h, err := Confirm(tx, api.Host{Name: "a"}, ev, "", now)
		if err != nil || len(h.KnownDisks) != 1 || !DiskKnown(h, first) || DiskKnown(h, second) {
			t.Fatalf("first: %+v, %v", h.KnownDisks, err)
		}
		ev.Disks = []api.Disk{second}
		if h, err = Confirm(tx, h, ev, "", now); err != nil || DiskKnown(h, second) {
			t.Fatalf("a new disk was accepted by itself: %+v, %v", h.KnownDisks, err)
		}
		first.Serial = " one " // as another firmware writes it
		if h, err = Get(tx, "a"); err != nil || !DiskKnown(h, first) {
			t.Errorf("the old disk: %+v, %v", h.KnownDisks, err)
		}
		if h, err = AcceptDisks(tx, "a"); err != nil || !DiskKnown(h, second) || DiskKnown(h, first) {
			t.Errorf("after accept: %+v, %v", h.KnownDisks, err)
		}
		return nil
	})
}

func TestQuestionsAreAskedOnce(t *testing.T) {
	tx(t, func(tx store.Tx) error {
		for i := range 3 {
			fresh, err := Ask(tx, "new_disk/A", api.Question{Kind: api.QuestionNewDisk, Host: "a"}, now)
			if err != nil || fresh != (i == 0) {
				t.Errorf("asked %d times: %v, %v", i+1, fresh, err)
			}
		}
		list, err := Questions(tx)
		if err != nil || len(list) != 1 {
			t.Fatalf("Questions = %+v, %v", list, err)
		}
		if _, err := Close(tx, list[0], api.AnswerIgnore, now); err != nil {
			t.Fatal(err)
		}
		if list, err = Questions(tx); err != nil || len(list) != 0 {
			t.Errorf("after the answer: %+v, %v", list, err)
		}
		if fresh, err := Ask(tx, "new_disk/a", api.Question{Host: "a"}, now); err != nil || !fresh {
			t.Errorf("asked again after an answer: %v, %v", fresh, err)
		}
		for i := range 2 * maxQuestions { // MACs can be invented
			if _, err := Ask(tx, fmt.Sprintf("x/%d", i), api.Question{}, now); err != nil {
				t.Fatal(err)
			}
		}
		if list, err = Questions(tx); err != nil || len(list) != maxQuestions {
			t.Errorf("%d open questions, %v; want at most %d", len(list), err, maxQuestions)
		}
		return nil
	})
}
