package inventory

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"labswarm/api"
	"labswarm/server/inventory/ident"
	"labswarm/server/store"
)

func plan(t *testing.T, tx store.Tx, what, format, text string) Import {
	t.Helper()
	im, err := PlanImport(tx, api.ImportRequest{What: what, Format: format, Text: text}, self, nil)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// carryOut saves an import as the daemon does, in one transaction here.
func carryOut(t *testing.T, tx store.Tx, im Import) {
	t.Helper()
	for _, r := range im.Rooms {
		if _, err := PutRoom(tx, r); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for _, h := range im.Hosts {
		names = append(names, h.Name)
	}
	if err := Release(tx, names); err != nil {
		t.Fatal(err)
	}
	for _, h := range im.Hosts {
		if _, err := Put(tx, h, self, now); err != nil {
			t.Fatal(err)
		}
	}
}

// TestImportTellsEverythingAtOnce: each wrong row is told with line and column,
// and rows that are right do not hide it.
func TestImportTellsEverythingAtOnce(t *testing.T) {
	tx(t, func(tx store.Tx) error {
		lab(t, tx) // a has macA and uuidA, b has macB
		im := plan(t, tx, "hosts", "csv", strings.Join([]string{
			"room,seat,row,col,name,mac,uuid,serial,disk,labels",
			"A102,01,1,1,,52:54:00:00:02:01,,,,x y",              // right
			"A102,02,1,2,,52:54:00:00:02:01,,,,",                 // MAC of line 2
			"A102,01,1,3,other,52:54:00:00:02:03,,,,",            // seat of line 2
			"A102,04,1,4,,5254,,,,",                              // MAC
			"A102,05,1,5,,,,,,",                                  // no MAC
			"A102,06,1,2,,52:54:00:00:02:06,,,,",                 // square of line 3
			"A102,07,x,7,,52:54:00:00:02:07,,,,",                 // row
			"A102,08,1,8,,52:54:00:00:02:08,zz,None,size=x,a_b",  // four things
			"A102,,,,a_b,52:54:00:00:02:09,,,,",                  // name
			"A102,10,1,10,a," + macA + ",,,,",                    // host a, which keeps its UUID
			"A102,11,1,11,x," + macB + ",,,,",                    // MAC of a host that is not in the file
			"A102,12,1,12,y," + self.MACs[0] + ",,,,",            // ourselves
			"../x,13,1,13,z,52:54:00:00:02:13,,,,",               // room
			"A102,14,1,14,y2,52:54:00:00:02:14," + uuidA + ",,,", // UUID of line 11
		}, "\n"))
		got := map[string]bool{}
		for _, i := range im.Result.Errors {
			got[fmt.Sprintf("%d %s", i.Line, i.Field)] = true
			if i.Column < 1 || i.Text == "" {
				t.Errorf("issue without place or text: %+v", i)
			}
		}
		want := []string{"2 mac", "3 mac", "2 seat", "4 seat", "5 mac", "6 mac", "7 row", "8 row", "9 uuid", "9 serial", "9 disk", "9 labels", "10 name", "11 uuid", "12 mac", "13 mac", "14 room", "15 uuid"}
		for _, w := range want {
			if !got[w] {
				t.Errorf("%s: not told", w)
			}
			delete(got, w)
		}
		if len(got) > 0 {
			t.Errorf("told, too: %v", slices.Sorted(maps.Keys(got)))
		}
		return nil
	})
}

func TestWindowsNamesInImports(t *testing.T) {
	const text = "room,seat,name,mac\nA102,01,a-very-long-computer-name,52:54:00:00:02:01\n"
	tx(t, func(tx store.Tx) error {
		if im := plan(t, tx, "hosts", "csv", text); len(im.Result.Errors) != 0 || len(im.Result.Warnings) != 1 || im.Result.Warnings[0].Column != 9 {
			t.Errorf("without Windows: %+v", im.Result)
		}
		im, err := PlanImport(tx, api.ImportRequest{What: "hosts", Format: "csv", Text: text, Windows: true}, self, nil)
		if err != nil || len(im.Result.Errors) != 1 {
			t.Errorf("with Windows: %+v, %v", im.Result, err)
		}
		return nil
	})
}

// TestImportSwapsAndKeeps: two hosts swap seats and MACs; what the file does
// not say stays.
func TestImportSwapsAndKeeps(t *testing.T) {
	tx(t, func(tx store.Tx) error {
		carryOut(t, tx, plan(t, tx, "hosts", "csv", "room,seat,row,col,mac,uuid,disk\nA1,01,1,1,"+macA+","+uuidA+",bus=nvme\nA1,02,1,2,"+macB+",,\n"))
		if _, err := Confirm(tx, api.Host{Name: "A1-01"}, evidence(macA, "pci", uuidA, "S1"), "", now); err != nil {
			t.Fatal(err)
		}
		im := plan(t, tx, "hosts", "toml", "[[host]]\nroom='A1'\nseat='02'\nname='A1-01'\nmac='"+macA+"'\n[[host]]\nroom='A1'\nseat='01'\nname='A1-02'\nmac='"+macB+"'\n")
		if len(im.Result.Errors) > 0 || len(im.Result.Changed) != 2 {
			t.Fatalf("%+v", im.Result)
		}
		carryOut(t, tx, im)
		h, err := Get(tx, "A1-01")
		if err != nil || h.Seat != "02" || h.UUID != uuidA || h.Disk != "bus=nvme" || h.Serial != "S1" || h.Claimed {
			t.Errorf("after the swap: %+v, %v", h, err)
		}
		for seat, want := range map[string]string{"01": "A1-02", "02": "A1-01"} {
			if on, err := OnSeat(tx, "A1", seat); err != nil || on != want {
				t.Errorf("on seat %s: %q, %v", seat, on, err)
			}
		}
		return nil
	})
}

// TestExportComesBack: what was exported changes nothing when it is imported,
// and builds the same lab elsewhere.
func TestExportComesBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dump := func(tx store.Tx) (rooms, hosts string) {
			var err error
			if rooms, err = ExportRooms(tx, "csv"); err != nil {
				rt.Fatal(err)
			}
			if hosts, err = ExportHosts(tx, "csv"); err != nil {
				rt.Fatal(err)
			}
			return rooms, hosts
		}
		format := rapid.SampledFrom([]string{"csv", "toml"}).Draw(rt, "format")
		var rooms, hosts, roomsCSV, hostsCSV string
		tx(t, func(tx store.Tx) error {
			n := 0
			for r := range rapid.IntRange(1, 3).Draw(rt, "rooms") {
				rm := api.Room{Name: fmt.Sprintf("R%d", r), Rows: rapid.IntRange(1, 4).Draw(rt, "rows"), Cols: rapid.IntRange(1, 4).Draw(rt, "cols"),
					Title: rapid.StringMatching(`[a-z, "']{0,8}`).Draw(rt, "title"), Windows: rapid.Bool().Draw(rt, "windows")}
				rm.Title = strings.TrimSpace(rm.Title)
				if rapid.Bool().Draw(rt, "door") {
					rm.Door, rm.Subnets, rm.Wake = &api.Spot{Row: 0, Col: 1}, []string{"10.0.0.0/24", "10.0.1.0/24"}, &api.Wake{Off: true, Wave: 3}
				}
				rm, err := PutRoom(tx, rm)
				if err != nil {
					rt.Fatal(err)
				}
				for _, s := range rm.Seats {
					if n++; !rapid.Bool().Draw(rt, "taken") {
						continue
					}
					h := api.Host{Room: rm.Name, MAC: fmt.Sprintf("52:54:00:00:03:%02x", n), HostPlace: api.HostPlace{Seat: s.Label, Labels: []string{"l1", "l2"}, Serial: fmt.Sprint("SN-", n)}}
					if _, err := Put(tx, h, self, now); err != nil {
						rt.Fatal(err)
					}
				}
			}
			var err error
			if rooms, err = ExportRooms(tx, format); err != nil {
				rt.Fatal(err)
			}
			if hosts, err = ExportHosts(tx, format); err != nil {
				rt.Fatal(err)
			}
			for what, text := range map[string]string{"rooms": rooms, "hosts": hosts} {
				im := plan(t, tx, what, format, text)
				empty := what == "hosts" && !strings.Contains(text, "SN-")
				if !empty && (len(im.Result.Errors) > 0 || len(im.Rooms)+len(im.Hosts) > 0) {
					rt.Fatalf("the own export of %s changes something: %+v\n%s", what, im, text)
				}
			}
			roomsCSV, hostsCSV = dump(tx)
			return nil
		})
		tx(t, func(tx store.Tx) error {
			carryOut(t, tx, plan(t, tx, "rooms", format, rooms))
			carryOut(t, tx, plan(t, tx, "hosts", format, hosts))
			if r, h := dump(tx); r != roomsCSV || h != hostsCSV {
				rt.Fatalf("elsewhere:\n%s%swant:\n%s%s", r, h, roomsCSV, hostsCSV)
			}
			return nil
		})
	})
}

// TestResolveNeverGuesses: whatever hosts there are and whatever a machine
// shows, Known means that no evidence points anywhere else.
func TestResolveNeverGuesses(t *testing.T) {
	uuid := func(i int) string { return fmt.Sprintf("%02x112233-4455-6677-8899-aabbccddee%02x", 16+i, i) }
	mac := func(i int) string { return fmt.Sprintf("52:54:00:00:04:%02x", i) }
	rapid.Check(t, func(rt *rapid.T) {
		tx(t, func(tx store.Tx) error {
			hosts := map[string]api.Host{}
			for i := range 4 {
				h := api.Host{Name: fmt.Sprintf("h%d", i), Room: "r", MAC: mac(i)}
				if rapid.Bool().Draw(rt, "hasUUID") {
					h.UUID = uuid(i)
				}
				h.SharedNIC, h.Exclude = rapid.Bool().Draw(rt, "shared"), false
				h, err := Put(tx, h, self, now)
				if err != nil {
					rt.Fatal(err)
				}
				if rapid.IntRange(0, 5).Draw(rt, "quarantine") == 0 {
					if h, err = Quarantine(tx, h.Name, "x"); err != nil {
						rt.Fatal(err)
					}
				}
				hosts[h.Name] = h
			}
			m, u := rapid.IntRange(0, 6).Draw(rt, "mac"), rapid.IntRange(0, 6).Draw(rt, "uuid")
			shown := ""
			if u < 6 {
				shown = uuid(u)
				if rapid.Bool().Draw(rt, "swapped") {
					shown = ident.SwapUUID(shown)
				}
			}
			r, err := Resolve(tx, mac(m), shown, self)
			if err != nil {
				rt.Fatal(err)
			}
			byMAC, byUUID := "", ""
			for _, h := range hosts {
				if h.MAC == mac(m) && !h.SharedNIC {
					byMAC = h.Name
				}
				if ident.SameUUID(h.UUID, shown) {
					byUUID = h.Name
				}
			}
			contradicts := byMAC != "" && shown != "" && hosts[byMAC].UUID != "" && !ident.SameUUID(hosts[byMAC].UUID, shown)
			want := Known
			switch {
			case byMAC == "" && byUUID == "":
				want = Unknown
			case (byMAC != "" && byUUID != "" && byMAC != byUUID) || contradicts:
				want = Ambiguous
			case hosts[firstOf(byUUID, byMAC)].Quarantined != "":
				want = Quarantined
			}
			if r.Verdict != want || (want == Known && r.Host.Name != firstOf(byUUID, byMAC)) || (want == Ambiguous) != (r.Doubt != nil) {
				rt.Fatalf("mac %d, uuid %q: %d %q (%s); want %d, by MAC %q, by UUID %q", m, shown, r.Verdict, r.Host.Name, r.Why, want, byMAC, byUUID)
			}
			return nil
		})
	})
}
