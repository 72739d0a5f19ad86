package keeper

import (
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"labswarm/api"
	"labswarm/images/fixture"
	"labswarm/images/library"
	"labswarm/server/daemon/control"
	"labswarm/server/store"
	"labswarm/server/versions"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestGarbage: whatever stands in the store, what gc takes is needed by nobody, can be used, and is older than keep
// others of its name that can be used and stay.
func TestGarbage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []library.VersionInfo
		var states []api.ImageState
		for _, name := range []string{"a", "b"} {
			n := rapid.IntRange(0, 6).Draw(t, "versions of "+name)
			for i := range n {
				v := library.VersionInfo{Name: name, Version: fmt.Sprintf("2026-11-21.%d", i+1), Latest: i == n-1}
				s := api.ImageState{Name: v.Name, Version: v.Version}
				if rapid.Bool().Draw(t, "needed") {
					s.Refs = []string{"somebody"}
				}
				switch rapid.IntRange(0, 3).Draw(t, "health") {
				case 0:
					s.Quarantine = "rotten"
				case 1:
					v.Err = "cut off"
				}
				list, states = append(list, v), append(states, s)
			}
		}
		keep := rapid.IntRange(1, 4).Draw(t, "keep")
		out := garbage(list, states, keep)
		goes := func(v library.VersionInfo) bool {
			return slices.ContainsFunc(out, func(g api.ImageGarbage) bool { return g.Name == v.Name && g.Version == v.Version })
		}
		removed := 0
		for i, v := range list {
			usable := func(k int) bool { return list[k].Err == "" && states[k].Quarantine == "" }
			newer := 0
			for k := i + 1; k < len(list); k++ {
				if list[k].Name == v.Name && usable(k) && !goes(list[k]) {
					newer++
				}
			}
			free := len(states[i].Refs) == 0 && usable(i) && !v.Latest
			if !goes(v) {
				if free && newer >= keep {
					t.Errorf("%s/%s stays though nobody needs it and %d newer ones stay", v.Name, v.Version, newer)
				}
				continue
			}
			if removed++; !free || newer < keep {
				t.Errorf("%s/%s goes: %+v %+v, %d newer ones stay; keep %d", v.Name, v.Version, v, states[i], newer, keep)
			}
		}
		if removed != len(out) {
			t.Errorf("%d of %d are in the list at all", removed, len(out))
		}
	})
}

func TestNeeded(t *testing.T) {
	req := api.ImageRemove{Name: "deb", Version: "2026-11-21.1"}
	live := control.Ref{Image: "deb", Version: "2026-11-21.1", By: "job 3 has not ended", Live: true}
	room := control.Ref{Image: "deb", Version: "2026-11-21.1", By: "room r1 was given it last (job 2)"}
	other := control.Ref{Image: "deb", Version: "2026-11-21.2", By: "job 4 has not ended", Live: true}
	for _, c := range []struct {
		name       string
		refs       []control.Ref
		pinned     bool
		serving    string
		newest     bool
		plain, frc string // what the refusals must say, "" = it can go
	}{
		{name: "nobody"},
		{name: "another version", refs: []control.Ref{other}},
		{name: "newest", newest: true, plain: "newest of deb; --force"},
		{name: "room", refs: []control.Ref{room}, plain: "room r1 was given it last (job 2); --force"},
		{name: "live job", refs: []control.Ref{live}, plain: "job 3", frc: "job 3"},
		{name: "pin", pinned: true, plain: "pinned", frc: "image unpin deb/2026-11-21.1"},
		{name: "relay", serving: "a relay fetches it", plain: "relay", frc: "relay"},
		{name: "all", refs: []control.Ref{room, live}, newest: true, plain: "job 3 has not ended; room r1", frc: "job 3"},
	} {
		for _, force := range []bool{false, true} {
			req.Force = force
			want := c.plain
			if force {
				want = c.frc
			}
			got := needed(req, versions.Record{Pinned: c.pinned}, c.refs, c.serving, c.newest)
			if (got == "") != (want == "") || !strings.Contains(got, want) || force && strings.Contains(got, "--force") {
				t.Errorf("%s, force %v: %q; want %q", c.name, force, got, want)
			}
		}
	}
}

func TestIsDue(t *testing.T) {
	const week = 7 * 24 * time.Hour
	night := time.Date(2026, 11, 22, 3, 0, 0, 0, time.Local)
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.Local)
	old, fresh := versions.Record{Checked: night.Add(-week)}, versions.Record{Checked: night.Add(-time.Hour)}
	for _, c := range []struct {
		name    string
		r       versions.Record
		created time.Time
		now     time.Time
		every   time.Duration
		want    bool
	}{
		{"its night", old, time.Time{}, night, week, true},
		{"its day", old, time.Time{}, noon, week, false},
		{"a night missed", versions.Record{Checked: noon.Add(-week - 25*time.Hour)}, time.Time{}, noon, week, true},
		{"just read", fresh, time.Time{}, night, week, false},
		{"switched off", versions.Record{}, time.Time{}, night, 0, false},
		{"new image", versions.Record{}, night.Add(-time.Hour), night, week, false},
		{"old image never read", versions.Record{}, night.Add(-week), night, week, true},
		{"suspect", versions.Record{Quarantine: "cell 7"}, noon, noon, week, true},
		{"suspect, scrubs off", versions.Record{Quarantine: "cell 7"}, noon, noon, 0, true},
		{"suspect that was read", versions.Record{Quarantine: "cell 7", Checked: noon.Add(-time.Hour)}, noon, noon, week, false},
		{"suspect that is being repaired", versions.Record{Quarantine: "cell 7", Begun: noon.Add(-time.Minute)}, noon, noon, week, false},
		{"a repair that was cut short", versions.Record{Quarantine: "cell 7", Checked: noon.Add(-2 * time.Hour), Begun: noon.Add(-time.Hour)}, noon, noon, week, true},
		{"being removed", versions.Record{Quarantine: "cell 7", Removing: true}, noon, noon, week, false},
	} {
		if got := isDue(c.r, c.created, c.now, c.every); got != c.want {
			t.Errorf("%s: %v; want %v", c.name, got, c.want)
		}
	}
}

// TestFinish: a removal cut short after its mark is ended at the next start; one that cannot be done is not forgotten.
func TestFinish(t *testing.T) {
	dir := t.TempDir()
	lib, err := library.Open(filepath.Join(dir, "images"), ed25519.NewKeyFromSeed(fixture.Random(5, 32)), nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "disk")
	if err := os.WriteFile(file, fixture.MBR(8, 2), 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := lib.Import(t.Context(), library.ImportOptions{Name: "deb", File: file})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	db := store.NewMem()
	mark := func(removing bool) {
		t.Helper()
		d := v.Digest()
		if err := db.Update(t.Context(), func(tx store.Tx) error {
			return versions.Put(tx, versions.Record{Name: "deb", Version: v.Version(), Digest: fmt.Sprintf("%x", d), Removing: removing, Pinned: !removing})
		}); err != nil {
			t.Fatal(err)
		}
	}
	begin := func() *Keeper {
		t.Helper()
		k, err := New(t.Context(), Config{Store: db, Library: lib, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	mark(false)
	if s, err := begin().ImageStates(t.Context()); err != nil || len(s) != 1 || !s[0].Pinned {
		t.Fatalf("states = %+v, %v; want the pinned version", s, err)
	}
	// The record of another content under the same number does not count.
	if err := db.Update(t.Context(), func(tx store.Tx) error {
		return versions.Put(tx, versions.Record{Name: "deb", Version: v.Version(), Digest: "other", Quarantine: "rotten", Pinned: true})
	}); err != nil {
		t.Fatal(err)
	}
	if s, err := begin().ImageStates(t.Context()); err != nil || s[0].Pinned || s[0].Quarantine != "" {
		t.Errorf("states = %+v, %v; want nothing of another content", s, err)
	}
	// A mark of another content under the same number removes nothing.
	if err := db.Update(t.Context(), func(tx store.Tx) error {
		return versions.Put(tx, versions.Record{Name: "deb", Version: v.Version(), Digest: "other", Removing: true})
	}); err != nil {
		t.Fatal(err)
	}
	if begin(); !lib.Has("deb", v.Version()) {
		t.Fatal("the mark of a version that had gone removed its successor")
	}
	mark(true)
	k := begin()
	if lib.Has("deb", v.Version()) {
		t.Error("the version is still there")
	}
	if err := db.View(t.Context(), func(tx store.Tx) error {
		all, err := versions.List(tx)
		if len(all) != 0 {
			t.Errorf("records = %+v; want none", all)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if s, err := k.ImageStates(t.Context()); err != nil || len(s) != 0 {
		t.Errorf("states = %+v, %v", s, err)
	}
}
