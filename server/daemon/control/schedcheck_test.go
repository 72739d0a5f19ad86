package control

import (
	"strings"
	"testing"
	"testing/synctest"

	"labswarm/api"
	"labswarm/server/store"
)

func TestScheduleFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := idle(t, store.NewMem())
		b.room(1)
		host := func(name, room, mac string) {
			t.Helper()
			if _, err := b.PutHost(t.Context(), api.Host{Name: name, Room: room, MAC: mac}); err != nil {
				t.Fatal(err)
			}
		}
		want := func(what, fault string) {
			t.Helper()
			n, got, err := b.ScheduleFaults(t.Context())
			if err != nil || n == 0 || (fault == "") != (len(got) == 0) || len(got) > 1 || !strings.Contains(strings.Join(got, ""), fault) {
				t.Errorf("%s: %d schedules, %q, %v; want %q", what, n, got, err, fault)
			}
		}
		host("c1", "r3", "52:54:00:00:02:01")
		b.put(weekly("n", "UTC"))
		named := weekly("m", "UTC")
		named.Confirm, named.Job.Room, named.Job.Hosts = "deb", "", []string{"c1"}
		b.put(named)
		want("two rooms", "")
		host("c1", "r1", "52:54:00:00:02:01") // is moved
		want("a moved host", "overlaps")
		if _, err := b.PauseSchedule(t.Context(), "m", true, "eva"); err != nil {
			t.Fatal(err)
		}
		want("one is paused", "")
		for _, h := range []string{"a1", "c1"} {
			if err := b.RemoveHost(t.Context(), h); err != nil {
				t.Fatal(err)
			}
		}
		want("an empty room", "schedule n will fail: room")
		host("a1", "r1", "52:54:00:00:00:01")
		if err := b.store.Update(t.Context(), func(tx store.Tx) error {
			s, err := getSchedule(tx, "n")
			s.Job.Image = "gone"
			if err == nil {
				err = putJSON(tx, keySched("n"), s)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		want("no image", "no image gone")
	})
}
